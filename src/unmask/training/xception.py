"""The detector's network: Xception with one of three heads, dropout, one sigmoid.

Xception is Chollet's (CVPR 2017, arXiv 1610.02357), as the FaceForensics++ authors used it
(Rossler et al., ICCV 2019, arXiv 1901.08971). The head ``pool`` averages the last features. The
head ``moments`` takes mean and mean square of features half way up, where textures are seen rather
than objects, and leaves the layers above away: traces of generators carry over from there (Chai
et al., ECCV 2020, arXiv 2008.10588); a part of EfficientNet-Lite0 is looked at as well. One feature
more is how far from real faces that part finds a crop. The head ``local`` adds another: how much
stands out, in some place, of what a second copy of blocks 5 to 7 sees.
"""

import itertools
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from unmask.errors import ModelError, SettingError

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextmanager
def _native_silence() -> Iterator[None]:
    """Keep TensorFlow's libraries from writing about themselves while they are loaded."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with _native_silence():
    import keras
    import tensorflow as tf

    from unmask.training import efficientnet, real_distance

logging.getLogger("absl").setLevel(logging.ERROR)  # it finds fault with the .h5 that we promise
_HEAD_LAYERS = 3  # pooling, dropout, the sigmoid
_MOMENT_BLOCKS = ("block4_sepconv2_bn", "block6_sepconv3_bn", "block7_sepconv3_bn")
LAST_BLOCK = {
    "pool": "block14_sepconv2_act", "moments": _MOMENT_BLOCKS[-1], "local": _MOMENT_BLOCKS[-1]
}  # fmt: skip
_WEIGHTS = {236: "pool", 183: "moments", 218: "local"}  # how many arrays each network has
_CELL = 32  # pixels
MOMENTS = "moments"  # the layer of all textures' mean and mean square
LOCAL, LOCAL_MEAN = "local", "local_mean"  # what the branch sees in each cell, and their mean
BRANCHES_AT = "block5_sepconv1_act"  # whose input the second copy shares with the first
_BRANCH = {block: [f"block{block}_sepconv{n}" for n in (1, 2, 3)] for block in (5, 6, 7)}
_STANDS_OUT, _UNNOTICED = 12.0, -2.0  # of 'local': what a difference is times, and what is nothing


def build(
    size: int | None = 256, dropout: float = 0.5, policy: str = "float32", head: str = "pool"
) -> keras.Model:
    """A network with random weights: RGB in [0, 1], (n, size, size, 3) -> fake, (n, 1).

    Pixels are rescaled to [-1, 1] inside, as the ImageNet weights expect. ``policy`` is a Keras
    dtype policy such as ``mixed_bfloat16``; the last layer always computes in float32.
    """
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        crops = keras.Input((size, size, 3), name="crops", dtype="float32")
        pixels = keras.layers.Rescaling(2.0, offset=-1.0, name="to_minus_one_one")(crops)
        base = keras.applications.Xception(include_top=False, weights=None, input_tensor=pixels)
        average = keras.layers.GlobalAveragePooling2D
        if head == "pool":
            pooled = average(name="pool")(base.output)
        else:
            lite = efficientnet.layers(crops)
            distance = real_distance.layers(lite)
            parts = [
                _moments(keras.Model(crops, [base.output, lite])),
                average(name=f"{real_distance.NAME}_mean")(distance),
            ]
            if head == "local":
                parts.append(average(name=LOCAL_MEAN)(_local(base)))
            pooled = keras.layers.Concatenate(name="judged")(parts)
        kept = keras.layers.Dropout(dropout, name="dropout")(pooled)
        fake = keras.layers.Dense(1, activation="sigmoid", dtype="float32", name="fake")(kept)
    finally:
        keras.mixed_precision.set_global_policy(before)
    return keras.Model(crops, fake, name="xception")


def policy_for(wish: str) -> str:
    """The Keras dtype policy for this machine, by the setting ``mixed_precision``."""
    if wish == "auto":
        if tf.config.list_physical_devices("GPU"):
            wish = "float16"
        else:
            wish = "bfloat16" if _has_bfloat16() else "off"
    return "float32" if wish == "off" else f"mixed_{wish}"


def _has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16 (elsewhere it is slower than float32)."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _moments(network: keras.Model) -> keras.KerasTensor:
    """Mean and mean square of each channel that is looked at, (n, 2 x (3 x 728 + 672))."""
    pooled = [keras.layers.GlobalAveragePooling2D()(cells) for cells in _moment_cells(network)]
    return keras.layers.Concatenate(name=MOMENTS)(pooled)


def _moment_cells(network: keras.Model) -> list[keras.KerasTensor]:
    """What is averaged: of each layer the features, then their squares, (n, h, w, channels)."""
    cells = []
    for name in (*_MOMENT_BLOCKS, efficientnet.LAST):
        features = network.get_layer(name).output
        squares = keras.layers.Multiply(name=f"{name}_squared")([features, features])
        cells += [features, squares]
    return cells


def _local(base: keras.Model) -> keras.KerasTensor:
    """What stands out of its surroundings in each cell of 16 pixels, (n, h, w, 1), at least 0.

    What is the same in all cells makes no difference, be it the picture's sharpness or its codec.
    """
    layers, judged = keras.layers, []
    x = base.get_layer(BRANCHES_AT).input
    for block, names in _BRANCH.items():
        before = x
        for name in names:
            x = layers.Activation("relu", name=f"local_{name}_act")(x)
            x = layers.SeparableConv2D(x.shape[-1], 3, padding="same", name=f"local_{name}")(x)
        if block > 5:
            squares = layers.Multiply(name=f"local_block{block}_squared")([x, x])
            for seen, power in ((x, 1), (squares, 2)):
                judge = layers.Conv2D(
                    1, 1, kernel_initializer="zeros", dtype="float32",
                    name=f"local_judge{block}_{power}",
                )  # fmt: skip
                judged.append(judge(seen))
        x = layers.Add(name=f"local_block{block}_add")([x, before])
    cells = layers.Add(name="local_cells", dtype="float32")(judged)
    mean = layers.GlobalAveragePooling2D(
        keepdims=True, name="local_mean_cell", dtype="float32"
    )(cells)  # fmt: skip
    difference = layers.Subtract(name="local_difference", dtype="float32")([cells, mean])
    scaled = layers.Rescaling(
        _STANDS_OUT, offset=_UNNOTICED, name="local_scaled", dtype="float32"
    )(difference)  # fmt: skip
    return layers.Activation("softplus", name=LOCAL, dtype="float32")(scaled)


def add_local(model: keras.Model, size: int = 256, policy: str = "float32") -> keras.Model:
    """A network with the head 'local' that judges as ``model``, with the head 'moments', does.

    Its branch sees what the layers beside it see, and says nothing yet.
    """
    whole = build(size, policy=policy, head="local")
    take_layers(whole, model)
    kernel, bias = model.layers[-1].get_weights()
    whole.layers[-1].set_weights([np.concatenate([kernel, [[0.0]]]), bias])
    for name in itertools.chain(*_BRANCH.values()):
        normal = model.get_layer(f"{name}_bn")
        gamma, beta, mean, variance = normal.get_weights()
        scale = gamma / np.sqrt(variance + normal.epsilon)  # what follows is folded in
        depthwise, pointwise = model.get_layer(name).get_weights()
        folded = [depthwise, pointwise * scale, beta - mean * scale]
        whole.get_layer(f"local_{name}").set_weights(folded)
    return whole


def take_layers(model: keras.Model, source: keras.Model) -> None:
    """The weights of all layers below the head, and what is compared with as real.

    Where ``source`` has no Lite0, its weights are ImageNet's, and nothing is compared yet.
    """
    last = LAST_BLOCK[head_of(model)]
    _up_to(model, last).set_weights(_up_to(source, last).get_weights())
    if head_of(model) == "pool":
        return
    if real_distance.NAME in {layer.name for layer in source.layers}:
        seen = _up_to(source, real_distance.NAME).get_weights()
        _up_to(model, real_distance.NAME).set_weights(seen)
    else:
        efficientnet.take_imagenet(model)


def _up_to(model: keras.Model, layer: str) -> keras.Model:
    return keras.Model(model.input, model.get_layer(layer).output)


def head_of(model: keras.Model) -> str:
    """'pool', 'moments' or 'local': a network's head. Raises ModelError if it is none of these."""
    head = _WEIGHTS.get(len(model.get_weights()))
    if head is None or model.output_shape[-1] != 1:
        raise ModelError("this is not Unmask's Xception: train one with 'unmask train'")
    return head


