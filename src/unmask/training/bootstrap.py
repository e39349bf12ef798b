"""The bootstrap over groups: all metrics of a thousand draws at once, for their intervals.

The frames of a video, and the videos of a person, are not independent, so whole groups are drawn
again, never single frames (the cluster bootstrap: Field and Welsh, "Bootstrapping clustered
data", JRSS B 2007). This is scikit-learn's arithmetic on arrays with a row a draw; the tests hold
it to scikit-learn's.
"""

from collections.abc import Iterator

import numpy as np

GRID = np.linspace(0, 1, 101)
"""False positive rates at which the height of every draw's ROC curve is given."""

_FPR_LIMIT = 0.05
_BINS = 10
_CHUNK = 4_000_000  # numbers in one array: bounds its memory


def equal_error_rate(fpr: np.ndarray, tpr: np.ndarray) -> np.ndarray:
    """Where the ROC curve has as many false positives as misses, between points interpolated.

    ``fpr`` and ``tpr`` are (..., k), rising from 0 to 1.
    """
    difference = fpr - (1 - tpr)  # from -1 up to 1
    after = np.argmax(difference >= 0, axis=-1)[..., None]

    def at(values: np.ndarray, index: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, index, -1)[..., 0]

    d0, d1 = at(difference, after - 1), at(difference, after)
    f0, f1 = at(fpr, after - 1), at(fpr, after)
    return f0 - d0 / (d1 - d0) * (f1 - f0)


def tpr_at_fpr(fpr: np.ndarray, tpr: np.ndarray, limit: float = _FPR_LIMIT) -> np.ndarray:
    """The most fakes found by any threshold that calls at most ``limit`` of the reals fake.

    Not interpolated: with fewer than 20 reals no false positive at all is allowed.
    """
    return np.where(fpr <= limit + 1e-12, tpr, 0).max(axis=-1)


def reliability(
    rows: np.ndarray, probabilities: np.ndarray, fakes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability and share of fakes in ten bins of equally many rows, (10,) each.

    All are sums (k,) over the rows so far, by falling score and from 0 on. Bins hold the very
    same mass: rows that lie on an edge, or have equal scores, are shared out.
    """
    edges = np.linspace(0, rows[-1], _BINS + 1)
    mass = rows[-1] / _BINS
    p, y = (np.diff(np.interp(edges, rows, sums)) / mass for sums in (probabilities, fakes))
    return p, y


def resample(
    y: np.ndarray, p: np.ndarray, called: np.ndarray, member: np.ndarray, drawn: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All metrics of all draws: name -> (draws,), NaN where one does not exist; ROC heights.

    ``member`` (n,) is each row's group, ``drawn`` (draws, groups) how often each was drawn. A row
    drawn twice simply weighs two, so rows are sorted once for all draws.
    """
    order = np.argsort(-p, kind="stable")
    y, p, called, member = y[order], p[order], called[order], member[order]
    ends = np.flatnonzero(np.append(np.diff(p) != 0, True))  # equal scores are one ROC point
    # As sklearn does: a certain and wrong answer costs a lot, but not infinity.
    eps = np.finfo(p.dtype).eps
    loss = -np.log(np.clip(np.where(y == 1, p, 1 - p), eps, 1 - eps))
    parts = [
        _weighted(drawn[rows][:, member].astype(np.float64), y, p, called, loss, ends)
        for rows in _chunks(len(drawn), len(p))
    ]
    values = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
    return values, np.concatenate([part[1] for part in parts])


def _chunks(draws: int, rows: int) -> Iterator[slice]:
    step = max(1, _CHUNK // rows)
    return (slice(i, i + step) for i in range(0, draws, step))


def _weighted(
    w: np.ndarray, y: np.ndarray, p: np.ndarray, called: np.ndarray, loss: np.ndarray,
    ends: np.ndarray,
) -> tuple[dict[str, np.ndarray], np.ndarray]:  # fmt: skip
    """All metrics under the weights ``w`` (draws, n) of rows sorted by falling score."""
    start = np.zeros((len(w), 1))
    tp = np.hstack([start, np.cumsum(w * y, axis=1)[:, ends]])
    fp = np.hstack([start, np.cumsum(w * (1 - y), axis=1)[:, ends]])
    fakes, reals, everything = tp[:, -1], fp[:, -1], w.sum(axis=1)
    hits, alarms = w @ (y * called), w @ ((1 - y) * called)
    sums = np.hstack([start, np.cumsum(w * p, axis=1)[:, ends]])
    with np.errstate(divide="ignore", invalid="ignore"):
        tpr, fpr = tp / fakes[:, None], fp / reals[:, None]
        precisions = np.nan_to_num(tp[:, 1:] / (tp + fp)[:, 1:])
        both = np.where((fakes > 0) & (reals > 0), 1.0, np.nan)
        recall, false_alarm = hits / fakes, alarms / reals
        values = {
            "accuracy": (hits + reals - alarms) / everything,
            "balanced_accuracy": (recall + 1 - false_alarm) / 2,
            "precision": hits / (hits + alarms) * both,
            "recall": recall,
            "f1": 2 * hits / (hits + alarms + fakes) * both,
            "false_positive_rate": false_alarm,
            "roc_auc": np.trapezoid(tpr, fpr, axis=1),
            "average_precision": (np.diff(tpr, axis=1) * precisions).sum(axis=1) * both,
            "equal_error_rate": equal_error_rate(fpr, tpr),
            "tpr_at_5_percent_fpr": tpr_at_fpr(fpr, tpr) * both,
            "log_loss": w @ loss / everything,
            "brier": w @ (y - p) ** 2 / everything,
            "calibration_error": both * [
                np.abs(np.subtract(*reliability(*draw))).mean()
                for draw in zip(tp + fp, sums, tp, strict=True)
            ],
        }  # fmt: skip
    heights = np.array([np.interp(GRID, f, t) for f, t in zip(fpr, tpr, strict=True)])
    return values, heights
