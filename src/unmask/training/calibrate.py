"""Make a probability of 0.5 mean something: fit a scale and an offset on held-out videos.

'export' does it for a model's card, on a split; 'calibrate' for whoever uses a model, on labelled
videos of the kind it is used on.

The scale is Platt's ("Probabilistic outputs for support vector machines", 1999): logistic
regression of the label on a video's mean logit, both classes weighing the same. The offset puts 0.5
where a stated share of real videos would be called fake, since most videos in the world are real
and a false alarm is what costs trust.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from unmask import __version__
from unmask.calibration import SCHEMA_VERSION
from unmask.classifier import Card, Classifier
from unmask.data.index import ENOUGH_VIDEOS, LABELS, read_split, without_stills
from unmask.data.manifest import read_manifest
from unmask.errors import DatasetError
from unmask.outputs import in_one_step
from unmask.settings import resolve
from unmask.training import plots
from unmask.training.evaluate import evaluate
from unmask.training.judging import crop_logits
from unmask.training.metrics import Measurement, measure
from unmask.verdict import logit, sigmoid

CALIBRATION_NAME = "calibration.json"
DIAGRAM_NAME = "reliability_diagram.png"

_MEASURED = {
    "false_positive_rate": "reals called fake (FPR)", "recall": "fakes found (TPR)",
    "calibration_error": "calibration error (ECE)", "brier": "Brier score", "log_loss": "log loss",
}  # fmt: skip


@dataclass(frozen=True)
class Calibration:
    """``logit * scale + offset`` is calibrated; the shares are of the videos it was fitted on.

    For a photo ``photo_offset`` is added. It was fitted on ``real_photos``, of which
    ``photo_false_positive_rate`` are called fake with it (None without photos).
    """

    scale: float
    offset: float
    false_positive_rate: float
    true_positive_rate: float
    real_videos: int
    fake_videos: int
    photo_offset: float = 0.0
    photo_false_positive_rate: float | None = None
    real_photos: int = 0


def fit_calibration(
    logits: np.ndarray,
    labels: np.ndarray,
    false_positives: float = 0.05,
    fewest: int = ENOUGH_VIDEOS,
) -> Calibration:
    """Fit on one logit and label (1 = fake) a video, (n,) each.

    Raises DatasetError with fewer than ``fewest`` videos of a class, or when fakes score no higher
    than reals, which no scale can mend.
    """
    real, fake = logits[labels == 0], logits[labels == 1]
    if min(len(real), len(fake)) < fewest:
        raise _too_few(len(real), len(fake), fewest)
    # Platt's targets: short of 0 and 1, so that few videos, told apart by luck, make no certainty.
    counts = np.where(labels == 1, len(fake), len(real))
    targets = np.where(labels == 1, len(fake) + 1, 1) / (counts + 2)
    weights = np.concatenate([targets, 1 - targets]) / np.tile(counts, 2) * len(labels) / 2
    scores, classes = np.tile(logits, 2)[:, None], np.repeat([1, 0], len(logits))
    regression = LogisticRegression(C=1e3).fit(scores, classes, weights)
    scale = float(regression.coef_[0, 0])
    if scale <= 0:
        raise DatasetError("the model scores real videos higher than fakes: train it further")
    limit = _limit(real, logits, false_positives)
    return Calibration(
        scale=scale,
        offset=-scale * limit,
        false_positive_rate=float((real > limit).mean()),
        true_positive_rate=float((fake > limit).mean()),
        real_videos=len(real),
        fake_videos=len(fake),
    )


def _limit(real: np.ndarray, logits: np.ndarray, false_positives: float) -> float:
    """The logit that no more than the allowed share of ``real`` exceed; between two of ``logits``.

    With few of them, rather too careful than too bold.
    """
    limit = float(np.quantile(real, 1 - false_positives, method="higher"))
    # Half-way to the next score, so that this one itself is not 0.5, which is called fake.
    return (limit + float(np.min(logits[logits > limit], initial=limit + 1))) / 2


def _too_few(real: int, fake: int, fewest: int) -> DatasetError:
    return DatasetError(
        f"{real} real and {fake} fake videos are too few to calibrate on: it takes {fewest} of each"
    )


def calibrate(model: Path, split: Path, part: str = "val", false_positives: float = 0.05):
    """Fit on the videos among a split's crops; stills are left out where there are enough videos.

    ``model`` is an .xml whose card says scale 1 and offset 0. Returns the Calibration.
    """
    classifier = Classifier(model)
    videos: dict[tuple[str, int], list[float]] = defaultdict(list)
    crops = without_stills([c for c in read_split(split, part) if not c.augmented])
    for crop, raw in crop_logits(crops, split, classifier):
        if raw is not None:
            videos[crop.video, crop.is_fake].append(raw)
    labels = np.array([key[1] for key in videos])
    return fit_calibration(
        np.array([np.mean(seen) for seen in videos.values()]), labels, false_positives
    )


def calibrate_held_out(path: Path, false_positives: float = 0.05) -> Calibration:
    """Fit on a ``held_out.csv`` of 'unmask train --head moments'; see there.

    Real photos get a threshold of their own, where a dataset has enough of them: one that serves
    each of these datasets.
    """
    shown, photos = [], defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["kind"] == "shown":
                    shown.append((float(row["logit"]), row["label"] == "fake"))
                elif row["label"] == "real":
                    photos[row["dataset"]].append(float(row["logit"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} has no held-out videos ({error!r}): train again") from None
    logits, labels = np.array(shown, float).reshape(-1, 2).T
    found = fit_calibration(logits, labels, false_positives)
    enough = [
        np.array(each) * found.scale + found.offset
        for each in photos.values() if len(each) >= ENOUGH_VIDEOS
    ]  # fmt: skip
    if not enough:
        return found
    limit = max(_limit(each, each, false_positives) for each in enough)
    every = np.concatenate(enough)
    return replace(
        found, photo_offset=-limit, photo_false_positive_rate=float((every > limit).mean()),
        real_photos=len(every),
    )  # fmt: skip


def calibrate_on_videos(
    model: str | Path, videos: str | Path, output: str | Path, **settings: Any
) -> str:
    """Fit on the labelled ``videos`` of a manifest; write ``calibration.json`` into ``output``.

    The videos are judged by ``evaluate``, whose results are in ``output`` as well: nothing is
    judged twice. Beside the file a reliability diagram is drawn, before and after. Returns a
    summary. Raises as ``evaluate`` and ``fit_calibration`` do; too few videos are told before any
    is judged.
    """
    values = vars(resolve("calibrate", settings))
    allowed = values.pop("false_positives")
    listed = [source.label for source in read_manifest(videos)]
    if min(map(listed.count, LABELS)) < ENOUGH_VIDEOS:
        raise _too_few(*map(listed.count, LABELS), ENOUGH_VIDEOS)
    # Whatever the environment says, the card's own probabilities are what is mapped.
    judged = evaluate(
        model, videos=videos, output=output, calibration="", record="", robustness=False,
        threshold=0.5, **values,
    )  # fmt: skip
    scored = judged.videos.scored
    labels = np.array([score.is_fake for score in scored])
    before = np.array([score.probability_fake for score in scored])
    groups = [score.group or score.video for score in scored]
    logits = logit(before, sure=np.finfo(np.float64).eps)
    found = fit_calibration(logits, labels, allowed)
    after = cross_fitted(logits, labels, groups, allowed)
    measured = [measure(labels, p, groups, seed=values["seed"]) for p in (before, after)]
    path = Path(output) / CALIBRATION_NAME
    _write(path, judged.card, found, allowed, measured, len(judged.videos.unscored),
           judged.settings)  # fmt: skip
    plots.reliability_diagram(
        {"before": (labels, before), "after, cross-fitted": (labels, after)},
        path.with_name(DIAGRAM_NAME),
    )
    return _summary(judged.card, found, measured, len(judged.videos.unscored), path, model)


def cross_fitted(
    logits: np.ndarray, labels: np.ndarray, groups: Sequence[str], false_positives: float = 0.05
) -> np.ndarray:
    """Every video's probability, (n,), by a calibration that was fitted without its group.

    A calibration looks better on the videos it was fitted on than on new ones; these
    probabilities are as on new ones. Raises DatasetError when one group has all videos of a class.
    """
    member = np.asarray(groups, str)
    probabilities = np.empty(len(logits))
    for group in np.unique(member):
        rest = member != group
        if len(np.unique(labels[rest])) < 2:
            raise DatasetError(
                f"all videos of a label are in one group, '{group}', so nothing can be said of "
                "new ones: add videos of other people, or correct the column 'group'"
            )
        found = fit_calibration(logits[rest], labels[rest], false_positives, fewest=1)
        for index in np.flatnonzero(~rest):
            probabilities[index] = sigmoid(logits[index] * found.scale + found.offset)
    return probabilities


def _write(
    path: Path, card: Card, found: Calibration, allowed: float, measured: Sequence[Measurement],
    not_scored: int, settings: dict[str, Any],
) -> None:  # fmt: skip
    """The calibration file, in one step."""
    before, after = (
        {name: measurement.metrics[name].as_dict() for name in _MEASURED}
        for measurement in measured
    )
    content = {
        "schema_version": SCHEMA_VERSION,
        "model": {
            "name": card.name, "version": card.version, "sha256": card.sha256,
            "scale": card.scale, "offset": card.offset, "photo_offset": card.photo_offset,
        },
        "scale": found.scale,
        "offset": found.offset,
        "false_positive_rate": {"asked": allowed, "measured": found.false_positive_rate},
        "true_positive_rate": found.true_positive_rate,
        "real_videos": found.real_videos,
        "fake_videos": found.fake_videos,
        "groups": measured[0].groups,
        "not_scored": not_scored,
        "before": before,
        "after_cross_fitted": after,
        "settings": settings,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "unmask_version": __version__,
    }  # fmt: skip
    with in_one_step(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _summary(
    card: Card, found: Calibration, measured: Sequence[Measurement], not_scored: int, path: Path,
    model: str | Path,
) -> str:  # fmt: skip
    left_out = f", {not_scored} not scored" if not_scored else ""
    lines = [
        f"{card.name} {card.version} on {found.real_videos} real and {found.fake_videos} fake "
        f"videos in {measured[0].groups} groups{left_out}",
        f"{'':26}{'before':28}after",
    ]
    for name, title in _MEASURED.items():
        before, after = (str(measurement.metrics[name]) for measurement in measured)
        lines.append(f"{title:26}{before:28}{after}")
    option = "" if str(model) == "shipped" else f"--model {Path(model).with_suffix('.xml')} "
    lines += [
        "Rates are at 0.5; brackets are 95 % intervals over groups. Fitting and measuring on the",
        "same videos flatters, so each video's 'after' is by a fit without its group. The offset",
        "serves the false positive rate that was asked for, even where the errors below it grow.",
        f"fitted on all: logit * {found.scale:.3f} {found.offset:+.3f}, by which "
        f"{found.false_positive_rate:.1%} of these real and {found.true_positive_rate:.1%} of "
        "these fakes are called fake",
        f"written: {path} and {DIAGRAM_NAME}",
        f"next: unmask detect {option}--calibration {path} PATH",
    ]
    return "\n".join(lines)
