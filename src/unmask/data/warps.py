"""Where the pixels of a face go when it is forged: warps and masks that follow the mesh."""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import Delaunay, QhullError

from unmask import mesh


@dataclass(frozen=True)
class Portrait:
    """A square face crop, RGB ``uint8`` (n, n, 3), and its mesh points, (468, 2) pixels x, y."""

    crop: np.ndarray
    points: np.ndarray


def warp_face(image: np.ndarray, source: np.ndarray, target: np.ndarray, size: int) -> np.ndarray:
    """Move the face in ``image`` from mesh points ``source`` to ``target``, triangle by triangle.

    Points are (468, 2) pixels; the result is (size, size, 3), with the image's corners kept in
    place so that it has no holes.
    """

    def frame(side: float) -> np.ndarray:
        low, mid, high = -0.25 * side, 0.5 * side, 1.25 * side
        return np.array([(low, low), (mid, low), (high, low), (low, mid), (high, mid),
                         (low, high), (mid, high), (high, high)], np.float32)  # fmt: skip

    source = np.concatenate([source, frame(image.shape[0])]).astype(np.float32)
    target = np.concatenate([target, frame(size)]).astype(np.float32)
    try:
        triangles = Delaunay(target).simplices
    except QhullError:
        return image.copy()
    which = np.full((size, size), -1, np.int32)
    for number, corners in enumerate(np.round(target[triangles] * 16).astype(np.int32)):
        cv2.fillConvexPoly(which, corners, number, shift=4)
    # One affine map a triangle, target pixel -> source pixel, looked up for every pixel.
    corners = np.concatenate([target[triangles], np.ones((len(triangles), 3, 1), np.float32)], 2)
    corners += np.eye(3, dtype=np.float32) * 1e-4  # thin triangles stay solvable
    maps = np.linalg.solve(corners, source[triangles])
    y, x = np.mgrid[:size, :size].astype(np.float32)
    pixel_maps = maps[which]
    at = np.stack([x, y, np.ones_like(x)], -1)[..., None, :] @ pixel_maps
    return cv2.remap(image, np.ascontiguousarray(at[..., 0, :], np.float32), None,
                     cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # fmt: skip


def soft_mask(
    points: np.ndarray,
    size: int,
    rng: np.random.Generator,
    regions: tuple[str, ...] = ("face", "inner", "lower", "mouth", "eyes_nose", "random"),
) -> np.ndarray:
    """A soft, randomly deformed hull of part of the face: (size, size) float32 in [0, 1]."""
    likely = {"face": 3, "inner": 3, "lower": 2, "mouth": 1, "eyes_nose": 1, "random": 2}
    weights = np.array([likely[r] for r in regions], float)
    region = regions[rng.choice(len(regions), p=weights / weights.sum())]
    if region == "face":
        chosen = points
    elif region == "inner":
        chosen = points[[*mesh.BROWS, *mesh.EYES, *mesh.NOSE, *mesh.LIPS]]
    elif region == "lower":
        chosen = points[[*mesh.JAW, *mesh.LIPS, 2, 98, 327, 205, 425]]
    elif region == "mouth":
        chosen = points[list(mesh.LIPS)]
    elif region == "eyes_nose":
        chosen = points[[*mesh.BROWS, *mesh.EYES, *mesh.NOSE]]
    else:
        chosen = points[rng.choice(len(points), rng.integers(8, 60), replace=False)]
    centre = chosen.mean(0)
    stretch = (
        rng.uniform((0.85, 0.85), (1.15, 1.15)) if region != "mouth" else rng.uniform(1.1, 1.7, 2)
    )
    hull = cv2.convexHull(((chosen - centre) * stretch + centre).astype(np.float32))
    mask = np.zeros((size, size), np.float32)
    cv2.fillConvexPoly(mask, np.round(hull).astype(np.int32), 1.0)
    mask = elastic(mask, rng, size * rng.uniform(0.0, 0.04))
    blur = 2 * int(size * rng.uniform(0.005, 0.06)) + 1
    soft = cv2.GaussianBlur(mask, (blur, blur), 0)
    if rng.random() < 0.5:  # pull the soft edge inside the hull, as swap tools do
        soft = soft * 2 - 1
    return np.clip(soft, 0, 1)


def reshape(face: Portrait, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Change the face's proportions: a smooth push of up to ``strength`` x size, by the mesh."""
    crop, points, size = face.crop, face.points, face.crop.shape[0]
    coarse = rng.normal(0, strength * size, (6, 6, 2)).astype(np.float32)
    push = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    at = np.clip(points.astype(int), 0, size - 1)
    return warp_face(crop, points, points + push[at[:, 1], at[:, 0]], size)


def other_mouth(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mesh points with the mouth opened, closed, widened or narrowed, and the chin with it."""
    target = points.copy()
    lips = points[list(mesh.LIPS)]
    centre, height = lips.mean(0), np.ptp(points[:, 1])
    width = np.ptp(lips[:, 0]) + 1
    near = np.exp(-((np.linalg.norm(points - centre, axis=1) / width) ** 2) * 2)
    below = points[:, 1] > centre[1]
    target[:, 1] += near * np.where(below, 1, -0.3) * height * rng.uniform(-0.03, 0.05)
    target[:, 0] += near * (points[:, 0] - centre[0]) * rng.uniform(-0.12, 0.12)
    return target


def nudge(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move by up to 3 %, scale by up to 5 % and turn by up to 2 degrees about the middle."""
    size = image.shape[0]
    move = cv2.getRotationMatrix2D(
        (size / 2, size / 2), rng.uniform(-2, 2), rng.uniform(0.95, 1.05)
    )
    move[:, 2] += rng.uniform(-0.03, 0.03, 2) * size
    moved = cv2.warpAffine(image, move, (size, size), flags=cv2.INTER_LINEAR,
                           borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    return elastic(moved, rng, size * rng.uniform(0, 0.01))


def elastic(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Push pixels around smoothly by up to about ``strength`` pixels."""
    size = image.shape[0]
    coarse = rng.uniform(-1, 1, (5, 5, 2)).astype(np.float32) * strength
    push = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return cv2.remap(image, x + push[..., 0], y + push[..., 1], cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
