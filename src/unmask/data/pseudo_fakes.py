"""Synthesise fakes from real face crops, so that a detector learns the traces of forging.

Each family is one function of the portrait to forge, another person's portrait (which only
``cross_swap`` looks at) and a random generator. It returns the forged crop and the mask of what
was changed: ``uint8`` (n, n, 3) RGB and ``float32`` (n, n) in [0, 1]. The families follow
Self-Blended Images (Shiohara and Yamasaki, CVPR 2022, arXiv 2204.08376) and Face X-ray (Li et
al., CVPR 2020, arXiv 1912.13458); the painters' reconstructions follow the idea of Rajan et al.
(Aligned Datasets, ICLR 2025, arXiv 2410.11835): a fake that differs from its real by nothing but
having gone through a decoder.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from scipy.spatial import Delaunay, QhullError

from unmask import mesh
from unmask.data.painters import PAINTERS, Painters
from unmask.settings import FAMILY_SHARES

Forged = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Portrait:
    """A square face crop, RGB ``uint8`` (n, n, 3), and its mesh points, (468, 2) pixels x, y."""

    crop: np.ndarray
    points: np.ndarray


def self_blend(face: Portrait, _: Portrait, rng: np.random.Generator) -> Forged:
    """Blend a slightly moved and recoloured copy of the face over the face itself."""
    crop = face.crop
    inner, outer = crop, crop
    if rng.random() < 0.5:
        inner = _restyle(inner, rng)
    else:
        outer = _restyle(outer, rng)
    inner = _nudge(inner, rng)
    return _blend(inner, outer, _mask(face.points, crop.shape[0], rng), rng)


def decoder_look(face: Portrait, _: Portrait, rng: np.random.Generator) -> Forged:
    """Paint the face as a swap network does: smooth, a little off in shape, blended back."""
    size = face.crop.shape[0]
    drawn = _reshape_face(face, rng, strength=rng.uniform(0.003, 0.015))
    drawn = _recolour(_decode(drawn, rng), rng, 0.5)
    return _blend(drawn, face.crop, _mask(face.points, size, rng, ("face", "inner", "lower")), rng)


def cross_swap(face: Portrait, donor: Portrait, rng: np.random.Generator) -> Forged:
    """Warp another person's face onto this one, match its colours and blend it in."""
    size = face.crop.shape[0]
    warped = warp_face(donor.crop, donor.points, face.points, size)
    mask = _mask(face.points, size, rng, ("face", "inner"))
    warped = _match_colours(warped, face.crop, mask, rng.uniform(0.6, 1.0))
    if rng.random() < 0.5:
        warped = _decode(warped, rng)
    if rng.random() < 0.25:
        return _poisson(warped, face.crop, mask), mask
    return _blend(warped, face.crop, mask, rng)


def mouth_edit(face: Portrait, _: Portrait, rng: np.random.Generator) -> Forged:
    """Redraw the mouth as lip syncing does: another opening, softer, blended into the face."""
    size = face.crop.shape[0]
    drawn = warp_face(face.crop, face.points, _other_mouth(face.points, rng), size)
    drawn = _recolour(_decode(drawn, rng), rng, 0.3)
    return _blend(drawn, face.crop, _mask(face.points, size, rng, ("lower", "mouth")), rng)


def resynthesis(face: Portrait, _: Portrait, rng: np.random.Generator) -> Forged:
    """Paint the whole picture anew, expression changed, as generators of talking heads do.

    It is made about as sharp as it was, so that softness alone gives nothing away.
    """
    drawn, size = face.crop, face.crop.shape[0]
    if rng.random() < 0.6:
        drawn = warp_face(drawn, face.points, _other_mouth(face.points, rng), size)
    drawn = _paint(drawn, rng, sides=(160, 192, 256))
    return _match_sharpness(drawn, face.crop), np.ones((size, size), np.float32)


FAMILIES: dict[str, Callable[[Portrait, Portrait, np.random.Generator], Forged]] = {
    "self_blend": self_blend,
    "decoder_look": decoder_look,
    "cross_swap": cross_swap,
    "mouth_edit": mouth_edit,
    "resynthesis": resynthesis,
}


def synthesise(
    face: Portrait,
    donor: Portrait,
    rng: np.random.Generator,
    shares: Mapping[str, float] = FAMILY_SHARES,
) -> Forged:
    """A fake of a random family; ``shares`` says how often each is taken, and adds up to 1."""
    family = rng.choice(list(shares), p=list(shares.values()))
    return FAMILIES[family](face, donor, rng)


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


