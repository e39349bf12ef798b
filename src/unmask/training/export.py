"""From a trained ``.h5`` to ONNX and to the form that detection runs, checked for parity."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import openvino

from unmask import __version__
from unmask.card import weights_sha256
from unmask.errors import DatasetError, ModelError
from unmask.faces import resized
from unmask.outputs import HALF_WRITTEN, in_one_step
from unmask.runtime import Network, compile_model
from unmask.training import model_file, xception
from unmask.training.batches import read_crop
from unmask.training.calibrate import Calibration, calibrate, calibrate_held_out, crops_to_fit
from unmask.verdict import sigmoid

OUTPUTS = ("probability", "logit", "evidence")
"""What the exported network gives: of fake, and what each cell says of it."""

PARITY = 1e-4
"""The largest difference in probability that ONNX may show against the h5."""


def export(
    model: Path,
    output: Path,
    crops: Path | None = None,
    calibrate_on: Path | None = None,
    int8_crops: Path | None = None,
    false_positives: float = 0.05,
) -> str:
    """Write ``NAME.onnx``, ``NAME.xml``, ``NAME.bin`` and the card ``NAME.json`` into ``output``.

    The ONNX takes RGB crops from 0 to 1, (n, S, S, 3), and gives OUTPUTS: (n, 1), (n, 1) and
    (n, h, w, 1).

    ``crops`` is a folder of face pictures on which h5 and ONNX must agree within PARITY (default:
    noise of every coarseness, so that a model can be exported anywhere). With a split folder to
    ``calibrate_on``, the card's scale and offset are fitted on its validation videos, with a
    ``held_out.csv`` on those; else they change nothing. ``int8_crops`` is as in ``quantize``.
    Returns a summary; raises ModelError when the exported model does not agree.
    """
    held_out = None
    if calibrate_on:  # what is too little is told before a minute's work
        if calibrate_on.is_file():
            held_out = calibrate_held_out(calibrate_on, false_positives)
        else:
            crops_to_fit(calibrate_on)
    keras_model = model_file.load(model)
    size = keras_model.input_shape[1]
    output.mkdir(parents=True, exist_ok=True)
    target = output / f"{model.stem}.xml"
    batch = _pictures(crops, size)
    pixels = batch.astype(np.float32) / 255
    expected = keras_model.predict(pixels, verbose=0)[:, 0]
    with in_one_step(target.with_suffix(".onnx")) as onnx, all_at_once(target) as partial:
        write_onnx(xception.with_evidence(keras_model), onnx, OUTPUTS)
        from_onnx = compile_model(onnx, precision="f32")(pixels)[0][:, 0]
        difference = float(np.abs(expected - from_onnx).max())
        if not difference < PARITY:
            raise ModelError(
                f"the ONNX differs from {model.name} by {difference:.1e}: do not use it"
            )
        _write_runtime_form(onnx, partial, size)
        logits = [compile_model(partial, precision=how)(batch)[0] for how in ("f32", "auto")]
        exact, usual = (np.abs(expected - [*map(sigmoid, each[:, 0])]).max() for each in logits)
        if calibrate_on:
            found = held_out or calibrate(partial, calibrate_on, false_positives)
            calibrated = _write_calibration(partial, found)
        elif xception.head_of(keras_model) == "pool":
            calibrated = "not calibrated: see --calibrate"
        else:
            calibrated = "calibrated when it was trained"
    int8 = ""
    if int8_crops:
        from unmask.training.quantize import quantize

        int8 = quantize(target, int8_crops) + "\n"
    return (
        f"exported {model.name} to {output}: on {len(batch)} pictures probabilities from ONNX "
        f"differ by {difference:.1e}, from the runtime form by {exact:.1e} in float32 and by "
        f"{usual:.1e} as 'unmask detect' runs it here\n"
        f"{calibrated}\n{int8}"
        f"next: unmask detect --model {target} PATH"
    )


def _write_calibration(network: Path, found: Calibration) -> str:
    """Put a calibration into a network's card; what it does, in words."""
    path = network.with_suffix(".json")
    card = json.loads(path.read_text())
    card["calibration"] = asdict(found)
    path.write_text(json.dumps(card, indent=2) + "\n")
    words = (
        f"calibrated on {found.real_videos} real and {found.fake_videos} fake videos: at 0.5, "
        f"{found.false_positive_rate:.1%} of these real and {found.true_positive_rate:.1%} of "
        "these fake ones are called fake"
    )
    if found.real_photos:
        words += (
            f"; photos get {found.photo_offset:+.2f}, by which "
            f"{found.photo_false_positive_rate:.1%} of {found.real_photos} real ones are"
        )
    return words


