"""Errors by quality, and the ways to make one score of a video's frames."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from unmask.training.breakdown import (
    aggregation_table,
    aggregations,
    by_quality,
    quality_table,
)
from unmask.training.scores import Score
from unmask.verdict import sigmoid


def frame(video: int, label: str, logit: float, number: int = 0, **measures) -> Score:
    return Score(
        "frame", "p", f"v{video}", label, f"g{video}", "", "", number, 0.0, sigmoid(logit), "",
        **measures,
    )  # fmt: skip


def a_set(videos: int = 24, frames: int = 36) -> list[Score]:
    """Blurry frames are judged by chance, sharp ones rightly; size and turn mean nothing.

    Each third by size, and by turn, has as many sharp frames.
    """
    rng = np.random.default_rng(0)
    rows = []
    for video in range(videos):
        label = ("real", "fake")[video % 2]
        for number in range(frames):
            sharp = number % 2
            logit = (3 if label == "fake" else -3) * sharp + rng.normal() * (1, 6)[not sharp]
            rows.append(frame(
                video, label, logit, number, sharpness=rng.uniform(5, 20) + 100 * sharp,
                face_size=100 * (1 + number // 2 % 3) + rng.uniform(0, 50),
                turn=0.1 * (number // 6 % 3) + rng.uniform(0, 0.05),
            ))  # fmt: skip
        rows.append(replace(rows[-1], level="video", sharpness=None, face_size=None, turn=None,
                            bits_per_pixel=0.02 + video // 12))  # fmt: skip
    return rows


def test_what_makes_errors_is_found_and_what_does_not_is_not():
    found = by_quality(a_set(), threshold=0.5)
    blurry, _, sharp = (b.metrics for b in found["sharpness"])
    assert blurry["roc_auc"].high < 0.75 < 0.95 < sharp["roc_auc"].low
    for wrong in ("false_positive_rate", "miss_rate"):
        assert blurry[wrong].low > 0.2 > 0.05 > sharp[wrong].value
        assert blurry[wrong].low < blurry[wrong].value < blurry[wrong].high
    for field in ("face_size", "turn"):
        assert np.ptp([b.metrics["roc_auc"].value for b in found[field]]) < 0.15


def test_bins_are_terciles_whose_borders_hold_their_rows():
    rows = a_set()
    for field, bins in by_quality(rows, threshold=0.5).items():
        values = sorted(v for s in rows if (v := getattr(s, field)) is not None)
        counts = [b.measured.real + b.measured.fake for b in bins]
        assert counts == ([288, 288, 288] if field != "bits_per_pixel" else [12, 12])
        assert (bins[0].low, bins[-1].high) == (values[0], values[-1])
        for b, count in zip(bins, counts, strict=True):
            assert sum(b.low <= v <= b.high for v in values) == count


def test_a_figure_of_a_bin_is_that_of_its_rows():
    rows = a_set()
    b = by_quality(rows, threshold=0.7)["turn"][1]
    inside = [s for s in rows if s.turn is not None and b.low <= s.turn <= b.high]
    labels, p = zip(*((s.is_fake, s.probability_fake) for s in inside), strict=True)
    assert b.metrics["roc_auc"].value == pytest.approx(roc_auc_score(labels, p))
    missed = [q < 0.7 for y, q in zip(labels, p, strict=True) if y]
    assert b.metrics["miss_rate"].value == pytest.approx(np.mean(missed))


def test_too_few_groups_give_no_figure_however_many_frames():
    rows = [s for s in a_set() if s.label == "real" or s.video in ("v1", "v3")]
    found = by_quality(rows, threshold=0.5)
    for b in found["face_size"]:
        assert b.measured.fake > 2
        assert b.metrics["roc_auc"].value is None
        assert b.metrics["miss_rate"].reason == "too few groups: 2, at least 5"
        assert b.metrics["false_positive_rate"].value is not None
    assert quality_table(found).count("too few  ") > 3


def test_equal_and_missing_values():
    same = [replace(s, turn=0.1, face_size=None) for s in a_set()]
    found = by_quality([*same, replace(same[0], probability_fake=None)], threshold=0.5)
    (whole,) = found["turn"]
    assert (whole.low, whole.high) == (0.1, 0.1)
    assert found["face_size"] == []
    assert "longer side in pixels: not measured" in quality_table(found)
    by_size = aggregations(same)["mean of logits by face size"]
    assert by_size.value is None
    assert by_size.reason == "face_size was not measured in all frames"
    assert f"- ({by_size.reason})" in aggregation_table(aggregations(same))


def order(name: str, *videos: list[tuple[float, float]]) -> float:
    """The AUC of one real and one fake video of (logit, weight) frames, 1 if the fake is higher."""
    rows = [
        frame(i, label, logit, n, face_size=weight, sharpness=weight)
        for i, (label, frames) in enumerate(zip(("real", "fake"), videos, strict=True))
        for n, (logit, weight) in enumerate(frames)
    ]
    return aggregations(rows)[name].value


@pytest.mark.parametrize(
    ("name", "real", "fake"),
    [  # fakes that this way puts higher, and the mean of the logits (of the probabilities) does not
        ("mean of probabilities", [(9, 1), (-1, 1)], [(1.5, 1), (1.5, 1)]),
        ("mean of logits", [(-9, 1), (1, 1)], [(-2, 1), (-2, 1)]),
        ("median of logits", [(0, 1), (0, 1), (9, 1)], [(1, 1), (1, 1), (1, 1)]),
        ("mean of logits without the 20 % at each end",
         [(0, 1)] * 4 + [(9, 1)], [(1, 1)] * 4 + [(-9, 1)]),
        ("mean of the top 25 % of logits", [(1, 1)] * 8, [(2, 1)] * 2 + [(-9, 1)] * 6),
        ("mean of logits by face size", [(-5, 90), (3, 1)], [(5, 90), (-9, 1)]),
        ("mean of logits by log of sharpness", [(-5, 90), (5, 1)], [(5, 90), (-9, 0)]),
        ("mean of logits by log of sharpness", [(0, 1)], [(-1, 1000), (6, 10)]),  # by the log
        ("highest logit", [(4, 1), (4, 1)], [(5, 1), (-9, 1)]),
    ],
)  # fmt: skip
def test_each_way_does_what_it_is_called(name, real, fake):
    assert order(name, real, fake) == 1
    assert order(name, fake, real) == 0


def test_sure_probabilities_and_flat_pictures_have_a_score():
    for p, expected in ((1.0, 1), (0.0, 0)):
        rows = [
            frame(0, "real", 0, face_size=9, sharpness=0.0),
            replace(frame(1, "fake", 0, face_size=9, sharpness=0.0), probability_fake=p),
        ]
        assert {auc.value for auc in aggregations(rows).values()} == {expected}


def test_videos_of_one_name_stay_apart():
    real, fake = frame(0, "real", -1), replace(frame(1, "fake", 1), video="v0")
    assert aggregations([real, fake])["mean of logits"].value == 1


def test_the_tables_fit_and_can_be_read():
    rows = a_set()
    quality, ways = quality_table(by_quality(rows, 0.5)), aggregation_table(aggregations(rows))
    assert "people" in ways
    assert "nan" not in (quality + ways).lower()
    assert max(map(len, (quality + "\n" + ways).splitlines())) <= 125
