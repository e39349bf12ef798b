"""What every training run leaves and needs: a card, a history, its resumption."""

import csv
import hashlib
import json
import platform
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from unmask import __version__
from unmask.data.index import Crop
from unmask.errors import DatasetError
from unmask.outputs import in_one_step, write_whole
from unmask.training.batches import Batches

# isort: split
import keras
import tensorflow as tf

CARD_NAME = "run.json"


def check_free(output: Path, settings: SimpleNamespace) -> None:
    """Raise DatasetError where ``output`` holds a run that is not meant to be gone on with."""
    card = output / CARD_NAME
    if not card.exists():
        return
    if not settings.resume:
        raise DatasetError(
            f"{output} holds an earlier run: go on with it by --resume, or name another folder"
        )
    try:
        head = json.loads(card.read_text())["settings"]["head"]
    except (ValueError, KeyError) as error:
        raise DatasetError(f"{card} is damaged ({error}): train into another folder") from None
    if head != settings.head:
        raise DatasetError(
            f"{output} holds a run with --head {head}: go on with that one, or name another folder"
        )


def check_same(
    output: Path, earlier: dict, earlier_hash: str, settings: SimpleNamespace, data_hash: str,
    free: tuple[str, ...],
) -> None:  # fmt: skip
    """Raise DatasetError where settings, but for those ``free`` to change, or the crops changed."""
    now = vars(settings)
    changed = [k for k, value in earlier.items() if k not in free and now.get(k) != value]
    if changed or earlier_hash != data_hash:
        what = ", ".join(changed) or "the crops"
        raise DatasetError(
            f"{output} was trained with other settings ({what} changed): resume with the same "
            "ones, or train into another folder"
        )


def run_card(settings: SimpleNamespace, crops: list[Crop], batches: Batches) -> dict:
    """What must be known to train the same model again."""
    return {
        "settings": vars(settings),
        "data_sha256": hash_data(crops),
        "train_crops": {"real": len(batches.real), "fake": len(batches.fake)},
        "unmask": __version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "devices": [d.device_type for d in tf.config.list_physical_devices()],
    }


def write_card(card: dict, output: Path) -> None:
    """The run card as ``run.json``."""
    write_whole(output / CARD_NAME, json.dumps(card, indent=2) + "\n")


def write_history(history: list[dict], output: Path) -> None:
    """All epochs as ``history.csv``."""
    path = output / "history.csv"
    with in_one_step(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def hash_data(crops: list[Crop]) -> str:
    """What changes when the crops, or what is said of them, do."""
    rows = ["\t".join(map(str, astuple(crop))) for crop in crops]  # pixels tell by their sharpness
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
