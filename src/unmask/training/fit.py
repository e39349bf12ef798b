"""Train the detector: a split folder -> ``xception_best.h5``, logs, a curve and a run card."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from unmask.data.augment import Augmentation
from unmask.data.index import Crop, read_split, without_stills
from unmask.data.pseudo_fakes import parse_shares
from unmask.outputs import delete_half_written, exclusive
from unmask.settings import resolve
from unmask.training import model_file, xception
from unmask.training.average import Average
from unmask.training.batches import Batches
from unmask.training.checkpoint import load_checkpoint, save_checkpoint
from unmask.training.interrupt import StopSignals
from unmask.training.plots import learning_curve
from unmask.training.run_folder import (
    check_free,
    check_same,
    hash_data,
    run_card,
    write_card,
    write_history,
)
from unmask.training.schedule import has_stalled, is_best, learning_rate
from unmask.training.validation import Validation

# isort: split
import keras
import tensorflow as tf

_CHECKPOINT_SECONDS = 600
_LOG_STEPS = 20  # between two lines of progress where there is no terminal for a bar
_FREE_TO_CHANGE = ("epochs", "resume", "patience")  # between an interrupted run and its resumption


@dataclass(frozen=True)
class Fitted:
    """What came of a training run; ``str()`` is a summary for people."""

    weights: Path
    history: list[dict]
    best: dict

    def __str__(self) -> str:
        chosen = ", ".join(
            f"{key.replace('val_', '')} {self.best[key]:.3f}"
            for key in ("val_loss", "val_accuracy", "val_auc")
        )
        return (
            f"trained {len(self.history)} epochs; kept epoch {self.best['epoch']} "
            f"(validation: {chosen})\n{self.weights}\nnext: unmask evaluate {self.weights}"
        )


def fit(split: Path, output: Path, **given) -> Fitted:
    """Train on ``split`` and leave everything in ``output``; settings as in ``unmask train``.

    An interrupted run goes on with ``resume=True``: it repeats at most ten minutes, and draws the
    same batches as if it had never stopped. The head 'moments' needs no ``val`` part: it holds out
    groups of ``train`` in turn. Raises DatasetError when there is too little to train or validate
    on, and when ``output`` holds another run.
    """
    settings = resolve("train", given)
    split, output = Path(split), Path(output)
    train = read_split(split, "train")
    output.mkdir(parents=True, exist_ok=True)
    with exclusive(output / ".lock", "train into another folder"):
        for folder in (output, output / "features"):
            delete_half_written(folder)
        if settings.head == "moments":
            return _fit_moments(split, output, settings, train)
        run = _Run(split, output, settings, train, read_split(split, "val"))
        run.train()
    return Fitted(run.best_path, run.history, run.history[run.best_epoch])


def _fit_moments(split: Path, output: Path, settings: SimpleNamespace, train: list[Crop]) -> Fitted:
    from unmask.training.moments import Moments  # brings the runtime and the exporter with it

    keras.utils.clear_session()
    run = Moments(split, output, settings, train, make_batches(split, train, settings))
    history = [run.fit()]
    write_history(history, output)
    return Fitted(run.weights_path, history, history[0])


class _Run:
    def __init__(
        self,
        split: Path,
        output: Path,
        settings: SimpleNamespace,
        train: list[Crop],
        val: list[Crop],
    ):
        self.settings, self.output = settings, output
        self.best_path = output / "xception_best.h5"
        self.history: list[dict] = []
        self.best_epoch = 0
        self.epoch = self.step = 0
        self.sums = np.zeros(2)  # loss and accuracy of the running epoch's steps
        self.data_hash = hash_data(train + val)
        self._checkpoint_path = output / "checkpoint.npz"
        check_free(output, settings)
        keras.utils.clear_session()  # what an earlier run in this process left
        keras.utils.set_random_seed(settings.seed)
        _let_gpu_memory_grow()
        self.batches = make_batches(split, train, settings)
        self.validation = Validation(
            split, without_stills(val), settings.size, settings.seed,
            self.batches.families if settings.pseudo_fakes else None,
        )  # fmt: skip
        self.steps = settings.steps_per_epoch or len(self.batches)
        is_resumed = settings.resume and self._checkpoint_path.exists()
        self._build(train, is_resumed)
        if is_resumed:
            self._restore()
        if self.history:
            self._write_logs()  # which the checkpoint may have been ahead of
        card = run_card(settings, train + val, self.batches)
        card["validation_crops"] = len(self.validation.crops)
        write_card(card, output)

    def _build(self, train: list[Crop], is_resumed: bool) -> None:
        s = self.settings
        self.model = xception.build(
            None if s.train_crop else s.size, s.dropout, xception.policy_for(s.mixed_precision)
        )
        if not is_resumed:
            model_file.initialise(self.model, s.init)
        self.model = xception.for_training(self.model)
        xception.set_trainable(self.model, s.trainable_layers)
        accumulate = s.accumulate if s.accumulate > 1 else None
        if s.optimizer == "adamw":
            optimizer = keras.optimizers.AdamW(
                s.learning_rate, weight_decay=s.weight_decay, gradient_accumulation_steps=accumulate
            )
        else:
            optimizer = keras.optimizers.Adam(
                s.learning_rate, gradient_accumulation_steps=accumulate
            )
        loss = keras.losses.BinaryCrossentropy(label_smoothing=s.label_smoothing)
        # XLA makes this network five times slower on a processor.
        self.model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
        self.model.optimizer.build(self.model.trainable_variables)
        self.average = Average(self.model, s.average)
        self.class_weight = None if self.batches.paired else _balanced(train)

    def train(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )  # fmt: skip

        columns = (
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"), BarColumn(),
            MofNCompleteColumn(), TextColumn("{task.fields[rate]:.1f} img/s"),
            TextColumn("loss {task.fields[loss]:.3f}"), TimeRemainingColumn(),
        )  # fmt: skip
        bar = Progress(
            *columns, refresh_per_second=2, console=Console(stderr=True),
            redirect_stdout=sys.stdout.isatty(),  # what is printed into a file stays in it
        )  # fmt: skip
        with bar as progress, StopSignals() as self.stop:
            while self.epoch < self.settings.epochs and not has_stalled(
                self.history, self.settings.patience
            ):
                self._train_epoch(progress)

    def _train_epoch(self, progress) -> None:
        s = self.settings
        task = progress.add_task(
            "", total=self.steps, completed=self.step, epoch=self.epoch + 1, epochs=s.epochs,
            rate=0.0, loss=0.0,
        )  # fmt: skip
        started, first, saved = time.monotonic(), self.step, time.monotonic()
        for crops, labels, *_ in self.batches.epoch(self.epoch, self.steps, skip=self.step):
            self.model.optimizer.learning_rate = self._learning_rate(self.step)
            self.model.reset_metrics()
            weights = self.class_weight
            self.sums += self.model.train_on_batch(crops, labels, class_weight=weights)
            self.step += 1
            self.average.update(self.epoch * self.steps + self.step)
            rate = (self.step - first) * len(crops) / (time.monotonic() - started)
            progress.update(task, completed=self.step, rate=rate, loss=self.sums[0] / self.step)
            if not progress.console.is_terminal and self.step % _LOG_STEPS == 0:
                print(f"epoch {self.epoch + 1} step {self.step}/{self.steps}: {rate:.1f} img/s, "
                      f"loss {self.sums[0] / self.step:.3f}", flush=True)  # fmt: skip
            if self.stop.asked or time.monotonic() - saved > _CHECKPOINT_SECONDS:
                self._save_checkpoint()
                saved = time.monotonic()
            if self.stop.asked:
                raise KeyboardInterrupt
        if self.step > first:
            self._save_checkpoint()  # whatever ends validation early, the steps are kept
        with self.average.in_place():
            validated = self.validation.measure(self.model)
        row = {
            "epoch": self.epoch + 1,
            "loss": self.sums[0] / self.step,
            "accuracy": self.sums[1] / self.step,
            **validated,
            "learning_rate": self._learning_rate(0),  # of the epoch's first step
            "seconds": time.monotonic() - started,
        }
        self.history.append(row)
        if is_best(self.history, s.select):
            self.best_epoch = self.epoch
            with self.average.in_place():
                model_file.save(self.model, self.best_path, s.size)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, np.zeros(2)
        self._save_checkpoint()
        self._write_logs()
        figures = ", ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "epoch")
        print(f"epoch {row['epoch']}: {figures}", flush=True)
        progress.remove_task(task)

    def _learning_rate(self, step: int) -> float:
        done = (self.epoch * self.steps + step + 1) / (self.settings.epochs * self.steps)
        return learning_rate(self.settings, self.history, done)

    def _save_checkpoint(self) -> None:
        state = {
            "epoch": self.epoch, "step": self.step, "sums": self.sums.tolist(),
            "history": self.history, "best_epoch": self.best_epoch,
            "settings": vars(self.settings), "data_hash": self.data_hash,
        }  # fmt: skip
        save_checkpoint(
            self._checkpoint_path, state, weight=self.model.get_weights(),
            optimizer=self.model.optimizer.variables, average=self.average.weights,
        )  # fmt: skip

    def _restore(self) -> None:
        state, saved = load_checkpoint(self._checkpoint_path)
        check_same(
            self.output, state["settings"], state["data_hash"], self.settings, self.data_hash,
            _FREE_TO_CHANGE,
        )  # fmt: skip
        self.model.set_weights(saved["weight"])
        for variable, value in zip(self.model.optimizer.variables, saved["optimizer"], strict=True):
            variable.assign(value)
        self.average.weights = saved["average"]
        self.epoch, self.step, self.sums = state["epoch"], state["step"], np.array(state["sums"])
        self.history, self.best_epoch = state["history"], state["best_epoch"]

    def _write_logs(self) -> None:
        write_history(self.history, self.output)
        writer = tf.summary.create_file_writer(str(self.output / "tensorboard"))
        row = self.history[-1]
        with writer.as_default(step=row["epoch"]):
            for key, value in row.items():
                if key != "epoch":
                    tf.summary.scalar(key, value)
        writer.close()
        learning_curve(self.history, self.output / "learning_curve.png")


def make_batches(split: Path, train: list[Crop], s: SimpleNamespace) -> Batches:
    """The batches that these settings ask for."""
    return Batches(
        split, train, size=s.size, batch=s.batch, seed=s.seed,
        pseudo_fakes=s.pseudo_fakes, families=parse_shares(s.families), degraded=s.degrade,
        paired=s.head == "moments", train_crop=0 if s.head == "moments" else s.train_crop,
        altered=Augmentation.of(s),
    )  # fmt: skip


def _balanced(crops: list[Crop]) -> dict[int, float]:
    """Class weights that let both classes count the same."""
    fakes = sum(crop.is_fake for crop in crops)
    return {0: len(crops) / (2 * (len(crops) - fakes)), 1: len(crops) / (2 * fakes)}


def _let_gpu_memory_grow() -> None:
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
