"""Where in a face the model saw manipulation: evidence -> heat map, picture, parts of the face.

Also keeps the pictures that a report shows: the worst frames of each person.

``Classifier.evidence`` gives the class activation map (Zhou et al., CVPR 2016, arXiv 1512.04150),
which for this network's head is Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391) up to a
factor. docs/explain.md says what to make of it and how faithful it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from unmask import mesh

FULL = 24.0
"""Evidence, in logits of fake, that gets the brightest colour; the same in every picture."""

FAINT = 3.0
"""Where nothing in a map reaches this many logits, no part of the face is held responsible."""

BACKGROUND = "background"
PARTS = {
    "eyes": ("around the eyes", 0.17),
    "nose": ("around the nose", 0.14),
    "mouth": ("around the mouth", 0.13),
    "jaw_and_boundary": ("along the jaw and the boundary of the face", 0.44),
    "forehead": ("on the forehead", 0.12),
}
"""Each part of a face: where it is in words, and its usual share of the face's area."""

_SHARE, _LIFT = 0.25, 1.5  # of the evidence, and of what its area explains: a part stands out

_PICTURES = 3  # of a person
MOST_PEOPLE = 12
"""Of whom there are pictures, and who has a section on the page."""
_APART = 1.0  # seconds between two pictures of a person, or they would show the same
_SETTLED = 3  # frames after which a person's mean means something


@dataclass(frozen=True)
class Exhibit:
    """A judged face, to be shown: its RGB ``uint8`` crop (S, S, 3), evidence (h, w) and logit.

    ``index`` and ``second`` are those of the frame.
    """

    index: int
    second: float
    logit: float
    crop: np.ndarray
    evidence: np.ndarray


@dataclass
class _Shown:
    """A person's pictures, the worst of each second, and the sum of all logits."""

    frames: int = 0
    logits: float = 0.0
    worst: dict[int, Exhibit] = field(default_factory=dict)


