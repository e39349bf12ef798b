"""How figures change when videos are altered: pairs of scores, before and after -> a change."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unmask.robustness import ALTERATIONS
from unmask.training.bootstrap import resample
from unmask.training.metrics import RESAMPLES, Measurement, Metric, measure_scores
from unmask.training.scores import Score

_METRICS = ("roc_auc", "recall", "false_positive_rate")


@dataclass(frozen=True)
class Change:
    """The ``videos`` that are scored as they are, after one alteration.

    ``judged`` of them still are; ``whole`` and the share ``uncertain`` speak of these, and
    ``auc_change`` is against the same ones unaltered. ``changed`` is the share of all whose
    verdict became another, 'no_face' among them. With none judged, ``whole`` and ``uncertain``
    are None.
    """

    videos: int
    judged: int
    whole: Measurement | None
    auc_change: Metric
    uncertain: float | None
    changed: float

    @property
    def metrics(self) -> dict[str, Metric]:
        """ROC-AUC, recall and false positive rate after the alteration."""
        if self.whole is None:
            return dict.fromkeys(_METRICS, Metric(None, reason="none could be judged"))
        return {name: self.whole.metrics[name] for name in _METRICS}

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "videos": self.videos,
            "judged": self.judged,
            **{name: metric.as_dict() for name, metric in self.metrics.items()},
            "roc_auc_change": self.auc_change.as_dict(),
            "uncertain": self.uncertain,
            "changed": self.changed,
        }


def change_between(
    before: Sequence[Score], after: Sequence[Score], threshold: float, seed: int
) -> Change:
    """From the videos' scores ``before``, all with a probability, to those ``after``."""
    altered = {score.path: score for score in after}
    pairs = [(score, altered[score.path]) for score in before]
    judged = [(b, a) for b, a in pairs if a.probability_fake is not None]
    changed = float(np.mean([b.verdict != a.verdict for b, a in pairs]))
    if not judged:
        nothing = Metric(None, reason="none could be judged")
        return Change(len(pairs), 0, None, nothing, None, changed)
    sides = list(zip(*judged, strict=True))
    first, second = (measure_scores(side, threshold, seed) for side in sides)
    uncertain = float(np.mean([a.verdict == "uncertain" for _, a in judged]))
    change = _auc_change(first, second, sides, threshold, seed)
    return Change(len(pairs), len(judged), second, change, uncertain, changed)


def _auc_change(
    first: Measurement, second: Measurement, sides: Sequence[Sequence[Score]], threshold: float,
    seed: int,
) -> Metric:  # fmt: skip
    """Its interval is paired: every draw of groups is measured before and after."""
    auc = second.metrics["roc_auc"]
    if auc.value is None:
        return auc
    value = auc.value - first.metrics["roc_auc"].value
    if auc.low is None:
        return Metric(value, reason=auc.reason)
    names, member = np.unique([s.cluster for s in sides[0]], return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    labels = np.array([s.is_fake for s in sides[0]])
    scores = (np.array([s.probability_fake for s in side]) for side in sides)
    draws = [resample(labels, p, p >= threshold, member, drawn)[0]["roc_auc"] for p in scores]
    low, high = np.nanpercentile(draws[1] - draws[0], (2.5, 97.5))
    return Metric(value, float(low), float(high))


def table(videos: Measurement, uncertain: float, changes: Mapping[str, Change]) -> str:
    """The changes to be read, below a row for the ``videos`` as they are."""
    lines = [
        f"{'alteration':12}{'judged':>6}  {'ROC-AUC':24}{'its change':25}"
        f"{'recall':8}{'FPR':7}{'uncertain':11}changed"
    ]
    count = videos.real + videos.fake
    lines.append(_row("none", count, videos.metrics, Metric(None), uncertain, None))
    for name, c in changes.items():
        lines.append(_row(name, c.judged, c.metrics, c.auc_change, c.uncertain, c.changed))
    lines += [f"{name}: {ALTERATIONS[name].help}" for name in changes]
    lines.append(
        textwrap.fill(
            "An altered row's figures speak of the videos that are still judged, and so does the "
            "change, with an interval of its own over pairs; 'changed' is the share of all "
            f"{count} whose verdict became another, 'no_face' among them.",
            100,
        )
    )
    return "\n".join(lines)


def _row(
    name: str, judged: int, metrics: Mapping[str, Metric], change: Metric,
    uncertain: float | None, changed: float | None,
) -> str:  # fmt: skip
    auc, recall, alarms = (metrics[m] for m in _METRICS)
    cells = (
        f"{auc.cell():24}{change.cell('+.3f'):25}"
        f"{_number(recall.value):8}{_number(alarms.value):7}{_number(uncertain):11}"
    )
    return f"{name:12}{judged:>6}  {cells}{_number(changed)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
