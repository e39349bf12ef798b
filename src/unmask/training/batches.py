"""Batches of crops for training, made on the fly by background threads."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from unmask.data.augment import Augmentation, affine
from unmask.data.degrade import degrade
from unmask.data.index import Crop
from unmask.data.pseudo_fakes import forge
from unmask.data.warps import Portrait
from unmask.errors import DatasetError
from unmask.faces import resized
from unmask.mesh import FaceMesh
from unmask.settings import FAMILY_SHARES


class Batch(NamedTuple):
    """Crops (n, side, side, 3) float32 in [0, 1], labels (n, 1) float32, 1 = fake, and groups.

    A group is that of the video which a crop, or what was synthesised from it, was cut from.
    ``changed`` (n, MASK_CELLS, MASK_CELLS) float32 in [0, 1] is how much of each cell of a
    synthesised fake was changed, and 0 where that is not known or nothing was.
    """

    crops: np.ndarray
    labels: np.ndarray
    groups: list[str]
    changed: np.ndarray


class Pair(NamedTuple):
    """A real and a fake picture, what was changed in the fake, the smaller face, both groups.

    ``changed`` is a picture of one channel, float32 in [0, 1]; ``face_size`` is in pixels.
    """

    real: np.ndarray
    fake: np.ndarray
    changed: np.ndarray
    face_size: float
    groups: list[str]


MASK_CELLS = 16  # a side of Batch.changed
_AHEAD = 4  # batches prepared before they are asked for
_TRIES = 20  # other crops taken when one is unreadable or shows no face


class Batches:
    """Draws training batches, the same ones again for the same seed and step.

    Plain batches go through all crops once an epoch. ``paired`` ones, as all are with
    ``pseudo_fakes`` or ``degraded``, are half real, half fake: each fake stands beside a real crop
    that is moved alike and goes through the same damage - its own source, if it was synthesised,
    else the one of its group nearest in frame number or one of another real video. ``pseudo_fakes``
    is the share of fakes that is synthesised, ``families`` how often each family is among these.
    """

    def __init__(
        self,
        folder: Path,
        crops: list[Crop],
        *,
        size: int = 256,
        batch: int = 16,
        seed: int = 0,
        pseudo_fakes: float = 0.0,
        families: Mapping[str, float] = FAMILY_SHARES,
        degraded: float = 0.0,
        paired: bool = False,
        train_crop: int = 0,
        altered: Augmentation = Augmentation(),
    ):
        self.folder, self.size, self.batch, self.seed = folder, size, batch, seed
        self.crops = crops
        self.pseudo_fakes, self.degraded, self.train_crop = pseudo_fakes, degraded, train_crop
        self.families, self.altered = families, altered
        self.paired = paired or bool(pseudo_fakes or degraded)
        self.real = [c for c in crops if not c.is_fake]
        self.fake = [c for c in crops if c.is_fake]
        if not self.real or not (self.fake or pseudo_fakes):
            missing = "real" if not self.real else "fake"
            raise DatasetError(
                f"no {missing} crops to train on: add {missing} videos and run 'unmask preprocess' "
                "and 'unmask split' again" + (", or use --pseudo-fakes 1" * (missing == "fake"))
            )
        if not self.fake:
            self.pseudo_fakes = 1.0
        self._draw_real = _Drawer(self.real)
        self._draw_fake = _Drawer(self.fake) if self.fake else None
        self._real_of_group = defaultdict(list)
        for crop in self.real:
            self._real_of_group[crop.group].append(crop)
        self._points: dict[str, np.ndarray | None] = {}

    @cached_property
    def _mesh(self) -> FaceMesh:
        return FaceMesh(threads=1)

    def __len__(self) -> int:
        return max(1, len(self.crops) // self.batch)

    def epoch(self, number: int, steps: int = 0, skip: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from step ``skip`` on; prepared by two threads ahead."""
        steps = steps or len(self)
        make = self._paired if self.paired else self._plain
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(make, number, s) for s in range(skip, min(steps, skip + _AHEAD))]
            for step in range(skip, steps):
                if step + _AHEAD < steps:
                    waiting.append(pool.submit(make, number, step + _AHEAD))
                yield waiting.pop(0).result()

    def _plain(self, epoch: int, step: int) -> Batch:
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.crops))
        rng = np.random.default_rng((self.seed, epoch, step))
        images, labels, groups = [], [], []
        for number in np.arange(step * self.batch, (step + 1) * self.batch) % len(order):
            crop = self.crops[order[number]]
            crop, image = self._readable(crop, rng, self.fake if crop.is_fake else self.real)
            images.append(affine(image, rng, self.altered))
            labels.append(crop.is_fake)
            groups.append(crop.group)
        return self._pack(images, labels, groups, rng)

    def _paired(self, epoch: int, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, epoch, step))
        images, labels, groups, changed = [], [], [], []
        for _ in range(self.batch // 2):
            is_synthesised = rng.random() < self.pseudo_fakes
            pair = self._synthesised_pair(rng) if is_synthesised else self._filmed_pair(rng)
            shown = [pair.real, pair.fake]
            if self.degraded:
                shown = degrade(shown, rng, pair.face_size, self.degraded)
            images += shown
            labels += [0, 1]
            groups += pair.groups
            changed += [np.zeros_like(pair.changed), pair.changed]
        return self._pack(images, labels, groups, rng, changed)

    def _synthesised_pair(self, rng: np.random.Generator) -> Pair:
        crop, face = self._portrait(rng)
        _, donor = self._portrait(rng)
        fake, mask = forge(face, donor, rng, self.families)
        moved = self._moved_alike(rng, face.crop, fake, mask)
        return Pair(*moved, self._face_size(crop), [crop.group] * 2)

    def _filmed_pair(self, rng: np.random.Generator) -> Pair:
        fake, fake_image = self._readable(self._draw_fake(rng), rng, self.fake)
        own = self._real_of_group[fake.group]
        if own and rng.random() < 0.7:
            # For a face swap this is the same frame of its original.
            nearest = min(abs(crop.frame - fake.frame) for crop in own)
            near = [crop for crop in own if abs(crop.frame - fake.frame) == nearest]
            real = near[rng.integers(len(near))]
        else:
            # Not a photo: the network would learn stills from moving pictures.
            real = self._draw_real(rng, moving=True)
        real, real_image = self._readable(real, rng, self.real)
        smaller = min(map(self._face_size, (real, fake)))
        moved = self._moved_alike(rng, real_image, fake_image)
        nowhere = np.zeros((self.size, self.size), np.float32)
        return Pair(*moved, nowhere, smaller, [real.group, fake.group])

    def _face_size(self, crop: Crop) -> float:
        # A stated size of 0 means a folder without an index: nothing is known, nothing is shrunk.
        return crop.face_size or self.size

    def _moved_alike(self, rng: np.random.Generator, *images: np.ndarray) -> list[np.ndarray]:
        """All pictures after the same random movement."""
        state = rng.bit_generator.state
        moved = []
        for image in images:
            rng.bit_generator.state = state
            moved.append(affine(image, rng, self.altered))
        return moved

    def _portrait(self, rng: np.random.Generator) -> tuple[Crop, Portrait]:
        for _ in range(_TRIES):
            crop, image = self._readable(self._draw_real(rng), rng, self.real)
            if crop.path not in self._points:
                self._points[crop.path] = self._mesh.points(image)
            points = self._points[crop.path]
            if points is not None:
                return crop, Portrait(image, points)
        raise DatasetError("hardly a face in the real crops: look at them before training on them")

    def _readable(
        self, crop: Crop, rng: np.random.Generator, others: list[Crop]
    ) -> tuple[Crop, np.ndarray]:
        """The crop and its picture, or another one's if the picture is damaged."""
        for _ in range(_TRIES):
            image = read_crop(self.folder / crop.path, self.size)
            if image is not None:
                return crop, image
            crop = others[rng.integers(len(others))]
        raise unreadable(self.folder)

    def _pack(
        self, images: list[np.ndarray], labels: list[int], groups: list[str],
        rng: np.random.Generator, changed: Sequence[np.ndarray] = (),
    ) -> Batch:  # fmt: skip
        if self.train_crop and self.train_crop < self.size:
            side = self.train_crop
            x, y = rng.integers(0, self.size - side + 1, (2, len(images)))
            cuts = [np.s_[b : b + side, a : a + side] for a, b in zip(x, y, strict=True)]
            images = [image[cut] for image, cut in zip(images, cuts, strict=True)]
            changed = [mask[cut] for mask, cut in zip(changed, cuts, strict=False)]
        packed = np.stack(images).astype(np.float32) / 255
        cells = np.zeros((len(images), MASK_CELLS, MASK_CELLS), np.float32)
        for number, mask in enumerate(changed):
            cells[number] = cv2.resize(mask, cells.shape[1:], interpolation=cv2.INTER_AREA)
        return Batch(packed, np.array(labels, np.float32)[:, None], groups, cells)


class _Drawer:
    """Draws a crop so that neither long videos nor the many photos drown the rest.

    Stills and moving pictures come equally often; then a video is drawn, then a crop of it.
    """

    def __init__(self, crops: list[Crop]):
        videos = defaultdict(list)
        for crop in crops:
            videos[crop.source].append(crop)
        stills = [shown for shown in videos.values() if shown[0].is_photo]
        moving = [shown for shown in videos.values() if not shown[0].is_photo]
        self._kinds = [kind for kind in (stills, moving) if kind]

    def __call__(self, rng: np.random.Generator, moving: bool = False) -> Crop:
        """A random crop; ``moving`` takes it from a video wherever there is one."""
        kind = self._kinds[-1 if moving else rng.integers(len(self._kinds))]
        video = kind[rng.integers(len(kind))]
        return video[rng.integers(len(video))]


def unreadable(folder: Path) -> DatasetError:
    """The error for a split folder with hardly a crop that can be read."""
    return DatasetError(f"many crops in {folder} cannot be read: run 'unmask split' again")


def read_crop(path: Path, size: int) -> np.ndarray | None:
    """A crop's picture as RGB ``uint8`` (size, size, 3); None when it cannot be read."""
    image = cv2.imread(str(path))
    if image is None:
        return None
    return np.ascontiguousarray(resized(image, size)[:, :, ::-1])
