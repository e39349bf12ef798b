"""The rows of the head's linear system: what a frozen network sees of crops, computed once.

Up to three kinds: crops of moving pictures as they are, every video weighing the same; each of
them once more, out of a smaller and coarser clip; and each real one painted anew by a decoder, as a
fake.
"""

import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from unmask.data.degrade import as_a_clip
from unmask.data.index import Crop, without_stills
from unmask.data.pseudo_fakes import repaint
from unmask.outputs import in_one_step
from unmask.runtime import Network
from unmask.training.batches import read_crop

_FRAMES = 8  # crops of a video that count as they are
_SAVED_TOGETHER = 500  # rows

ALTERED: dict[str, Callable[[np.ndarray, Crop, np.random.Generator], np.ndarray]] = {
    "shown": lambda image, crop, rng: image,
    "damaged": lambda image, crop, rng: as_a_clip(image, crop.face_size or len(image), rng),
    "painted": lambda image, crop, rng: repaint(image, rng),
}
"""What is made of a crop's picture for a row of each kind."""


class Row(NamedTuple):
    """A crop and as what it is seen: a key of ALTERED."""

    crop: Crop
    kind: str

    @property
    def is_fake(self) -> bool:
        """Whether it is to be told from real ones."""
        return bool(self.crop.is_fake) or self.kind == "painted"

    @property
    def video(self) -> str:
        """The video that it stands for."""
        made = "synthesised from " if self.kind == "painted" else ""
        return made + self.crop.video


class Looker:
    """Has networks look at the crops of a split, and keeps what they saw in ``folder``.

    ``check`` is called before each look and raises what is to stop the run.
    """

    def __init__(self, split: Path, folder: Path, size: int, seed: int, check: Callable[[], None]):
        self._split, self._folder, self._size = split, folder, size
        self._seed, self._check = seed, check

    def features(self, see: Network, rows: list[Row]) -> tuple[np.ndarray, list[Row]]:
        """What ``see`` makes of each row, (n, d), and the rows whose crops can be read."""
        from rich.progress import track

        features, kept = [], []
        for first in track(range(0, len(rows), _SAVED_TOGETHER), "features"):
            chunk = rows[first : first + _SAVED_TOGETHER]
            path = self._folder / f"{first:06}.npz"
            try:
                with np.load(path, allow_pickle=False) as saved:
                    found, read = saved["features"], saved["read"]
            except (OSError, ValueError, EOFError, BadZipFile):
                seen = [self.look(see, row) for row in chunk]
                read = np.array([each is not None for each in seen])
                found = np.stack([each for each in seen if each is not None])
                with in_one_step(path) as partial, partial.open("wb") as file:
                    np.savez(file, features=found, read=read)
            features.append(found)
            kept += [row for row, is_read in zip(chunk, read, strict=True) if is_read]
        return np.concatenate(features), kept

    def look(self, see: Network, row: Row) -> np.ndarray | None:
        """What ``see`` makes of a row, the same each time, (d,); None when it cannot be read."""
        self._check()
        image = read_crop(self._split / row.crop.path, self._size)
        if image is None:
            return None
        rng = np.random.default_rng((self._seed, zlib.crc32(row.crop.path.encode())))
        image = ALTERED[row.kind](image, row.crop, rng)
        return see(image[None].astype(np.float32) / 255)[0][0]


def rows_of(crops: list[Crop], is_damaged: bool, is_painted: bool) -> list[Row]:
    """The rows of all kinds that are wanted."""
    rows = [Row(crop, "shown") for crop in crops]
    rows += [Row(crop, "damaged") for crop in crops if is_damaged]
    return rows + [Row(crop, "painted") for crop in crops if is_painted and not crop.is_fake]


def weigh(rows: list[Row], painted: float) -> np.ndarray:
    """The rows' weights, (n,): half for each label, within it the same for each video.

    Crops as they are and damaged copies count the same; ``painted`` is the share that painted ones
    have of the fakes' weight, which is all where there are no others.
    """
    is_fake = np.array([row.is_fake for row in rows])
    is_painted = np.array([row.kind == "painted" for row in rows])
    _, which, counts = np.unique(
        [f"{row.is_fake} {row.video}" for row in rows], return_inverse=True, return_counts=True
    )
    weights = 1.0 / counts[which]
    if not (is_fake & ~is_painted).any():
        painted = 1.0
    for chosen, share in (
        (~is_fake, 0.5), (is_fake & ~is_painted, (1 - painted) / 2), (is_painted, painted / 2)
    ):  # fmt: skip
        if chosen.any():
            weights[chosen] *= share / weights[chosen].sum()
    return weights


def as_they_are(crops: list[Crop]) -> list[Crop]:
    """At most _FRAMES crops of each video, evenly spaced; no augmented ones, no stills."""
    videos: dict[tuple[str, str], list[Crop]] = defaultdict(list)
    for crop in without_stills([crop for crop in crops if not crop.augmented]):
        videos[crop.video, crop.label].append(crop)
    return [
        seen[i]
        for seen in videos.values()
        for i in np.unique(np.linspace(0, len(seen) - 1, min(_FRAMES, len(seen))).astype(int))
    ]


def unseen_photos(crops: list[Crop], shown: list[Crop]) -> list[Crop]:
    """Photos of whom nothing is shown."""
    seen = {crop.group for crop in shown}
    return [c for c in crops if c.is_photo and not c.augmented and c.group not in seen]
