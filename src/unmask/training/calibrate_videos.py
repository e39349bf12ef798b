"""'unmask calibrate': fit the probabilities to one's own labelled videos -> calibration.json."""

import json
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from unmask import __version__
from unmask.calibration import SCHEMA_VERSION
from unmask.card import Card
from unmask.data.index import ENOUGH_VIDEOS, LABELS
from unmask.data.manifest import read_manifest
from unmask.errors import DatasetError, UsageError
from unmask.outputs import write_whole
from unmask.settings import changed, resolve
from unmask.training import plots
from unmask.training.calibrate import Calibration, fit_calibration, too_few
from unmask.training.evaluate import evaluate
from unmask.training.metrics import Measurement, measure_scores
from unmask.verdict import logit, sigmoid

CALIBRATION_NAME = "calibration.json"
DIAGRAM_NAME = "reliability_diagram.png"

_MEASURED = {
    "false_positive_rate": "reals called fake (FPR)", "recall": "fakes found (TPR)",
    "calibration_error": "calibration error (ECE)", "brier": "Brier score", "log_loss": "log loss",
}  # fmt: skip


def calibrate_on_videos(
    model: str | Path,
    videos: str | Path,
    output: str | Path,
    part: str | None = None,
    **settings: Any,
) -> str:
    """Fit on the labelled ``videos`` of a manifest; write ``calibration.json`` into ``output``.

    ``part`` takes those alone of which the column 'split' says so; a manifest with a part 'test'
    needs it, or what is to be evaluated later would be fitted to. The videos are judged by
    ``evaluate``, whose results are in ``output`` as well: nothing is judged twice. Beside the file
    a reliability diagram is drawn, before and after. Returns a summary. Raises as ``evaluate`` and
    ``fit_calibration`` do; too few videos are told before any is judged.
    """
    values = vars(resolve("calibrate", settings))
    allowed = values.pop("false_positives")
    sources = read_manifest(videos)
    if not part and any(source.split == "test" for source in sources):
        raise UsageError(
            f"{videos} has a part 'test', which is for evaluating: fit to another by --part val"
        )
    listed = [source.label for source in sources if part in (None, source.split)]
    if min(map(listed.count, LABELS)) < ENOUGH_VIDEOS:
        raise too_few(*map(listed.count, LABELS), ENOUGH_VIDEOS)
    # Whatever the environment says, the card's own probabilities are what is mapped.
    judged = evaluate(
        model, videos=videos, output=output, part=part, calibration="", record="", robustness=False,
        threshold=0.5, **values,
    )  # fmt: skip
    scored = judged.videos.scored
    labels = np.array([score.is_fake for score in scored])
    before = np.array([score.probability_fake for score in scored])
    logits = logit(before, sure=np.finfo(np.float64).eps)
    found = fit_calibration(logits, labels, allowed)
    after = cross_fitted(logits, labels, [score.cluster for score in scored], allowed)
    measured = [measure_scores(scored, 0.5, values["seed"], p) for p in (before, after)]
    path = Path(output) / CALIBRATION_NAME
    _write(path, judged.card, found, allowed, measured, len(judged.videos.unscored),
           judged.settings)  # fmt: skip
    plots.reliability_diagram(
        {"before": (labels, before), "after, cross-fitted": (labels, after)},
        path.with_name(DIAGRAM_NAME),
    )
    return _summary(
        judged.card, found, measured, len(judged.videos.unscored), path,
        _detect_options(model, judged.settings),
    )  # fmt: skip


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
    write_whole(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _summary(
    card: Card, found: Calibration, measured: Sequence[Measurement], not_scored: int, path: Path,
    options: Sequence[str],
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
    lines += [
        "Rates are at 0.5; brackets are 95 % intervals over groups. Fitting and measuring on the",
        "same videos flatters, so each video's 'after' is by a fit without its group. The offset",
        "serves the false positive rate that was asked for, even where the errors below it grow.",
        f"fitted on all: logit * {found.scale:.3f} {found.offset:+.3f}, by which "
        f"{found.false_positive_rate:.1%} of these real and {found.true_positive_rate:.1%} of "
        "these fakes are called fake",
        f"written: {path} and {DIAGRAM_NAME}",
        f"next: unmask detect {shlex.join([*options, '--calibration', str(path), 'PATH'])}",
    ]
    return "\n".join(lines)


def _detect_options(model: str | Path, settings: dict[str, Any]) -> list[str]:
    """What makes 'unmask detect' judge as these videos were judged: model and settings."""
    options = []
    if str(model) != "shipped":
        options += ["--model", str(Path(model).with_suffix(".xml"))]
    for setting in changed("detect", settings):
        if setting.name not in ("model", "calibration"):
            options += [setting.option, str(settings[setting.name])]
    return options
