"""How far from real faces a crop lies: a feature that is learned without fakes.

A generator that nobody has seen leaves traces unlike those of the known ones, but unlike real faces
as well; detectors of one class live by that (Khalid and Woo, OC-FakeDect, CVPR Workshops 2020). In
each cell of EfficientNet-Lite0's last layer the squared distance d from the mean real cell is set
against m, what real cells have on average: d / (d + m), from 0 to 1. Averaged over the cells it
stands beside the textures that the head 'moments' judges, with a fixed share.
"""

from typing import NamedTuple

import keras
import numpy as np

from unmask.training import efficientnet

NAME = "real_distance"
"""The layer that says how far each cell is, (n, h, w, 1)."""

_SHARE = 0.3  # by measurement: docs/model.md


class RealCells(NamedTuple):
    """What real cells are like in k sets of crops: the mean (k, channels) and the mean square
    distance from it (k,), summed over the channels."""

    mean: np.ndarray
    distance: np.ndarray


def layers(seen: keras.KerasTensor, sets: int = 1) -> keras.KerasTensor:
    """New layers: what is looked at, (n, h, w, channels) -> how far from each set's real cells.

    The output is (n, h, w, sets), and 0 everywhere until ``teach``.
    """
    squares = keras.layers.Multiply(name=f"{NAME}_squares")([seen, seen])
    both = keras.layers.Concatenate(name=f"{NAME}_seen")([seen, squares])
    relative = keras.layers.Conv2D(
        sets, 1, kernel_initializer="zeros", dtype="float32", name=f"{NAME}_relative"
    )(both)  # fmt: skip
    return keras.layers.Activation("softsign", dtype="float32", name=NAME)(relative)


def teach(model: keras.Model, reals: RealCells) -> None:
    """Give ``layers`` of a model what they compare with."""
    multiplied_out = [-2 * reals.mean.T, np.ones_like(reals.mean.T)]  # of (x - mean)^2
    kernel = np.concatenate(multiplied_out) / reals.distance
    bias = np.square(reals.mean).sum(1) / reals.distance
    model.get_layer(f"{NAME}_relative").set_weights([kernel[None, None], bias])


def real_cells(features: np.ndarray, reals: np.ndarray) -> RealCells:
    """What real cells are like by crops' textures (n, d), of which the layer's moments are the end.

    ``reals`` (k, n) are the weights of the crops in each of k sets; those of fakes are 0.
    """
    shares = reals / reals.sum(1, keepdims=True)
    mean, square = np.split(shares @ features[:, -2 * efficientnet.CHANNELS :], 2, axis=1)
    return RealCells(mean, (square - mean**2).sum(1))


def real_cells_of_folds(features: np.ndarray, reals: np.ndarray, folds: np.ndarray) -> RealCells:
    """What real cells are like in what each fold, from 0 on, leaves, and at last in all crops.

    ``reals`` (n,) are the weights of the crops, 0 for fakes. A fold that has all the reals leaves
    none to compare with, so its own are taken.
    """
    left = [reals * (folds != fold) for fold in range(folds.max() + 1)]
    left = [each if each.any() else reals for each in left]
    return real_cells(features, np.stack([*left, reals]))


def share(logits: np.ndarray, distances: np.ndarray) -> float:
    """The distance's factor beside videos' logits: it is to vary a fixed share as much as these."""
    return float(_SHARE * np.std(logits) / (np.std(distances) + 1e-6))


def network_of(model: keras.Model, reals: RealCells) -> keras.Model:
    """A network that says how far crops are from each set of real cells: (n, sets).

    Its other layers are those of ``model``.
    """
    cells = layers(model.get_layer(efficientnet.LAST).output, len(reals.mean))
    network = keras.Model(model.input, keras.layers.GlobalAveragePooling2D()(cells))
    teach(network, reals)
    return network
