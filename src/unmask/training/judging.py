"""Judge a split's crops, or labelled videos, as 'detect' does: a row of scores.csv for each."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unmask.analyzer import Analyzer
from unmask.card import SHIPPED, SHIPPED_NAME, Card
from unmask.classifier import Classifier
from unmask.data.index import Crop, read_split, without_stills
from unmask.data.manifest import Source, read_manifest
from unmask.errors import DatasetError, ModelError, UnreadableError, UsageError
from unmask.quality import longer_side
from unmask.robustness import ALTERATIONS, analyze_altered
from unmask.settings import VIDEO_SETTINGS
from unmask.tracks import Sighting, Track
from unmask.training.batches import read_crop
from unmask.training.scores import (
    SCORES_NAME,
    Score,
    append_scores,
    read_finished,
    score_key,
    write_scores,
)
from unmask.verdict import Rule, judge, sigmoid

_BATCH = 16
# What a crop's probability depends on, and a video's. The threshold is not in it: verdicts are
# made anew from the probabilities.
_CROP_SETTINGS = ("precision", "device")
_VIDEO_SETTINGS = (*VIDEO_SETTINGS, *_CROP_SETTINGS)


@dataclass(frozen=True)
class Judged:
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


def judge_manifest(
    model: str | Path, videos: Path, part: str | None, output: Path, values: SimpleNamespace,
    rule: Rule,
) -> Judged:  # fmt: skip
    """Judge the videos of a manifest, or those of a part. Raises as ``evaluate`` does."""
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
    return Judged(
        network=network,
        card=analyzer.classifier.card,
        scores=judge_videos(sources, analyzer, rule, used, output / SCORES_NAME),
        judged=f"the {part + ' ' if part else ''}videos of {videos}",
        protocol=protocol,
        used=used,
        sources=sources,
        analyzer=analyzer,
    )


def judge_split(
    model: str | Path, split: Path, part: str, output: Path, values: SimpleNamespace, rule: Rule
) -> Judged:
    """Judge the crops of a split's part; copies are left out, and stills where that can be.

    Raises as ``evaluate`` does.
    """
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
    return Judged(
        network=network,
        card=classifier.card,
        scores=judge_crops(kept, split, classifier, rule),
        judged=f"the {part} crops of {split}",
        protocol=protocol,
        used={name: getattr(values, name) for name in _CROP_SETTINGS},
    )


def crop_logits(
    crops: Sequence[Crop], folder: Path, classifier: Classifier
) -> Iterator[tuple[Crop, float | None]]:
    """Every crop of a split's folder and its calibrated logit; None where it cannot be read.

    Those of photos are judged as photos are.
    """
    for start in range(0, len(crops), _BATCH):
        batch = crops[start : start + _BATCH]
        images = [read_crop(folder / c.path, classifier.card.input_size) for c in batch]
        good = [(c, i) for c, i in zip(batch, images, strict=True) if i is not None]
        logits = iter(())
        if good:
            readable, pictures = zip(*good, strict=True)
            logits = iter(classifier.logits(np.stack(pictures), [c.is_photo for c in readable]))
        for crop, image in zip(batch, images, strict=True):
            yield crop, None if image is None else float(next(logits))


def judge_crops(
    crops: Sequence[Crop], folder: Path, classifier: Classifier, rule: Rule
) -> list[Score]:
    """A row for each crop, then one for each video. Unreadable crops are kept as such."""
    frames: list[Score] = []
    # 'preprocess' names a video by its path, so that this alone would do. In an index that was made
    # otherwise names may occur twice: FaceForensics++ calls the fakes of all methods '000_003'.
    videos: dict[tuple, tuple[Crop, Track]] = {}
    with _bar("crops") as bar:
        task = bar.add_task("", total=len(crops))
        for crop, logit in crop_logits(crops, folder, classifier):
            bar.advance(task)
            _, track = videos.setdefault(crop.source, (crop, Track(1)))
            if logit is None:
                missing = not (folder / crop.path).exists()
                reason = "the file is missing" if missing else "the picture cannot be decoded"
                frames.append(_row("frame", crop, crop.path, None, "unreadable", reason))
                continue
            box = crop.x1, crop.y1, crop.x2, crop.y2
            track.sightings.append(Sighting(crop.frame, crop.second, box, crop.score, logit))
            p = sigmoid(logit)
            frames.append(_row("frame", crop, crop.path, p, rule.verdict(p)))
    # Crops do not say which person they show, so the video's rule here is always the mean.
    mean = replace(rule, aggregate="mean")
    rows = []
    for crop, track in videos.values():
        if track.sightings:
            verdict = judge([track], mean)
            rows.append(_row("video", crop, crop.video, verdict.probability, verdict.name))
        else:
            rows.append(_row("video", crop, crop.video, None, "unreadable", "no readable crop"))
    return frames + rows


def judge_videos(
    sources: Sequence[Source], analyzer: Analyzer, rule: Rule, used: dict, path: Path,
    alteration: str = "",
) -> list[Score]:  # fmt: skip
    """The rows of every video, its frames before it; ``path`` holds them while they come in.

    With an ``alteration``, those of copies that were altered so.
    """
    if alteration:
        used = used | {"alteration": asdict(ALTERATIONS[alteration])}
    card = analyzer.classifier.card
    if card.calibration:
        used = used | {"calibration": card.calibration}
    keys = [score_key(source.path, card.sha256, used) for source in sources]
    done = read_finished(path, set(keys))
    # Rows of videos that were cut off, or judged otherwise, go.
    write_scores(path, [score for scores in done.values() for score in scores])
    with _bar(f"videos, {alteration}" if alteration else "videos") as bar:
        task = bar.add_task("", total=len(sources), completed=len(done))
        for source, key in zip(sources, keys, strict=True):
            if key in done:
                continue
            done[key] = _judge_video(source, analyzer, key, alteration, path.parent)
            append_scores(path, done[key])
            bar.advance(task)
    return [_relabel(score, source, rule)
            for source, key in zip(sources, keys, strict=True) for score in done[key]]  # fmt: skip


def _judge_video(
    source: Source, analyzer: Analyzer, key: str, alteration: str, folder: Path
) -> list[Score]:
    """The rows of one video. A folder of frames, which 'detect' would take apart, is refused.

    With an ``alteration``, a copy that was altered so is judged, which is in ``folder`` meanwhile.
    """
    about = source.name, source.name, source.label, source.group, source.method, source.dataset
    if source.path.is_dir():
        reason = "a folder of frames, not a video: preprocess and split it and judge its crops"
        return [Score("video", *about, None, None, None, "unreadable", reason, key=key)]
    if alteration:
        try:
            report = analyze_altered(analyzer, source.path, alteration, folder, math.inf)
        except UnreadableError as error:
            return [Score("video", *about, None, None, None, "unreadable", str(error), key=key)]
    else:
        report = analyzer.analyze(source.path)
    faces = [face for person in report.tracks for face in person.frames]
    rows = [
        Score(
            "frame", *about, face.index, face.second, face.probability_fake, "", key=key,
            face_size=face.face_size, sharpness=face.sharpness, turn=face.turn,
        )
        for face in sorted(faces, key=lambda face: face.index)
    ]  # fmt: skip
    p = report.probability_fake
    reason = report.reason if p is None else ""
    video = Score(
        "video", *about, None, None, p, report.verdict, reason, key=key,
        bits_per_pixel=report.video and report.video.bits_per_pixel,
    )  # fmt: skip
    return [*rows, video]


def _row(
    level: str, crop: Crop, path: str, probability: float | None, verdict: str, reason: str = ""
) -> Score:
    at = (crop.frame, crop.second) if level == "frame" else (None, None)
    about = crop.video, crop.label, crop.group, crop.method, crop.dataset
    row = Score(level, path, *about, *at, probability, verdict, reason)
    box = crop.x1, crop.y1, crop.x2, crop.y2
    if level == "frame" and any(box):  # a split without an index knows nothing of its crops
        row = replace(row, face_size=longer_side(box), sharpness=crop.blur)
    return row


def _relabel(score: Score, source: Source, rule: Rule) -> Score:
    """The row with what the manifest and the threshold say now."""
    p = score.probability_fake
    return replace(
        score, path=source.name, video=source.name, label=source.label, group=source.group,
        method=source.method, dataset=source.dataset,
        verdict=score.verdict if p is None else rule.verdict(p),
    )  # fmt: skip


def _bar(what: str) -> Progress:
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


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
