"""Fit the head 'moments': features of a frozen network once, then one linear system.

Minutes instead of hours, and where real fakes are few it carries further to generators that were
never seen than training every layer does (measured: docs/model.md). Two kinds of rows stand in the
system: crops of moving pictures as they are, every video weighing the same, and the pairs that
training draws, degraded and synthesised (``Batches``). The solution is ridge regression of the
label; Platt's scale on held-out videos then makes probabilities of it.
"""

import csv
import json
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from zipfile import BadZipFile

import numpy as np
import scipy.linalg
from sklearn.metrics import roc_auc_score

from unmask.data.index import Crop, without_stills
from unmask.errors import DatasetError
from unmask.outputs import in_one_step
from unmask.runtime import Network, compile_model
from unmask.training import xception
from unmask.training.batches import Batches, read_crop
from unmask.training.calibrate import Calibration, fit_calibration
from unmask.training.fit import CARD_NAME, check_resumes, check_same, run_card, write_card
from unmask.training.interrupt import StopSignals

# isort: split
import keras

HELD_OUT_NAME = "held_out.csv"
"""Each training video's logit by a head that never saw its group."""

FOLDS = 20  # parts of the groups that are held out in turn
_FRAMES = 8  # crops of a video that count as they are
_AS_THEY_ARE = 0.3  # their share of all weight
# Of settings, when a run is gone on with. Not its length: the last features would lack batches.
_FREE_TO_CHANGE = ("resume", "ridge")
_CHUNK = 20  # batches whose features are saved together


def features_of(model: Path) -> Network:
    """What the head of a saved network with this head looks at: crops -> (n, 4368)."""
    from unmask.training.export import write_onnx

    network = xception.load(model)
    below = keras.Model(network.input, network.get_layer(xception.MOMENTS).output)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "below.onnx"
        write_onnx(below, path)
        return compile_model(path)


def solve(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray, folds: np.ndarray, ridge: float
) -> tuple[np.ndarray, float, np.ndarray]:
    """Weighted ridge regression of 1 (fake) and -1 (real), and the same with folds held out.

    ``features`` (n, d), the others (n,); ``ridge`` is added to the variance of each feature, which
    is 1 after standardising. Returns the kernel (d,) and bias, and for each row what the solution
    without its fold makes of it, (n,).
    """
    used = weights / weights.sum()
    mean = used @ features
    spread = np.sqrt(used @ np.square(features - mean)) + 1e-6
    rows = np.hstack([(features - mean) / spread, np.ones((len(features), 1))]).astype(np.float64)
    targets = np.where(labels, 1.0, -1.0)
    weighted = rows * used[:, None]
    gram, right = weighted.T @ rows, weighted.T @ targets
    penalty = ridge * np.eye(len(gram))
    penalty[-1, -1] = 1e-9  # the bias is free

    def solution(fold: np.ndarray | None = None) -> np.ndarray:
        left, to = gram + penalty, right
        if fold is not None:
            left, to = (
                left - weighted[fold].T @ rows[fold],
                right - weighted[fold].T @ targets[fold],
            )
        return scipy.linalg.solve(left, to, assume_a="pos", overwrite_a=True)

    held_out = np.zeros(len(rows))
    for number in np.unique(folds):
        fold = folds == number
        held_out[fold] = rows[fold] @ solution(fold)
    whole = solution()
    kernel = whole[:-1] / spread
    return kernel, float(whole[-1] - kernel @ mean), held_out


