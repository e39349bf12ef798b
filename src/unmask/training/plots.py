"""Pictures of an evaluation and of a training run, drawn without a screen (matplotlib, Agg).

Colours are Okabe and Ito's, told apart by colour-blind eyes; real and fake also differ in
pattern, frames and videos in line style, so a grey print is still readable.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from unmask.outputs import in_one_step
from unmask.training.metrics import Measurement, reliability_bins

_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
_LABELS = ("real", "fake")
_LEVEL_STYLE = {"videos": (_BLUE, "-"), "frames": (_ORANGE, "--")}


@dataclass(frozen=True)
class Panel:
    """One level of an evaluation, ready to draw: ``name`` is 'frames' or 'videos'."""

    name: str
    measured: Measurement
    labels: np.ndarray
    probabilities: np.ndarray


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=13, fontweight="bold")
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> None:
    with in_one_step(path) as partial:
        figure.savefig(partial, format="png", dpi=150, facecolor="white")


def confusion(panels: Sequence[Panel], threshold: float, path: Path, percent: bool) -> None:
    """Confusion matrices side by side: counts, or percent of each label's row."""
    what = "percent of each label" if percent else "counts"
    title = f"Confusion matrix, {what}, threshold {threshold:g}"
    figure = _figure(0.6 + 4.2 * len(panels), 4.4, title)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        counts = panel.measured.confusion
        rows = counts.sum(axis=1, keepdims=True)
        shares = counts / np.maximum(rows, 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for label, called in np.ndindex(2, 2):
            if not rows[label, 0]:
                text = "none"
            elif percent:
                text = f"{100 * shares[label, called]:.1f} %"
            else:
                text = f"{counts[label, called]:,}"
            colour = "white" if shares[label, called] > 0.55 else "black"
            axes.text(called, label, text, ha="center", va="center", fontsize=17, color=colour)
        axes.set_xticks((0, 1), _LABELS)
        axes.set_yticks((0, 1), [f"{name}\n({n:,})" for name, n in zip(_LABELS, rows[:, 0],
                                                                       strict=True)])  # fmt: skip
        axes.tick_params(length=0, labelsize=11)
        axes.set_xlabel("called at the threshold", fontsize=11)
        axes.set_ylabel("label", fontsize=11)
        axes.set_title(panel.name, fontsize=12)
        axes.spines[:].set_visible(False)
        axes.set_xticks([0.5], minor=True)
        axes.set_yticks([0.5], minor=True)
        axes.grid(which="minor", color="white", linewidth=3)
        axes.tick_params(which="minor", length=0)
    _save(figure, path)


def roc_curve(panels: Sequence[Panel], threshold: float, path: Path) -> None:
    """ROC curves with their 95 % bands; a ring marks the threshold in use."""
    figure = _figure(6.2, 6.2, "ROC curve")
    axes = figure.subplots()
    _plain(axes)
    for panel in panels:
        colour, line = _LEVEL_STYLE[panel.name]
        curve, area = panel.measured.curve, panel.measured.metrics["roc_auc"]
        if curve is None:
            axes.plot([], [], color=colour, label=f"{panel.name}: no curve, {area.reason}")
            continue
        if curve.low is not None:
            axes.fill_between(curve.grid, curve.low, curve.high, color=colour, alpha=0.15, lw=0)
        axes.plot(curve.fpr, curve.tpr, color=colour, linestyle=line, linewidth=2,
                  label=f"{panel.name}: AUC {area}")  # fmt: skip
        axes.plot(panel.measured.metrics["false_positive_rate"].value,
                  panel.measured.metrics["recall"].value, "o", markersize=9, color=colour,
                  markerfacecolor="white", markeredgewidth=2, clip_on=False,
                  zorder=3)  # fmt: skip
    if any(panel.measured.curve for panel in panels):
        axes.plot([], [], "o", color=_GREY, markerfacecolor="white", markersize=9,
                  markeredgewidth=2, label=f"at threshold {threshold:g}")  # fmt: skip
    axes.plot((0, 1), (0, 1), color=_GREY, linewidth=1, linestyle=":", label="chance")
    axes.set(xlim=(0, 1), ylim=(0, 1.005), aspect="equal")
    axes.set_xlabel("false positive rate: reals called fake", fontsize=11)
    axes.set_ylabel("true positive rate: fakes found", fontsize=11)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(loc="lower right", fontsize=10, title="bands and brackets: 95 % intervals")
    _save(figure, path)


def score_histogram(
    panels: Sequence[Panel], threshold: float, uncertain: float, path: Path
) -> None:
    """How the probabilities of reals and fakes are spread, each as a share of its own label."""
    figure = _figure(8, 0.9 + 2.9 * len(panels), "Scores of reals and fakes")
    bins = np.linspace(0, 1, 21)
    rows = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, panel in zip(rows, panels, strict=True):
        _plain(axes)
        if uncertain:
            low, high = max(0, threshold - uncertain), min(1, threshold + uncertain)
            axes.axvspan(low, high, color="#eeeeee", lw=0, label="uncertain")
        for label, colour, hatch in ((0, _BLUE, ""), (1, _ORANGE, "////")):
            values = panel.probabilities[panel.labels == label]
            if not len(values):
                continue
            style = {"bins": bins, "weights": np.full(len(values), 1 / len(values))}
            axes.hist(values, **style, histtype="stepfilled", facecolor=colour, alpha=0.25)
            axes.hist(values, **style, histtype="step", edgecolor=colour, hatch=hatch,
                      linewidth=1.8, label=f"{_LABELS[label]} ({len(values):,})")  # fmt: skip
        axes.axvline(threshold, color="black", linewidth=1.2, linestyle="--",
                     label=f"threshold {threshold:g}")  # fmt: skip
        axes.set_title(panel.name, fontsize=12, loc="left")
        axes.set_ylabel("share of the label", fontsize=11)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlim(0, 1)
        # Beside the axes, where it can hide no bar.
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=10, frameon=False)
    rows[-1].set_xlabel("probability of fake", fontsize=11)
    _save(figure, path)


