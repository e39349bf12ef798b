"""What the annotated copy shows on each frame: boxes, names, verdicts, on whatever ground."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from unmask.report import Report, TrackReport
from unmask.timeline import frame_logits
from unmask.tracks import is_cut, thumbnail
from unmask.verdict import sigmoid
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
_SMALL = 0.5  # height of small text, in that of ordinary text
_JOINED_SECONDS = 3.0  # between faces further apart nobody knows where the face was

_SPOTS = 7  # where a label may be put by its face
_SHARE = 3  # a label inside a face is no higher than this part of it

_Colour = tuple[int, int, int]
_Area = tuple[int, int, int, int]  # x1, y1, x2, y2


class Overlay:
    """Draws what a report says on the frames of its video, which come in order."""

    def __init__(self, report: Report):
        self._people = [_Person(track) for track in report.tracks]
        self._judged = {frame.index for track in report.tracks for frame in track.frames}
        self._scene: np.ndarray | None = None  # what the last judged frame looked like
        self._corner: int | None = None  # where the caption is
        self._places = _Places()
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
        caption = self._draw_caption(pen)
        for person, (box, _) in shown:
            pen.box(box, person.colour)
        faces = {person.id: pen.around(box) for person, (box, _) in shown}
        labels = {
            person.id: pen.labels(
                *person.lines(frame.index, probability), faces[person.id], person.colour
            )
            for person, (_, probability) in shown
        }
        for person, number in self._places.find(faces, labels, caption).items():
            pen.put(*labels[person][number])

    def _draw_caption(self, pen: "_Pen") -> _Area:
        """Put the caption into its corner, which is the one where it covers the fewest faces."""
        plate = pen.caption(self._caption)
        corners = pen.corners(plate)
        if self._corner is None:
            faces = [pen.around(box) for person in self._people for box in person.boxes]
            covered = [sum(_overlaps(area, [face]) for face in faces) for area in corners]
            self._corner = covered.index(min(covered))
        pen.put(plate, corners[self._corner])
        return corners[self._corner]

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
        self._last_index = self._indexes[-1]
        self._seconds = [frame.second for frame in track.frames]
        self.boxes = np.array([frame.box for frame in track.frames])
        logits = frame_logits(track.frames)
        means = np.cumsum(logits) / np.arange(1, len(logits) + 1)
        self._running = [sigmoid(mean) for mean in means]

    def at(self, index: int) -> tuple[np.ndarray, float] | None:
        """The box in the frame and the running probability of fake; None where nobody knows."""
        last = bisect_right(self._indexes, index) - 1
        if last < 0 or (self._indexes[last] != index and not self._joined(last)):
            return None
        box = self.boxes[last]
        if self._indexes[last] != index:
            start, end = self._indexes[last : last + 2]
            box = box + (self.boxes[last + 1] - box) * (index - start) / (end - start)
        return box, self._running[last]

    def lines(self, index: int, probability: float) -> tuple[list[str], list[str]]:
        """What the label says in the frame, and what it says where there is little room."""
        figure = f"prob. of fake {probability:.2f}"
        if index < self._last_index:
            figure += " so far"
        return [f"Person {self.id}: {self.verdict}", figure], [f"{self.id}: {probability:.2f}"]

    def _joined(self, last: int) -> bool:
        """Whether the person was also seen in the very next frame that was judged."""
        if last + 1 == len(self._indexes):
            return False
        seconds = self._seconds[last + 1] - self._seconds[last]
        return self._samples[last + 1] == self._samples[last] + 1 and seconds <= _JOINED_SECONDS


_Label = tuple["_Plate", _Area | None]  # and where it is put, if it can be put there


class _Places:
    """Finds room for the labels: off the faces and off each other.

    As long as the same people are shown, a label stays where it is beside its face if it can, and
    does not grow, so that it does not flicker.
    """

    def __init__(self):
        self._chosen: dict[int, int] = {}  # by person: the number of the label
        self._skipped = 0

    def find(
        self, faces: dict[int, _Area], labels: dict[int, list[_Label]], caption: _Area
    ) -> dict[int, int]:
        """The number of the label that each person gets, of those in the order of preference.

        Where one would be left without room, the larger ones are taken from all. If that does not
        help, it gets the last.
        """
        if faces.keys() != self._chosen.keys():
            self._chosen, self._skipped = {}, 0
        most = min((len(choice) - 1 for choice in labels.values()), default=0)
        chosen: dict[int, int] = {}
        for skipped in range(self._skipped, most, _SPOTS):
            self._skipped = skipped
            chosen = self._choose(faces, labels, caption)
            if -1 not in chosen.values():
                break
        self._chosen = chosen
        return chosen

    def _choose(
        self, faces: dict[int, _Area], labels: dict[int, list[_Label]], caption: _Area
    ) -> dict[int, int]:
        """Those with room, for one person after the other; -1, which is the last, without any."""
        taken, chosen = [caption], {}
        for person, choice in labels.items():
            before = self._chosen.get(person, -1)
            kept = [before] if before >= self._skipped else []
            in_the_way = taken + [face for other, face in faces.items() if other != person]
            free = (
                number
                for number in (*kept, *range(self._skipped, len(choice) - 1))
                if choice[number][1] and not _overlaps(choice[number][1], in_the_way)
            )
            chosen[person] = next(free, -1)
            taken.append(choice[chosen[person]][1])
        return chosen


class _Pen:
    """Draws boxes and text on one image, as large as suits it."""

    def __init__(self, image: np.ndarray):
        self._image = image
        side = min(image.shape[:2])
        self._capital = max(_SMALLEST_CAPITAL, round(side * _CAPITAL))
        self._small = max(_SMALLEST_CAPITAL, round(side * _CAPITAL * _SMALL))
        self._line = max(2, round(side / 300))  # thinner ones lose their colour in 4:2:0

    def box(self, box: np.ndarray, colour: _Colour) -> None:
        """A frame around a face, in the colour between two dark lines."""
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        for ink, thickness in ((_GROUND, 2 * self._line + 2), (colour, self._line)):
            cv2.rectangle(self._image, (x1, y1), (x2, y2), ink, thickness)

    def around(self, box: np.ndarray) -> _Area:
        """The area of a face with the frame around it."""
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        return x1 - self._line, y1 - self._line, x2 + self._line, y2 + self._line

    def caption(self, line: str) -> "_Plate":
        """A line of text without colour."""
        return _Plate([line], _GROUND, self._capital, self._line, self._size)

    def corners(self, plate: "_Plate") -> list[_Area]:
        """Where it may be put: at the lower left, lower right, upper left, upper right."""
        right, bottom = self._size[0] - plate.width, self._size[1] - plate.height
        return [plate.at(left, top) for top in (bottom, 0) for left in (0, right)]

    def labels(
        self, full: Sequence[str], short: Sequence[str], face: _Area, colour: _Colour
    ) -> list[_Label]:
        """The label, small, and small and short, at each of the spots; at last inside the face."""
        labels: list[_Label] = []
        for lines, capital in ((full, self._capital), (full, self._small), (short, self._small)):
            plate = _Plate(lines, colour, capital, self._line, self._size)
            labels += [(plate, area) for area in self._spots(plate, face)]
        return [*labels, (plate, self._inside(plate, face))]

    def put(self, plate: "_Plate", area: _Area) -> None:
        """Draw a plate."""
        x1, y1, x2, y2 = area
        self._image[y1:y2, x1:x2] = plate.picture()

    @property
    def _size(self) -> tuple[int, int]:
        height, width = self._image.shape[:2]
        return width, height

    def _spots(self, plate: "_Plate", face: _Area) -> list[_Area | None]:
        """Above the face, below it, beside it, inside; None where the plate would be cut off."""
        x1, y1, x2, y2 = face
        width, height = self._size
        right, bottom = width - plate.width, height - plate.height
        lefts = [min(max(left, 0), right) for left in (x1, x2 - plate.width)]
        tops = (y1 - self._line - plate.height, y2 + self._line)
        spots = [(left, top) for top in tops for left in lefts]
        spots += [(x2 + self._line, y1), (x1 - self._line - plate.width, y1)]
        areas = [
            plate.at(*spot) if 0 <= spot[0] <= right and 0 <= spot[1] <= bottom else None
            for spot in spots
        ]
        is_small = plate.width <= x2 - x1 and _SHARE * plate.height <= y2 - y1
        return [*areas, self._inside(plate, face) if is_small else None]

    def _inside(self, plate: "_Plate", face: _Area) -> _Area:
        """At the top of a face, as far as that is in the image."""
        left, top = face[0], face[1] + 3 * self._line
        right, bottom = self._size[0] - plate.width, self._size[1] - plate.height
        return plate.at(min(max(left, 0), right), min(max(top, 0), bottom))


class _Plate:
    """Bright text on dark ground, edged in a colour; no larger than the image."""

    def __init__(
        self,
        lines: Sequence[str],
        colour: _Colour,
        capital: int,
        edge: int,
        most: tuple[int, int],
    ):
        self._lines, self._colour, self._capital, self._edge = lines, colour, capital, edge
        self._stroke = max(1, round(capital / 9))
        self._scale = cv2.getFontScaleFromHeight(_FONT, capital, self._stroke)
        self._pad, self._pitch = edge + capital // 2, round(1.7 * capital)
        wide = max(cv2.getTextSize(line, _FONT, self._scale, self._stroke)[0][0] for line in lines)
        high = (len(lines) - 1) * self._pitch + capital
        self._drawn = width, height = wide + 2 * self._pad, high + 2 * self._pad
        shrunk = min(1.0, most[0] / width, most[1] / height)
        self.width, self.height = max(1, int(width * shrunk)), max(1, int(height * shrunk))

    def at(self, left: int, top: int) -> _Area:
        """The area it covers there."""
        return left, top, left + self.width, top + self.height

    def picture(self) -> np.ndarray:
        """What it looks like, RGB ``uint8``."""
        width, height = self._drawn
        picture = np.full((height, width, 3), _GROUND, np.uint8)
        near = self._edge // 2
        far = (width - 1 - near, height - 1 - near)
        cv2.rectangle(picture, (near, near), far, self._colour, self._edge)
        for number, line in enumerate(self._lines):
            start = (self._pad, self._pad + self._capital + number * self._pitch)
            cv2.putText(picture, line, start, _FONT, self._scale, _INK, self._stroke, cv2.LINE_AA)
        size = (self.width, self.height)
        if size == self._drawn:
            return picture
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _overlaps(a: _Area, others: Iterable[_Area]) -> bool:
    return any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in others)
