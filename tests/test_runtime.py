"""The door to the inference runtime."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

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
