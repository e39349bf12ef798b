"""Make a probability of 0.5 mean something: fit a model's scale and offset on held-out videos.

The scale is Platt's (1999): logistic regression of the label on a video's mean logit, both classes
weighing the same. The offset puts 0.5 where a stated share of real videos would be called fake,
since most videos in the world are real and a false alarm is what costs trust.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from unmask.classifier import Classifier
from unmask.data.index import ENOUGH_VIDEOS, read_split, without_stills
from unmask.errors import DatasetError
from unmask.training.batches import read_crop

_BATCH = 16


@dataclass(frozen=True)
class Calibration:
    """``logit * scale + offset`` is calibrated; the shares are of the videos it was fitted on."""

    scale: float
    offset: float
    false_positive_rate: float
    true_positive_rate: float
    real_videos: int
    fake_videos: int


def fit_calibration(
    logits: np.ndarray, labels: np.ndarray, false_positives: float = 0.05
) -> Calibration:
    """Fit on one logit and label (1 = fake) a video.

    Raises DatasetError with fewer than 20 videos of a class, or when fakes score no higher than
    reals, which no scale can mend.
    """
    real, fake = logits[labels == 0], logits[labels == 1]
    if min(len(real), len(fake)) < ENOUGH_VIDEOS:
        raise DatasetError(
            f"{len(real)} real and {len(fake)} fake videos are too few to calibrate on: it takes "
            f"{ENOUGH_VIDEOS} of each"
        )
    regression = LogisticRegression(C=1e3, class_weight="balanced")
    scale = float(regression.fit(logits[:, None], labels).coef_[0, 0])
    if scale <= 0:
        raise DatasetError("the model scores real videos higher than fakes: train it further")
    # The next larger score of a real video: with few of them, rather too careful than too bold.
    limit = float(np.quantile(real, 1 - false_positives, method="higher"))
    return Calibration(
        scale=scale,
        offset=-scale * limit,
        false_positive_rate=float((real > limit).mean()),
        true_positive_rate=float((fake > limit).mean()),
        real_videos=len(real),
        fake_videos=len(fake),
    )


def calibrate(model: Path, split: Path, part: str = "val", false_positives: float = 0.05):
    """Fit on the videos among a split's crops; stills are left out where there are enough videos.

    ``model`` is an .xml whose card says scale 1 and offset 0. Returns the Calibration.
    """
    classifier = Classifier(model)
    videos: dict[tuple[str, int], list[float]] = defaultdict(list)
    crops = without_stills([c for c in read_split(split, part) if not c.augmented])
    for start in range(0, len(crops), _BATCH):
        batch = [(c, read_crop(split / c.path, classifier.card.input_size))
                 for c in crops[start : start + _BATCH]]  # fmt: skip
        batch = [(crop, image) for crop, image in batch if image is not None]
        if batch:
            logits = classifier.logits(np.stack([image for _, image in batch]))
            for (crop, _), logit in zip(batch, logits, strict=True):
                videos[crop.video, crop.is_fake].append(float(logit))
    labels = np.array([key[1] for key in videos])
    return fit_calibration(
        np.array([np.mean(seen) for seen in videos.values()]), labels, false_positives
    )
