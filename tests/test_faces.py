"""Finding faces and cutting them out, on real faces."""

import cv2
import numpy as np
import pytest
from clips import tile
from hypothesis import given
from hypothesis import strategies as st

from unmask.faces import FaceDetector, crop_box, crop_face, overlap
from unmask.video import Video


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def test_finds_the_face_where_it_is(detector, real_frame):
    (face,) = detector.detect(real_frame)
    assert face.score > 0.99
    # Marked by eye: hairline to chin, ear to ear.
    assert overlap(face.box, (113, 64, 226, 243)) > 0.75
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    x1, y1, x2, y2 = face.box
    assert ((face.landmarks > (x1, y1)) & (face.landmarks < (x2, y2))).all()
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


@pytest.mark.parametrize("scale", [0.5, 3])
def test_boxes_are_in_pixels_of_the_image_whatever_its_size(detector, real_frame, scale):
    (expected,) = detector.detect(real_frame)
    (face,) = detector.detect(cv2.resize(real_frame, None, fx=scale, fy=scale))
    assert overlap([v / scale for v in face.box], expected.box) > 0.85


def test_finds_forty_faces(detector, real_frame):
    (face,) = detector.detect(real_frame)
    faces = detector.detect(tile(crop_face(real_frame, face, 128), rows=5, columns=8))
    assert len(faces) == 40
    assert [f.box for f in faces] == sorted(f.box for f in faces)


def test_in_eight_bits_the_same_faces_are_found(detector, samples):
    exact = FaceDetector(precision="f32")
    for path in sorted((samples / "people").iterdir()):
        with Video(path) as video:
            (frame,) = video.sample()
        (expected,), (face,) = exact.detect(frame.image), detector.detect(frame.image)
        assert overlap(face.box, expected.box) > 0.9
        assert np.abs(face.landmarks - expected.landmarks).max() < 0.05 * expected.side


def test_small_and_doubtful_faces_are_left_out(real_frame):
    side = FaceDetector().detect(real_frame)[0].side
    assert FaceDetector(min_face=int(side) - 5).detect(real_frame)
    assert not FaceDetector(min_face=int(side) + 5).detect(real_frame)
    noise = np.random.default_rng(0).integers(0, 255, (288, 360, 3), np.uint8)
    assert FaceDetector().detect(noise) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (31, 33), (721, 1281)])
def test_pictures_of_any_shape(detector, shape):
    assert detector.detect(np.zeros((*shape, 3), np.uint8)) == []


def test_a_crop_is_square_and_not_stretched():
    image = np.zeros((300, 400, 3), np.uint8)
    cv2.circle(image, (200, 150), 40, (255, 255, 255), -1)
    crop = crop_box(image, (170, 110, 230, 190), size=104)
    disc = crop[:, :, 0] > 127
    height, width = disc.any(1).sum(), disc.any(0).sum()
    assert crop.shape == (104, 104, 3)
    assert abs(int(height) - int(width)) <= 1
    assert height == pytest.approx(81, abs=2)  # the crop is 1.3 x 80 pixels, as they are


def test_a_crop_beyond_the_edge_repeats_it():
    image = np.tile(np.arange(100, dtype=np.uint8)[:, None, None], (1, 100, 3))
    crop = crop_box(image, (60, 60, 100, 100), size=52)  # 52 pixels a side, 6 outside
    assert (crop[:, -6:] == crop[:, -7:-6]).all()
    assert (crop[-6:] == 99).all()
    assert (crop[:40, 0, 0] == np.arange(54, 94)).all()


@given(
    box=st.tuples(*[st.floats(-500, 500)] * 4),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    size=st.integers(1, 64),
)
def test_any_box_gives_a_crop_of_the_right_size(box, shape, size):
    image = np.full((*shape, 3), 77, np.uint8)
    crop = crop_box(image, box, size)
    assert crop.shape == (size, size, 3)
    assert (crop == 77).all()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_face_that_lies_or_stands_on_its_head_is_cut_out_upright(detector, real_frame, turns):
    (face,) = detector.detect(real_frame)
    expected = crop_face(real_frame, face)
    np.testing.assert_array_equal(expected, crop_box(real_frame, face.box))
    image = np.ascontiguousarray(np.rot90(real_frame, turns))
    (turned,) = detector.detect(image)
    crop = crop_face(image, turned)
    # Found again, but not quite at one place: of all ways to turn it, this is the nearest.
    apart = [np.abs(np.rot90(crop, k).astype(int) - expected).mean() for k in range(4)]
    assert np.argmin(apart) == 0
