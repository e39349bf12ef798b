"""How good a face picture is: how large, sharp, far turned, coloured; its file's compression."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:  # whoever compares or shows reports needs neither decoder nor networks
    from unmask.faces import Face
    from unmask.video import VideoInfo

COLOURLESS = 7.0
"""Colour under which a picture is black and white or in one tint: real ones in training have 9 and
more."""

_SHARPNESS_SIZE = 256  # sharpness is measured at one size, so that crops of others compare
_MOST_TURN = 2.0  # in profile both eyes nearly coincide, and the quotient means nothing more


@dataclass(frozen=True)
class Quality:
    """How good the picture of one face is.

    ``size`` is the longer side of its box in source pixels, the one a crop is scaled by (unlike
    ``Face.side``, the shorter, which shrinks when a face turns); ``sharpness``, ``turn``
    and ``colour`` are those of the functions of these names.
    """

    size: float
    sharpness: float
    turn: float
    colour: float


def face_quality(face: "Face", crop: np.ndarray) -> Quality:
    """The quality of a face and its RGB ``uint8`` crop as ``crop_face`` cut it; 0.1 ms."""
    return Quality(longer_side(face.box), sharpness(crop), turn(face.landmarks), colour(crop))


def longer_side(box: tuple[float, float, float, float]) -> float:
    """The longer side of a box (x1, y1, x2, y2), in its pixels."""
    x1, y1, x2, y2 = box
    return max(x2 - x1, y2 - y1)


def sharpness(crop: np.ndarray) -> float:
    """Variance of the Laplacian of an RGB crop in grey at 256x256: the lower, the blurrier.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    gray = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    if gray.shape != (_SHARPNESS_SIZE, _SHARPNESS_SIZE):
        from unmask.faces import resized

        gray = resized(gray, _SHARPNESS_SIZE)
    # Exact in 16 bits, and twenty times as fast as in 64.
    _, deviation = cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_16S))
    return deviation.item() ** 2


def turn(landmarks: np.ndarray) -> float:
    """How far a face is turned sideways, from its (5, 2) landmarks: 0 frontal, 2 at most.

    It is how far the nose is from the middle of the eyes, measured along the line through both
    eyes, as a share of their distance; tilting the head does not change it. It grows like the
    tangent of the angle: in real clips about 0.15 at 15 degrees, 0.3 at 25 and 0.5 in half profile.
    """
    left, right, nose = landmarks[:3].astype(np.float64)
    eyes = right - left
    square = float(eyes @ eyes)
    if not square:
        return _MOST_TURN
    return min(abs(float((nose - (left + right) / 2) @ eyes)) / square, _MOST_TURN)


def colour(crop: np.ndarray) -> float:
    """How far apart a pixel's red, green and blue are, on average: 0 in black and white, to 255."""
    # The largest and the least of three, without a copy of all for each pixel.
    red, green, blue = cv2.split(crop)
    most, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    return cv2.mean(most)[0] - cv2.mean(least)[0]


def is_colourless(colours: Sequence[float]) -> bool:
    """Whether half of a person's pictures, or more, have no colour; not where none was measured."""
    return bool(colours) and float(np.median(colours)) < COLOURLESS


def bits_per_pixel(file_bytes: int, info: "VideoInfo") -> float | None:
    """How many bits the file spends on a pixel, sound included: the lower, the more compressed.

    The file's bit rate over width x height x fps, by the duration and fps that the file states;
    None where there is no telling: it does not state them, it is an image, it could not be read.
    """
    if not file_bytes or not info.duration_seconds or not info.fps:
        return None
    pixels = info.width * info.height * info.fps * info.duration_seconds
    bits = 8 * file_bytes / pixels if pixels else math.inf
    return bits if math.isfinite(bits) else None
