"""Fit the head 'moments': features of a frozen network once, then one linear system.

Minutes instead of hours, and where real fakes are few it carries further to generators that were
never seen than training every layer does (measured: docs/model.md). What stands in the system is
in ``rows``: with ``degrade`` copies of crops as well, with ``pseudo_fakes`` drawn pairs. The
solution is ridge regression of the label; beside it stands, with a fixed share, how far from real
faces a crop is (``real_distance``). Platt's scale on held-out videos then makes probabilities of
it. With ``local_steps`` a branch is added that learns to see local forgeries where they are
(``local``).
"""

import csv
import json
import time
from collections import defaultdict
from collections.abc import Callable
from copy import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from sklearn.metrics import roc_auc_score

from unmask.data.index import Crop
from unmask.errors import DatasetError
from unmask.outputs import in_one_step
from unmask.runtime import Network
from unmask.training import local, model_file, real_distance, xception
from unmask.training.batches import Batches
from unmask.training.calibrate import Calibration, fit_calibration
from unmask.training.export import compiled
from unmask.training.interrupt import StopSignals
from unmask.training.ridge import solve
from unmask.training.rows import Looker, Rows, as_they_are, see_drawn, unseen_photos
from unmask.training.run_folder import (
    CARD_NAME,
    check_free,
    check_same,
    run_card,
    write_card,
)

# isort: split
import keras

HELD_OUT_NAME = "held_out.csv"
"""Each training video's logit by a head that never saw its group, and those of unseen photos."""

_START = "start.h5"  # the layers that saved features came from
FOLDS = 20  # parts of the groups that are held out in turn
# Of settings, when a run is gone on with. Not its length: the last features would lack batches.
_FREE_TO_CHANGE = ("resume", "ridge")
_FREE_WITH_LOCAL = ("resume",)  # the branch was taught beside the head that the ridge gave


def features_of(model: Path) -> Network:
    """The textures' moments that the head of a saved network judges: crops -> (n, d)."""
    network = model_file.load(model)
    return compiled(keras.Model(network.input, network.get_layer(xception.MOMENTS).output))


