"""A running average of a network's weights, which generalises better than the last ones.

After Polyak and Juditsky (SIAM J. Control Optim. 30(4), 1992), but exponential.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras


class Average:
    """The exponential moving average of a model's weights; with a decay of 0 there is none."""

    def __init__(self, model: keras.Model, decay: float):
        self.model, self.decay = model, decay
        self.weights = model.get_weights() if decay else []

    def update(self, steps: int) -> None:
        """Take in the weights after ``steps`` steps; early on the average forgets faster."""
        if not self.weights:
            return
        decay = min(self.decay, (1 + steps) / (10 + steps))
        for mean, now in zip(self.weights, self.model.get_weights(), strict=True):
            mean *= decay
            mean += (1 - decay) * now

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model has the averaged weights, if there are any."""
        if not self.weights:
            yield
            return
        own = self.model.get_weights()
        self.model.set_weights(self.weights)
        try:
            yield
        finally:
            self.model.set_weights(own)
