"""Loading a model and judging crops with it."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import openvino
import pytest

from unmask.card import SHIPPED
from unmask.classifier import Classifier
from unmask.errors import ModelError
from unmask.faces import FaceDetector, crop_face


@pytest.fixture(scope="module")
def crops(real_frames) -> np.ndarray:
    detector = FaceDetector()
    chosen = real_frames[::15]
    return np.stack([crop_face(image, detector.detect(image)[0]) for image in chosen])


@pytest.fixture(scope="module")
def exact() -> Classifier:
    return Classifier(precision="f32")


@pytest.fixture
def copy(tmp_path) -> Path:
    for suffix in (".xml", ".bin", ".json"):
        shutil.copy(SHIPPED.with_suffix(suffix), tmp_path / f"mine{suffix}")
    return tmp_path / "mine.xml"


def change_card(model: Path, **fields) -> None:
    card = model.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | fields))


def test_batches_do_not_change_the_result(exact, crops):
    together = exact.logits(crops)
    alone = np.concatenate([exact.logits(crop[None]) for crop in crops])
    assert together.shape == (len(crops),)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_bfloat16_agrees_with_float32(analyzer, exact, crops):
    difference = np.abs(analyzer.classifier.logits(crops) - exact.logits(crops))
    assert difference.max() < 0.5
    assert difference.mean() < 0.2


def test_calibration_comes_from_the_card(copy, exact, crops):
    change_card(copy, name="mine", calibration={"scale": 2.0, "offset": -0.5})
    mine = Classifier(copy, precision="f32")
    assert mine.card.name == "mine"
    scale, offset = 2 / exact.card.scale, -0.5 - 2 * exact.card.offset / exact.card.scale
    expected = exact.logits(crops[:2]) * scale + offset
    np.testing.assert_allclose(mine.logits(crops[:2]), expected, atol=1e-3)


def test_evidence_averages_to_the_logit(exact, crops):
    evidence = exact.evidence(crops)
    assert evidence.shape == (len(crops), 8, 8)
    assert evidence.dtype == np.float32
    assert np.ptp(evidence, axis=(1, 2)).min() > 0.5  # a map, not the logit repeated
    np.testing.assert_allclose(evidence.mean((1, 2)), exact.logits(crops), atol=1e-3)


def test_a_model_without_evidence_still_judges(copy, exact, crops):
    """As those were that were exported before there was any."""
    network = openvino.Core().read_model(SHIPPED)
    logit_only = openvino.Model([network.output("logit")], network.get_parameters())
    openvino.save_model(logit_only, copy)
    data = copy.read_bytes() + copy.with_suffix(".bin").read_bytes()
    change_card(copy, sha256=hashlib.sha256(data).hexdigest())
    old = Classifier(copy, precision="f32")
    np.testing.assert_allclose(old.logits(crops), exact.logits(crops), atol=1e-3)
    with pytest.raises(ModelError, match="export it again"):
        old.evidence(crops)


def refused(model: Path) -> str:
    with pytest.raises(ModelError) as caught:
        Classifier(model)
    return str(caught.value)


def test_damaged_weights_are_refused(copy):
    weights = copy.with_suffix(".bin")
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    assert "mine.xml or mine.bin is not what its card says" in refused(copy)


@pytest.mark.parametrize("suffix", [".xml", ".bin", ".json"])
def test_a_missing_part_is_named(copy, suffix):
    copy.with_suffix(suffix).unlink()
    message = refused(copy)
    assert f"mine{suffix} not found" in message
    assert "unmask export" in message


@pytest.mark.parametrize(
    "card", ["", "[]", "{}", '{"name": 1, "calibration": 3}', '{"calibration": {"scale": "x"}}']
)
def test_a_card_that_is_none_is_refused(copy, card):
    copy.with_suffix(".json").write_text(card)
    assert "mine.json is no model card" in refused(copy)


def test_an_impossible_calibration_is_refused(copy):
    change_card(copy, calibration={"scale": float("nan"), "offset": 0})
    assert "impossible" in refused(copy)


@pytest.mark.parametrize("name", ["best.h5", "best.keras"])
def test_a_trained_model_is_sent_to_export(name):
    assert f"unmask export {name}" in refused(Path(name))


def test_the_shipped_model_has_a_name(exact):
    assert Classifier("shipped").card == exact.card


def test_a_folder_and_a_name_without_suffix_are_sent_to_the_model(copy):
    assert refused(copy.with_suffix("")).endswith(f"give {copy}")
    assert refused(copy.parent).endswith(f"give {copy}")
    copy.unlink()
    assert "give the .xml file of a model" in refused(copy.parent)


def test_an_exported_model_is_sent_to_the_form_beside_it():
    assert "give the .xml beside it" in refused(Path("best.onnx"))