def runtime_form(model: Path) -> Path:
    """The runtime form of an ``.h5``, beside it; exported now if it is missing or older."""
    target = model.with_suffix(".xml")
    card = model.with_suffix(".json")
    if not (target.is_file() and card.is_file()) or (
        target.stat().st_mtime < model.stat().st_mtime
    ):
        export(model, model.parent)
    return target


def write_onnx(model, path: Path, outputs: Sequence[str] = ()) -> None:
    """A Keras model as ONNX; its input is called ``crops``, its ``outputs`` as is said."""
    import onnx
    import tensorflow as tf
    import tf2onnx

    def judge(crops):
        found = model(crops, training=False)
        return dict(zip(outputs, found, strict=True)) if outputs else found

    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="crops")]
    function = tf.function(judge, input_signature=signature)
    network, _ = tf2onnx.convert.from_function(function, signature, opset=17)
    if outputs:  # the converter has sorted them by name
        by_name = {output.name: output for output in network.graph.output}
        ordered = [by_name[name] for name in outputs]
        del network.graph.output[:]
        network.graph.output.extend(ordered)
    onnx.save(network, path)


def compiled(model) -> Network:
    """A Keras model in the runtime that detection uses, which is several times as fast."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(model, path)
        return compile_model(path)


def _pictures(folder: Path | None, size: int) -> np.ndarray:
    """Up to 32 pictures as (n, size, size, 3) uint8 RGB."""
    if folder is None:
        rng = np.random.default_rng(0)
        coarse = [rng.integers(0, 256, (n, n, 3), dtype=np.uint8) for n in (2, 5, 16, 64, size)]
        return np.stack([resized(c, size) for c in coarse])
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    read = (read_crop(path, size) for path in paths[:: max(1, len(paths) // 32)])
    pictures = [picture for picture in read if picture is not None]
    if not pictures:
        raise DatasetError(f"no pictures in {folder}: give --crops a folder of face crops")
    return np.stack(pictures[:32])


def _write_runtime_form(onnx: Path, target: Path, size: int) -> None:
    """OpenVINO IR (an .xml) that takes uint8 pictures and gives logit and evidence, and its card.

    The logit, not the probability: in bfloat16 a sigmoid would be 1 from 0.998 on.
    """
    from openvino.preprocess import PrePostProcessor

    whole = openvino.Core().read_model(onnx)
    logit, evidence = (whole.output(name).node.input_value(0) for name in OUTPUTS[1:])
    network = openvino.Model([logit, evidence], whole.get_parameters(), "xception")
    network.reshape([-1, size, size, 3])
    steps = PrePostProcessor(network)
    steps.input().tensor().set_element_type(openvino.Type.u8)
    steps.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
    network = steps.build()
    network.input().get_tensor().set_names({"crops"})
    for output, name in zip(network.outputs, ("logit", "evidence"), strict=True):
        output.get_tensor().set_names({name})
    openvino.save_model(network, target, compress_to_fp16=True)
    card = {
        "name": "xception",
        "version": __version__,
        "sha256": weights_sha256(target),
        "onnx_sha256": hashlib.sha256(onnx.read_bytes()).hexdigest(),
        "input_size": size,
        "calibration": {"scale": 1.0, "offset": 0.0},
    }
    target.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")


@contextmanager
def all_at_once(target: Path) -> Iterator[Path]:
    """Gives an .xml to write, with .bin and .json beside, which then become ``target`` and its."""
    with TemporaryDirectory(dir=target.parent, suffix=HALF_WRITTEN) as folder:
        partial = Path(folder) / target.name
        yield partial
        for suffix in (".bin", ".json", ".xml"):
            partial.with_suffix(suffix).replace(target.with_suffix(suffix))
