"""Link the faces of sampled frames into people: faces -> one Track a person.

Position and size alone decide; nobody is recognised. A person who leaves the picture for long, or
is seen again after a cut, therefore counts as another person.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from unmask.quality import Quality

_REACH = 1.0  # how far a face may move and grow between two samples, see _distances
_MISSED_SAMPLES = 3  # a face may be missing for so many samples ...
_MISSED_SECONDS = 2.0  # ... or so long, whichever is more, and is still the same person's
# Measured half a second apart: 3 of 601 pairs of one shot, many of them handheld, count as a cut,
# and 97 of 100 pairs of pictures from different videos do.
_CUT_HISTOGRAM = 0.25  # share of the pixels that changed their brightness
_CUT_LIKENESS = 0.5  # correlation, at the best shift, under which the scene is another ...
_CUT_DIFFERENCE = 10  # ... unless next to nothing changed, of 255: plain pictures correlate badly
_CUT_SHIFT = 6  # pixels of the thumbnail by which a camera may have moved


@dataclass
class Sighting:
    """A person's face in one frame. ``logit`` is the calibrated one, None until it is judged.

    ``sample`` counts the frames in which faces were looked for; ``quality`` is None where no
    picture was measured. For the crops of a dataset, neither is known.
    """

    index: int
    second: float
    box: tuple[float, float, float, float]
    detection_score: float
    logit: float | None = None
    quality: Quality | None = None
    sample: int | None = None


@dataclass
class Track:
    """One person, from coming into the picture to leaving it. ``id`` counts from 1."""

    id: int
    sightings: list[Sighting] = field(default_factory=list)

    @property
    def first_second(self) -> float:
        """When the person was first seen."""
        return self.sightings[0].second

    @property
    def last_second(self) -> float:
        """When the person was last seen."""
        return self.sightings[-1].second


@dataclass
class _Trail:
    """Where a person who may be seen again was last."""

    id: int
    box: tuple[float, float, float, float]
    second: float
    sample: int


class Tracker:
    """Gives every face of every sampled frame a track id. One Tracker a video, frames in order.

    ``cuts`` are the seconds of the frames before which the scene changed.
    """

    def __init__(self) -> None:
        self.cuts: list[float] = []
        self._trails: list[_Trail] = []
        self._thumbnail: np.ndarray | None = None
        self._samples = 0
        self._ids = 0

    def update(self, second: float, boxes: Sequence[tuple], image: np.ndarray) -> list[int]:
        """The track id of each of the faces in ``boxes``, never the same within a frame.

        ``image`` is the frame they are from, RGB ``uint8`` (height, width, 3): a cut is seen in it.
        """
        self._samples += 1
        small = thumbnail(image)
        if self._thumbnail is not None and is_cut(self._thumbnail, small):
            self._trails = []
            self.cuts.append(second)
        self._thumbnail = small
        self._trails = [
            trail
            for trail in self._trails
            if self._samples - trail.sample <= _MISSED_SAMPLES + 1
            or second - trail.second <= _MISSED_SECONDS
        ]
        matches = _match(boxes, [trail.box for trail in self._trails])
        ids = []
        for face, box in enumerate(boxes):
            if face in matches:
                trail = self._trails[matches[face]]
                trail.box, trail.second, trail.sample = box, second, self._samples
            else:
                self._ids += 1
                trail = _Trail(self._ids, box, second, self._samples)
                self._trails.append(trail)
            ids.append(trail.id)
        return ids


def _match(boxes: Sequence[tuple], old: Sequence[tuple]) -> dict[int, int]:
    """Pair boxes with old boxes, the nearest pair first: index -> index of the old one."""
    matches: dict[int, int] = {}
    if not boxes or not old:
        return matches
    distances = _distances(np.array(boxes), np.array(old))
    taken = set()
    for pair in np.argsort(distances, axis=None, kind="stable"):
        new, known = (int(i) for i in np.unravel_index(pair, distances.shape))
        if distances[new, known] >= _REACH:
            break
        if new not in matches and known not in taken:
            matches[new] = known
            taken.add(known)
    return matches


def _distances(boxes: np.ndarray, old: np.ndarray) -> np.ndarray:
    """How unlike each pair of boxes is, (n, 4) and (m, 4) -> (n, m); 0 for the same box.

    The distance between the centres in mean sides plus the octaves between the sizes: two boxes
    of one size reach 1 where they stop overlapping, and so do two in one place, one twice as big.
    """
    sides = [np.sqrt(np.prod(np.maximum(b[:, 2:] - b[:, :2], 1e-6), axis=1)) for b in (boxes, old)]
    centres = [(b[:, :2] + b[:, 2:]) / 2 for b in (boxes, old)]
    apart = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2)
    mean_side = (sides[0][:, None] + sides[1][None]) / 2
    return apart / mean_side + np.abs(np.log2(sides[0][:, None] / sides[1][None]))


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A 32x32 grey picture, ``uint8``: enough to tell a cut from a movement."""
    rows, cols = (max(1, n // 128) for n in image.shape[:2])
    small = np.ascontiguousarray(image[::rows, ::cols])
    small = cv2.resize(small, (32, 32), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


def is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two thumbnails show different scenes, rather than one in which things moved."""
    shares = [np.bincount(t.ravel() >> 4, minlength=16) / t.size for t in (before, after)]
    if 1 - np.minimum(*shares).sum() > _CUT_HISTOGRAM:
        return True
    if np.abs(before.astype(np.int16) - after).mean() < _CUT_DIFFERENCE:
        return False
    inner = before[_CUT_SHIFT:-_CUT_SHIFT, _CUT_SHIFT:-_CUT_SHIFT]
    likeness = cv2.matchTemplate(after, inner, cv2.TM_CCOEFF_NORMED).max()
    return bool(likeness < _CUT_LIKENESS)
