"""How good a face picture is."""

import cv2
import numpy as np
import pytest

from unmask.data.degrade import jpeg
from unmask.faces import Face, FaceDetector, crop_face
from unmask.quality import (
    COLOURLESS,
    bits_per_pixel,
    colour,
    face_quality,
    longer_side,
    sharpness,
    turn,
)
from unmask.video import VideoInfo

FRONTAL = np.array([(40, 50), (80, 50), (60, 75), (45, 95), (75, 95)], np.float32)


def turned(degrees: float) -> np.ndarray:
    """The same face turned to a side: its nose sticks out by half the distance of its eyes."""
    depth = np.array([0, 0, 20, 0, 0])
    angle = np.radians(degrees)
    x = 60 + (FRONTAL[:, 0] - 60) * np.cos(angle) + depth * np.sin(angle)
    return np.stack([x, FRONTAL[:, 1]], axis=1).astype(np.float32)


def tilted(points: np.ndarray, degrees: float) -> np.ndarray:
    """The points turned in the plane of the picture."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[c, s], [-s, c]], np.float32)


def test_sharpness_falls_with_blur_and_hardly_depends_on_size():
    rng = np.random.default_rng(0)
    sharp = cv2.resize(rng.integers(0, 255, (64, 64, 3), np.uint8), (256, 256))
    soft = cv2.GaussianBlur(sharp, (0, 0), 4)
    assert sharpness(sharp) > 10 * sharpness(soft)
    larger = cv2.resize(sharp, (512, 512), interpolation=cv2.INTER_CUBIC)
    assert sharpness(larger) == pytest.approx(sharpness(sharp), rel=0.3)


@pytest.mark.parametrize("contrast", [0, 1, 40, 255])
def test_sharpness_is_the_laplacian_s_variance_to_the_last_bit_that_counts(contrast):
    noise = np.random.default_rng(1).integers(0, 2, (256, 256, 1), np.uint8) * np.uint8(contrast)
    crop = np.repeat(noise, 3, axis=2)
    exact = cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var()
    assert sharpness(crop) == pytest.approx(exact)


def test_turn_grows_to_either_side_and_not_with_tilt_or_size():
    assert turn(FRONTAL) == pytest.approx(0, abs=1e-6)
    turns = [turn(turned(degrees)) for degrees in (0, 15, 30, 45, 60)]
    assert turns == sorted(turns)
    assert turns[3] == pytest.approx(0.5, abs=0.01)
    for degrees in (-40, 20, 90):
        assert turn(tilted(turned(30), degrees)) == pytest.approx(turns[2], abs=1e-4)
    assert turn(turned(-45) * 7) == pytest.approx(turns[3], abs=1e-4)


def test_turn_has_an_end_where_the_eyes_coincide():
    assert turn(turned(89.9)) == 2
    assert turn(np.zeros((5, 2), np.float32)) == 2


def test_a_real_face_is_measured(real_frame):
    (face,) = FaceDetector().detect(real_frame)
    crop = crop_face(real_frame, face)
    quality = face_quality(face, crop)
    assert quality.size == longer_side(face.box) > face.side
    assert quality.turn < 0.1  # she looks into the camera
    assert quality.sharpness == sharpness(crop) > sharpness(jpeg(cv2.blur(crop, (5, 5)), 90))
    # Squeezed to 60 % its width, its eyes are as much closer as its nose.
    squeezed = Face(face.box, face.score, face.landmarks * np.array([0.6, 1], np.float32))
    assert face_quality(squeezed, crop).turn == pytest.approx(quality.turn, abs=0.05)


def test_colour_is_none_in_black_and_white(real_frame):
    grey = cv2.cvtColor(cv2.cvtColor(real_frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    assert colour(grey) == 0
    assert colour(jpeg(grey, 30)) < COLOURLESS < colour(real_frame)
    apart = real_frame.max(2).astype(int) - real_frame.min(2)
    assert colour(real_frame) == pytest.approx(apart.mean())


def test_bits_per_pixel_where_it_can_be_told():
    def info(duration: float | None, fps: float | None) -> VideoInfo:
        return VideoInfo(100, 50, duration, fps, "h264", is_image=False)

    assert bits_per_pixel(12_500, info(2.0, 10.0)) == pytest.approx(1.0)
    assert bits_per_pixel(12_500, info(None, 10.0)) is None
    assert bits_per_pixel(12_500, info(2.0, None)) is None
    assert bits_per_pixel(0, info(2.0, 10.0)) is None
    # Headers may state anything.
    assert bits_per_pixel(12_500, info(1e-320, 1e-3)) is None
    assert bits_per_pixel(12_500, info(1e-305, 1e-3)) is None
    assert bits_per_pixel(12_500, info(1e300, 1e300)) == 0
