"""Measure a model: a split's crops or labelled videos -> metrics, pictures, a readable report.

Everything is judged in the form and by the code that 'detect' runs, so what is measured here is
what is shipped.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from unmask.card import Measured
from unmask.errors import DatasetError, UsageError
from unmask.outputs import write_whole
from unmask.robustness import ALTERATIONS, check_sampling
from unmask.settings import VIDEO_SETTINGS, changed, resolve
from unmask.training import plots
from unmask.training.altered import Change, change_between
from unmask.training.breakdown import aggregations, by_quality
from unmask.training.judging import Judged, judge_manifest, judge_split, judge_videos
from unmask.training.metrics import Measurement, measure_scores, set_aside
from unmask.training.results import Evaluation, Level, report_text
from unmask.training.scores import SCORES_NAME, Score, write_scores
from unmask.verdict import Rule

# What a model's card says nothing of, so that figures in it hold for the defaults.
_NOT_IN_CARD = (*VIDEO_SETTINGS, "uncertain")


def evaluate(
    model: str | Path,
    split: str | Path = "preprocessed_split",
    videos: str | Path | None = None,
    output: str | Path = "evaluation_results",
    *,
    part: str | None = None,
    **settings: Any,
) -> Evaluation:
    """Judge a split's ``part``, or the manifest ``videos`` instead, and write into ``output``.

    ``part`` is 'test' where it is not given; of a manifest it is the rows that its column ``split``
    puts there, or all.
    ``model`` is an .h5 (exported beside itself first), an .xml, or 'shipped'. Judging videos goes
    on where an interrupted run with the same output stopped. Raises DatasetError when there is
    nothing that could be judged, ModelError for a model that cannot be run, UsageError for
    ``robustness`` without videos or with a ``sampling`` but 'exact', for ``record`` without videos,
    with a ``calibration`` or with settings that are not by default and that the card says nothing
    of, and for a ``part`` that the manifest does not have.
    """
    values = resolve("evaluate", settings)
    _check(values, videos)
    rule, output = Rule.of(values), Path(output)
    if videos:
        done = judge_manifest(model, Path(videos), part, output, values, rule)
    else:
        done = judge_split(model, Path(split), part or "test", output, values, rule)
    scores = done.scores
    write_scores(output / SCORES_NAME, scores)
    video_level = _level([s for s in scores if s.level == "video"], rule, values.seed)
    robustness = {}
    if values.robustness:
        robustness = _robustness(done, video_level.scored, rule, output, values.seed)
    found = Evaluation(
        card=done.card,
        judged=done.judged,
        protocol=done.protocol,
        settings={**done.used, "threshold": rule.threshold, "uncertain": rule.uncertain},
        rule=rule,
        seed=values.seed,
        videos=video_level,
        frames=_level([s for s in scores if s.level == "frame"], rule, values.seed),
        certainty=set_aside(
            [s.is_fake for s in video_level.scored],
            [s.probability_fake for s in video_level.scored],
            [s.verdict == "uncertain" for s in video_level.scored],
            rule.threshold,
        ),
        quality=by_quality(scores, rule.threshold, values.seed),
        aggregations=aggregations(scores, values.seed),
        robustness=robustness,
        output=output,
    )
    _write(found)
    if values.record:
        _record(found, values.record, done.network.with_suffix(".json"))
    return found


def _check(values: SimpleNamespace, videos: str | Path | None) -> None:
    """Raise UsageError for settings that do not go together."""
    if values.robustness:
        if not videos:
            raise UsageError(
                "--robustness alters whole videos: name some with --videos manifest.csv"
            )
        check_sampling(values.sampling)
    if values.record:
        if not videos or values.calibration:
            raise UsageError(
                "--record writes what the model alone does on videos: name some with --videos "
                "manifest.csv, and leave --calibration away"
            )
        own = [s.option for s in changed("evaluate", vars(values)) if s.name in _NOT_IN_CARD]
        if own:
            raise UsageError(
                "--record writes figures that reports state for the default settings: leave "
                f"{', '.join(own)} away"
            )


def _record(found: Evaluation, name: str, path: Path) -> None:
    """Write the videos' figures into the model's card. Raises DatasetError where one is missing."""
    metrics = found.videos.whole.metrics
    figures = {m: metrics[m] for m in ("roc_auc", "recall", "false_positive_rate")}
    for metric in figures.values():
        if metric.value is None:
            raise DatasetError(f"there is nothing to record: {metric.reason}")
    scored = found.videos.scored
    measured = Measured(
        set=name,
        videos={"real": found.videos.whole.real, "fake": found.videos.whole.fake},
        **{m: (metric.value, metric.low, metric.high) for m, metric in figures.items()},
        uncertain=sum(s.verdict == "uncertain" for s in scored) / len(scored),
        threshold=found.rule.threshold,
        date=datetime.now(UTC).date().isoformat(),
    )
    card = json.loads(path.read_bytes()) | {"measured": asdict(measured)}
    write_whole(path, json.dumps(card, indent=2, allow_nan=False) + "\n")


def _robustness(
    done: Judged, before: Sequence[Score], rule: Rule, output: Path, seed: int
) -> dict[str, Change]:
    """The videos that have a score ``before``, judged again under each alteration."""
    names = {score.path for score in before}
    scored = [source for source in done.sources if source.name in names]
    changes = {}
    for alteration in ALTERATIONS:
        path = output / f"scores_{alteration}.csv"
        rows = judge_videos(scored, done.analyzer, rule, done.used, path, alteration)
        write_scores(path, rows)
        videos = [row for row in rows if row.level == "video"]
        changes[alteration] = change_between(before, videos, rule.threshold, seed)
    return changes


def _level(scores: Sequence[Score], rule: Rule, seed: int) -> Level:
    """Measure the videos, or the frames. Raises DatasetError when none has a probability."""
    scored = [s for s in scores if s.probability_fake is not None]
    unscored = [s for s in scores if s.probability_fake is None]
    if not scored:
        first = unscored[0]
        raise DatasetError(
            f"none of {len(unscored)} could be judged, so there is nothing to measure; the first, "
            f"{first.path}: {first.reason}"
        )

    def of(rows: Sequence[Score]) -> Measurement:
        return measure_scores(rows, rule.threshold, seed)

    reals = [s for s in scored if not s.is_fake]
    methods = sorted({s.method for s in scored if s.is_fake and s.method})
    datasets = sorted({s.dataset for s in scored if s.dataset})
    return Level(
        scored,
        unscored,
        of(scored),
        {m: of(reals + [s for s in scored if s.is_fake and s.method == m]) for m in methods},
        {d: of([s for s in scored if s.dataset == d]) for d in datasets},
    )


def _write(found: Evaluation) -> None:
    """The report, the JSON and the pictures."""
    folder, rule = found.output, found.rule
    write_whole(folder / "metrics_report.txt", report_text(found))
    write_whole(
        folder / "metrics.json", json.dumps(found.as_dict(), indent=2, allow_nan=False) + "\n"
    )
    panels = [
        plots.Panel(
            name, level.whole,
            np.array([s.is_fake for s in level.scored]),
            np.array([s.probability_fake for s in level.scored]),
        )
        for name, level in (("videos", found.videos), ("frames", found.frames))
    ]  # fmt: skip
    for percent, name in ((False, "counts"), (True, "percent")):
        path = folder / f"confusion_matrix_{name}.png"
        plots.confusion(panels, rule.threshold, path, percent)
    plots.roc_curve(panels, rule.threshold, folder / "roc_curve.png")
    plots.score_histogram(panels, rule.threshold, rule.uncertain, folder / "score_histogram.png")
