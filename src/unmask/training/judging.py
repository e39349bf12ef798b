"""Judge a split's crops, or labelled videos, as 'detect' does: a row of scores.csv for each."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unmask.analyzer import Analyzer
from unmask.classifier import Classifier
from unmask.data.index import Crop
from unmask.data.manifest import Source
from unmask.errors import UnreadableError
from unmask.quality import longer_side
from unmask.robustness import ALTERATIONS, analyze_altered
from unmask.tracks import Sighting, Track
from unmask.training.batches import read_crop
from unmask.training.scores import Score, append_scores, read_finished, score_key, write_scores
from unmask.verdict import Rule, judge, sigmoid

_BATCH = 16


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
