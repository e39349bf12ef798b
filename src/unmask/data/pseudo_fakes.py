"""Synthesise fakes from real face crops, so that a detector learns the traces of forging.

Each family is one function of the portrait to forge, another person's portrait (which only
``cross_swap`` looks at) and a random generator. It returns the forged crop and the mask of what
was changed: ``uint8`` (n, n, 3) RGB and ``float32`` (n, n) in [0, 1]. The families follow
Self-Blended Images (Shiohara and Yamasaki, CVPR 2022, arXiv 2204.08376) and Face X-ray (Li et
al., CVPR 2020, arXiv 1912.13458); the painters' reconstructions follow the idea of Rajan et al.
(Aligned Datasets, ICLR 2025, arXiv 2410.11835): a fake that differs from its real by nothing but
having gone through a decoder.
"""

import math
from collections.abc import Callable, Mapping
from functools import cache

import cv2
import numpy as np

from unmask.data.painters import PAINTERS, Painters
from unmask.data.warps import Portrait, nudge, other_mouth, reshape, soft_mask, warp_face
from unmask.errors import SettingError
from unmask.settings import FAMILY_SHARES

Forged = tuple[np.ndarray, np.ndarray]


def self_blend(face: Portrait, _: Portrait, rng: np.random.Generator) -> Forged:
    """Blend a slightly moved and recoloured copy of the face over the face itself."""
    crop = face.crop
    inner, outer = crop, crop
    if rng.random() < 0.5:
        inner = _restyle(inner, rng)
    else:
        outer = _restyle(outer, rng)
    inner = nudge(inner, rng)
    return _blend(inner, outer, soft_mask(face.points, crop.shape[0], rng), rng)


def decoder_look(face: Portrait, _: Portrait, rng: np.random.Generator) -> Forged:
    """Paint the face as a swap network does: smooth, a little off in shape, blended back."""
    size = face.crop.shape[0]
    drawn = reshape(face, rng, strength=rng.uniform(0.003, 0.015))
    drawn = _recolour(_decode(drawn, rng), rng, 0.5)
    mask = soft_mask(face.points, size, rng, ("face", "inner", "lower"))
    return _blend(drawn, face.crop, mask, rng)


def cross_swap(face: Portrait, donor: Portrait, rng: np.random.Generator) -> Forged:
    """Warp another person's face onto this one, match its colours and blend it in."""
    size = face.crop.shape[0]
    warped = warp_face(donor.crop, donor.points, face.points, size)
    mask = soft_mask(face.points, size, rng, ("face", "inner"))
    warped = _match_colours(warped, face.crop, mask, rng.uniform(0.6, 1.0))
    if rng.random() < 0.5:
        warped = _decode(warped, rng)
    if rng.random() < 0.25:
        return _poisson(warped, face.crop, mask), mask
    return _blend(warped, face.crop, mask, rng)


def mouth_edit(face: Portrait, _: Portrait, rng: np.random.Generator) -> Forged:
    """Redraw the mouth as lip syncing does: another opening, softer, blended into the face."""
    size = face.crop.shape[0]
    drawn = warp_face(face.crop, face.points, other_mouth(face.points, rng), size)
    drawn = _recolour(_decode(drawn, rng), rng, 0.3)
    return _blend(drawn, face.crop, soft_mask(face.points, size, rng, ("lower", "mouth")), rng)


def resynthesis(face: Portrait, _: Portrait, rng: np.random.Generator) -> Forged:
    """Paint the whole picture anew, expression changed, as generators of talking heads do.

    It is made about as sharp as it was, so that softness alone gives nothing away.
    """
    drawn, size = face.crop, face.crop.shape[0]
    if rng.random() < 0.6:
        drawn = warp_face(drawn, face.points, other_mouth(face.points, rng), size)
    drawn = _paint(drawn, rng, sides=(160, 192, 256))
    return _match_sharpness(drawn, face.crop), np.ones((size, size), np.float32)


FAMILIES: dict[str, Callable[[Portrait, Portrait, np.random.Generator], Forged]] = {
    "self_blend": self_blend,
    "decoder_look": decoder_look,
    "cross_swap": cross_swap,
    "mouth_edit": mouth_edit,
    "resynthesis": resynthesis,
}


def forge(
    face: Portrait,
    donor: Portrait,
    rng: np.random.Generator,
    shares: Mapping[str, float] = FAMILY_SHARES,
) -> Forged:
    """A fake of a random family; ``shares`` says how often each is taken, and adds up to 1."""
    family = rng.choice(list(shares), p=list(shares.values()))
    return FAMILIES[family](face, donor, rng)


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


def _match_sharpness(image: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Sharpen (never beyond 1.5 times) until the finest detail is as strong as in ``goal``."""
    detail, wanted = (i - cv2.GaussianBlur(i, (0, 0), 1.2) for i in np.float32([image, goal]))
    amount = np.clip(wanted.std() / (detail.std() + 1e-3) - 1, 0, 1.5)
    return np.clip(image + amount * detail, 0, 255).round().astype(np.uint8)


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


def parse_shares(text: str) -> dict[str, float]:
    """``self_blend=2,mouth_edit=1`` -> shares that add up to 1; families left out get none.

    Raises SettingError for an unknown family or shares that make no sense.
    """
    shares = {}
    for part in text.split(","):
        family, _, number = (piece.strip() for piece in part.partition("="))
        if family in shares:
            raise SettingError(f"--families names {family} twice")
        try:
            shares[family] = float(number)
        except ValueError:
            shares[family] = math.nan
        if family not in FAMILY_SHARES or not 0 <= shares[family] < math.inf:
            raise SettingError(
                f"--families takes FAMILY=SHARE,... of {', '.join(FAMILY_SHARES)}, not {part!r}"
            )
    if not any(shares.values()):
        raise SettingError("--families gives every family a share of 0: give one some")
    return {family: share / sum(shares.values()) for family, share in shares.items()}
