"""What scores depend on: errors by how good the picture is, and other ways to sum up the frames.

Both come from the rows of scores alone; nothing is judged again.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import trim_mean

from unmask.training.metrics import FEWEST_GROUPS, Measurement, Metric, measure_scores
from unmask.training.scores import Score
from unmask.verdict import logit, sigmoid

# Score's field -> (its level, into how many bins of equally many rows, what it is)
_MEASURES = {
    "face_size": ("frame", 3, "face size, longer side in pixels"),
    "sharpness": ("frame", 3, "sharpness, Laplacian variance at 256 pixels"),
    "turn": ("frame", 3, "turned sideways: 0 frontal, 0.5 about half profile"),
    "bits_per_pixel": ("video", 2, "compression of the file, bits per pixel"),
}


@dataclass(frozen=True)
class Bin:
    """The rows whose measure lies between ``low`` and ``high``, both of which occur in it.

    ``metrics`` are roc_auc, false_positive_rate and miss_rate; where a class that one needs has
    fewer than FEWEST_GROUPS groups it is None with that reason.
    """

    low: float
    high: float
    measured: Measurement
    metrics: dict[str, Metric]

    def as_dict(self) -> dict:
        """For JSON."""
        m = self.measured
        return {
            "low": self.low,
            "high": self.high,
            "real": m.real,
            "fake": m.fake,
            "real_groups": m.real_groups,
            "fake_groups": m.fake_groups,
            "metrics": {name: metric.as_dict() for name, metric in self.metrics.items()},
        }


def by_quality(scores: Sequence[Score], threshold: float, seed: int = 0) -> dict[str, list[Bin]]:
    """Errors in bins of each measure, from low to high; no bins where nothing has the measure.

    Frames fall into terciles of face size, sharpness and turn, videos into halves of bits per
    pixel; equal values share a bin. Rows without a probability or the measure are left out.
    """
    found = {}
    for field, (level, bins, _) in _MEASURES.items():
        rows = [
            s for s in scores
            if s.level == level and None not in (s.probability_fake, getattr(s, field))
        ]  # fmt: skip
        found[field] = _bins(rows, field, bins, threshold, seed) if rows else []
    return found


def _bins(rows: Sequence[Score], field: str, bins: int, threshold: float, seed: int) -> list[Bin]:
    values = np.array([getattr(s, field) for s in rows])
    # Values that occur, so that no bin but the first can be empty.
    borders = np.unique(np.quantile(values, np.arange(1, bins) / bins, method="higher"))
    place = np.searchsorted(borders, values, side="right")
    found = []
    for number in np.unique(place):
        members = np.flatnonzero(place == number)
        inside = [rows[i] for i in members]
        measured = measure_scores(inside, threshold, seed)
        low, high = values[members].min(), values[members].max()
        found.append(Bin(float(low), float(high), measured, _rates(measured)))
    return found


def _rates(measured: Measurement) -> dict[str, Metric]:
    """The figures of a bin, without those that rest on too little."""
    reals, fakes = measured.real_groups, measured.fake_groups

    def if_enough(metric: Metric, groups: int) -> Metric:
        if groups < FEWEST_GROUPS:
            return Metric(None, reason=f"too few groups: {groups}, at least {FEWEST_GROUPS}")
        return metric

    recall = measured.metrics["recall"]
    miss = recall
    if recall.value is not None:
        ends = (None, None) if recall.low is None else (1 - recall.high, 1 - recall.low)
        miss = Metric(1 - recall.value, *ends, recall.reason)
    return {
        "roc_auc": if_enough(measured.metrics["roc_auc"], min(reals, fakes)),
        "false_positive_rate": if_enough(measured.metrics["false_positive_rate"], reals),
        "miss_rate": if_enough(miss, fakes),
    }


def _weighted(logits: np.ndarray, weights: np.ndarray) -> float:
    return sigmoid(np.average(logits, weights=weights))


def _mean(logits: np.ndarray, _: np.ndarray) -> float:
    return sigmoid(logits.mean())


def _top_quarter(logits: np.ndarray, _: np.ndarray) -> float:
    return sigmoid(np.sort(logits)[-max(1, round(len(logits) / 4)) :].mean())


# name -> (Score's field that it weights by, its video's probability from logits and that field)
_AGGREGATIONS: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], float]]] = {
    "mean of probabilities": ("", lambda x, _: float(np.mean(1 / (1 + np.exp(-x))))),
    "mean of logits": ("", _mean),
    "median of logits": ("", lambda x, _: sigmoid(np.median(x))),
    "mean of logits without the 20 % at each end": ("", lambda x, _: sigmoid(trim_mean(x, 0.2))),
    "mean of the top 25 % of logits": ("", _top_quarter),
    "mean of logits by face size": ("face_size", _weighted),
    # Up to 1e-9: pictures of one colour have a sharpness of 0, and weights must not be all 0.
    "mean of logits by log of sharpness": (
        "sharpness", lambda x, s: _weighted(x, np.log1p(s) + 1e-9)
    ),
    "highest logit": ("", lambda x, _: sigmoid(x.max())),
}  # fmt: skip


def aggregations(scores: Sequence[Score], seed: int = 0) -> dict[str, Metric]:
    """The videos' AUC by each way to make one score of a video's frames.

    The frames of a video are taken together, whoever they show.
    """
    videos: dict[tuple, list[Score]] = {}
    for s in scores:
        if s.level == "frame" and s.probability_fake is not None:
            videos.setdefault(s.source, []).append(s)
    firsts = [rows[0] for rows in videos.values()]
    logits = [logit([s.probability_fake for s in rows]) for rows in videos.values()]
    found = {}
    for name, (field, combine) in _AGGREGATIONS.items():
        weights = [[getattr(s, field) if field else 1.0 for s in rows] for rows in videos.values()]
        if any(None in values for values in weights):
            found[name] = Metric(None, reason=f"{field} was not measured in all frames")
            continue
        combined = [combine(x, np.array(w)) for x, w in zip(logits, weights, strict=True)]
        found[name] = measure_scores(firsts, 0.5, seed, combined).metrics["roc_auc"]
    return found


def quality_table(found: dict[str, list[Bin]]) -> str:
    """``by_quality`` to be read."""
    lines = [f"{'':22}{'real':14}{'fake':14}{'ROC-AUC':23}{'reals called fake':23}fakes missed"]
    for field, bins in found.items():
        level, _, words = _MEASURES[field]
        lines.append(f"{level}s by {words}" + ("" if bins else ": not measured"))
        for b in bins:
            m = b.measured
            counts = f"{f'{m.real:,} ({m.real_groups:,})':14}{f'{m.fake:,} ({m.fake_groups:,})':14}"
            cells = "".join(
                f"{'too few' if metric.value is None else metric.cell():23}"
                for metric in b.metrics.values()
            )
            lines.append(f"  {f'{_short(b.low)} to {_short(b.high)}':20}{counts}{cells}".rstrip())
    note = (
        "Bins of about equally many rows, in brackets the groups. Too few: a class that the figure "
        f"needs has fewer than {FEWEST_GROUPS} groups. Where reals and fakes differ in the measure "
        "itself, bins also hold other mixes of videos: compare the counts."
    )
    return "\n".join([*lines, _wrap(note)])


def aggregation_table(found: dict[str, Metric]) -> str:
    """``aggregations`` to be read."""
    width = max(map(len, found)) + 2
    lines = [f"{'':{width}}ROC-AUC of videos"]
    for name, metric in found.items():
        reason = f" ({metric.reason})" if metric.reason else ""
        lines.append(f"{name:{width}}{metric.cell()}{reason}")
    note = (
        "All frames of a video together: rows of frames do not tell people apart, whereas 'unmask "
        "detect' takes the mean of logits of each person and then the most fake person. A choice "
        "among these is a choice made on this set: confirm it on another."
    )
    return "\n".join([*lines, _wrap(note)])


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 1 else f"{value:.4f}"


def _wrap(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False)
