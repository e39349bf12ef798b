"""A person's probability over time: judged frames -> running mean, spread, gaps; a table of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from unmask.report import FrameReport
from unmask.verdict import logit, sigmoid

_NEIGHBOURS = 2  # frames on either side that the mean runs over, at least
_WINDOWS = 40  # a long stretch has about so many independent means, or the line would be a scribble
_MOST_POINTS = 200  # of a line: more are no longer told apart
_MOST_ROWS = 60
_SURE = 1e-6  # the report's sixth decimal: nearer to 0 or 1 a probability says no more


@dataclass(frozen=True)
class Point:
    """The mean of the frames about ``second``, and one standard deviation below and above it.

    Mean and deviation are those of logits, turned into probabilities of fake.
    """

    second: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """``frames`` frames from ``first`` to ``last`` (seconds): mean, lowest and highest one."""

    first: float
    last: float
    frames: int
    mean: float
    low: float
    high: float


def stretches(frames: Sequence[FrameReport]) -> list[list[FrameReport]]:
    """A person's frames, divided where the person was not found in one that was looked at."""
    found = [[frames[0]]]
    for before, frame in pairwise(frames):
        if frame.sample > before.sample + 1:
            found.append([])
        found[-1].append(frame)
    return found


def running_mean(stretch: Sequence[FrameReport]) -> list[Point]:
    """The line through one stretch, at 200 points at most."""
    logits = frame_logits(stretch)
    reach = max(_NEIGHBOURS, round(len(stretch) / _WINDOWS / 2))
    points = []
    for i in np.unique(np.linspace(0, len(stretch) - 1, min(len(stretch), _MOST_POINTS)).round()):
        near = logits[max(0, int(i) - reach) : int(i) + reach + 1]
        mean, spread = near.mean(), near.std()
        around = (sigmoid(mean), sigmoid(mean - spread), sigmoid(mean + spread))
        points.append(Point(stretch[int(i)].second, *around))
    return points


def rows(frames: Sequence[FrameReport]) -> list[Row]:
    """The same for a table: every frame of a short clip, else 60 parts of equally many frames."""
    found = []
    for part in np.array_split(np.arange(len(frames)), min(len(frames), _MOST_ROWS)):
        some = [frames[i] for i in part]
        each = [frame.probability_fake for frame in some]
        mean = sigmoid(frame_logits(some).mean())
        found.append(
            Row(some[0].second, some[-1].second, len(some), mean, min(each), max(each))
        )  # fmt: skip
    return found


def extremes(frames: Sequence[FrameReport], most: int) -> list[FrameReport]:
    """All frames, or where there are more than ``most``, each part's lowest and highest."""
    if len(frames) <= most:
        return list(frames)
    found = []
    for part in np.array_split(np.arange(len(frames)), most // 2):
        ranked = sorted(part, key=lambda i: frames[i].probability_fake)
        found += [frames[ranked[0]], frames[ranked[-1]]]
    return found


def ticks(seconds: float, most: int = 5) -> list[float]:
    """Round times from 0 to ``seconds`` for an axis, ``most`` at most."""
    for step in (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400):
        if seconds / step < most:
            break
    else:
        step = seconds / (most - 1)
    return [step * i for i in range(int(seconds / step) + 1)]


def frame_logits(frames: Sequence[FrameReport]) -> np.ndarray:
    """The logits (n,) of a report's frames, as exact as its probabilities are."""
    return logit([frame.probability_fake for frame in frames], _SURE)
