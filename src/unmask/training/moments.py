"""Fit the head 'moments': features of a frozen network once, then one linear system.

Minutes instead of hours, and where real fakes are few it carries further to generators that were
never seen than training every layer does (measured: docs/model.md). What stands in the system is
in ``rows``: with ``degrade`` copies of crops as well, with ``pseudo_fakes`` drawn pairs. The
solution is ridge regression of the label; Platt's scale on held-out videos then makes
probabilities of it. With ``local_steps`` a branch is added that learns to see local forgeries where
they are (``local``).
"""

import csv
import json
import time
from collections import defaultdict
from copy import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from sklearn.metrics import roc_auc_score

from unmask.data.index import Crop
from unmask.errors import DatasetError
from unmask.outputs import in_one_step
from unmask.runtime import Network
from unmask.training import local, model_file, xception
from unmask.training.batches import Batches
from unmask.training.calibrate import Calibration, fit_calibration
from unmask.training.export import compiled
from unmask.training.interrupt import StopSignals
from unmask.training.ridge import solve
from unmask.training.rows import Looker, as_they_are, see_drawn, unseen_photos
from unmask.training.run_folder import (
    CARD_NAME,
    check_resumes,
    check_same,
    run_card,
    write_card,
)

# isort: split
import keras

HELD_OUT_NAME = "held_out.csv"
"""Each training video's logit by a head that never saw its group, and those of unseen photos."""

FOLDS = 20  # parts of the groups that are held out in turn
# Of settings, when a run is gone on with. Not its length: the last features would lack batches.
_FREE_TO_CHANGE = ("resume", "ridge")
_FREE_WITH_LOCAL = ("resume",)  # the branch was taught beside the head that the ridge gave


def features_of(model: Path) -> Network:
    """What the head of a saved network with this head looks at: crops -> (n, d)."""
    network = model_file.load(model)
    return compiled(keras.Model(network.input, network.get_layer(xception.MOMENTS).output))


class Moments:
    """One run of 'unmask train --head moments'; what was computed survives a kill."""

    def __init__(
        self, split: Path, output: Path, settings: SimpleNamespace, train: list[Crop],
        batches: Batches,
    ):  # fmt: skip
        self.output, self.settings, self.batches = output, settings, batches
        self.shown = as_they_are(train)
        self.photos = unseen_photos(train, self.shown)
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
        self.look = Looker(split, self.chunks, settings.size, settings.seed, self._check)

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
            rows, judged = self.look.rows(
                see, self.shown, bool(s.degrade), self.batches, self._steps()
            )
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
        how = xception.policy_for(s.mixed_precision)
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
            return np.concatenate([self.look.crop(see, path) for path in paths.tolist()])
        drawn = see_drawn(see, self.batches, 0, self._steps(), self._check)
        return drawn["features"][:, 0]

    def _on_photos(self, network: keras.Model) -> list[tuple]:
        """Each unseen photo's row of held_out.csv, its logit as the network has it."""
        if not self.photos:
            return []
        see = compiled(keras.Model(network.input, network.layers[-1].input))
        kernel, bias = network.layers[-1].get_weights()
        rows = [(crop, self.look.crop(see, crop.path)) for crop in self.photos]
        return [
            ("photo", crop.video, crop.group, crop.is_fake, float(row @ kernel[:, 0] + bias[0]))
            for crop, row in rows if row is not None
        ]  # fmt: skip

    def _steps(self) -> int:
        return (self.settings.steps_per_epoch or len(self.batches)) * self.settings.epochs

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


def _figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    signed = np.where(labels, logits, -logits)
    return {
        "loss": float(np.logaddexp(0, -signed).mean()), "accuracy": float((signed > 0).mean())
    }  # fmt: skip
