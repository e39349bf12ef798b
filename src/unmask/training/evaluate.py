"""Measure a model: a split's crops or labelled videos -> metrics, pictures, a readable report.

Everything is judged in the form and by the code that 'detect' runs, so what is measured here is
what is shipped.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from unmask.analyzer import Analyzer
from unmask.card import SHIPPED, SHIPPED_NAME, Card, Measured
from unmask.classifier import Classifier
from unmask.data.index import read_split, without_stills
from unmask.data.manifest import Source, read_manifest
from unmask.errors import DatasetError, ModelError, UsageError
from unmask.outputs import write_whole
from unmask.robustness import ALTERATIONS, check_sampling
from unmask.settings import VIDEO_SETTINGS, changed, resolve
from unmask.training import plots
from unmask.training.altered import Change, change_between
from unmask.training.breakdown import aggregations, by_quality
from unmask.training.judging import judge_crops, judge_videos
from unmask.training.metrics import Measurement, measure_scores, set_aside
from unmask.training.results import Evaluation, Level, report_text
from unmask.training.scores import SCORES_NAME, Score, write_scores
from unmask.verdict import Rule

# What a crop's probability depends on, and a video's. The threshold is not in it: verdicts are
# made anew from the probabilities.
_CROP_SETTINGS = ("precision", "device")
_VIDEO_SETTINGS = (*VIDEO_SETTINGS, *_CROP_SETTINGS)
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
        done = _judge_manifest(model, Path(videos), part, output, values, rule)
    else:
        done = _judge_split(model, Path(split), part or "test", output, values, rule)
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


@dataclass(frozen=True)
class _Judged:
    """What was judged, how and by what: ``used`` are the settings that probabilities depend on.

    ``card``, ``judged`` and ``protocol`` are those of the Evaluation. A manifest has its
    ``sources`` and the ``analyzer`` that judged them.
    """

    network: Path
    card: Card
    scores: list[Score]
    judged: str
    protocol: str
    used: dict[str, Any]
    sources: Sequence[Source] = ()
    analyzer: Analyzer | None = None


def _judge_manifest(
    model: str | Path, videos: Path, part: str | None, output: Path, values: SimpleNamespace,
    rule: Rule,
) -> _Judged:  # fmt: skip
    """Judge the videos of a manifest, or those of a part."""
    sources = read_manifest(videos)
    parts = Counter(source.split or "no split" for source in sources)
    if part:
        sources = [source for source in sources if source.split == part]
        if not sources:
            raise UsageError(f"the column 'split' of {videos} has no {part}: leave --part out")
    network = _runtime_model(model)
    output.mkdir(parents=True, exist_ok=True)
    used = {name: getattr(values, name) for name in _VIDEO_SETTINGS}
    analyzer = Analyzer(
        model=str(network), calibration=values.calibration, threads=values.threads,
        provenance=False, trust_list="", **used,
    )  # fmt: skip
    protocol = (
        "every video is judged as 'unmask detect' does, "
        + ("as fake as its most fake person" if rule.aggregate == "person" else
           "by the mean of logits over all faces")
        + "; a frame row is one face in one frame"
    )  # fmt: skip
    if not part and len(parts) > 1:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(parts.items()))
        protocol += f"; all splits of the manifest are taken together: {counts}"
    return _Judged(
        network=network,
        card=analyzer.classifier.card,
        scores=judge_videos(sources, analyzer, rule, used, output / SCORES_NAME),
        judged=f"the {part + ' ' if part else ''}videos of {videos}",
        protocol=protocol,
        used=used,
        sources=sources,
        analyzer=analyzer,
    )


def _judge_split(
    model: str | Path, split: Path, part: str, output: Path, values: SimpleNamespace, rule: Rule
) -> _Judged:
    """Judge the crops of a split's part; copies are left out, and stills where that can be."""
    crops = read_split(split, part)
    network = _runtime_model(model)
    output.mkdir(parents=True, exist_ok=True)
    classifier = Classifier(
        network, values.threads, values.precision, values.calibration, device=values.device
    )
    own = [crop for crop in crops if not crop.augmented]
    if not own:
        raise DatasetError(f"{split} has only augmented copies in {part}: split it again")
    kept = without_stills(own)
    protocol = "a video's score is the mean of logits over all its crops, whoever they show"
    if len(own) < len(crops):
        protocol += f"; {len(crops) - len(own)} augmented copies are left out"
    if len(kept) < len(own):
        protocol += f"; {len(own) - len(kept)} stills, which flatter, are left out"
    return _Judged(
        network=network,
        card=classifier.card,
        scores=judge_crops(kept, split, classifier, rule),
        judged=f"the {part} crops of {split}",
        protocol=protocol,
        used={name: getattr(values, name) for name in _CROP_SETTINGS},
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


def _runtime_model(model: str | Path) -> Path:
    """The model's .xml file."""
    if str(model) == SHIPPED_NAME:
        return SHIPPED
    model = Path(model)
    if not model.is_file():
        raise ModelError(
            f"no model at {model}: train one with 'unmask train', or measure Unmask's own with "
            "'unmask evaluate shipped'"
        )
    if model.suffix.lower() != ".h5":
        return model
    from unmask.training.export import runtime_form  # TensorFlow, only where it is needed

    return runtime_form(model)


def _robustness(
    done: _Judged, before: Sequence[Score], rule: Rule, output: Path, seed: int
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
