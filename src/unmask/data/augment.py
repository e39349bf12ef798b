"""Altered copies of a crop: one random affine warp."""

import cv2
import numpy as np

ROTATION = 15.0  # degrees, either way
SHIFT = 0.10  # of the side, either way
ZOOM = 0.20  # larger or smaller


def affine(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy turned, shifted, zoomed and, half of the time, mirrored, by one warp.

    ``image`` is ``uint8`` (height, width, 3); the result has its shape. What comes into view from
    outside repeats the nearest pixel.
    """
    height, width = image.shape[:2]
    angle = rng.uniform(-ROTATION, ROTATION)
    zoom = rng.uniform(1 - ZOOM, 1 + ZOOM)
    shift = rng.uniform(-SHIFT, SHIFT, 2) * (width, height)
    mirror = rng.random() < 0.5
    centre = (width - 1) / 2, (height - 1) / 2
    matrix = cv2.getRotationMatrix2D(centre, angle, zoom)
    matrix[:, 2] += shift
    if mirror:
        matrix = matrix @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]])
    return cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
