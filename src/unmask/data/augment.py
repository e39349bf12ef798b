"""Altered copies of a crop: one random affine warp."""

from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """How far a copy may be altered, either way; the settings of the same names.

    ``rotation`` in degrees, ``shift`` as a share of the side, ``zoom`` as a share of the size;
    with ``mirror`` every second copy is mirrored.
    """

    rotation: float = 15.0
    shift: float = 0.1
    zoom: float = 0.2
    mirror: bool = True

    @classmethod
    def of(cls, settings: Any) -> Self:
        """From a command's settings."""
        return cls(settings.rotation, settings.shift, settings.zoom, settings.mirror)


def affine(
    image: np.ndarray, rng: np.random.Generator, altered: Augmentation = Augmentation()
) -> np.ndarray:
    """A copy turned, shifted, zoomed and perhaps mirrored, by one warp.

    ``image`` is (height, width, 3) or (height, width); the result has its shape and type. What
    comes into view from outside repeats the nearest pixel.
    """
    height, width = image.shape[:2]
    angle = rng.uniform(-altered.rotation, altered.rotation)
    zoom = rng.uniform(1 - altered.zoom, 1 + altered.zoom)
    shift = rng.uniform(-altered.shift, altered.shift, 2) * (width, height)
    mirrored = rng.random() < 0.5 and altered.mirror
    centre = (width - 1) / 2, (height - 1) / 2
    matrix = cv2.getRotationMatrix2D(centre, angle, zoom)
    matrix[:, 2] += shift
    if mirrored:
        matrix = matrix @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]])
    return cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
