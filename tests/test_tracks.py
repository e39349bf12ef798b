"""Linking faces into people."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.faces import FaceDetector
from unmask.tracks import Tracker

SCENE = np.random.default_rng(1).integers(0, 255, (9, 12, 3), np.uint8)
SCENE = cv2.resize(SCENE, (640, 480), interpolation=cv2.INTER_CUBIC)


Box = tuple[float, float, float, float]


def face(x: float, y: float = 200, side: float = 80) -> Box:
    return x, y, x + side, y + side


def track(*frames: list[Box], step: float = 0.5, image: np.ndarray = SCENE) -> list[list[int]]:
    tracker = Tracker()
    return [tracker.update(i * step, boxes, image) for i, boxes in enumerate(frames)]


def test_a_moving_and_growing_face_is_one_person():
    assert track(*[[face(50 + 30 * i, side=80 * 1.2**i)] for i in range(6)]) == [[1]] * 6


def test_people_keep_their_ids_whatever_the_order():
    a, b, c = face(50), face(250), face(450)
    assert track([a, b, c], [c, a, b], [b], [a, b, c]) == [[1, 2, 3], [3, 1, 2], [2], [1, 2, 3]]


def test_another_place_or_size_is_another_person():
    assert track([face(50)], [face(200)]) == [[1], [2]]
    assert track([face(50)], [face(50, side=200)]) == [[1], [2]]


def test_a_newcomer_beside_a_known_face_does_not_take_its_id():
    assert track([face(100)], [face(150), face(105)]) == [[1], [2, 1]]


def test_a_face_missing_for_a_while_is_picked_up_again():
    gone: list[Box] = []
    assert track([face(50)], gone, gone, gone, [face(60)])[-1] == [1]
    assert track([face(50)], *[gone] * 5, [face(60)])[-1] == [2]
    # Samples close together: the time counts, not their number.
    assert track([face(50)], *[gone] * 30, [face(60)], step=0.05)[-1] == [1]
    # Samples far apart: their number counts, not the time.
    assert track([face(50)], gone, [face(60)], step=30)[-1] == [1]


def test_a_cut_ends_every_track():
    other = np.ascontiguousarray(SCENE[::-1, ::-1])
    tracker = Tracker()
    ids = [tracker.update(i * 0.5, [face(50)], im) for i, im in enumerate((SCENE, SCENE, other))]
    assert ids == [[1], [1], [2]]


@pytest.mark.parametrize("change", ["brighter", "shifted", "noisy", "blank"])
def test_what_is_no_cut(change):
    before = np.full_like(SCENE, 40) if change == "blank" else SCENE
    after = {
        "brighter": np.clip(SCENE.astype(int) + 12, 0, 255).astype(np.uint8),
        "shifted": np.roll(SCENE, 60, axis=1),
        "noisy": cv2.add(SCENE, np.random.default_rng(2).integers(0, 9, SCENE.shape, np.uint8)),
        "blank": before + 1,
    }[change]
    tracker = Tracker()
    assert tracker.update(0, [face(50)], before) == tracker.update(0.5, [face(55)], after) == [1]


def test_a_real_person_is_one_person_and_a_cut_to_a_mirror_makes_two(real_frames):
    detector, tracker = FaceDetector(), Tracker()
    shown = [*real_frames[::15], *(np.ascontiguousarray(f[::-1]) for f in real_frames[:30:15])]
    faces = [face.box for face in detector.detect(real_frames[0])]
    ids = [tracker.update(i * 0.6, faces, image) for i, image in enumerate(shown)]
    assert ids == [[1]] * 5 + [[2]] * 2


boxes = st.builds(face, st.integers(0, 560), st.integers(0, 400), st.integers(20, 200))


@given(st.lists(st.lists(boxes, max_size=6), max_size=6))
def test_ids_are_never_shared_in_a_frame_and_count_up_without_gaps(frames):
    seen: set[int] = set()
    for faces, ids in zip(frames, track(*frames), strict=True):
        assert len(ids) == len(faces)
        assert len(set(ids)) == len(ids)
        new = [i for i in ids if i not in seen]
        assert sorted(new) == list(range(len(seen) + 1, len(seen) + 1 + len(new)))
        seen.update(new)
