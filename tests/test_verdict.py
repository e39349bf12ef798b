"""From logits to verdicts."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.quality import Quality
from unmask.tracks import Sighting, Track
from unmask.verdict import (
    NO_COLOUR,
    Rule,
    judge,
    no_face,
    sigmoid,
    track_probability,
    track_verdict,
)


def person(number: int, *logits: float, start: float = 0.0) -> Track:
    sightings = [
        Sighting(15 * i, start + 0.5 * i, (0, 0, 9, 9), 0.9, logit)
        for i, logit in enumerate(logits)
    ]
    return Track(number, sightings)


def test_sigmoid_at_its_ends():
    assert sigmoid(0) == 0.5
    assert sigmoid(math.log(3)) == pytest.approx(0.75)
    assert sigmoid(-1e6) == 0
    assert sigmoid(1e6) == 1


@pytest.mark.parametrize(
    ("probability", "verdict"),
    [(0, "real"), (0.39, "real"), (0.41, "uncertain"), (0.5, "uncertain"), (0.59, "uncertain"),
     (0.61, "fake"), (1, "fake")],
)  # fmt: skip
def test_verdicts_around_the_threshold(probability, verdict):
    assert Rule().verdict(probability) == verdict


def test_threshold_and_band_are_settings():
    assert Rule(threshold=0.8, uncertain=0.05).verdict(0.7) == "real"
    assert Rule(threshold=0.8, uncertain=0.05).verdict(0.82) == "uncertain"
    assert Rule(uncertain=0).verdict(0.5) == "fake"


def test_a_person_is_the_mean_of_its_logits_not_of_its_probabilities():
    assert track_probability(person(1, -1, 0, 7)) == pytest.approx(sigmoid(2))


def test_the_most_fake_person_decides_if_seen_long_enough():
    people = [person(1, -3, -3, -3), person(2, 2, 3, 4, start=1.0), person(3, 9, 9)]
    verdict = judge(people, Rule())
    assert verdict.probability == pytest.approx(sigmoid(3))
    assert verdict.confidence == verdict.probability
    assert verdict.name == "fake"
    assert verdict.reason == (
        "The most suspicious of 3 people, person 2, seen from 0:01.0 to 0:02.0 in 3 frames, "
        "looks manipulated (probability of fake 0.95)."
    )
    assert judge(people, Rule(min_track_frames=2)).probability == pytest.approx(sigmoid(9))


def test_where_nobody_is_seen_long_all_count():
    verdict = judge([person(1, -2), person(2, 2)], Rule())
    assert verdict.probability == pytest.approx(sigmoid(2))
    assert "person 2, seen at 0:00.0 in 1 frame," in verdict.reason


def test_mean_over_all_faces():
    people = [person(1, -3, -3, -3), person(2, 3)]
    verdict = judge(people, Rule(aggregate="mean"))
    assert verdict.probability == pytest.approx(sigmoid(-1.5))
    assert verdict.confidence == pytest.approx(1 - sigmoid(-1.5))
    assert verdict.reason.startswith("The mean over 4 faces of 2 people shows no sign of")


def test_a_face_without_colour_takes_the_weight_off_all_but_real():
    grey, coloured = (Quality(90.0, 50.0, 0.1, colour) for colour in (2.0, 30.0))

    def seen(logit: float, quality: Quality) -> Track:
        return Track(1, [replace(s, quality=quality) for s in person(1, *[logit] * 3).sightings])

    assert track_verdict(seen(4, coloured), Rule()) == "fake"
    for logit in (4, 0):
        assert track_verdict(seen(logit, grey), Rule()) == "uncertain"
        assert judge([seen(logit, grey)], Rule()).name == "uncertain"
        assert judge([seen(logit, grey)], Rule()).reason.endswith(NO_COLOUR)
        assert NO_COLOUR not in judge([seen(logit, coloured)], Rule()).reason
        # It is asked of whom the verdict hangs on.
        assert NO_COLOUR not in judge([seen(logit, coloured), seen(-4, grey)], Rule()).reason
    assert NO_COLOUR not in judge([seen(-4, grey)], Rule()).reason
    # Nor does somebody without colour hide who is called fake.
    both = judge([seen(6, grey), seen(4, coloured)], Rule())
    assert (both.name, both.probability) == ("fake", sigmoid(4))
    assert NO_COLOUR not in both.reason


def test_uncertain_says_what_to_do():
    assert "try a longer, larger or less compressed copy" in judge([person(1, 0)], Rule()).reason


def test_of_an_image_nothing_is_said_of_times_and_frames():
    one, two = person(1, 0), person(2, 2)
    assert judge([one], Rule(), is_image=True).reason == (
        "Person 1 is too close to call (probability of fake 0.50): try a larger or less "
        "compressed copy, or have somebody look at it."
    )
    assert judge([one, two], Rule(), is_image=True).reason == (
        "The most suspicious of 2 people, person 2, looks manipulated (probability of fake 0.88)."
    )
    nobody = no_face(1, min_face=30, detection_score=0.7, is_image=True).reason
    assert "in the picture, so" in nobody
    assert "--every" not in nobody


def test_no_face_has_no_probability():
    verdict = no_face(12, min_face=30, detection_score=0.7)
    assert verdict.name == "no_face"
    assert verdict.probability is None
    assert verdict.confidence is None
    assert "at least 30 pixels was found in 12 frames" in verdict.reason


logits = st.lists(st.floats(-50, 50), min_size=1, max_size=5)


@given(
    st.lists(logits, min_size=1, max_size=5), st.sampled_from(["person", "mean"]), st.floats(0, 9)
)
def test_more_suspicious_faces_never_make_a_video_less_fake(groups, aggregate, more):
    rule = Rule(aggregate=aggregate)
    before = judge([person(i + 1, *g) for i, g in enumerate(groups)], rule)
    every = [logit for group in groups for logit in group]
    low, high = sigmoid(min(every)), sigmoid(max(every))
    assert low - 1e-9 <= before.probability <= high + 1e-9
    after = judge([person(i + 1, *np.add(g, more)) for i, g in enumerate(groups)], rule)
    assert after.probability >= before.probability - 1e-9
