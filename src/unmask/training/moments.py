"""Fit the head 'moments': features of a frozen network once, then one linear system.

Minutes instead of hours, and where real fakes are few it carries further to generators that were
never seen than training every layer does (measured: docs/model.md). Up to three kinds of rows stand
in the system: crops of moving pictures as they are, every video weighing the same; with ``degrade``
each of them once more, out of a smaller and coarser clip; and with ``pseudo_fakes`` the pairs that
training draws, damaged alike (``Batches``). The solution is ridge regression of the label; Platt's
scale on held-out videos then makes probabilities of it. With ``local_steps`` a branch is added that
learns to see local forgeries where they are (``local``).
"""

import csv
import json
import time
from collections import defaultdict
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from sklearn.metrics import roc_auc_score

from unmask.data.degrade import as_a_clip
from unmask.data.index import Crop, without_stills
from unmask.errors import DatasetError
from unmask.outputs import in_one_step
from unmask.runtime import Network
from unmask.training import local, model_file, xception
from unmask.training.batches import Batches, read_crop
from unmask.training.calibrate import Calibration, fit_calibration
from unmask.training.export import compiled
from unmask.training.fit import (
    CARD_NAME,
    check_resumes,
    check_same,
    policy,
    run_card,
    write_card,
)
from unmask.training.interrupt import StopSignals
from unmask.training.ridge import solve
from unmask.video import is_image

# isort: split
import keras

HELD_OUT_NAME = "held_out.csv"
"""Each training video's logit by a head that never saw its group, and those of unseen photos."""

SHOWN = 0.6
"""The share of all weight that drawn pairs leave to what is shown, by measurement: docs/model.md.

Half of it have crops as they are, half their damaged copies."""

FOLDS = 20  # parts of the groups that are held out in turn
_FRAMES = 8  # crops of a video that count as they are
# Of settings, when a run is gone on with. Not its length: the last features would lack batches.
_FREE_TO_CHANGE = ("resume", "ridge")
_FREE_WITH_LOCAL = ("resume",)  # the branch was taught beside the head that the ridge gave
_CHUNK = 20  # batches whose features are saved together


def features_of(model: Path) -> Network:
    """What the head of a saved network with this head looks at: crops -> (n, d)."""
    network = model_file.load(model)
    return compiled(keras.Model(network.input, network.get_layer(xception.MOMENTS).output))


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