def with_evidence(model: keras.Model) -> keras.Model:
    """The network with outputs probability and logit, (n, 1), and evidence, (n, h, w, 1).

    The logit is the mean of the evidence.

    A cell is 32 pixels wide, whichever the head. Evidence is the class activation map (Zhou et al.,
    CVPR 2016, arXiv 1512.04150): what the last layer, which is linear, makes of each cell before
    cells are averaged.
    """
    kernel, bias = (weights.astype("float32") for weights in model.get_weights()[-2:])
    if head_of(model) == "pool":
        cells = [model.get_layer(LAST_BLOCK["pool"]).output]
    else:
        cells = [*_moment_cells(model), model.get_layer(real_distance.NAME).output]
    if head_of(model) == "local":
        cells.append(model.get_layer(LOCAL).output)
    side = model.input_shape[1] // _CELL
    maps, start = [], 0
    # All layers are named: a loaded model may have the names that Keras would give.
    for number, features in enumerate(cells):
        stop = start + features.shape[-1]
        judge = keras.layers.Conv2D(1, 1, use_bias=not start, name=f"judge{number}")
        judged = judge(features)
        weights = kernel[start:stop].reshape(1, 1, -1, 1)
        judge.set_weights([weights] if start else [weights, bias])
        # Blocks further down have more cells a side.
        coarser = keras.layers.AveragePooling2D(
            features.shape[1] // side, name=f"judge{number}_coarser"
        )
        maps.append(coarser(judged))
        start = stop
    evidence = keras.layers.Add(name="evidence")(maps) if len(maps) > 1 else maps[0]
    logit = keras.layers.GlobalAveragePooling2D(name="logit")(evidence)
    probability = keras.layers.Activation("sigmoid", name="probability")(logit)
    return keras.Model(model.input, [probability, logit, evidence])


