"""How fast to learn, when to stop and which epoch to keep: all read off the history alone.

``history`` is a list of rows, one a finished epoch, so a resumed run decides as if it had never
stopped.
"""

import math
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

WARM_UP = 0.05  # share of all steps, for the cosine schedule


def learning_rate(settings: SimpleNamespace, history: Sequence[dict], done: float) -> float:
    """The rate for the next step; ``done`` in (0, 1] is the share of all steps up to it.

    'cosine' is ``warm_cosine``; 'plateau' shrinks the rate each time validation loss stalls.
    """
    if settings.schedule == "cosine":
        return warm_cosine(settings.learning_rate, done)
    rate, best, since = settings.learning_rate, math.inf, 0
    for row in history:
        since = 0 if row["val_loss"] < best else since + 1
        best = min(best, row["val_loss"])
        if since and since % settings.plateau_patience == 0:
            rate *= settings.plateau_factor
    return rate


def warm_cosine(highest: float, done: float) -> float:
    """A rate that rises and then falls to zero (Loshchilov and Hutter, 2017, arXiv 1608.03983)."""
    if done < WARM_UP:
        return highest * done / WARM_UP
    return highest * (1 + math.cos(math.pi * min(1.0, done))) / 2


def has_stalled(history: Sequence[dict], patience: int) -> bool:
    """Whether validation loss has not improved for ``patience`` epochs (0: never)."""
    losses = [row["val_loss"] for row in history]
    return bool(patience and losses) and len(losses) - 1 - int(np.argmin(losses)) >= patience


def is_best(history: Sequence[dict], select: str) -> bool:
    """Whether to keep the last epoch: the best so far by ``select``, a validation figure.

    That is 'accuracy' or 'auc' (of videos); with 'last' a later epoch always replaces an earlier.
    """
    if select == "last":
        return True
    scores = [row["val_auc" if select == "auc" else "val_accuracy"] for row in history]
    return len(scores) == 1 or scores[-1] > max(scores[:-1])
