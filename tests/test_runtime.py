"""The door to the inference runtime."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest

from unmask import runtime
from unmask.analyzer import Analyzer
from unmask.card import SHIPPED
from unmask.classifier import Classifier
from unmask.errors import ModelError
from unmask.faces import FaceDetector, crop_face
from unmask.mesh import FaceMesh
from unmask.runtime import compile_model


def test_threads_that_share_a_network_each_get_their_own_result(real_frames):
    """As in training, where two threads prepare batches with one mesh."""
    mesh = FaceMesh(threads=1)
    (face,) = FaceDetector().detect(real_frames[0])
    crop = crop_face(real_frames[0], face)
    crops = [np.roll(crop, shift, axis=1) for shift in range(-20, 21, 10)]
    expected = [mesh.points(each) for each in crops]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(mesh.points, crops * 20))
    for number, points in enumerate(found):
        np.testing.assert_allclose(points, expected[number % len(crops)], atol=1e-3)


def test_streams_side_by_side_each_give_their_own_result(real_frames):
    (face,) = FaceDetector().detect(real_frames[0])
    crop = crop_face(real_frames[0], face)
    crops = [np.roll(crop, shift, axis=1)[None] for shift in range(-40, 41, 20)]
    classifier = Classifier(threads=2, streams=2)
    expected = [classifier.logits(each)[0] for each in crops]
    assert np.ptp(expected) > 0.05
    with ThreadPoolExecutor(3) as pool:  # one more than it has streams: it waits
        found = list(pool.map(classifier.logits, crops * 3))
    np.testing.assert_allclose(np.ravel(found), expected * 3, atol=1e-3)


def test_what_is_no_network_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no model at"):
        compile_model(tmp_path / "none.xml")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ModelError, match=r"text\.onnx is no model that can be run"):
        compile_model(tmp_path / "text.onnx")


def test_what_runs_on_nvidia_judges_as_the_shipped_form_does(samples, monkeypatch):
    """On ONNX Runtime's ordinary processor, as there is no other here."""
    monkeypatch.setattr(runtime, "CUDA", "CPUExecutionProvider")
    image = next((samples / "people").glob("*.jpg"))
    theirs, ours = (Analyzer(device=device, precision="f32") for device in ("cuda", "cpu"))
    report, expected = theirs.analyze(image), ours.analyze(image)
    assert report.verdict == expected.verdict
    assert report.probability_fake == pytest.approx(expected.probability_fake, abs=2e-3)
    crops = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)
    crops[1:] //= 4
    found, maps = theirs.classifier.logits(crops), theirs.classifier.evidence(crops)
    np.testing.assert_allclose(found, ours.classifier.logits(crops), atol=0.05)
    np.testing.assert_allclose(maps, ours.classifier.evidence(crops), atol=0.02 * np.ptp(maps))


def out_of_memory(*_):
    raise onnxruntime.capi.onnxruntime_pybind11_state.EPFail("no memory is left")


def test_nvidia_is_never_quietly_replaced_by_the_ordinary_processor(monkeypatch, capsys):
    with pytest.raises(ModelError, match="not the one for NVIDIA"):
        Classifier(device="cuda")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [runtime.CUDA])
    with pytest.raises(ModelError, match="no NVIDIA processor can be used"):
        Classifier(device="cuda")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(runtime, "CUDA", "CPUExecutionProvider")
    classifier = Classifier(device="cuda")
    monkeypatch.setattr(
        "onnxruntime.capi.onnxruntime_pybind11_state.InferenceSession.run", out_of_memory
    )
    with pytest.raises(ModelError, match="cuda: no memory is left"):
        classifier.logits(np.zeros((1, 256, 256, 3), np.uint8))
    assert capsys.readouterr().out == ""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"pip install '\.\[cuda\]'"):
        Classifier(device="cuda")


def test_an_onnx_that_is_missing_or_not_of_its_card_is_refused(tmp_path):
    for end in ("xml", "bin", "json"):
        shutil.copy(SHIPPED.with_suffix(f".{end}"), tmp_path / f"mine.{end}")
    with pytest.raises(ModelError, match=r"mine\.onnx not found"):
        Classifier(tmp_path / "mine.xml", device="cuda")
    (tmp_path / "mine.onnx").write_bytes(b"another")
    with pytest.raises(ModelError, match=r"mine\.onnx is not what its card says"):
        Classifier(tmp_path / "mine.xml", device="cuda")
    card = tmp_path / "mine.json"
    card.write_text(card.read_text().replace("onnx_sha256", "former"))
    with pytest.raises(ModelError, match="runs on the ordinary processor only"):
        Classifier(tmp_path / "mine.xml", device="cuda")