class Moments:
    """One run of 'unmask train --head moments'; features and the branch survive a kill."""

    def __init__(
        self, split: Path, output: Path, settings: SimpleNamespace, train: list[Crop],
        batches: Batches,
    ):  # fmt: skip
        self.output, self.settings, self.batches = output, settings, batches
        self.shown = as_they_are(train)
        self.photos = unseen_photos(train, self.shown)
        self.chunks = output / "features"
        self.weights_path = output / "xception_best.h5"
        self.card = run_card(settings, train, batches)
        check_free(output, settings)
        if (self.chunks / _START).exists():
            card = output / CARD_NAME
            if not card.exists():
                raise DatasetError(f"{card} is gone: train into another folder")
            earlier = json.loads(card.read_text())
            check_same(
                output, earlier["settings"], earlier["data_sha256"], settings,
                self.card["data_sha256"],
                _FREE_WITH_LOCAL if settings.local_steps else _FREE_TO_CHANGE,
            )  # fmt: skip
        self.chunks.mkdir(parents=True, exist_ok=True)
        self.look = Looker(split, self.chunks, settings.size, settings.seed, self._check)

    def fit(self) -> dict[str, float]:
        """Features, solution, weights; returns the row of the history."""
        s, started = self.settings, time.monotonic()
        keras.utils.set_random_seed(s.seed)
        network = xception.build(s.size, s.dropout, head="moments")
        # What is gone on with keeps the layers that its saved features came from.
        start = self.chunks / _START
        model_file.initialise(network, str(start) if start.exists() else s.init)
        write_card(self.card, self.output)
        if not start.exists():
            model_file.save(network, start, s.size)
        see = features_of(start)
        with StopSignals() as self.stop:
            rows, judged = self.look.rows(
                see, self.shown, bool(s.degrade), self.batches, self._steps()
            )
            if rows.labels.all():
                raise DatasetError(
                    "no crop of a moving picture is real: the head 'moments' needs some"
                )
            folds = self._folds(rows.groups)
            found = solve(rows.features, rows.labels, rows.weights, folds, s.ridge)
            held_out = found.held_out[judged]
            fitted = rows.features[judged] @ found.kernel + found.bias
            apart, far = teach_distance(network, rows, judged, folds, self._seen)
            share = real_distance.share(*(
                list(_of_videos(rows, judged, each).values()) for each in (held_out, apart)
            ))  # fmt: skip
            held_out, fitted = held_out + share * apart, fitted + share * far
            network.layers[-1].set_weights([
                np.append(found.kernel, share)[:, None].astype(np.float32), np.float32([found.bias])
            ])  # fmt: skip
            if s.local_steps:
                network = self._with_local(network)
                added = self._seen(_branch_of(network), rows.paths[judged])[:, 0]
                held_out, fitted = (
                    local.SHARPNESS * logits + added for logits in (held_out, fitted)
                )
            on_photos = self._on_photos(network)
        labels, videos = rows.labels[judged], _of_videos(rows, judged, held_out)
        calibration = self._calibrated(videos)
        scale, offset = calibration.scale, calibration.offset
        kernel, bias = network.layers[-1].get_weights()
        network.layers[-1].set_weights([kernel * scale, bias * scale + offset])
        model_file.save(network, self.weights_path, s.size)
        seen = [("shown", *video, logit) for video, logit in videos.items()] + on_photos
        self._write_held_out([(*video, logit * scale + offset) for *video, logit in seen])
        training, validation = (
            _figures(logits * scale + offset, labels) for logits in (fitted, held_out)
        )
        return {
            "epoch": 1, **training, **{f"val_{k}": v for k, v in validation.items()},
            "val_auc": roc_auc_score([key[2] for key in videos], list(videos.values())),
            "learning_rate": s.learning_rate if s.local_steps else 0.0,
            "seconds": time.monotonic() - started,
        }  # fmt: skip

    def _with_local(self, network: keras.Model) -> keras.Model:
        """The network with a branch that has learned, and a last layer that gives logits."""
        from rich.console import Console
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
        shown = track(drawn, "local", s.local_steps - done, console=Console(stderr=True))
        local.learn(
            whole, local.below(network), shown, s.local_steps, s.learning_rate, s.average,
            lambda: self.stop.asked, checkpoint,
        )  # fmt: skip
        kernel, bias = network.layers[-1].get_weights()
        kernel = np.concatenate([local.SHARPNESS * kernel, [[1.0]]])
        whole.layers[-1].set_weights([kernel, local.SHARPNESS * bias])
        return xception.in_float32(whole, s.size)

    def _seen(self, see: Network, paths: np.ndarray) -> np.ndarray:
        """What a network makes of each of these crops, or of each one drawn, (n, d)."""
        if all(paths):
            return np.stack([self.look.crop(see, path) for path in paths.tolist()])
        return see_drawn(see, self.batches, 0, self._steps(), self._check)["features"]

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

    def _calibrated(self, videos: dict[tuple, float]) -> Calibration:
        return fit_calibration(
            np.array(list(videos.values())), np.array([key[2] for key in videos]), fewest=2
        )

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


def teach_distance(
    network: keras.Model, rows: Rows, judged: slice, folds: np.ndarray,
    seen: Callable[[Network, np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Have the network compare with all real cells; how far the judged crops are, (n,) twice.

    First from the real cells of the other folds, then from all. ``seen`` says what a network makes
    of the crops at these paths, (n, d).
    """
    weights = rows.weights * (rows.labels == 0)
    reals = real_distance.real_cells_of_folds(rows.features, weights, folds)
    far = seen(compiled(real_distance.network_of(network, reals)), rows.paths[judged])
    everybody = real_distance.RealCells(reals.mean[-1:], reals.distance[-1:])
    real_distance.teach(network, everybody)
    return far[np.arange(len(far)), folds[judged]], far[:, -1]


def _of_videos(rows: Rows, judged: slice, scores: np.ndarray) -> dict[tuple, float]:
    """The mean score of each video, by its name, group and label."""
    videos = defaultdict(list)
    named = zip(rows.videos[judged], rows.groups[judged], rows.labels[judged], scores, strict=True)
    for *video, score in named:
        videos[tuple(video)].append(score)
    return {video: float(np.mean(each)) for video, each in videos.items()}


def _branch_of(whole: keras.Model) -> Network:
    """What the branch adds to a crop, on average over its cells: crops -> (n, 1)."""
    return compiled(keras.Model(whole.input, whole.get_layer(xception.LOCAL_MEAN).output))


def _figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    signed = np.where(labels, logits, -logits)
    return {
        "loss": float(np.logaddexp(0, -signed).mean()), "accuracy": float((signed > 0).mean())
    }  # fmt: skip
