"""Judge face crops: crops -> calibrated logits. A model is three files side by side.

``NAME.xml`` and ``NAME.bin`` are the network, which carries its own scaling of the pixels;
``NAME.json`` is its card: name, version, sha256, input size and calibration. 'unmask export' makes
all three from a trained ``.h5``.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unmask.calibration import calibrated
from unmask.errors import ModelError
from unmask.runtime import WEIGHTS, compile_model

SHIPPED = WEIGHTS / "xception.xml"
_TRAINED_SUFFIXES = (".h5", ".keras")


@dataclass(frozen=True)
class Measured:
    """How often a model was wrong on the labelled videos of ``set``, as 'evaluate --record' found.

    ``videos`` counts them as 'real' and 'fake'. The figures are the value and its 95 % interval,
    None where there is none; they hold for ``threshold``. ``uncertain`` is a share of all videos,
    ``date`` ISO 8601.
    """

    set: str
    videos: dict[str, int]
    roc_auc: tuple[float, float | None, float | None]
    recall: tuple[float, float | None, float | None]
    false_positive_rate: tuple[float, float | None, float | None]
    uncertain: float
    threshold: float
    date: str

    def __post_init__(self) -> None:
        figures = (self.roc_auc, self.recall, self.false_positive_rate)
        numbers = [n for figure in figures for n in figure if n is not None]
        if not all(0 <= n <= 1 for n in (*numbers, self.uncertain, self.threshold)):
            raise ValueError("a measured figure is not between 0 and 1")
        if any(len(figure) != 3 or figure[0] is None for figure in figures):
            raise ValueError("a measured figure is not a value and its interval")
        if not all(type(self.videos[label]) is int for label in ("real", "fake")):
            raise ValueError("the measured videos are not counted")


@dataclass(frozen=True)
class Card:
    """What a model says of itself.

    ``sha256`` is its ``weights_sha256``; ``input_size`` the side of a crop in pixels; ``scale`` and
    ``offset`` calibrate: logit * scale + offset, to which the ``photo_offset`` is added where the
    face is in a photo. ``calibration`` is the sha256 of the user's calibration file that is in
    them, None without one. ``measured`` is None where nobody recorded how good the model is.
    """

    name: str
    version: str
    sha256: str
    input_size: int
    scale: float
    offset: float
    calibration: str | None = None
    measured: Measured | None = None
    photo_offset: float = 0.0


class Classifier:
    """Tells how fake face crops look. Loaded once, used for any number of videos.

    ``model`` None is the one shipped with Unmask; ``calibration`` a file that 'unmask calibrate'
    made for it. So many threads as it has ``streams`` may use it side by side. Raises ModelError
    when a file is missing, is damaged or does not fit.
    """

    def __init__(
        self, model: str | Path | None = None, threads: int = 0, precision: str = "auto",
        calibration: str | Path | None = None, streams: int = 1,
    ):  # fmt: skip
        path = Path(model) if model else SHIPPED
        self.card = _read_card(path)
        if calibration:
            self.card = calibrated(self.card, calibration)
        self._network = compile_model(path, threads, precision, streams)

    def logits(self, crops: np.ndarray, is_photo: bool | Sequence[bool] = False) -> np.ndarray:
        """Calibrated logits of fake, ``float32`` (n,), of RGB ``uint8`` crops (n, S, S, 3).

        ``is_photo`` says of all of them, or of each, that it is of a photo rather than of a moving
        picture.
        """
        return self._calibrated(self._network(crops)["logit"].reshape(-1), is_photo)

    def evidence(self, crops: np.ndarray, is_photo: bool = False) -> np.ndarray:
        """What each part of the crops has to say: calibrated logits of fake, float32 (n, h, w).

        A map's mean is the crop's logit, so ``logits`` need not be called as well; crops are as
        there. Raises ModelError when the model was exported before it could tell.
        """
        try:
            raw = self._network(crops)["evidence"]
        except KeyError:
            raise ModelError(
                f"the model {self.card.name} {self.card.version} cannot tell where it looks: "
                "export it again with 'unmask export'"
            ) from None
        return self._calibrated(raw, is_photo)

    def _calibrated(self, raw: np.ndarray, is_photo: bool | Sequence[bool]) -> np.ndarray:
        if not np.isfinite(raw).all():
            raise ModelError(
                f"the model {self.card.name} gave no number for a face: try --precision f32, or "
                "export it again"
            )
        offset = self.card.offset + np.multiply(is_photo, self.card.photo_offset)
        return (raw * self.card.scale + offset).astype(np.float32)


def weights_sha256(model: Path) -> str:
    """The checksum of a model (an .xml): of that file followed by its .bin."""
    return hashlib.sha256(model.read_bytes() + model.with_suffix(".bin").read_bytes()).hexdigest()


def _read_card(path: Path) -> Card:
    """The card of the model at ``path`` (an .xml file), once its weights are known to fit it."""
    if path.suffix.lower() == ".onnx":
        raise ModelError(f"{path.name} is not the form that is run here: give the .xml beside it")
    if path.suffix.lower() in _TRAINED_SUFFIXES:
        raise ModelError(
            f"{path.name} is a trained model, not the form that is run here: turn it into that "
            f"with 'unmask export {path}', then give the .xml file"
        )
    again = (
        "reinstall Unmask" if path == SHIPPED else f"make {path.stem} again with 'unmask export'"
    )
    files = [path, path.with_suffix(".bin"), path.with_suffix(".json")]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelError(f"{' and '.join(missing)} not found in {path.parent}: {again}")
    try:
        fields = json.loads(files[2].read_bytes())
        calibration = fields["calibration"]
        card = Card(
            str(fields["name"]), str(fields["version"]), str(fields["sha256"]),
            int(fields["input_size"]), float(calibration["scale"]), float(calibration["offset"]),
            measured=Measured(**fields["measured"]) if fields.get("measured") else None,
            photo_offset=float(calibration.get("photo_offset", 0.0)),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{files[2].name} is no model card ({error!r}): {again}") from None
    numbers = card.scale, card.offset, card.photo_offset
    if not (card.input_size > 0 and all(map(math.isfinite, numbers))):
        raise ModelError(f"{files[2].name} has an impossible size or calibration: {again}")
    if weights_sha256(path) != card.sha256:
        raise ModelError(f"{path.name} or {files[1].name} is not what its card says: {again}")
    return card
