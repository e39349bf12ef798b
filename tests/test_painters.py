"""Painters keep who is shown and lose what a camera leaves; each in its own way."""

import numpy as np
import pytest

from unmask.data.painters import PAINTERS, Painters
from unmask.faces import FaceDetector, crop_face
from unmask.video import Video


@pytest.fixture(scope="module")
def painters():
    return Painters()


@pytest.fixture(scope="module")
def faces(samples):
    """Face crops of sample people."""
    detector, crops = FaceDetector(), []
    for path in sorted((samples / "people").glob("*.jpg"))[:4]:
        with Video(path) as video:
            image = next(video.sample()).image
        crops.append(crop_face(image, detector.detect(image)[0]))
    return crops


def difference(first, second):
    """Mean absolute difference in grey levels, of 255."""
    return np.abs(first.astype(int) - second).mean()


@pytest.mark.parametrize("side", [96, 256])
@pytest.mark.parametrize("name", PAINTERS)
def test_paints_the_same_face_but_not_the_same_pixels(name, side, painters, faces):
    for face in faces:
        painted = painters.paint(face, side, name)
        assert painted.shape == face.shape
        assert painted.dtype == np.uint8
        others = [difference(painted, other) for other in faces if other is not face]
        assert 1 < difference(painted, face) < min(15, *others)


@pytest.mark.parametrize("name", PAINTERS)
def test_paints_the_same_again(name, painters, faces):
    first = painters.paint(faces[0], 128, name)
    painters.paint(faces[1], 160, name)
    assert np.array_equal(painters.paint(faces[0], 128, name), first)
    assert np.array_equal(Painters().paint(faces[0], 128, name), first)


def test_each_paints_in_its_own_way(painters, faces):
    painted = [painters.paint(faces[0], 128, name) for name in PAINTERS]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert difference(painted[a], painted[b]) > 1
