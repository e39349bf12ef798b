"""What an evaluation found, in words and as JSON."""

import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import classification_report

from unmask.card import Card
from unmask.training import altered
from unmask.training.altered import Change
from unmask.training.breakdown import Bin, aggregation_table, quality_table
from unmask.training.metrics import RESAMPLES, Measurement, Metric
from unmask.training.scores import Score
from unmask.verdict import Rule, most_possible

SCHEMA_VERSION = 1
_WORST = 10  # mistakes that the report lists for each level
_RARE = 0.01  # the share of fakes for which the report says what an alarm is worth


@dataclass(frozen=True)
class Level:
    """Everything about the videos, or about the frames: ``scored`` are those with a probability.

    A method's measurement takes its own fakes and all reals; a dataset's, its own of both.
    """

    scored: list[Score]
    unscored: list[Score]
    whole: Measurement
    methods: dict[str, Measurement]
    datasets: dict[str, Measurement]


@dataclass(frozen=True)
class Evaluation:
    """An evaluation that is done; ``str()`` is its summary in a few lines.

    ``judged`` says what was judged and ``protocol`` how; ``certainty`` is metrics.set_aside of
    the videos' verdicts; ``quality`` and ``aggregations`` are those of ``breakdown``;
    ``robustness`` compares the verdicts by alteration, where that was asked for.
    """

    card: Card
    judged: str
    protocol: str
    settings: dict[str, Any]
    rule: Rule
    seed: int
    videos: Level
    frames: Level
    certainty: dict
    quality: dict[str, list[Bin]]
    aggregations: dict[str, Metric]
    robustness: dict[str, Change]
    output: Path

    def __str__(self) -> str:
        lines = [f"{self.card.name} {self.card.version} on {self.judged}"]
        for name, level in (("videos", self.videos), ("frames", self.frames)):
            metrics = level.whole.metrics
            not_scored = f", {len(level.unscored)} not scored" if level.unscored else ""
            lines.append(f"{name}: {level.whole.real} real, {level.whole.fake} fake{not_scored}")
            for metric in ("roc_auc", "accuracy", "equal_error_rate"):
                lines.append(f"  {metric.replace('_', ' '):17} {metrics[metric]}")
        lines.append(f"all of it: {self.output / 'metrics_report.txt'}")
        return "\n".join(lines)

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": asdict(self.card),
            "judged": self.judged,
            "protocol": self.protocol,
            "settings": self.settings,
            "intervals": {
                "level": 0.95, "method": "percentile bootstrap over groups",
                "resamples": RESAMPLES, "seed": self.seed,
            },
            "videos": _level_dict(self.videos) | {"certainty": self.certainty},
            "frames": _level_dict(self.frames),
            "by_quality": {k: [b.as_dict() for b in bins] for k, bins in self.quality.items()},
            "aggregations": {name: auc.as_dict() for name, auc in self.aggregations.items()},
            "robustness": {name: c.as_dict() for name, c in self.robustness.items()},
        }  # fmt: skip


def _level_dict(level: Level) -> dict:
    return level.whole.as_dict() | {
        "not_scored": [
            {"path": s.path, "label": s.label, "verdict": s.verdict, "reason": s.reason}
            for s in level.unscored
        ],
        "by_method": {name: m.as_dict() for name, m in level.methods.items()},
        "by_dataset": {name: m.as_dict() for name, m in level.datasets.items()},
    }


