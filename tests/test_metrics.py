import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.training.bootstrap import resample
from unmask.training.metrics import Metric, measure, measure_scores, set_aside
from unmask.training.scores import Score

# Probabilities on a coarse grid: ties and values at the threshold are common.
rows = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 8), st.integers(0, 4)), min_size=2, max_size=40
)
both_classes = rows.filter(lambda r: 0 < sum(y for y, _, _ in r) < len(r))


def columns(rows):
    y, p, g = (np.array(c) for c in zip(*rows, strict=True))
    return y, p / 8, g.astype(str)


def values(measured):
    return {name: metric.value for name, metric in measured.metrics.items()}


def test_a_small_case_counted_by_hand():
    #    real .1  real .6  real .3  fake .4  fake .9  fake .8
    y, p = [0, 0, 0, 1, 1, 1], [0.1, 0.6, 0.3, 0.4, 0.9, 0.8]
    measured = measure(y, p, list("abcdef"))
    assert measured.confusion.tolist() == [[2, 1], [1, 2]]
    got = values(measured)
    for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1"):
        assert got[name] == pytest.approx(2 / 3), name
    assert got["false_positive_rate"] == pytest.approx(1 / 3)
    assert got["roc_auc"] == pytest.approx(8 / 9)  # of 9 pairs only (.6, .4) is the wrong way
    assert got["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert got["equal_error_rate"] == pytest.approx(1 / 3)
    assert got["tpr_at_5_percent_fpr"] == pytest.approx(2 / 3)
    assert got["brier"] == pytest.approx((0.01 + 0.36 + 0.09 + 0.36 + 0.01 + 0.04) / 6)
    assert got["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.7, 0.4, 0.9, 0.8]).mean())


def test_equal_error_rate_between_two_points():
    # All scores alike: the curve is one straight step from (0, 0) to (1, 1).
    assert values(measure([0, 1], [0.5, 0.5], ["a", "b"]))["equal_error_rate"] == 0.5


def test_a_probability_at_the_threshold_is_fake():
    assert measure([1, 0], [0.5, 0.5], ["a", "b"]).confusion.tolist() == [[0, 1], [0, 1]]


@given(both_classes)
@settings(max_examples=30, deadline=None)
def test_only_the_order_matters_to_the_ranking_metrics(rows):
    y, p, g = columns(rows)
    before, after = (values(measure(y, q, g, resamples=1)) for q in (p, (p + p**3) / 2))
    for name in ("roc_auc", "average_precision", "equal_error_rate", "tpr_at_5_percent_fpr"):
        assert after[name] == pytest.approx(before[name]), name


@given(both_classes)
@settings(max_examples=30, deadline=None)
def test_swapping_the_classes_mirrors_the_figures(rows):
    y, p, g = columns(rows)
    one = values(measure(y, p, g, resamples=1))
    other = values(measure(1 - y, 1 - p, g, resamples=1))
    for name in ("roc_auc", "equal_error_rate", "brier", "log_loss"):
        assert other[name] == pytest.approx(one[name]), name


@given(both_classes, st.lists(st.integers(0, 3), min_size=5, max_size=5))
@settings(max_examples=30, deadline=None)
def test_the_bootstrap_computes_what_sklearn_does_on_the_drawn_rows(rows, counts):
    y, p, g = columns(rows)
    member = g.astype(int)
    draws, _ = resample(y, p, p >= 0.5, member, np.array([counts]))
    drawn = np.repeat(np.arange(len(y)), np.array(counts)[member])
    if not len(drawn):
        return
    expected = measure(y[drawn], p[drawn], g[drawn], resamples=1).metrics
    for name in expected:
        if expected[name].value is None:
            assert np.isnan(draws[name][0]), name
        else:
            assert draws[name][0] == pytest.approx(expected[name].value), name


@given(both_classes)
@settings(max_examples=20, deadline=None)
def test_intervals_are_ordered_and_stay_in_range(rows):
    measured = measure(*columns(rows), resamples=50)
    for name, metric in measured.metrics.items():
        if metric.low is not None:
            assert 0 <= metric.low <= metric.high, name
            assert name == "log_loss" or metric.high <= 1 + 1e-12, name
        else:
            assert metric.reason, name
    if measured.curve and measured.curve.low is not None:
        assert (measured.curve.low <= measured.curve.high).all()


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(60):
        # Each group is right or wrong as a whole, 70 % are right: the truth is 0.7.
        right = np.repeat(rng.random(60) < 0.7, 5)
        y = np.tile([0, 1, 0, 1, 1], 60)
        accuracy = measure(y, np.where(right, y, 1 - y), np.repeat(np.arange(60), 5),
                           resamples=100).metrics["accuracy"]  # fmt: skip
        inside += accuracy.low <= 0.7 <= accuracy.high
    assert 0.85 <= inside / 60 <= 1


def test_groups_are_drawn_whole():
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 200)
    p = np.clip(0.5 + 0.2 * (2 * y - 1) + rng.normal(0, 0.25, 400), 0, 1)

    def width(groups):
        auc = measure(y, p, groups).metrics["roc_auc"]
        return auc.high - auc.low

    copies = measure(np.repeat(y, 10), np.repeat(p, 10), np.repeat(np.arange(400), 10))
    single = measure(y, p, np.arange(400))
    # Ten copies of every frame are no new evidence: the very same interval.
    assert copies.metrics["roc_auc"] == single.metrics["roc_auc"]
    # The same rows in a few groups that err together tell less than as many on their own.
    by_score = np.argsort(np.argsort(p)) // 20
    assert width(by_score) > 2 * width(np.arange(400))


def test_the_seed_decides_the_draws():
    rng = np.random.default_rng(0)
    y, p, g = rng.integers(0, 2, 50), rng.random(50), rng.integers(0, 20, 50)
    first = measure(y, p, g, seed=1)
    assert first.metrics == measure(y, p, g, seed=1).metrics
    assert first.metrics != measure(y, p, g, seed=2).metrics


@pytest.mark.parametrize(("label", "missing"), [(0, "fakes"), (1, "reals")])
def test_one_class_gives_none_with_a_reason_never_a_number(label, missing):
    measured = measure([label] * 20, np.linspace(0, 1, 20), np.arange(20))
    exists = {"accuracy", "log_loss", "brier"} | {("false_positive_rate", "recall")[label]}
    for name, metric in measured.metrics.items():
        if name in exists:
            assert metric.value is not None, name
            assert metric.low is not None, name
        else:
            assert (metric.value, metric.low) == (None, None), name
            assert metric.reason == f"there are no {missing}", name
    assert measured.curve is None


def test_no_precision_when_nothing_was_called_fake():
    precision = measure([0, 1], [0.1, 0.2], ["a", "b"]).metrics["precision"]
    assert precision.value is None
    assert precision.reason == "nothing was called fake"


def test_too_few_groups_give_no_interval():
    few = measure([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8], ["a", "a", "b", "b"]).metrics["roc_auc"]
    assert (few.value, few.low) == (1.0, None)
    assert "too few" in few.reason
    # Many groups, but one alone has the fakes: every draw without it has no AUC.
    lone = measure([1] + [0] * 19, np.linspace(1, 0, 20), np.arange(20)).metrics
    assert lone["roc_auc"].low is None
    assert lone["false_positive_rate"].low is not None


@pytest.mark.parametrize(
    ("labels", "probabilities", "groups"),
    [([], [], []), ([0, 1], [0.5], ["a", "b"]), ([0, 2], [0.5, 0.5], ["a", "b"]),
     ([0, 1], [0.5, np.nan], ["a", "b"]), ([0, 1], [0.5, 1.1], ["a", "b"])],
)  # fmt: skip
def test_wrong_input_is_refused(labels, probabilities, groups):
    with pytest.raises(ValueError, match="labels"):
        measure(labels, probabilities, groups)


def test_a_cell_has_the_value_its_interval_or_a_dash():
    assert Metric(0.51234, 0.4, 0.6).cell() == "0.512  0.400 to 0.600"
    assert Metric(0.1, -0.2, 0.3).cell("+.1f") == "+0.1  -0.2 to +0.3"
    assert Metric(0.5, reason="too few").cell() == "0.500"
    assert Metric(None, reason="no fakes").cell() == "-"


def test_rows_are_drawn_by_group_or_with_none_stated_by_video():
    rows = [
        Score("frame", "p", f"v{n // 2}", ("real", "fake")[n % 2], group, "", "", n, 0.0, n / 9, "")
        for n, group in enumerate(["g", "g", "g", "", "", ""])
    ]
    found = measure_scores(rows, 0.5, 0)
    assert (found.groups, found.real_groups, found.fake_groups) == (3, 2, 3)
    assert values(found) == values(measure([0, 1] * 3, np.arange(6) / 9, list("ggg122")))
    others = measure_scores(rows, 0.5, 0, [0.0, 1.0] * 3)
    assert (values(found)["accuracy"], values(others)["accuracy"]) == (4 / 6, 1)


def test_uncertain_set_aside():
    y, p = [0, 0, 0, 1, 1], [0.1, 0.55, 0.9, 0.45, 0.8]
    got = set_aside(y, p, np.abs(np.array(p) - 0.5) < 0.1)
    assert (got["uncertain"], got["coverage"]) == (2, pytest.approx(0.6))
    forced, sure = got["all_at_threshold"], got["uncertain_set_aside"]
    assert forced["error_rate"] == pytest.approx(3 / 5)
    assert forced["false_positive_rate"] == pytest.approx(2 / 3)
    assert forced["miss_rate"] == pytest.approx(1 / 2)
    assert sure == {
        "verdicts": 3, "error_rate": pytest.approx(1 / 3), "false_positive_rate": 0.5,
        "miss_rate": 0.0,
    }  # fmt: skip


def test_all_uncertain_leaves_no_rate():
    got = set_aside([0, 1], [0.5, 0.5], [True, True])
    assert got["coverage"] == 0
    assert got["uncertain_set_aside"] == {
        "verdicts": 0, "error_rate": None, "false_positive_rate": None, "miss_rate": None,
    }  # fmt: skip
