"""Find faces with RetinaFace and cut them out: an image -> Face objects -> square crops.

RetinaFace (Deng et al., CVPR 2020, arXiv 1905.00641) with a MobileNet-0.25 trunk, run by
OpenVINO. Training and detection cut with the same ``crop_face``, so the two cannot differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from unmask.runtime import WEIGHTS, compile_model

MARGIN = 1.3
"""The side of a crop over the longer side of the face's box."""

MEAN_BGR = (104.0, 117.0, 123.0)
"""What RetinaFace wants taken off its pictures."""

_STRIDES = (8, 16, 32)
_ANCHOR_SIDES = ((16, 32), (64, 128), (256, 512))
_VARIANCES = (0.1, 0.2)
_OVERLAP = 0.4  # boxes of one face that overlap more than this (IoU) are merged
_WORKING_MULTIPLE = 8  # pixels that working sizes are padded to, so few shapes are ever compiled


@dataclass(frozen=True)
class Face:
    """A face in an image.

    ``box`` is (x1, y1, x2, y2) in pixels, ``score`` in [0, 1], ``landmarks`` (5, 2) in pixels:
    left eye, right eye, nose, left and right corner of the mouth, as seen in the image.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray

    @property
    def side(self) -> float:
        """The box's shorter side in pixels."""
        x1, y1, x2, y2 = self.box
        return min(x2 - x1, y2 - y1)


