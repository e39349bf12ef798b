"""Eight bits instead of sixteen: an exported model -> one that judges faster (extra 'int8').

Post-training quantisation by NNCF. What ranges the activations have is learned from crops like
those in training: real ones and fakes synthesised from them, alike damaged. From real crops alone
the ranges would be too narrow for what fakes excite.
"""

import json
import time
from pathlib import Path

import numpy as np
import openvino

from unmask.card import weights_sha256
from unmask.classifier import Classifier
from unmask.data.index import read_index
from unmask.training.batches import Batches
from unmask.training.export import all_at_once

_FOR_RANGES, _FOR_FIT, _FOR_CHECK = 4, 6, 6  # batches of _BATCH crops each
_BATCH = 16
_DEGRADED = 0.4  # how hard the crops are damaged


def quantize(model: Path, folder: Path) -> str:
    """Write ``NAME_int8.xml``, ``.bin`` and ``.json`` beside the exported ``model`` (an .xml).

    ``folder`` holds crops with their index, as 'preprocess' or 'split' leave them. The card's
    calibration is that of ``model``, after a line that brings the new logits to the old ones.
    Returns a summary with the differences, on crops that nothing was fitted to. Raises
    DatasetError when there are no real crops with faces.
    """
    full = Classifier(model)
    crops = _crops(folder, full.card.input_size)
    ranges, fit, check = np.split(crops, np.cumsum([_FOR_RANGES, _FOR_FIT]) * _BATCH)
    target = model.with_name(f"{model.stem}_int8.xml")
    expected, full_rate = _judged(full, np.concatenate([fit, check]))
    with all_at_once(target) as partial:
        _write(model, partial, ranges)
        found, rate = _judged(Classifier(partial), np.concatenate([fit, check]))
        slope, shift = np.polyfit(found[: len(fit)], expected[: len(fit)], 1)
        _recalibrate(partial.with_suffix(".json"), float(slope), float(shift))
    difference = found[len(fit) :] * slope + shift - expected[len(fit) :]
    return (
        f"int8: {target} judges {rate:.1f} crops a second, the float16 form "
        f"{full_rate:.1f}; its calibrated logits differ by {np.abs(difference).mean():.2f} on "
        f"average and {np.abs(difference).max():.2f} at most on {len(check)} crops (standard "
        f"deviation among them {expected[len(fit) :].std():.2f}). Compare both on labelled videos "
        "with 'unmask evaluate --videos' before you use it"
    )


def _crops(folder: Path, size: int) -> np.ndarray:
    """Half real crops, half synthesised fakes of them: RGB ``uint8`` (n, size, size, 3)."""
    real = [
        crop
        for crop in read_index(folder)
        if not (crop.is_fake or crop.augmented) and crop.split in ("", "train")
    ]
    batches = Batches(
        folder, real, size=size, batch=_BATCH, seed=0, pseudo_fakes=1.0, degraded=_DEGRADED
    )
    drawn = [batch.crops for batch in batches.epoch(0, _FOR_RANGES + _FOR_FIT + _FOR_CHECK)]
    return np.round(np.concatenate(drawn) * 255).astype(np.uint8)


def _write(model: Path, target: Path, crops: np.ndarray) -> None:
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    network = openvino.Core().read_model(model)
    operations = network.get_ordered_ops()
    kept = [op for op in operations if op.get_type_name() == "Add" and not _is_bias(op)]
    kept += [op for op in operations if _is_head(op)]
    quantized = nncf.quantize(
        network,
        nncf.Dataset([crop[None] for crop in crops]),
        subset_size=len(crops),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        ignored_scope=nncf.IgnoredScope(names=[op.get_friendly_name() for op in kept]),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
        ),
    )
    openvino.save_model(quantized, target, compress_to_fp16=True)
    card = json.loads(model.with_suffix(".json").read_text())
    for of_another in ("measured", "onnx_sha256"):
        card.pop(of_another, None)
    card |= {"sha256": weights_sha256(target), "precision": "int8"}
    target.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")


def _is_head(op: openvino.Node) -> bool:
    """Whether it is of the head, which costs nothing: squares, what judges cells, their means."""
    if op.get_type_name() == "Multiply":
        return len({i.get_source_output().get_node().get_friendly_name() for i in op.inputs()}) == 1
    judges = op.get_type_name() in ("Convolution", "AvgPool", "ReduceMean")
    return judges and op.get_output_partial_shape(0)[1] == 1


def _is_bias(add: openvino.Node) -> bool:
    """Whether an addition adds a constant, rather than two branches of the network."""
    sources = (i.get_source_output().get_node() for i in add.inputs())
    return any(source.get_type_name() in ("Constant", "Convert") for source in sources)


def _judged(classifier: Classifier, crops: np.ndarray) -> tuple[np.ndarray, float]:
    """The logits of crops, and how many crops a second were judged."""
    classifier.logits(crops[:_BATCH])  # the first batch takes longer
    start = time.perf_counter()
    logits = [classifier.logits(crops[i : i + _BATCH]) for i in range(0, len(crops), _BATCH)]
    return np.concatenate(logits), len(crops) / (time.perf_counter() - start)


def _recalibrate(card: Path, slope: float, shift: float) -> None:
    fields = json.loads(card.read_text())
    calibration = fields["calibration"]
    calibration["scale"] *= slope
    calibration["offset"] = calibration["offset"] * slope + shift
    card.write_text(json.dumps(fields, indent=2) + "\n")
