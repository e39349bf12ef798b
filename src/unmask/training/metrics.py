"""How good a detector is: labels and probabilities -> metrics with 95 % intervals over groups.

scikit-learn computes every metric but the calibration error, ``bootstrap`` its interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn import metrics as sk

from unmask.training.bootstrap import GRID, equal_error_rate, reliability, resample, tpr_at_fpr
from unmask.training.scores import Score

RESAMPLES = 1000
FEWEST_GROUPS = 5
"""With fewer groups of a class than this, what is measured on it has no interval: three groups
that are all right say little, but every draw of them is perfect."""

_ENOUGH = 0.9  # share of draws in which a metric must exist for its interval to be honest


@dataclass(frozen=True)
class Metric:
    """One figure and its 95 % interval; what does not exist is None and ``reason`` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"- ({self.reason})"
        interval = "no interval" if self.low is None else f"{self.low:.3f} to {self.high:.3f}"
        return f"{self.value:.3f}  [{interval}]"

    def cell(self, form: str = ".3f") -> str:
        """For tables: the value and its interval, each in this form; '-' without a value."""
        if self.value is None:
            return "-"
        interval = "" if self.low is None else f"  {self.low:{form}} to {self.high:{form}}"
        return f"{self.value:{form}}{interval}"

    def as_dict(self) -> dict:
        """For JSON: ``value``, ``interval`` (two numbers or None) and, where needed, ``reason``."""
        interval = None if self.low is None else [self.low, self.high]
        return {"value": self.value, "interval": interval} | (
            {"reason": self.reason} if self.reason else {}
        )


@dataclass(frozen=True)
class Curve:
    """A ROC curve, (k,) each, and the 95 % band of its height, (101,) each or None."""

    fpr: np.ndarray
    tpr: np.ndarray
    grid: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


@dataclass(frozen=True)
class Measurement:
    """Everything measured on one set of labelled scores.

    ``real`` and ``fake`` count rows; a group with both counts in both ``real_groups`` and
    ``fake_groups``. ``confusion`` is (2, 2): rows are the labels real and fake, columns what they
    were called. ``curve`` is None where there is one class only.
    """

    real: int
    fake: int
    groups: int
    real_groups: int
    fake_groups: int
    metrics: dict[str, Metric]
    confusion: np.ndarray
    curve: Curve | None

    def as_dict(self) -> dict:
        """For JSON; the curve is left out."""
        (real_real, real_fake), (fake_real, fake_fake) = self.confusion.tolist()
        return {
            "real": self.real,
            "fake": self.fake,
            "groups": self.groups,
            "real_groups": self.real_groups,
            "fake_groups": self.fake_groups,
            "metrics": {name: metric.as_dict() for name, metric in self.metrics.items()},
            "confusion": {
                "real_called_real": real_real,
                "real_called_fake": real_fake,
                "fake_called_real": fake_real,
                "fake_called_fake": fake_fake,
            },
        }


def _from_roc(rate: Callable) -> Callable:
    def metric(y, p, called):
        fpr, tpr, _ = sk.roc_curve(y, p, drop_intermediate=False)
        return rate(fpr, tpr)

    return metric