def reliability_diagram(panels: Mapping[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Share of fakes over probability in ten equally full bins, for each name's labels and scores.

    Ticks below and above are the single reals and fakes.
    """
    title = "Reliability: what a probability of fake is worth"
    figure = _figure(0.6 + 4.6 * len(panels), 5.4, title)
    row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (name, (labels, probabilities)) in zip(row, panels.items(), strict=True):
        _plain(axes)
        mean, share = reliability_bins(labels, probabilities)
        error = np.abs(mean - share).mean()
        axes.plot((0, 1), (0, 1), color=_GREY, linewidth=1, linestyle=":", label="as it should be")
        axes.plot(mean, share, "o-", color=_GREEN, linewidth=2, label="a tenth of the videos")
        for label, at, colour in ((0, -0.06, _BLUE), (1, 1.06, _ORANGE)):
            own = probabilities[labels == label]
            axes.plot(own, np.full(len(own), at), "|", color=colour, markersize=9,
                      label=f"a {_LABELS[label]} video ({len(own):,})")  # fmt: skip
        axes.axvline(0.5, color="black", linewidth=1, linestyle="--")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.1, 1.1), aspect="equal")
        axes.set_title(f"{name}: calibration error {error:.3f}", fontsize=12)
        axes.set_xlabel("mean probability of fake", fontsize=11)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    row[0].set_ylabel("share of fakes among the videos", fontsize=11)
    handles, names = row[-1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=10, frameon=False)
    _save(figure, path)


def learning_curve(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss, accuracy and learning rate by epoch, from rows such as a CSV log has.

    Of ``epoch, loss, val_loss, accuracy, val_accuracy, val_auc, learning_rate`` any may be
    missing, empty or not a number; such points are left out.
    """
    epochs = [_number(row.get("epoch", i)) for i, row in enumerate(history)]
    curves = {
        "loss": (("loss", "training", _BLUE, "o--"), ("val_loss", "validation", _ORANGE, "s-")),
        "accuracy and AUC": (
            ("accuracy", "training accuracy", _BLUE, "o--"),
            ("val_accuracy", "validation accuracy", _ORANGE, "s-"),
            ("val_auc", "validation AUC", _GREEN, "^-."),
        ),
        "learning rate": (("learning_rate", "learning rate", _GREY, "o-"),),
    }
    figure = _figure(14, 4.4, "Learning curve")
    for axes, (name, lines) in zip(figure.subplots(1, 3), curves.items(), strict=True):
        _plain(axes)
        for key, label, colour, style in lines:
            points = [(e, _number(row.get(key))) for e, row in zip(epochs, history, strict=True)]
            points = [p for p in points if all(map(math.isfinite, p))]
            if not points:
                continue
            xs, ys = zip(*points, strict=True)
            if key.startswith("val_"):
                x, y = (min if key == "val_loss" else max)(points, key=lambda p: p[1])
                axes.plot(x, y, "o", markersize=13, color=colour, fillstyle="none")
                label += f" (best {y:.3f}, epoch {x:g})"
            axes.plot(xs, ys, style, color=colour, markersize=4, linewidth=1.8, label=label)
        axes.set_title(name, fontsize=12)
        axes.set_xlabel("epoch", fontsize=11)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.margins(y=0.12)
        if not axes.lines:
            axes.text(0.5, 0.5, "not logged", ha="center", transform=axes.transAxes, color=_GREY)
            axes.set(xticks=[], yticks=[])
        elif len(lines) > 1:
            axes.legend(fontsize=9)
        if name == "learning rate" and axes.lines:
            axes.set_yscale("log", nonpositive="mask")
        elif name == "loss" and axes.lines:
            axes.set_ylim(bottom=0)
    _save(figure, path)


def _number(value: Any) -> float:
    """The value as a float; NaN for what is missing or no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