class FaceDetector:
    """Finds all faces of an image. Safe to share by threads.

    ``working_size`` bounds the longer side, in pixels, of the picture in which faces are looked
    for; smaller images are not enlarged. ``min_score`` in [0, 1], ``min_face`` in source pixels.
    ``precision`` 'f32' looks in float32 throughout; else half of it is done in eight bits.
    """

    def __init__(
        self,
        working_size: int = 640,
        min_score: float = 0.7,
        min_face: int = 30,
        threads: int = 0,
        precision: str = "auto",
    ):
        self.working_size = working_size
        self.min_score = min_score
        self.min_face = min_face
        file = "retinaface_mnet025.onnx" if precision == "f32" else "retinaface_mnet025_int8.xml"
        self._network = compile_model(WEIGHTS / file, threads, precision, mean_bgr=MEAN_BGR)

    def detect(self, image: np.ndarray) -> list[Face]:
        """Faces of an RGB ``uint8`` image (height, width, 3), from left to right."""
        height, width = image.shape[:2]
        small = shrink(image, self.working_size)
        rows, cols = small.shape[:2]
        below, beside = -rows % _WORKING_MULTIPLE, -cols % _WORKING_MULTIPLE
        padded = cv2.copyMakeBorder(
            small, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=MEAN_BGR[::-1]
        )
        output = self._network(padded[None])
        boxes, scores, landmarks = _decode(
            output["loc"][0], output["conf"][0, :, 1], output["landmarks"][0],
            _anchors(*padded.shape[:2]), self.min_score,
        )  # fmt: skip
        factor = np.array([width / cols, height / rows], np.float32)
        boxes, landmarks = boxes * np.tile(factor, 2), landmarks * factor
        limits = np.array([width, height, width, height], np.float32)
        faces = [
            Face(tuple(float(v) for v in np.clip(box, 0, limits)), float(score), points)
            for box, score, points in zip(boxes, scores, landmarks, strict=True)
        ]
        return sorted((f for f in faces if f.side >= self.min_face), key=lambda f: f.box)


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    """The image, made smaller if a side is more than ``longest`` pixels."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


@lru_cache(maxsize=16)
def _anchors(rows: int, cols: int) -> np.ndarray:
    """RetinaFace's anchors for a picture: (n, 3) as centre x, centre y, side in pixels."""
    levels = []
    for stride, sides in zip(_STRIDES, _ANCHOR_SIDES, strict=True):
        y, x = np.mgrid[: -(-rows // stride), : -(-cols // stride)].astype(np.float32)
        centres = (np.stack([x, y], -1) + 0.5) * stride
        for_side = [np.dstack([centres, np.full_like(x, side)]) for side in sides]
        levels.append(np.stack(for_side, 2).reshape(-1, 3))
    return np.concatenate(levels)


def _decode(
    loc: np.ndarray, scores: np.ndarray, points: np.ndarray, anchors: np.ndarray, min_score: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Network output -> boxes (n, 4), scores (n,), landmarks (n, 5, 2) in working pixels."""
    keep = np.flatnonzero(scores >= min_score)
    loc, scores, points, anchors = loc[keep], scores[keep], points[keep], anchors[keep]
    centres, sides = anchors[:, :2], anchors[:, 2:]
    middle = centres + loc[:, :2] * _VARIANCES[0] * sides
    half = sides * np.exp(loc[:, 2:] * _VARIANCES[1]) / 2
    boxes = np.concatenate([middle - half, middle + half], 1)
    landmarks = centres[:, None] + points.reshape(-1, 5, 2) * _VARIANCES[0] * sides[:, None]
    if len(boxes):
        corner_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        best = cv2.dnn.NMSBoxes(corner_size.tolist(), scores.tolist(), min_score, _OVERLAP)
        best = np.asarray(best).reshape(-1)
        boxes, scores, landmarks = boxes[best], scores[best], landmarks[best]
    return boxes, scores, landmarks


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def crop_square(
    box: tuple[float, float, float, float], margin: float = MARGIN
) -> tuple[int, int, int]:
    """Where ``crop_box`` cuts: left, top and side in pixels; it may reach outside the image."""
    x1, y1, x2, y2 = box
    side = max(1, round(margin * max(x2 - x1, y2 - y1)))
    return round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2), side


def crop_face(image: np.ndarray, face: Face, size: int = 256, margin: float = MARGIN) -> np.ndarray:
    """Cut a face out as ``crop_box`` does, and turn it upright by quarter turns.

    So a video that lies on its side or stands on its head, without saying so, is judged as if it
    were upright.
    """
    square = crop_box(image, face.box, size, margin)
    turns = quarter_turns(face.landmarks)
    return np.ascontiguousarray(np.rot90(square, turns)) if turns else square


def quarter_turns(landmarks: np.ndarray) -> int:
    """By how many quarter turns, counter-clockwise, a face is nearest to upright: 0 to 3.

    ``landmarks`` (5, 2) as in Face: it is upright when its mouth is below its eyes.
    """
    left_eye, right_eye, _, left_mouth, right_mouth = landmarks.astype(np.float64)
    beside, below = (left_mouth + right_mouth) - (left_eye + right_eye)
    return round(np.arctan2(-beside, below) / (np.pi / 2)) % 4


def crop_box(
    image: np.ndarray,
    box: tuple[float, float, float, float],
    size: int = 256,
    margin: float = MARGIN,
) -> np.ndarray:
    """Cut a square of ``margin`` x the box's longer side and resize it once to ``size``.

    ``image`` (height, width, 3) or (height, width); the square is never stretched, what lies
    outside the image repeats its edge, and shrinking averages over areas.
    """
    left, top, side = crop_square(box, margin)
    height, width = image.shape[:2]
    # At least one row and column of the image, however far outside the box lies.
    inner_top, inner_bottom = np.clip((top, top + side), (0, 1), (height - 1, height))
    inner_left, inner_right = np.clip((left, left + side), (0, 1), (width - 1, width))
    square = image[inner_top:inner_bottom, inner_left:inner_right]
    pad = (inner_top - top, top + side - inner_bottom, inner_left - left, left + side - inner_right)
    if any(p > 0 for p in pad):
        square = cv2.copyMakeBorder(square, *(max(0, p) for p in pad), cv2.BORDER_REPLICATE)
    return resized(square, size)


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """A square image made ``size`` pixels wide: areas averaged to shrink, smooth to enlarge."""
    how = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=how)
