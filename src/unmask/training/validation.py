"""What training is validated on after each epoch, and the figures of it."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from unmask.data.index import Crop
from unmask.data.pseudo_fakes import forge
from unmask.data.warps import Portrait
from unmask.errors import DatasetError, ModelError
from unmask.mesh import FaceMesh
from unmask.training.batches import read_crop

# isort: split
import keras

_BATCH = 32


class Validation:
    """Crops to validate on and their pictures, read once; arguments are those of ``read_set``.

    Raises DatasetError when a label is missing.
    """

    def __init__(
        self, folder: Path, crops: list[Crop], size: int, seed: int,
        families: Mapping[str, float] | None,
    ):  # fmt: skip
        self.crops, self._images = read_set(folder, crops, size, seed, families)
        if len({crop.is_fake for crop in self.crops}) < 2:
            raise DatasetError(
                "validation needs real and fake crops: add videos, or give 'unmask split' another "
                "--seed or --ratios"
            )

    def measure(self, model: keras.Model) -> dict[str, float]:
        """Loss and accuracy over the crops, AUC over their videos (mean of logits).

        Raises ModelError when the model gives no numbers.
        """
        fake = np.concatenate([
            model.predict_on_batch(
                np.stack(self._images[i : i + _BATCH]).astype(np.float32) / 255
            )[:, 0]
            for i in range(0, len(self._images), _BATCH)
        ])  # fmt: skip
        if not np.isfinite(fake).all():
            raise ModelError("training ran away to no number: try a lower --learning-rate")
        labels = np.array([crop.is_fake for crop in self.crops])
        fake = np.clip(fake, 1e-7, 1 - 1e-7)
        videos: dict[tuple, list[float]] = defaultdict(list)
        for crop, logit in zip(self.crops, np.log(fake / (1 - fake)), strict=True):
            videos[crop.source].append(logit)
        return {
            "val_loss": float(-np.log(np.where(labels, fake, 1 - fake)).mean()),
            "val_accuracy": float(((fake > 0.5) == labels).mean()),
            "val_auc": float(
                roc_auc_score(
                    [label == "fake" for _, label, *_ in videos],
                    [np.mean(v) for v in videos.values()],
                )
            ),
        }


def read_set(
    folder: Path, crops: list[Crop], size: int, seed: int, families: Mapping[str, float] | None
) -> tuple[list[Crop], list[np.ndarray]]:
    """Crops to validate on and their pictures; unreadable ones are left out.

    Where there is no real fake among them, one fake of each real crop is synthesised, always the
    same; ``families`` says how often each family is taken (None: nothing is synthesised).
    """
    read = [(crop, read_crop(folder / crop.path, size)) for crop in crops]
    shown = [(crop, image) for crop, image in read if image is not None]
    if families and not any(crop.is_fake for crop, _ in shown):
        face_mesh, rng, previous = FaceMesh(threads=1), np.random.default_rng(seed), None
        for crop, image in shown.copy():
            points = face_mesh.points(image)
            if points is not None:
                face = Portrait(image, points)
                fake, _ = forge(face, previous or face, rng, families)
                altered = replace(crop, label="fake", video=crop.video + "#synthesised")
                shown.append((altered, fake))
                previous = face
    return [crop for crop, _ in shown], [image for _, image in shown]