class Moments:
    """One run of 'unmask train --head moments'; features once seen survive a kill."""

    def __init__(
        self, split: Path, output: Path, settings: SimpleNamespace, train: list[Crop],
        batches: Batches,
    ):  # fmt: skip
        self.split, self.output, self.settings, self.batches = split, output, settings, batches
        self.shown = _some_of_each_video(without_stills([c for c in train if not c.augmented]))
        self.chunks = output / "features"
        self.weights_path = output / "xception_best.h5"
        card = run_card(settings, train, batches)
        if self.chunks.exists():
            check_resumes(output, settings)
            earlier = json.loads((output / CARD_NAME).read_text())
            check_same(
                output, earlier["settings"], earlier["data_sha256"], settings,
                card["data_sha256"], _FREE_TO_CHANGE,
            )  # fmt: skip
        self.chunks.mkdir(parents=True, exist_ok=True)
        write_card(card, output)

    def fit(self) -> dict[str, float]:
        """Features, solution, weights; returns the row of the history."""
        s, started = self.settings, time.monotonic()
        keras.utils.set_random_seed(s.seed)
        network = xception.build(s.size, s.dropout, head="moments")
        # What is gone on with keeps the layers that its saved features came from.
        begun = self.weights_path.exists()
        xception.initialise(network, str(self.weights_path) if begun else s.init)
        xception.save(network, self.weights_path, s.size)
        see = features_of(self.weights_path)
        with StopSignals() as self.stop:
            shown = self._chunk("shown", lambda: self._see_shown(see))
            drawn = self._draw(see)
        features = np.concatenate([shown["features"], drawn["features"]])
        labels = np.concatenate([shown["labels"], drawn["labels"]])
        groups = np.concatenate([shown["groups"], drawn["groups"]])
        weights = np.concatenate([
            _AS_THEY_ARE * _equal(shown["videos"], shown["labels"]),
            np.full(len(drawn["labels"]), (1 - _AS_THEY_ARE) / len(drawn["labels"])),
        ])  # fmt: skip
        kernel, bias, held_out = solve(features, labels, weights, self._folds(groups), s.ridge)
        count = len(shown["labels"])
        videos = defaultdict(list)
        for key in zip(shown["videos"], shown["groups"], shown["labels"], held_out, strict=False):
            videos[key[:3]].append(key[3])
        if not shown["labels"].any():  # no real fakes: those that were synthesised stand for them
            for group, is_fake, score in zip(
                drawn["groups"], drawn["labels"], held_out[count:], strict=True
            ):
                if is_fake:
                    videos[f"synthesised from {group}", group, is_fake].append(score)
        found = self._calibrated(videos)
        held_out = held_out * found.scale + found.offset
        kernel, bias = kernel * found.scale, bias * found.scale + found.offset
        network.set_weights([
            *network.get_weights()[:-2], kernel[:, None].astype(np.float32),
            np.array([bias], np.float32),
        ])  # fmt: skip
        xception.save(network, self.weights_path, s.size)
        self._write_held_out(videos, found)
        judged = features @ kernel.astype(np.float32) + bias
        return {
            "epoch": 1, **_figures(judged[count:], labels[count:]),
            **{f"val_{k}": v for k, v in _figures(held_out[:count], labels[:count]).items()},
            "val_auc": roc_auc_score(
                [key[2] for key in videos], [np.mean(scores) for scores in videos.values()]
            ),
            "learning_rate": 0.0, "seconds": time.monotonic() - started,
        }  # fmt: skip

    def _see_shown(self, see: Network) -> dict[str, np.ndarray]:
        features, kept = [], []
        for crop in self.shown:
            image = read_crop(self.split / crop.path, self.settings.size)
            if image is None:
                continue
            self._check()
            features.append(see(image[None].astype(np.float32) / 255)[0][0])
            kept.append(crop)
        return {
            "features": np.stack(features), "labels": np.array([c.is_fake for c in kept]),
            "groups": np.array([c.group for c in kept]),
            "videos": np.array([c.video for c in kept]),
        }  # fmt: skip

    def _draw(self, see: Network) -> dict[str, np.ndarray]:
        """Features of the drawn batches; those already in a chunk are not drawn again."""
        from rich.progress import track

        s = self.settings
        steps = (s.steps_per_epoch or len(self.batches)) * s.epochs
        chunks = []
        for first in track(range(0, steps, _CHUNK), "features"):
            last = min(steps, first + _CHUNK)
            chunks.append(self._chunk(f"{first:06}", lambda a=first, b=last: self._see(see, a, b)))
        return {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}

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

    def _write_held_out(self, videos: dict[tuple, list[float]], found: Calibration) -> None:
        path = self.output / HELD_OUT_NAME
        with in_one_step(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("video", "group", "label", "logit"))
            for (video, group, is_fake), scores in videos.items():
                mean = np.mean(scores) * found.scale + found.offset
                writer.writerow((video, group, "fake" if is_fake else "real", f"{mean:.4f}"))


def _some_of_each_video(crops: list[Crop]) -> list[Crop]:
    """At most _FRAMES crops of each video, evenly spaced."""
    videos: dict[tuple[str, str], list[Crop]] = defaultdict(list)
    for crop in crops:
        videos[crop.video, crop.label].append(crop)
    return [
        seen[i]
        for seen in videos.values()
        for i in np.unique(np.linspace(0, len(seen) - 1, min(_FRAMES, len(seen))).astype(int))
    ]


def _equal(videos: np.ndarray, labels: np.ndarray) -> np.ndarray:
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