class Moments:
    """One run of 'unmask train --head moments'; what was computed survives a kill."""

    def __init__(
        self, split: Path, output: Path, settings: SimpleNamespace, train: list[Crop],
        batches: Batches,
    ):  # fmt: skip
        self.split, self.output, self.settings, self.batches = split, output, settings, batches
        self.shown = as_they_are(train)
        self.photos = _unseen_photos(train, self.shown)
        self.chunks = output / "features"
        self.weights_path = output / "xception_best.h5"
        card = run_card(settings, train, batches)
        if self.chunks.exists():
            check_resumes(output, settings)
            earlier = json.loads((output / CARD_NAME).read_text())
            check_same(
                output, earlier["settings"], earlier["data_sha256"], settings,
                card["data_sha256"], _FREE_WITH_LOCAL if settings.local_steps else _FREE_TO_CHANGE,
            )  # fmt: skip
        self.chunks.mkdir(parents=True, exist_ok=True)
        write_card(card, output)

    def fit(self) -> dict[str, float]:
        """Features, solution, weights; returns the row of the history."""
        s, started = self.settings, time.monotonic()
        keras.utils.set_random_seed(s.seed)
        network = xception.build(s.size, s.dropout, head="moments")
        # What is gone on with keeps the layers that its saved features came from.
        start = self.chunks / "start.h5"
        model_file.initialise(network, str(start) if start.exists() else s.init)
        if not start.exists():
            model_file.save(network, start, s.size)
        see = features_of(start)
        with StopSignals() as self.stop:
            rows, judged = self._rows(see)
            found = solve(
                rows.features, rows.labels, rows.weights, self._folds(rows.groups), s.ridge
            )
            network.layers[-1].set_weights([
                found.kernel[:, None].astype(np.float32), np.float32([found.bias])
            ])  # fmt: skip
            held_out = found.held_out[judged]
            fitted = rows.features[judged] @ found.kernel + found.bias
            if s.local_steps:
                network = self._with_local(network)
                added = self._added(network, rows.paths[judged])
                held_out, fitted = (
                    local.SHARPNESS * logits + added for logits in (held_out, fitted)
                )
            on_photos = self._on_photos(network)
        labels, groups = rows.labels[judged], rows.groups[judged]
        videos = defaultdict(list)
        for *video, score in zip(rows.videos[judged], groups, labels, held_out, strict=True):
            videos[tuple(video)].append(score)
        calibration = self._calibrated(videos)
        scale, offset = calibration.scale, calibration.offset
        kernel, bias = network.layers[-1].get_weights()
        network.layers[-1].set_weights([kernel * scale, bias * scale + offset])
        model_file.save(network, self.weights_path, s.size)
        seen = [("shown", *video, np.mean(scores)) for video, scores in videos.items()] + on_photos
        self._write_held_out([(*video, logit * scale + offset) for *video, logit in seen])
        training, validation = (
            _figures(logits * scale + offset, labels) for logits in (fitted, held_out)
        )
        return {
            "epoch": 1, **training, **{f"val_{k}": v for k, v in validation.items()},
            "val_auc": roc_auc_score(
                [key[2] for key in videos], [np.mean(scores) for scores in videos.values()]
            ),
            "learning_rate": s.learning_rate if s.local_steps else 0.0,
            "seconds": time.monotonic() - started,
        }  # fmt: skip

    def _with_local(self, network: keras.Model) -> keras.Model:
        """The network with a branch that has learned, and a last layer that gives logits."""
        from rich.progress import track

        s = self.settings
        # float16 would need its loss scaled: its gradients vanish.
        how = policy(s)
        whole = xception.add_local(network, s.size, "float32" if how == "mixed_float16" else how)
        checkpoint = self.chunks / "local.npz"
        done = local.step_of(checkpoint)
        batches = copy(self.batches)
        batches.pseudo_fakes = max(batches.pseudo_fakes, local.SYNTHESISED)
        drawn = batches.epoch(s.epochs, s.local_steps, skip=done)  # others than before
        local.learn(
            whole, local.below(network), track(drawn, "local", s.local_steps - done),
            s.local_steps, s.learning_rate, s.average, lambda: self.stop.asked, checkpoint,
        )  # fmt: skip
        kernel, bias = network.layers[-1].get_weights()
        kernel = np.concatenate([local.SHARPNESS * kernel, [[1.0]]])
        whole.layers[-1].set_weights([kernel, local.SHARPNESS * bias])
        return xception.in_float32(whole, s.size)

    def _added(self, whole: keras.Model, paths: np.ndarray) -> np.ndarray:
        """The branch's mean on each of these crops, or on each one drawn, (n,)."""
        see = compiled(keras.Model(whole.input, whole.get_layer(xception.LOCAL_MEAN).output))
        if all(paths):
            return np.concatenate([self._row(see, path) for path in paths.tolist()])
        found = []
        for batch in self.batches.epoch(0, self._steps()):
            self._check()
            found.append(see(batch.crops)[0][:, 0])
        return np.concatenate(found)

    def _rows(self, see: Network) -> tuple[Rows, slice]:
        """All rows, and which of them validate: crops as they are, if there are fakes among them.

        Without real fakes those that were synthesised stand for them.
        """
        shown = self._chunk("shown", lambda: self._see_shown(see, False))
        count, has_fakes = len(shown["labels"]), shown["labels"].any()
        weights = equal_weights(shown["videos"], shown["labels"])
        kinds, shares = [shown], [weights]
        if self.settings.degrade:
            kinds.append(self._chunk("damaged", lambda: self._see_shown(see, True)))
            shares = [weights / 2, weights / 2]
        drawn_from = len(kinds) * count
        if self.batches.pseudo_fakes:
            drawn = self._draw(see)
            drawn["videos"] = np.array([
                f"synthesised from {group}" if is_fake else group
                for group, is_fake in zip(drawn["groups"], drawn["labels"], strict=True)
            ])  # fmt: skip
            drawn["paths"] = np.zeros(len(drawn["labels"]), str)
            kinds.append(drawn)
            each = np.full(len(drawn["labels"]), (1 - SHOWN) / len(drawn["labels"]))
            shares = [*(SHOWN * share for share in shares), each]
        keys = ("features", "labels", "groups", "videos", "paths")
        together = {key: np.concatenate([kind[key] for kind in kinds]) for key in keys}
        judged = slice(count) if has_fakes else slice(drawn_from, None)
        return Rows(weights=np.concatenate(shares), **together), judged

    def _see_shown(self, see: Network, is_damaged: bool) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.settings.seed) if is_damaged else None
        features, kept = [], []
        for crop in self.shown:
            row = self._row(see, crop.path, crop.face_size, rng)
            if row is not None:
                features.append(row)
                kept.append(crop)
        return {
            "features": np.stack(features), "labels": np.array([c.is_fake for c in kept]),
            "groups": np.array([c.group for c in kept]),
            "videos": np.array([c.video for c in kept]), "paths": np.array([c.path for c in kept]),
        }  # fmt: skip

    def _row(
        self, see: Network, path: str, face_size: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray | None:  # fmt: skip
        """What ``see`` makes of a crop of the split, (d,); None when it cannot be read.

        With a source of chance the crop is damaged (``as_a_clip``).
        """
        self._check()
        image = read_crop(self.split / path, self.settings.size)
        if image is None:
            return None
        if rng:
            image = as_a_clip(image, face_size or self.settings.size, rng)
        return see(image[None].astype(np.float32) / 255)[0][0]

    def _draw(self, see: Network) -> dict[str, np.ndarray]:
        """Features of the drawn batches; those already in a chunk are not drawn again."""
        from rich.progress import track

        steps, chunks = self._steps(), []
        for first in track(range(0, steps, _CHUNK), "features"):
            last = min(steps, first + _CHUNK)
            chunks.append(self._chunk(f"{first:06}", lambda a=first, b=last: self._see(see, a, b)))
        return {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}

    def _steps(self) -> int:
        return (self.settings.steps_per_epoch or len(self.batches)) * self.settings.epochs

    def _see(self, see: Network, first: int, last: int) -> dict[str, np.ndarray]:
        features, labels, groups = [], [], []
        for batch in self.batches.epoch(0, last, skip=first):
            self._check()
            features.append(see(batch.crops)[0])
            labels.append(batch.labels[:, 0].astype(int))
            groups += batch.groups
        return {
            "features": np.concatenate(features), "labels": np.concatenate(labels),
            "groups": np.array(groups),
        }  # fmt: skip

    def _chunk(self, name: str, make) -> dict[str, np.ndarray]:
        path = self.chunks / f"{name}.npz"
        try:
            with np.load(path, allow_pickle=False) as saved:
                return dict(saved)
        except (OSError, ValueError, EOFError, BadZipFile):
            pass
        made = make()
        with in_one_step(path) as partial, partial.open("wb") as file:
            np.savez(file, **made)
        return made

    def _check(self) -> None:
        if self.stop.asked:
            raise KeyboardInterrupt

    def _folds(self, groups: np.ndarray) -> np.ndarray:
        """A fold for each row; a group is never in two. Raises DatasetError with too few groups."""
        names = np.unique(groups)
        if len(names) < 2:
            raise DatasetError("all crops are of one group: there is nothing to validate on")
        order = np.random.default_rng(self.settings.seed).permutation(len(names))
        return order[np.searchsorted(names, groups)] % FOLDS

    def _calibrated(self, videos: dict[tuple, list[float]]) -> Calibration:
        return fit_calibration(
            np.array([np.mean(scores) for scores in videos.values()]),
            np.array([key[2] for key in videos]), fewest=2,
        )  # fmt: skip

    def _on_photos(self, network: keras.Model) -> list[tuple]:
        """Each unseen photo's row of held_out.csv, its logit as the network has it."""
        see = compiled(keras.Model(network.input, network.layers[-1].input))
        kernel, bias = network.layers[-1].get_weights()
        rows = [(crop, self._row(see, crop.path)) for crop in self.photos]
        return [
            ("photo", crop.video, crop.group, crop.is_fake, float(row @ kernel[:, 0] + bias[0]))
            for crop, row in rows if row is not None
        ]  # fmt: skip

    def _write_held_out(self, rows: list[tuple]) -> None:
        path = self.output / HELD_OUT_NAME
        datasets = {crop.video: crop.dataset for crop in (*self.shown, *self.photos)}
        with in_one_step(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("kind", "dataset", "video", "group", "label", "logit"))
            for kind, video, group, is_fake, logit in rows:
                label = "fake" if is_fake else "real"
                dataset = datasets.get(video, "")
                writer.writerow((kind, dataset, video, group, label, f"{logit:.4f}"))


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


def _unseen_photos(crops: list[Crop], shown: list[Crop]) -> list[Crop]:
    """Photos of whom nothing is shown."""
    seen = {crop.group for crop in shown}
    return [
        crop for crop in crops
        if is_image(Path(crop.video)) and not crop.augmented and crop.group not in seen
    ]  # fmt: skip


def equal_weights(videos: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights that sum to 1: half for each label, within it the same for each video, (n,)."""
    keys = [f"{label} {video}" for video, label in zip(videos, labels, strict=True)]
    _, which, counts = np.unique(keys, return_inverse=True, return_counts=True)
    weights = 1.0 / counts[which]
    for label in (0, 1):
        weights[labels == label] /= 2 * weights[labels == label].sum()
    return weights


def _figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    signed = np.where(labels, logits, -logits)
    return {
        "loss": float(np.logaddexp(0, -signed).mean()), "accuracy": float((signed > 0).mean())
    }  # fmt: skip
