"""Make a probability of 0.5 mean something: fit a scale and an offset on held-out videos.

Training and 'export' do it for a model's card; 'unmask calibrate', in calibrate_videos.py, for
whoever uses a model.

The scale is Platt's ("Probabilistic outputs for support vector machines", 1999): logistic
regression of the label on a video's mean logit, both classes weighing the same. The offset puts 0.5
where a stated share of real videos would be called fake, since most videos in the world are real
and a false alarm is what costs trust.
"""

import csv
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from unmask.classifier import Classifier
from unmask.data.index import ENOUGH_VIDEOS, LABELS, Crop, read_split, without_stills
from unmask.errors import DatasetError
from unmask.training.judging import crop_logits


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
        raise too_few(len(real), len(fake), fewest)
    # Platt's targets: short of 0 and 1, so that few videos, told apart by luck, make no certainty.
    counts = np.where(labels == 1, len(fake), len(real))
    targets = np.where(labels == 1, len(fake) + 1, 1) / (counts + 2)
    weights = np.concatenate([targets, 1 - targets]) / np.tile(counts, 2) * len(labels) / 2
    scores, classes = np.tile(logits, 2)[:, None], np.repeat([1, 0], len(logits))
    regression = LogisticRegression(C=1e3).fit(scores, classes, weights)
    scale = float(regression.coef_[0, 0])
    if scale <= 0:
        raise DatasetError(
            "the model scores real videos higher than fakes, which no calibration can mend: train "
            "one on more or other videos, into another folder"
        )
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


def too_few(real: int, fake: int, fewest: int) -> DatasetError:
    """The error for so many videos where ``fewest`` of each label are needed."""
    return DatasetError(
        f"{real} real and {fake} fake videos are too few to calibrate on: it takes {fewest} of each"
    )


def crops_to_fit(split: Path) -> list[Crop]:
    """A split's ``val`` crops; stills are left out if enough are moving.

    Raises DatasetError where they are of too few videos.
    """
    crops = without_stills([c for c in read_split(split, "val") if not c.augmented])
    labels = [label for _, label, *_ in {crop.source for crop in crops}]
    if min(map(labels.count, LABELS)) < ENOUGH_VIDEOS:
        raise too_few(*map(labels.count, LABELS), ENOUGH_VIDEOS)
    return crops


def calibrate(model: Path, split: Path, false_positives: float = 0.05) -> Calibration:
    """Fit on the videos of ``crops_to_fit``; ``model`` is an .xml with scale 1 and offset 0."""
    classifier = Classifier(model)
    videos: dict[tuple, list[float]] = defaultdict(list)
    for crop, raw in crop_logits(crops_to_fit(split), split, classifier):
        if raw is not None:
            videos[crop.source].append(raw)
    labels = np.array([label == "fake" for _, label, *_ in videos])
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