class Exhibits:
    """The worst frames of the most suspicious people, kept while a video is judged.

    Memory does not grow with the video: there are pictures of 12 people, at most 3 of each are
    shown and twice as many held. ``cuts`` are the seconds of the frames before which a new scene
    began.
    """

    def __init__(self) -> None:
        self.cuts: list[float] = []
        self._people: dict[int, _Shown] = {}

    def offer(self, person: int, exhibit: Exhibit) -> None:
        """Take in a judged face of a person; it is kept if it is among the worst."""
        shown = self._people.setdefault(person, _Shown())
        shown.frames += 1
        shown.logits += exhibit.logit
        slot = int(exhibit.second // _APART)
        if slot not in shown.worst or shown.worst[slot].logit < exhibit.logit:
            crop, evidence = exhibit.crop.copy(), exhibit.evidence.copy()  # of a larger batch
            shown.worst[slot] = Exhibit(
                exhibit.index, exhibit.second, exhibit.logit, crop, evidence
            )
        if len(shown.worst) > 2 * _PICTURES:
            del shown.worst[min(shown.worst, key=lambda slot: shown.worst[slot].logit)]
        with_pictures = [p for p in self._people.values() if p.worst]
        if len(with_pictures) > MOST_PEOPLE:
            # Somebody who flashes up once must not push out who decides the verdict.
            least = min(with_pictures, key=lambda p: (min(p.frames, _SETTLED), p.logits / p.frames))
            least.worst.clear()

    def of(self, person: int) -> list[Exhibit]:
        """The pictures of a person, the worst first; none if others were more suspicious."""
        chosen: list[Exhibit] = []
        shown = self._people.get(person, _Shown())
        for exhibit in sorted(shown.worst.values(), key=lambda e: -e.logit):
            if all(abs(exhibit.second - other.second) >= _APART for other in chosen):
                chosen.append(exhibit)
        return chosen[:_PICTURES]


def heat_map(evidence: np.ndarray, side: int) -> np.ndarray:
    """One crop's evidence (h, w) as a (side, side) float32 map over the crop, in logits.

    Linear between the middles of the cells, so that no evidence appears where there was none.
    """
    return cv2.resize(evidence.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)


def overlay(crop: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture of a heat map on its RGB ``uint8`` crop (side, side, 3), of the same kind and size.

    The crop is shown in grey, so that every colour is evidence: dark purple is little, yellow is
    FULL and more (the colours of matplotlib's 'inferno', which also differ in brightness). What
    speaks for a real face, and what is next to nothing, stays grey.
    """
    strength = np.clip(heat / FULL, 0, 1)
    # From a third up: below, the colours are too dark to be told from shadows.
    levels = np.round(255 * (0.3 + 0.7 * strength)).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
    opacity = 0.75 * np.clip(strength * 2, 0, 1)[..., None]
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[..., None]
    return np.round(grey * (1 - opacity) + colours * opacity).astype(np.uint8)


def regions(heat: np.ndarray, points: np.ndarray) -> dict[str, float]:
    """The share of the positive evidence in each of PARTS and in the 'background'; the sum is 1.

    ``heat`` is (side, side), ``points`` (468, 2) are the mesh of the same crop (FaceMesh.points).
    A pixel of the face belongs to the part that is nearest. All are 0 where nothing reaches FAINT.
    """
    if heat.max() < FAINT:
        return dict.fromkeys((*PARTS, BACKGROUND), 0.0)
    positive = np.maximum(heat, 0)
    masks = _part_masks(points, len(heat))
    return {part: float(positive[mask].sum() / positive.sum()) for part, mask in masks.items()}


def where_it_lies(shares: dict[str, float]) -> str:
    """Say what ``regions`` found, such as 'strongest around the mouth (61 % of the evidence)'.

    A part stands out when it has a good share of the evidence and more than its area explains.
    """
    if not any(shares.values()):
        return "no part of the picture speaks for manipulation"
    if shares[BACKGROUND] > 0.5:
        return f"mostly outside the face ({100 * shares[BACKGROUND]:.0f} % of the evidence)"
    inside = 1 - shares[BACKGROUND]
    clear = [part for part, (_, area) in PARTS.items()
             if shares[part] >= max(_SHARE, _LIFT * area * inside)]  # fmt: skip
    if not clear:
        return "spread over the face: no part stands out"
    part = max(clear, key=shares.__getitem__)
    return f"strongest {PARTS[part][0]} ({100 * shares[part]:.0f} % of the evidence)"


def strongest(exhibits: Sequence[Exhibit], face_mesh: mesh.FaceMesh) -> str:
    """What ``where_it_lies`` says of these pictures of a person's face, on average."""
    found = []
    for exhibit in exhibits:
        points = face_mesh.points(exhibit.crop)
        if points is not None:
            found.append(regions(heat_map(exhibit.evidence, len(exhibit.crop)), points))
    if not found:
        return "the parts of the face could not be told apart"
    telling = [shares for shares in found if any(shares.values())] or found
    return where_it_lies({part: float(np.mean([s[part] for s in telling])) for part in telling[0]})


def _part_masks(points: np.ndarray, side: int) -> dict[str, np.ndarray]:
    """Where each part and the background are: (side, side) bool, every pixel in exactly one."""
    outline, brows = points[list(mesh.OUTLINE)], points[list(mesh.BROWS)]
    hairline = _scaled(points[list(mesh.HAIRLINE)], 0.85, about=outline)
    # A swapped face's seam lies a bit outside the mesh.
    inside = _filled([_scaled(outline, 1.1, about=outline)], side)
    cores = {
        "eyes": _filled([points[list(mesh.RIGHT_EYE)], points[list(mesh.LEFT_EYE)]], side),
        "nose": _filled([points[list(mesh.NOSE)]], side),
        "mouth": _filled([points[list(mesh.LIPS)]], side),
        "jaw_and_boundary": ~_filled([outline], side),
        "forehead": _filled([np.concatenate([hairline, brows])], side),
    }
    away = [cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L2, 5)
            for core in cores.values()]  # fmt: skip
    nearest = np.argmin(away, axis=0)
    masks = {part: inside & (nearest == number) for number, part in enumerate(cores)}
    return masks | {BACKGROUND: ~inside}


def _filled(hulls: list[np.ndarray], side: int) -> np.ndarray:
    """(side, side) bool: what lies in one of the hulls of these points."""
    mask = np.zeros((side, side), np.uint8)
    for points in hulls:
        cv2.fillConvexPoly(mask, cv2.convexHull(np.round(points).astype(np.int32)), 1)
    return mask > 0


def _scaled(points: np.ndarray, factor: float, about: np.ndarray) -> np.ndarray:
    """The points moved away from the middle of ``about``."""
    middle = (about.min(0) + about.max(0)) / 2
    return (points - middle) * factor + middle