def for_training(model: keras.Model) -> keras.Model:
    """The same network with each batch normalisation as one kernel, which Keras spreads over ten.

    A training step takes four fifths of the time. The weights are those of ``model``, in the same
    order, so what is trained here can be saved by ``model_file.save``.
    """
    fused = keras.models.clone_model(model, clone_function=_fused)
    fused.set_weights(model.get_weights())
    return fused


def in_float32(model: keras.Model, size: int = 256) -> keras.Model:
    """The same network, which computes in float32 whatever policy it was trained with."""
    plain = build(size, head=head_of(model))
    plain.set_weights(model.get_weights())
    return plain


def _fused(layer: keras.Layer) -> keras.Layer:
    is_normal = isinstance(layer, keras.layers.BatchNormalization)
    return (_FusedBatchNormalization if is_normal else type(layer)).from_config(layer.get_config())


class _FusedBatchNormalization(keras.layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        if not training or not self.trainable:
            return super().call(inputs, training=False)
        scale, shift = (tf.cast(w.value, tf.float32) for w in (self.gamma, self.beta))
        normal, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, scale, shift, epsilon=self.epsilon, is_training=True
        )
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return normal


def set_trainable(model: keras.Model, layers: str) -> None:
    """Let the last ``layers`` of the base learn ('all' or a number); the head always learns."""
    base = model.layers[:-_HEAD_LAYERS]
    if layers == "all":
        count = len(base)
    else:
        try:
            count = int(layers)
        except ValueError:
            count = -1
        if not 0 <= count <= len(base):
            raise SettingError(
                f"--trainable-layers takes 'all' or 0 to {len(base)}, not {layers!r}"
            )
    for layer in base[: len(base) - count]:
        layer.trainable = False
