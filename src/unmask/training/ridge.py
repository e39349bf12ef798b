"""One linear system: features and labels -> a linear classifier, judged on rows it has not seen."""

from typing import NamedTuple

import numpy as np
import scipy.linalg


class Solution(NamedTuple):
    """What ``solve`` found: kernel (d,) and bias.

    ``held_out`` (n,) is what the solution without a row's fold makes of the row.
    """

    kernel: np.ndarray
    bias: float
    held_out: np.ndarray


def solve(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray, folds: np.ndarray, ridge: float
) -> Solution:
    """Weighted ridge regression of 1 (fake) and -1 (real), and the same with folds held out.

    ``features`` (n, d), the others (n,); ``ridge`` is added to the variance of each feature, which
    is 1 after standardising. Rows of fold -1 are never held out.
    """
    used = weights / weights.sum()
    mean = used @ features
    spread = np.sqrt(used @ np.square(features - mean)) + 1e-6
    rows, basis = ((features - mean) / spread).astype(np.float64), None
    if len(rows) < rows.shape[1]:
        # Weights lie in what the rows span: there, the system is as small as there are rows.
        basis, triangle = scipy.linalg.qr(rows.T, mode="economic")
        rows = triangle.T
    rows = np.hstack([rows, np.ones((len(rows), 1))])
    targets = np.where(labels, 1.0, -1.0)
    weighted = rows * used[:, None]
    gram, right = weighted.T @ rows, weighted.T @ targets
    penalty = ridge * np.eye(len(gram))
    penalty[-1, -1] = 1e-9  # the bias is free

    def solution(fold: np.ndarray | None = None) -> np.ndarray:
        left, to = gram + penalty, right
        if fold is not None:
            left, to = (
                left - weighted[fold].T @ rows[fold],
                right - weighted[fold].T @ targets[fold],
            )
        return scipy.linalg.solve(left, to, assume_a="pos", overwrite_a=True)

    held_out = np.zeros(len(rows))
    for number in np.unique(folds[folds >= 0]):
        fold = folds == number
        held_out[fold] = rows[fold] @ solution(fold)
    whole = solution()
    kernel = (whole[:-1] if basis is None else basis @ whole[:-1]) / spread
    return Solution(kernel, float(whole[-1] - kernel @ mean), held_out)
