"""The rows of the head's linear system: what a frozen network sees of crops, computed once.

Up to three kinds: crops of moving pictures as they are, every video weighing the same; each of them
once more, out of a smaller and coarser clip; and pairs as training draws them, damaged alike.
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from unmask.data.degrade import as_a_clip
from unmask.data.index import Crop, without_stills
from unmask.outputs import in_one_step
from unmask.runtime import Network
from unmask.training.batches import Batches, read_crop, unreadable

SHOWN = 0.6
"""The share of all weight that drawn pairs leave to what is shown, by measurement: docs/model.md.

Half of it have crops as they are, half their damaged copies."""

_FRAMES = 8  # crops of a video that count as they are
_CHUNK = 20  # batches whose features are saved together


class Rows(NamedTuple):
    """Features (n, d) of crops with their labels, groups, weights, videos and paths, (n,) each.

    What was drawn has no path.
    """

    features: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    weights: np.ndarray
    videos: np.ndarray
    paths: np.ndarray


class Looker:
    """Has networks look at the crops of a split, and keeps what they saw in ``folder``.

    ``check`` is called before each look and raises what is to stop the run.
    """

    def __init__(self, split: Path, folder: Path, size: int, seed: int, check: Callable[[], None]):
        self._split, self._folder, self._size = split, folder, size
        self._seed, self._check = seed, check

    def rows(
        self, see: Network, shown: list[Crop], is_damaged: bool, batches: Batches, steps: int
    ) -> tuple[Rows, slice]:
        """All rows, and which of them validate: crops as they are, if there are fakes among them.

        With ``is_damaged`` there are copies; with synthesised fakes among the ``batches``, so many
        ``steps`` of these are drawn. Without real fakes those stand for them.
        """
        kinds = [self._chunk("shown", lambda: self._see_shown(see, shown, False))]
        if is_damaged:
            kinds.append(self._chunk("damaged", lambda: self._see_shown(see, shown, True)))
        labels = kinds[0]["labels"]
        weights = equal_weights(kinds[0]["videos"], labels)
        drawn_from, drawn_count = len(kinds) * len(labels), 0
        if batches.pseudo_fakes:
            drawn = self._draw(see, batches, steps)
            drawn_count = len(drawn["labels"])
            drawn["videos"] = np.array([
                f"synthesised from {group}" if is_fake else group
                for group, is_fake in zip(drawn["groups"], drawn["labels"], strict=True)
            ])  # fmt: skip
            drawn["paths"] = np.zeros(drawn_count, str)
            kinds.append(drawn)
        keys = ("features", "labels", "groups", "videos", "paths")
        together = {key: np.concatenate([kind[key] for kind in kinds]) for key in keys}
        judged = slice(len(labels)) if labels.any() else slice(drawn_from, None)
        return Rows(weights=share_out(weights, is_damaged, drawn_count), **together), judged

    def crop(
        self, see: Network, path: str, face_size: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray | None:  # fmt: skip
        """What ``see`` makes of a crop of the split, (d,); None when it cannot be read.

        With a source of chance the crop is damaged (``as_a_clip``).
        """
        self._check()
        image = read_crop(self._split / path, self._size)
        if image is None:
            return None
        if rng:
            image = as_a_clip(image, face_size or self._size, rng)
        return see(image[None].astype(np.float32) / 255)[0][0]

    def _see_shown(
        self, see: Network, shown: list[Crop], is_damaged: bool
    ) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self._seed) if is_damaged else None
        features, kept = [], []
        for crop in shown:
            row = self.crop(see, crop.path, crop.face_size, rng)
            if row is not None:
                features.append(row)
                kept.append(crop)
        if not kept:
            raise unreadable(self._split)
        return {
            "features": np.stack(features), "labels": np.array([c.is_fake for c in kept]),
            "groups": np.array([c.group for c in kept]),
            "videos": np.array([c.video for c in kept]), "paths": np.array([c.path for c in kept]),
        }  # fmt: skip

    def _draw(self, see: Network, batches: Batches, steps: int) -> dict[str, np.ndarray]:
        """Features of the drawn batches; those already in a chunk are not drawn again."""
        from rich.console import Console
        from rich.progress import track

        chunks = []
        shown = Console(stderr=True)
        for first in track(range(0, steps, _CHUNK), "features", console=shown):
            last = min(steps, first + _CHUNK)
            chunks.append(self._chunk(
                f"{first:06}", lambda a=first, b=last: see_drawn(see, batches, a, b, self._check)
            ))  # fmt: skip
        return {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}

    def _chunk(self, name: str, make) -> dict[str, np.ndarray]:
        path = self._folder / f"{name}.npz"
        try:
            with np.load(path, allow_pickle=False) as saved:
                return dict(saved)
        except (OSError, ValueError, EOFError, BadZipFile):
            pass
        made = make()
        with in_one_step(path) as partial, partial.open("wb") as file:
            np.savez(file, **made)
        return made


def see_drawn(
    see: Network, batches: Batches, first: int, last: int, check: Callable[[], None] = lambda: None
) -> dict[str, np.ndarray]:
    """Features (n, d) of some drawn batches, with their labels and groups, (n,) each.

    ``check`` is called before each batch.
    """
    features, labels, groups = [], [], []
    for batch in batches.epoch(0, last, skip=first):
        check()
        features.append(see(batch.crops)[0])
        labels.append(batch.labels[:, 0].astype(int))
        groups += batch.groups
    return {
        "features": np.concatenate(features), "labels": np.concatenate(labels),
        "groups": np.array(groups),
    }  # fmt: skip


def as_they_are(crops: list[Crop]) -> list[Crop]:
    """At most _FRAMES crops of each video, evenly spaced; no augmented ones, no stills."""
    videos: dict[tuple, list[Crop]] = defaultdict(list)
    for crop in without_stills([crop for crop in crops if not crop.augmented]):
        videos[crop.source].append(crop)
    return [
        seen[i]
        for seen in videos.values()
        for i in np.unique(np.linspace(0, len(seen) - 1, min(_FRAMES, len(seen))).astype(int))
    ]


def unseen_photos(crops: list[Crop], shown: list[Crop]) -> list[Crop]:
    """Photos of whom nothing is shown."""
    seen = {crop.group for crop in shown}
    return [c for c in crops if c.is_photo and not c.augmented and c.group not in seen]


def equal_weights(videos: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights that sum to 1: as much for each label, within it the same for each video, (n,)."""
    keys = [f"{label} {video}" for video, label in zip(videos, labels, strict=True)]
    _, which, counts = np.unique(keys, return_inverse=True, return_counts=True)
    weights = 1.0 / counts[which]
    present = np.unique(labels)
    for label in present:
        weights[labels == label] /= len(present) * weights[labels == label].sum()
    return weights


def share_out(weights: np.ndarray, has_copies: bool, drawn: int) -> np.ndarray:
    """The weights of all rows: of crops as they are, of their copies, and of so many drawn ones.

    ``weights`` (n,) are those of the crops alone and sum to 1, as what is returned does.
    """
    shares = [weights / 2, weights / 2] if has_copies else [weights]
    if drawn:
        shares = [*(SHOWN * share for share in shares), np.full(drawn, (1 - SHOWN) / drawn)]
    return np.concatenate(shares)