def reliability_bins(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability and share of fakes, (10,) each, in bins of equally many rows.

    ``y`` (n,) are the labels, ``p`` (n,) the probabilities; the bins go from high to low.
    """
    order = np.argsort(-p)
    y, p = y[order], p[order]
    ends = np.flatnonzero(np.append(np.diff(p) != 0, True))
    sums = (np.cumsum(values)[ends] for values in (np.ones(len(p)), p, y))
    return reliability(*(np.append(0, values) for values in sums))


def _calibration_error(y: np.ndarray, p: np.ndarray, called: np.ndarray) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015)."""
    mean, share = reliability_bins(y, p)
    return np.abs(mean - share).mean()


# name -> (the classes it needs, how it is computed from labels, probabilities and calls)
_METRICS: dict[str, tuple[str, Callable]] = {
    "accuracy": ("any", lambda y, p, called: sk.accuracy_score(y, called)),
    "balanced_accuracy": ("both", lambda y, p, called: sk.balanced_accuracy_score(y, called)),
    "precision": ("both", lambda y, p, called: sk.precision_score(y, called)),
    "recall": ("fake", lambda y, p, called: sk.recall_score(y, called)),
    "f1": ("both", lambda y, p, called: sk.f1_score(y, called)),
    "false_positive_rate": ("real", lambda y, p, called: 1 - sk.recall_score(1 - y, ~called)),
    "roc_auc": ("both", lambda y, p, called: sk.roc_auc_score(y, p)),
    "average_precision": ("both", lambda y, p, called: sk.average_precision_score(y, p)),
    "equal_error_rate": ("both", _from_roc(equal_error_rate)),
    "tpr_at_5_percent_fpr": ("both", _from_roc(tpr_at_fpr)),
    "log_loss": ("any", lambda y, p, called: sk.log_loss(y, p, labels=[0, 1])),
    "brier": ("any", lambda y, p, called: sk.brier_score_loss(y, p, pos_label=1)),
    "calibration_error": ("both", _calibration_error),
}


def _missing(needs: str, name: str, y: np.ndarray, called: np.ndarray) -> str:
    """Why a metric does not exist here; empty if it does."""
    if needs in ("both", "fake") and not y.any():
        return "there are no fakes"
    if needs in ("both", "real") and y.all():
        return "there are no reals"
    if name == "precision" and not called.any():
        return "nothing was called fake"
    return ""


def measure(
    labels: Sequence[int],
    probabilities: Sequence[float],
    groups: Sequence[str],
    threshold: float = 0.5,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Measurement:
    """Every metric of labelled scores, with 95 % percentile intervals over groups.

    ``labels`` (n,) 0 real or 1 fake; ``probabilities`` (n,) of fake in [0, 1], 'fake' from
    ``threshold`` on; ``groups`` (n,) names of what is drawn as a whole. Raises ValueError for
    input of unequal length, empty, or not in those ranges: there is no metric of nothing.
    """
    y = np.asarray(labels).astype(np.int64)
    p = np.asarray(probabilities, np.float64)
    if not len(y) == len(p) == len(groups) or not len(y):
        raise ValueError("labels, probabilities and groups must be of one length above zero")
    if not (np.isin(y, (0, 1)).all() and (p >= 0).all() and (p <= 1).all()):
        raise ValueError("labels are 0 or 1, probabilities between 0 and 1")
    names, member = np.unique(np.asarray(groups, str), return_inverse=True)
    real_groups, fake_groups = (len(np.unique(member[y == label])) for label in (0, 1))
    fewest = {"any": len(names), "real": real_groups, "fake": fake_groups,
              "both": min(real_groups, fake_groups)}  # fmt: skip
    called = p >= threshold

    draws: dict[str, np.ndarray] = {}
    heights = None
    if len(names) >= FEWEST_GROUPS:
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)
        draws, heights = resample(y, p, called, member, drawn)

    measured = {}
    for name, (needs, compute) in _METRICS.items():
        reason = _missing(needs, name, y, called)
        if reason:
            measured[name] = Metric(None, reason=reason)
            continue
        low, high, why_not = _interval(draws.get(name), fewest[needs])
        measured[name] = Metric(float(compute(y, p, called)), low, high, why_not)

    curve = None
    if 0 < y.sum() < len(y):
        fpr, tpr, _ = sk.roc_curve(y, p)
        has_band = measured["roc_auc"].low is not None
        band = np.nanpercentile(heights, (2.5, 97.5), axis=0) if has_band else (None, None)
        curve = Curve(fpr, tpr, GRID, *band)
    return Measurement(
        real=int((y == 0).sum()),
        fake=int(y.sum()),
        groups=len(names),
        real_groups=real_groups,
        fake_groups=fake_groups,
        metrics=measured,
        confusion=sk.confusion_matrix(y, called, labels=[0, 1]),
        curve=curve,
    )


def measure_scores(
    rows: Sequence[Score], threshold: float, seed: int,
    probabilities: Sequence[float] | None = None,
) -> Measurement:  # fmt: skip
    """``measure`` rows by their own probabilities, which all must have, or by others, (n,)."""
    if probabilities is None:
        probabilities = [s.probability_fake for s in rows]
    labels, clusters = [s.is_fake for s in rows], [s.cluster for s in rows]
    return measure(labels, probabilities, clusters, threshold, seed=seed)


def _interval(draws: np.ndarray | None, groups: int) -> tuple[float | None, float | None, str]:
    """Low and high ends, or None for both and the reason."""
    if draws is None or groups < FEWEST_GROUPS:
        return None, None, f"too few groups for an interval: {groups}, at least {FEWEST_GROUPS}"
    if np.isfinite(draws).mean() < _ENOUGH:
        return None, None, "too often undefined for an interval"
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return float(low), float(high), ""


def set_aside(
    labels: Sequence[int], probabilities: Sequence[float], uncertain: Sequence[bool],
    threshold: float = 0.5,
) -> dict:  # fmt: skip
    """Error rates with every verdict forced at the threshold, and with 'uncertain' set aside.

    ``uncertain`` (n,) marks the verdicts that said so. The second set of rates always goes with
    its ``coverage``, the share of verdicts that it speaks of. Rates of no verdicts are None.
    """
    y = np.asarray(labels).astype(bool)
    called = np.asarray(probabilities, np.float64) >= threshold
    sure = ~np.asarray(uncertain, bool)

    def rates(keep: np.ndarray) -> dict:
        def share(wrong: np.ndarray, of: np.ndarray) -> float | None:
            return float(wrong[of].mean()) if of.any() else None

        return {
            "verdicts": int(keep.sum()),
            "error_rate": share(called != y, keep),
            "false_positive_rate": share(called, keep & ~y),
            "miss_rate": share(~called, keep & y),
        }

    return {
        "uncertain": int((~sure).sum()),
        "coverage": float(sure.mean()),
        "all_at_threshold": rates(np.ones_like(sure)),
        "uncertain_set_aside": rates(sure),
    }
