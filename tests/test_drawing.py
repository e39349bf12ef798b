"""Where labels and the caption go: off the faces and off each other, and they stay there."""

import cv2
import numpy as np
import pytest

from unmask.drawing import Overlay
from unmask.report import FrameReport, ModelReport, Report, Timings, TrackReport
from unmask.video import Frame

GREY = 128
CROWD = [
    (x, y, x + 110, y + 140) for y in range(90, 1000, 215) for x in range(105, 1800, 320)
]  # 30 faces


@pytest.fixture
def texts(monkeypatch):
    """What is written on the pictures, in order."""
    written, write = [], cv2.putText

    def note(image, text, *how):
        written.append(text)
        return write(image, text, *how)

    monkeypatch.setattr(cv2, "putText", note)
    return written


def report_of(*people: list[tuple]) -> Report:
    """A report on people by their boxes in frame after frame."""
    tracks = []
    for number, boxes in enumerate(people, 1):
        frames = [
            FrameReport(index, index / 25, box, 0.9, 0.9, 100, 1, 0, index)
            for index, box in enumerate(boxes)
        ]
        tracks.append(TrackReport(number, "fake", 0.9, 0, frames[-1].second, frames))
    return Report(
        "a.mp4", None, "fake", "because", 0.9, 0.8, 0.5, ModelReport("xception", "1.0", "cd" * 32),
        None, tracks, Timings(0, 0, 0, 0),
    )  # fmt: skip


def drawn(report: Report, width: int = 1920, height: int = 1080) -> list[np.ndarray]:
    """Grey frames with what the report says."""
    overlay, images = Overlay(report), []
    for index in range(len(report.tracks[0].frames)):
        images.append(np.full((height, width, 3), GREY, np.uint8))
        overlay.draw(Frame(index, index / 25, images[-1]))
    return images


def drawn_on(image: np.ndarray, x1: int, y1: int, x2: int, y2: int) -> bool:
    """Whether a part of the image is drawn on all over; what is only partly so, is an error."""
    share = (image[y1:y2, x1:x2] != GREY).mean()
    assert share == 0 or share > 0.9
    return bool(share)


def test_in_a_crowd_no_label_covers_a_face_or_another_label(texts):
    (image,) = drawn(report_of(*([box] for box in CROWD)))
    for x1, y1, x2, y2 in CROWD:
        assert not drawn_on(image, x1 + 10, y1 + 10, x2 - 10, y2 - 10)
    said = [f"Person {n}: fake" in texts or f"{n}: 0.90" in texts for n in range(1, 31)]
    assert all(said)
    assert "Person 30: fake" in texts  # the verdict, where there is room for it


def test_one_label_is_above_its_face_and_the_caption_at_the_lower_left(texts):
    (image,) = drawn(report_of([(800, 400, 1000, 640)]))
    assert texts == ["Unmask: fake, prob. of fake 0.90", "Person 1: fake", "prob. of fake 0.90"]
    assert drawn_on(image, 810, 300, 990, 380)
    assert drawn_on(image, 0, 1030, 600, 1080)
    assert not drawn_on(image, 0, 650, 1920, 900)


def test_the_caption_is_in_the_corner_where_the_faces_are_not():
    for image in drawn(report_of([(800, 400, 1000, 640), (100, 900, 220, 1060)])):
        assert not drawn_on(image, 0, 1030, 90, 1080)
        assert drawn_on(image, 1500, 1030, 1920, 1080)


def test_a_label_stays_where_it_is_while_the_same_people_are_shown():
    still = (800, 400, 1000, 640)
    # The other face comes in the way of the label above the first one in one frame, and goes on.
    other = [(1500, 100, 1600, 240), (1020, 250, 1120, 390), (1500, 100, 1600, 240)]
    images = drawn(report_of([still] * 3, other))
    assert [drawn_on(image, 810, 310, 990, 370) for image in images] == [True, True, True]
    images = drawn(report_of([still] * 3, [other[0], (850, 250, 950, 390), other[2]]))
    assert [drawn_on(image, 810, 660, 990, 720) for image in images] == [False, True, True]


def test_where_there_is_no_room_elsewhere_a_label_is_at_the_top_of_its_own_face(texts):
    boxes = [(x + 10, 0, x + 310, 1080) for x in range(0, 1920, 320)]
    (image,) = drawn(report_of(*([box] for box in boxes)))
    assert texts[1::2] == [f"Person {n}: fake" for n in range(1, 7)]
    for x1, _, x2, _ in boxes:
        assert not drawn_on(image, x1 + 10, 200, x2 - 10, 900)