def report_text(found: Evaluation) -> str:
    """The readable report."""
    both = (("videos", found.videos), ("frames", found.frames))
    sections = [
        ("What the numbers mean", "\n".join(map(_wrap, _meaning(found)))),
        ("Uncertain verdicts", _certainty(found)),
    ]
    if found.robustness:
        uncertain = 1 - found.certainty["coverage"]
        text = altered.table(found.videos.whole, uncertain, found.robustness)
        sections.append(("How verdicts hold when videos are altered", text))
    for kind in ("method", "dataset"):
        for name, level in both:
            parts = level.methods if kind == "method" else level.datasets
            if parts:
                sections.append((f"By {kind}: {name}", _parts_table(parts, kind)))
    sections += [
        ("By quality of the picture", quality_table(found.quality)),
        ("Ways to make one score of a video's frames", aggregation_table(found.aggregations)),
    ]
    threshold = found.rule.threshold
    for name, level in both:
        sections.append((f"Classification report (scikit-learn): {name}",
                         _sklearn_report(level, threshold)))  # fmt: skip
    for name, level in both:
        sections.append((f"Worst mistakes: {name}", _worst(level, threshold)))
    for name, level in both:
        if level.unscored:
            sections.append((f"Not scored, and in no figure above: {name}", _unscored(level)))
    texts = [f"{title}\n{'-' * len(title)}\n{text}" for title, text in sections]
    return "\n\n".join([_head(found), _table(found), *texts]) + "\n"


def _wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 100, subsequent_indent=indent, break_long_words=False)


def _head(found: Evaluation) -> str:
    card = found.card
    title = f"Evaluation of {card.name} {card.version}"
    facts = {
        "model": f"sha256 {card.sha256}"
        + (f", calibrated by the file {card.calibration}" if card.calibration else ""),
        "judged": found.judged,
        "protocol": found.protocol,
        "settings": ", ".join(f"{name} {value}" for name, value in found.settings.items()),
        "intervals": f"95 %, percentile bootstrap over groups, {RESAMPLES} draws, seed "
        f"{found.seed}",
    }
    lines = [_wrap(f"{name:11}{text}", " " * 11) for name, text in facts.items()]
    return "\n".join([title, "=" * len(title), *lines])


def _table(found: Evaluation) -> str:
    lines = [f"{'':24}{'videos':30}frames"]
    for word in ("real", "fake"):
        cells = ""
        for whole in (found.videos.whole, found.frames.whole):
            rows, groups = getattr(whole, word), getattr(whole, f"{word}_groups")
            cells += f"{f'{rows:,} in {groups:,} groups':30}"
        lines.append(f"{word:24}{cells}")
    reasons = {}
    for name, video in found.videos.whole.metrics.items():
        frame = found.frames.whole.metrics[name]
        cells = ""
        for metric in (video, frame):
            mark = ""
            if metric.reason:
                mark = f" ({reasons.setdefault(metric.reason, len(reasons) + 1)})"
            cells += f"{metric.cell() + mark:30}"
        lines.append(f"{name.replace('_', ' '):24}{cells}")
    lines += [f"({number}) {reason}" for reason, number in reasons.items()]
    return "\n".join(line.rstrip() for line in lines)


def _meaning(found: Evaluation) -> Iterator[str]:
    whole = found.videos.whole
    metrics = whole.metrics
    auc, alarm, recall = (metrics[n] for n in ("roc_auc", "false_positive_rate", "recall"))
    if auc.value is not None:
        between = "" if auc.low is None else (
            f" (with other videos of this kind, likely {100 * auc.low:.0f} to "
            f"{100 * auc.high:.0f})"
        )  # fmt: skip
        yield (
            f"Shown one real and one fake video of this set, the model gives the fake one the "
            f"higher score in {100 * auc.value:.0f} of 100 cases{between}; a coin gets 50."
        )
    says = []
    if alarm.value is not None:
        says.append(f"calls {100 * alarm.value:.0f} of 100 real videos fake")
    if recall.value is not None:
        says.append(f"finds {100 * recall.value:.0f} of 100 fake ones")
    yield f"At the threshold {found.rule.threshold:g} it {' and '.join(says)}."
    if alarm.value is not None and recall.value:
        if alarm.value:
            worth = recall.value * _RARE / (recall.value * _RARE + alarm.value * (1 - _RARE))
            yield (
                f"Where 1 video in {1 / _RARE:.0f} is fake, at these rates {100 * worth:.0f} of "
                "100 alarms would be right: the rarer fakes are, the less an alarm is worth."
            )
        else:
            yield (
                f"No false alarm in {whole.real} real videos still leaves room for up to "
                f"{100 * most_possible(whole.real):.0f} in 100 (95 % bound, taking the videos as "
                "independent)."
            )
    yield (
        f"The figures speak of these {whole.real + whole.fake} videos in {whole.groups} groups, of "
        "these ways to make a fake and of this protocol. Other generators, stronger compression "
        "and other cameras can be, and usually are, harder; quote a figure only together with "
        "what it was measured on."
    )


