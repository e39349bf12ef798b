"""What a model is and says of itself: its files, side by side. Loads no runtime.

``NAME.xml`` and ``NAME.bin`` are the network, which carries its own scaling of the pixels;
``NAME.json`` is its card: name, version, sha256, input size and calibration. ``NAME.onnx`` is the
same network for NVIDIA's processors and other programs. 'unmask export' makes all four from a
trained ``.h5``.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

from unmask.calibration import calibrated
from unmask.errors import ModelError

SHIPPED = Path(__file__).parent / "weights" / "xception.xml"
SHIPPED_NAME = "shipped"
"""What people may call that model."""

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
    them, None without one. ``measured`` is None where nobody recorded how good the model is,
    ``onnx_sha256`` where no .onnx beside it is to be run.
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
    onnx_sha256: str | None = None


def find_model(model: str | Path | None) -> Path:
    """The .xml of the model that is meant: without one, or with SHIPPED_NAME, Unmask's own."""
    return Path(model) if model and str(model) != SHIPPED_NAME else SHIPPED


def read_card(model: str | Path | None, calibration: str | Path | None = None) -> Card:
    """The card of a model whose weights are known to fit it, with the ``calibration`` file in it.

    The network itself is not loaded. Raises ModelError when a file is missing, is damaged or does
    not fit.
    """
    card = _read_card(find_model(model))
    return calibrated(card, calibration) if calibration else card


def find_onnx(model: Path, card: Card) -> Path:
    """The .onnx beside a model (an .xml), once it is known to be what its card says.

    Raises ModelError when there is none that can be run.
    """
    path = model.with_suffix(".onnx")
    if not card.onnx_sha256:
        raise ModelError(
            f"{model.name} runs on the ordinary processor only: make it again with 'unmask export' "
            "(its int8 form never runs elsewhere), or leave --device away"
        )
    if not path.is_file():
        raise ModelError(f"{path.name} not found in {path.parent}: {_again(model)}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != card.onnx_sha256:
        raise ModelError(f"{path.name} is not what its card says: {_again(model)}")
    return path


def weights_sha256(model: Path) -> str:
    """The checksum of a model (an .xml): of that file followed by its .bin."""
    return hashlib.sha256(model.read_bytes() + model.with_suffix(".bin").read_bytes()).hexdigest()


def _read_card(path: Path) -> Card:
    """The card of the model at ``path`` (an .xml file), once its weights are known to fit it."""
    _check_name(path)
    again = _again(path)
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
            onnx_sha256=fields.get("onnx_sha256"),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{files[2].name} is no model card ({error!r}): {again}") from None
    numbers = card.scale, card.offset, card.photo_offset
    if not (card.input_size > 0 and all(map(math.isfinite, numbers))):
        raise ModelError(f"{files[2].name} has an impossible size or calibration: {again}")
    if weights_sha256(path) != card.sha256:
        raise ModelError(f"{path.name} or {files[1].name} is not what its card says: {again}")
    return card


def _again(model: Path) -> str:
    """What to do about files that are missing or damaged."""
    return (
        "reinstall Unmask" if model == SHIPPED else f"make {model.stem} again with 'unmask export'"
    )


def _check_name(path: Path) -> None:
    """Raise ModelError where ``path`` is another form of a model, or not the whole name of one."""
    if path.suffix.lower() == ".onnx":
        raise ModelError(f"{path.name} is not the form that is run here: give the .xml beside it")
    if path.suffix.lower() in _TRAINED_SUFFIXES:
        raise ModelError(
            f"{path.name} is a trained model, not the form that is run here: turn it into that "
            f"with 'unmask export {path}', then give the .xml file"
        )
    if path.is_dir():
        models = " or ".join(map(str, sorted(path.glob("*.xml"))))
        raise ModelError(f"{path} is a folder: give {models or 'the .xml file of a model'}")
    named = path.with_name(f"{path.name}.xml")
    if not path.exists() and named.is_file():
        raise ModelError(f"{path} is not there: give {named}")
