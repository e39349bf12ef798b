"""What the annotated copy shows on each frame: boxes, names, verdicts, on whatever ground."""

from bisect import bisect_right
from collections.abc import Sequence

import cv2
import numpy as np

from unmask.report import Report, TrackReport
from unmask.tracks import is_cut, thumbnail
from unmask.verdict import logit, sigmoid
from unmask.video import Frame

# Okabe and Ito (2008): seven colours that nobody mixes up, on dark and on light ground.
_PALETTE = (
    (230, 159, 0), (86, 180, 233), (240, 228, 66), (0, 158, 115),
    (204, 121, 167), (213, 94, 0), (0, 114, 178),
)  # fmt: skip
_INK, _GROUND = (255, 255, 255), (20, 20, 20)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_CAPITAL = 0.026  # height of a capital letter, in shorter sides of the picture ...
_SMALLEST_CAPITAL = 9  # ... but at least so many pixels, or nobody can read it
_JOINED_SECONDS = 3.0  # between faces further apart nobody knows where the face was


class Overlay:
    """Draws what a report says on the frames of its video, which come in order."""

    def __init__(self, report: Report):
        self._people = [_Person(track) for track in report.tracks]
        self._judged = {frame.index for track in report.tracks for frame in track.frames}
        self._scene: np.ndarray | None = None  # what the last judged frame looked like
        if report.verdict == "no_face":
            self._caption = "Unmask: no face found"
        else:
            p = report.probability_fake
            self._caption = f"Unmask: {report.verdict}, prob. of fake {p:.2f}"

    def draw(self, frame: Frame) -> None:
        """Draw on a frame's image."""
        shown = []
        if self._same_scene(frame):
            shown = [(p, at) for p in self._people if (at := p.at(frame.index))]
        pen = _Pen(frame.image)
        pen.caption(self._caption)
        for person, (box, _) in shown:
            pen.box(box, person.colour)
        for person, (box, probability) in shown:
            figure = f"prob. of fake {probability:.2f}"
            if frame.index < person.last_index:
                figure += " so far"
            pen.label([f"Person {person.id}: {person.verdict}", figure], box, person.colour)

    def _same_scene(self, frame: Frame) -> bool:
        """Whether the frame is judged, or shows the same scene as the judged one before it."""
        if not self._judged:
            return False
        now = thumbnail(frame.image)
        if frame.index in self._judged:
            self._scene = now
        return self._scene is not None and not is_cut(self._scene, now)


class _Person:
    """Where one person's face is in any frame, and what the faces up to there say."""

    def __init__(self, track: TrackReport):
        self.id, self.verdict = track.id, track.verdict
        self.colour = _PALETTE[(track.id - 1) % len(_PALETTE)]
        self._indexes = [frame.index for frame in track.frames]
        self._samples = [frame.sample for frame in track.frames]
        self.last_index = self._indexes[-1]
        self._seconds = [frame.second for frame in track.frames]
        self._boxes = np.array([frame.box for frame in track.frames])
        logits = logit([frame.probability_fake for frame in track.frames])
        means = np.cumsum(logits) / np.arange(1, len(logits) + 1)
        self._running = [sigmoid(mean) for mean in means]

    def at(self, index: int) -> tuple[np.ndarray, float] | None:
        """The box in the frame and the running probability of fake; None where nobody knows."""
        last = bisect_right(self._indexes, index) - 1
        if last < 0 or (self._indexes[last] != index and not self._joined(last)):
            return None
        box = self._boxes[last]
        if self._indexes[last] != index:
            start, end = self._indexes[last : last + 2]
            box = box + (self._boxes[last + 1] - box) * (index - start) / (end - start)
        return box, self._running[last]

    def _joined(self, last: int) -> bool:
        """Whether the person was also seen in the very next frame that was judged."""
        if last + 1 == len(self._indexes):
            return False
        seconds = self._seconds[last + 1] - self._seconds[last]
        return self._samples[last + 1] == self._samples[last] + 1 and seconds <= _JOINED_SECONDS


class _Pen:
    """Draws boxes and text on one image, as large as suits it, no text over another."""

    def __init__(self, image: np.ndarray):
        self._image = image
        self._taken: list[tuple[int, int, int, int]] = []  # where there is text: x1, y1, x2, y2
        side = min(image.shape[:2])
        self._capital = max(_SMALLEST_CAPITAL, round(side * _CAPITAL))
        self._line = max(2, round(side / 300))  # thinner ones lose their colour in 4:2:0

    def box(self, box: np.ndarray, colour: tuple[int, int, int]) -> None:
        """A frame around a face, in the colour between two dark lines."""
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        for ink, thickness in ((_GROUND, 2 * self._line + 2), (colour, self._line)):
            cv2.rectangle(self._image, (x1, y1), (x2, y2), ink, thickness)

    def label(self, lines: Sequence[str], box: np.ndarray, colour: tuple[int, int, int]) -> None:
        """Text at a box: above it, or else below it, or else inside, at the top."""
        x1, y1, _, y2 = (round(float(v)) for v in box)
        plate, gap = self._plate(lines, colour), 2 * self._line
        above, below, inside = y1 - gap - plate.shape[0], y2 + gap, y1 + gap
        self._put(plate, x1 - self._line, (above, below, inside))

    def caption(self, line: str) -> None:
        """Text at the lower left."""
        plate = self._plate([line], _GROUND)
        self._put(plate, 0, (self._image.shape[0] - plate.shape[0],))

    def _plate(self, lines: Sequence[str], colour: tuple[int, int, int]) -> np.ndarray:
        """Bright text on dark ground, edged in the colour; no larger than the image."""
        stroke = max(1, round(self._capital / 9))
        scale = cv2.getFontScaleFromHeight(_FONT, self._capital, stroke)
        pad = self._line + self._capital // 2
        pitch = round(1.7 * self._capital)
        width = max(cv2.getTextSize(line, _FONT, scale, stroke)[0][0] for line in lines) + 2 * pad
        height = (len(lines) - 1) * pitch + self._capital + 2 * pad
        plate = np.full((height, width, 3), _GROUND, np.uint8)
        edge = (width - 1 - self._line // 2, height - 1 - self._line // 2)
        cv2.rectangle(plate, (self._line // 2,) * 2, edge, colour, self._line)
        for number, line in enumerate(lines):
            start = (pad, pad + self._capital + number * pitch)
            cv2.putText(plate, line, start, _FONT, scale, _INK, stroke, cv2.LINE_AA)
        shrunk = min(1.0, self._image.shape[1] / width, self._image.shape[0] / height)
        if shrunk < 1:
            size = (max(1, int(width * shrunk)), max(1, int(height * shrunk)))
            plate = cv2.resize(plate, size, interpolation=cv2.INTER_AREA)
        return plate

    def _put(self, plate: np.ndarray, left: int, tops: Sequence[int]) -> None:
        """Put a plate at the first of the places where it is neither cut off nor over another."""
        height, width = plate.shape[:2]
        lowest = self._image.shape[0] - height
        left = min(max(left, 0), self._image.shape[1] - width)
        places = [(left, top, left + width, top + height) for top in tops if 0 <= top <= lowest]
        free = [p for p in places if not any(_overlap(p, taken) for taken in self._taken)]
        if not places:
            top = min(max(tops[0], 0), lowest)
            places = [(left, top, left + width, top + height)]
        x1, y1, x2, y2 = place = (free or places)[0]
        self._image[y1:y2, x1:x2] = plate
        self._taken.append(place)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