def _certainty(found: Evaluation) -> str:
    rates, width = found.certainty, found.rule.uncertain
    forced, sure = rates["all_at_threshold"], rates["uncertain_set_aside"]
    total = forced["verdicts"]

    def row(name: str, r: dict) -> str:
        cells = (r["error_rate"], r["false_positive_rate"], r["miss_rate"])
        shown = "".join(f"{'-' if c is None else f'{c:.3f}':20}" for c in cells)
        return f"{name:24}{r['verdicts'] / total:<14.3f}{shown}".rstrip()

    return "\n".join((
        f"{rates['uncertain']} of {total} scored videos are 'uncertain': closer than {width:g} to "
        "the threshold.",
        f"{'':24}{'coverage':14}{'errors':20}{'reals called fake':20}fakes missed",
        row("all, at the threshold", forced),
        row("uncertain set aside", sure),
    ))  # fmt: skip


def _parts_table(parts: dict[str, Measurement], kind: str) -> str:
    width = max(len(kind), *map(len, parts)) + 2
    lines = [f"{kind:{width}}{'real':>7}{'fake':>7}   {'ROC-AUC':26}{'recall':26}EER"]
    for name, part in parts.items():
        shown = (part.metrics[name] for name in ("roc_auc", "recall", "equal_error_rate"))
        cells = "".join(f"{metric.cell():26}" for metric in shown)
        lines.append(f"{name:{width}}{part.real:>7,}{part.fake:>7,}   {cells}".rstrip())
    if kind == "method":
        lines.append("Each method's fakes against all reals.")
    return "\n".join(lines)


def _sklearn_report(level: Level, threshold: float) -> str:
    labels = np.array([s.is_fake for s in level.scored])
    called = np.array([s.probability_fake >= threshold for s in level.scored]).astype(int)
    # A class that is not there has no recall; it is left out instead of counted as 0.
    present = [label for label in (0, 1) if label in labels]
    names = [("real", "fake")[label] for label in present]
    text = classification_report(
        labels, called, labels=present, target_names=names, digits=3, zero_division=0
    )
    text = text.strip("\n")
    if len(set(called)) == 1:
        text += "\n(everything was called the same; scikit-learn writes 0 for a share of nothing)"
    return text


def _worst(level: Level, threshold: float) -> str:
    wrong = [s for s in level.scored if (s.probability_fake >= threshold) != s.is_fake]
    if not wrong:
        return "none"
    worst = sorted(wrong, key=lambda s: (-s.wrongness, s.path, s.frame or 0))[:_WORST]
    lines = [f"{len(wrong)} wrong at the threshold; the worst first"]
    for s in worst:
        about = f" ({s.method})" if s.method else ""
        where = f"  frame {s.frame}" if s.level == "frame" and s.frame is not None else ""
        lines.append(f"{s.probability_fake:.3f}  {s.label}{about}  {s.path}{where}")
    return "\n".join(lines)


def _unscored(level: Level) -> str:
    counts = Counter((s.verdict, s.label) for s in level.unscored)
    lines = [", ".join(f"{n} {label} {verdict}" for (verdict, label), n in sorted(counts.items()))]
    lines += [f"{s.verdict}  {s.label}  {s.path}: {s.reason}" for s in level.unscored]
    return "\n".join(lines)