def _mask(
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
    mask = _elastic(mask, rng, size * rng.uniform(0.0, 0.04))
    blur = 2 * int(size * rng.uniform(0.005, 0.06)) + 1
    soft = cv2.GaussianBlur(mask, (blur, blur), 0)
    if rng.random() < 0.5:  # pull the soft edge inside the hull, as swap tools do
        soft = soft * 2 - 1
    return np.clip(soft, 0, 1)


def _elastic(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Push pixels around smoothly by up to about ``strength`` pixels."""
    size = image.shape[0]
    coarse = rng.uniform(-1, 1, (5, 5, 2)).astype(np.float32) * strength
    push = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return cv2.remap(image, x + push[..., 0], y + push[..., 1], cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)  # fmt: skip


def _nudge(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move by up to 3 %, scale by up to 5 % and turn by up to 2 degrees about the middle."""
    size = image.shape[0]
    move = cv2.getRotationMatrix2D(
        (size / 2, size / 2), rng.uniform(-2, 2), rng.uniform(0.95, 1.05)
    )
    move[:, 2] += rng.uniform(-0.03, 0.03, 2) * size
    moved = cv2.warpAffine(image, move, (size, size), flags=cv2.INTER_LINEAR,
                           borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    return _elastic(moved, rng, size * rng.uniform(0, 0.01))


def _decode(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture as it leaves a generator's decoder: a painter's, or merely low in resolution."""
    if rng.random() < 0.6:
        drawn = _paint(image, rng)
    else:
        size = image.shape[0]
        side = int(size * rng.uniform(0.22, 0.75))
        drawn = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        if rng.random() < 0.5:
            drawn = cv2.bilateralFilter(drawn, 5, rng.uniform(10, 40), 3)
        up = (cv2.INTER_CUBIC, cv2.INTER_LINEAR, cv2.INTER_LANCZOS4, cv2.INTER_NEAREST)
        how = up[rng.choice(4, p=(0.4, 0.35, 0.2, 0.05))]
        drawn = cv2.resize(drawn, (size, size), interpolation=how)
    return _sharpen(drawn, rng.uniform(0.3, 2.0)) if rng.random() < 0.5 else drawn


def _paint(
    image: np.ndarray, rng: np.random.Generator, sides: tuple[int, ...] = (96, 128, 160, 192, 256)
) -> np.ndarray:
    """What one of the painters makes of the picture, at a resolution that generators have."""
    side = int(rng.choice(sides))
    return _painters().paint(image, side, PAINTERS[rng.integers(len(PAINTERS))])


@cache
def _painters() -> Painters:
    return Painters(threads=1)


def _other_mouth(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
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


def _match_sharpness(image: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Sharpen (never beyond 1.5 times) until the finest detail is as strong as in ``goal``."""
    detail, wanted = (i - cv2.GaussianBlur(i, (0, 0), 1.2) for i in np.float32([image, goal]))
    amount = np.clip(wanted.std() / (detail.std() + 1e-3) - 1, 0, 1.5)
    return np.clip(image + amount * detail, 0, 255).round().astype(np.uint8)


def _reshape_face(face: Portrait, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Change the face's proportions: a smooth push of up to ``strength`` x size, by the mesh."""
    crop, points, size = face.crop, face.points, face.crop.shape[0]
    coarse = rng.normal(0, strength * size, (6, 6, 2)).astype(np.float32)
    push = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    at = np.clip(points.astype(int), 0, size - 1)
    return warp_face(crop, points, points + push[at[:, 1], at[:, 0]], size)


def _restyle(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change colour, and sharpness or resolution, slightly."""
    image = _recolour(image, rng, rng.uniform(0.2, 1.0))
    size = image.shape[0]
    kind = rng.integers(4)
    if kind == 0:
        side = int(size / rng.uniform(1.3, 4))
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
    if kind == 1:
        return _sharpen(image, rng.uniform(0.3, 1.5))
    if kind == 2:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6))
    return image


def _recolour(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Shift channels, brightness, contrast and saturation by a few percent."""
    pixels = image.astype(np.float32)
    pixels += rng.uniform(-14, 14, 3).astype(np.float32) * strength * (rng.random() < 0.7)
    grey = pixels.mean(2, keepdims=True)
    pixels = grey + (pixels - grey) * (1 + rng.uniform(-0.3, 0.3) * strength)
    mean = pixels.mean()
    pixels = (pixels - mean) * (1 + rng.uniform(-0.12, 0.12) * strength) + mean
    pixels *= 1 + rng.uniform(-0.1, 0.1) * strength
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _sharpen(image: np.ndarray, amount: float) -> np.ndarray:
    soft = cv2.GaussianBlur(image, (0, 0), 1.2)
    return cv2.addWeighted(image, 1 + amount, soft, -amount, 0)


def _match_colours(
    image: np.ndarray, target: np.ndarray, mask: np.ndarray, strength: float
) -> np.ndarray:
    """Give ``image`` the colour statistics of ``target`` inside the mask (Reinhard et al. 2001)."""
    inside = mask > 0.5
    if inside.sum() < 16:
        return image
    lab, goal = (cv2.cvtColor(i, cv2.COLOR_RGB2LAB).astype(np.float32) for i in (image, target))
    mean, spread = lab[inside].mean(0), lab[inside].std(0) + 1
    goal_mean, goal_spread = goal[inside].mean(0), goal[inside].std(0) + 1
    matched = (lab - mean) * (1 + strength * (goal_spread / spread - 1)) + (
        mean + strength * (goal_mean - mean)
    )
    return cv2.cvtColor(np.clip(matched, 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB)


def _blend(
    inner: np.ndarray, outer: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> Forged:
    mask = mask * float(rng.choice((0.4, 0.6, 0.8, 1.0, 1.0, 1.0)))
    return _mix(inner, outer, mask), mask


def _mix(inner: np.ndarray, outer: np.ndarray, mask: np.ndarray) -> np.ndarray:
    weight = mask[..., None]
    return np.round(inner * weight + outer * (1 - weight)).astype(np.uint8)


def _poisson(inner: np.ndarray, outer: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Seamless cloning (Perez et al., SIGGRAPH 2003); blending where the mask is too small."""
    solid = (mask > 0.3).astype(np.uint8) * 255
    solid[[0, 1, -2, -1]] = solid[:, [0, 1, -2, -1]] = 0
    x, y, width, height = cv2.boundingRect(solid)
    if width < 8 or height < 8:
        return _mix(inner, outer, mask)
    middle = (x + width // 2, y + height // 2)
    return cv2.seamlessClone(inner, outer, solid, middle, cv2.NORMAL_CLONE)
