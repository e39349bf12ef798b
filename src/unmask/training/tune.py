"""Let all layers below a fitted head 'moments' learn where forgeries are, and nothing else.

What the head says as a whole carries over to other generators, but it is about texture everywhere:
its evidence does not show a local change, and training everything for the label makes it worse on
generators it has not seen (both measured: docs/model.md). So three things are asked of a batch:
that crops which were not synthesised are judged as before (as in Learning without Forgetting, Li
and Hoiem, ECCV 2016, arXiv 1606.09282), that a synthesised fake lies above the real crop it was
made of, and that its evidence lies where it was changed.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from unmask.outputs import in_one_step
from unmask.training.batches import Batch
from unmask.training.schedule import warm_cosine

# isort: split
import keras
import tensorflow as tf

_SHARPNESS = 3.0  # ridge regression answers -1 and 1: times this, they are about logits
_BEFORE, _BESIDE, _PLACE = 0.3, 0.25, 0.5  # weights of the three demands
_CONTRAST = 3.0  # by how much more, about, evidence is to be where a change is
_LOCAL = (0.01, 0.7)  # a change of so large a share of the crop has a place
_SAVE_SECONDS = 300


class Tuner:
    """The layers below a head 'moments' and the head, as variables that learn.

    Batch normalisation is folded into the convolutions: its statistics are those of ImageNet and
    stay so, and a step takes a third of the time. ``network`` is one of xception.build's with this
    head, ``kernel`` (4368,) and ``bias`` its solution, ``spread`` (4368,) the standard deviation of
    each feature, by which the kernel is measured while it learns.
    """

    def __init__(
        self, network: keras.Model, kernel: np.ndarray, bias: float, spread: np.ndarray,
        compute: tf.DType = tf.float32,
    ):  # fmt: skip
        self._network, self._compute = network, compute
        self._spread = tf.constant(spread.astype(np.float32))
        self._layers: dict[str, dict[str, tf.Variable]] = {}
        self._shortcuts: dict[int, str] = {}  # how many channels come out -> layer
        for convolution, normal in _normalised(network):
            scale, shift = _as_scale_and_shift(normal)
            *before, last = convolution.get_weights()
            weights = [*before, last * scale, shift]
            names = ("depthwise", "kernel", "bias")[-len(weights) :]
            self._layers[normal.name] = {
                name: tf.Variable(value) for name, value in zip(names, weights, strict=True)
            }
            if not normal.name.startswith("block"):
                self._shortcuts[last.shape[-1]] = normal.name
        self._kernel = tf.Variable((kernel * spread).astype(np.float32))
        self._bias = tf.Variable(np.float32(bias))
        self.variables = [v for layer in self._layers.values() for v in layer.values()]
        self.variables += [self._kernel, self._bias]

    def evidence(self, crops: tf.Tensor) -> tf.Tensor:
        """As xception.with_evidence, in cells of 16 pixels: (n, h, w), whose mean is the logit."""
        blocks = self._blocks(crops)
        kernels = tf.split(self._kernel / self._spread, len(blocks))
        side = min(features.shape[1] for features in blocks)
        total = tf.identity(self._bias)
        for features, kernel in zip(blocks, kernels, strict=True):
            features = tf.cast(features, tf.float32)
            means, squares = tf.split(kernel, 2)
            cells = tf.tensordot(features, means, 1) + tf.tensordot(features**2, squares, 1)
            finer = features.shape[1] // side
            total += tf.nn.avg_pool2d(cells[..., None], finer, finer, "VALID")[..., 0]
        return total

    def tune(
        self, batches: Iterable[Batch], steps: int, before: "Tuner", rate: float, average: float,
        stopped: Callable[[], bool], checkpoint: Path,
    ) -> None:  # fmt: skip
        """Learn from ``batches``, which begin with the step that ``step_of(checkpoint)`` says.

        ``before`` is the same Tuner, which stays as it is. The rate rises to ``rate`` and falls to
        zero; ``average`` is the decay of the running average of the variables, which they become
        in the end. Raises KeyboardInterrupt, with all that was learned in ``checkpoint``, once
        ``stopped()``.
        """
        optimizer = keras.optimizers.AdamW(rate, weight_decay=0.0, beta_2=0.99, clipnorm=1.0)
        optimizer.build(self.variables)
        learned = [*self.variables, *optimizer.variables]
        averaged = [v.numpy() for v in self.variables]
        step = step_of(checkpoint)
        if step:
            with np.load(checkpoint) as saved:
                for number, variable in enumerate(learned):
                    variable.assign(saved[f"learned{number}"])
                averaged = [saved[f"averaged{number}"] for number in range(len(averaged))]
        follow = tf.function(
            lambda *batch: self._gradients(*batch, before), autograph=False, jit_compile=False
        )
        saved_at = time.monotonic()
        for batch in batches:
            step += 1
            optimizer.learning_rate = warm_cosine(rate, step / steps)
            gradients = follow(batch.crops, batch.changed)
            optimizer.apply_gradients(zip(gradients, self.variables, strict=True))
            decay = min(average, step / (9 + step))
            averaged = [
                decay * mean + (1 - decay) * variable.numpy()
                for mean, variable in zip(averaged, self.variables, strict=True)
            ]
            is_over = stopped()
            if is_over or time.monotonic() - saved_at > _SAVE_SECONDS:
                _save(checkpoint, step, learned, averaged)
                saved_at = time.monotonic()
            if is_over:
                raise KeyboardInterrupt
        for variable, mean in zip(self.variables, averaged, strict=True):
            variable.assign(mean)

    def write_back(self) -> None:
        """Give the network what was learned."""
        for convolution, normal in _normalised(self._network):
            learned = self._layers[normal.name]
            factor, _ = _as_scale_and_shift(normal)
            weights = [learned["kernel"].numpy() / factor]
            if "depthwise" in learned:
                weights.insert(0, learned["depthwise"].numpy())
            convolution.set_weights(weights)
            gamma, _, mean, variance = normal.get_weights()
            normal.set_weights([gamma, learned["bias"].numpy() + mean * factor, mean, variance])
        kernel = (self._kernel / self._spread).numpy()[:, None]
        self._network.layers[-1].set_weights([kernel, self._bias.numpy()[None]])

    def _gradients(self, crops: tf.Tensor, changed: tf.Tensor, before: "Tuner") -> list[tf.Tensor]:
        """Of the three demands, for a batch in which real and fake take turns."""
        synthesised = tf.cast(tf.reduce_max(changed, (1, 2)) > 0, tf.float32)
        judged_before = _SHARPNESS * tf.reduce_mean(before.evidence(crops), (1, 2))
        with tf.GradientTape() as tape:
            evidence = _SHARPNESS * self.evidence(crops)
            logits = tf.reduce_mean(evidence, (1, 2))
            loss = _BEFORE * _mean((logits - judged_before) ** 2, 1 - synthesised)
            gaps = logits[1::2] - logits[0::2]
            loss += _BESIDE * _mean(tf.nn.softplus(-gaps), synthesised[1::2])
            loss += _PLACE * _place_loss(evidence, changed)
        return tape.gradient(loss, self.variables)

    def _blocks(self, crops: tf.Tensor) -> list[tf.Tensor]:
        """The features that the head looks at: Xception up to block 7, see keras.applications."""
        x = tf.cast(crops * 2 - 1, self._compute)
        x = tf.nn.relu(self._convolution(x, "block1_conv1_bn", stride=2))
        x = tf.nn.relu(self._convolution(x, "block1_conv2_bn"))
        seen = []
        for block, channels in ((2, 128), (3, 256), (4, 728)):
            beside = self._convolution(x, self._shortcuts[channels], stride=2, padding="SAME")
            if block > 2:
                x = tf.nn.relu(x)
            x = self._separable(x, f"block{block}_sepconv1_bn")
            x = self._separable(tf.nn.relu(x), f"block{block}_sepconv2_bn")
            if block == 4:
                seen.append(x)
            x = tf.nn.max_pool2d(x, 3, 2, "SAME") + beside
        for block in (5, 6, 7):
            beside = x
            for number in (1, 2, 3):
                x = self._separable(tf.nn.relu(x), f"block{block}_sepconv{number}_bn")
            if block > 5:
                seen.append(x)
            x += beside
        return seen

    def _convolution(
        self, x: tf.Tensor, name: str, stride: int = 1, padding: str = "VALID"
    ) -> tf.Tensor:
        kernel, bias = (tf.cast(self._layers[name][n], x.dtype) for n in ("kernel", "bias"))
        return tf.nn.bias_add(tf.nn.conv2d(x, kernel, stride, padding), bias)

    def _separable(self, x: tf.Tensor, name: str) -> tf.Tensor:
        depthwise = tf.cast(self._layers[name]["depthwise"], x.dtype)
        return self._convolution(tf.nn.depthwise_conv2d(x, depthwise, [1, 1, 1, 1], "SAME"), name)


def step_of(checkpoint: Path) -> int:
    """How many steps a checkpoint has behind it; 0 without one."""
    if not checkpoint.is_file():
        return 0
    with np.load(checkpoint) as saved:
        return int(saved["step"])


def _save(path: Path, step: int, learned: list[tf.Variable], averaged: list[np.ndarray]) -> None:
    arrays = {f"learned{number}": np.asarray(v) for number, v in enumerate(learned)}
    arrays |= {f"averaged{number}": mean for number, mean in enumerate(averaged)}
    with in_one_step(path) as partial, partial.open("wb") as file:
        np.savez(file, step=step, **arrays)


def _place_loss(evidence: tf.Tensor, changed: tf.Tensor) -> tf.Tensor:
    """How little more evidence lies in what was changed than beside it, over local changes."""
    changed = tf.image.resize(changed[..., None], evidence.shape[1:], "area")[..., 0]
    share = tf.reduce_mean(changed, (1, 2))
    local = tf.cast((share > _LOCAL[0]) & (share < _LOCAL[1]), tf.float32)
    inside = tf.math.divide_no_nan(tf.reduce_mean(evidence * changed, (1, 2)), share)
    outside = tf.math.divide_no_nan(tf.reduce_mean(evidence * (1 - changed), (1, 2)), 1 - share)
    return _mean(tf.nn.softplus((outside - inside) / _CONTRAST), local)


def _mean(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """The weighted mean; 0 where nothing has weight."""
    return tf.math.divide_no_nan(tf.reduce_sum(values * weights), tf.reduce_sum(weights))


def _normalised(network: keras.Model) -> list[tuple[keras.Layer, keras.Layer]]:
    """Each convolution and the batch normalisation behind it."""
    return [
        (layer.input._keras_history.operation, layer)
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def _as_scale_and_shift(normal: keras.Layer) -> tuple[np.ndarray, np.ndarray]:
    gamma, beta, mean, variance = normal.get_weights()
    scale = gamma / np.sqrt(variance + normal.epsilon)
    return scale, beta - mean * scale
