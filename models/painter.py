"""A painter of ``train_painters.py``: the autoencoder, how it learns and how it is written."""

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import keras
import numpy as np
import tensorflow as tf
from keras import layers

SIDE = 128
BATCH = 8
LEARNING_RATE = 2e-3
WIDTHS = (24, 48, 80)
"""Channels at 1/2, 1/4 and 1/8 of the picture's side."""


def transpose(x: keras.KerasTensor, channels: int) -> keras.KerasTensor:
    """Twice the side by a transposed convolution."""
    return layers.Conv2DTranspose(channels, 4, 2, "same", kernel_initializer="he_normal")(x)


def nearest(x: keras.KerasTensor, channels: int) -> keras.KerasTensor:
    """Twice the side by repeated pixels, then a convolution."""
    return _conv(layers.UpSampling2D(2)(x), channels)


def shuffle(x: keras.KerasTensor, channels: int) -> keras.KerasTensor:
    """Twice the side by channels laid out as pixels, as in DeepFaceLab."""
    wide = _conv(x, 4 * channels)
    return layers.Lambda(lambda y: tf.nn.depth_to_space(y, 2))(wide)


RECIPES: dict[str, tuple[Callable, int]] = {
    "transpose": (transpose, 8),
    "nearest": (nearest, 24),
    "shuffle": (shuffle, 16),
}
"""How each painter upsamples, and the channels of its bottleneck at 1/8 of the side."""


def make(name: str, pictures: list[np.ndarray], steps: int, seed: int) -> keras.Model:
    """A painter of RECIPES, trained."""
    upsample, latents = RECIPES[name]
    # Convolutions in bfloat16 take half the time; the weights stay in float32.
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    keras.utils.set_random_seed(seed)
    trained = build(upsample, latents)
    train(trained, pictures, steps, seed, name)
    keras.mixed_precision.set_global_policy("float32")
    painter = build(upsample, latents)
    painter.set_weights(trained.get_weights())
    return painter


def build(upsample: Callable, latents: int) -> keras.Model:
    """An autoencoder with random weights: RGB in [-1, 1], (n, h, w, 3), to the same.

    Without normalisation: what is painted must not hang on what else is in the picture.
    """
    x = pixels = keras.Input((None, None, 3))
    for channels in WIDTHS:
        x = _active(_conv(x, channels, stride=2))
    x = _conv(_residual(x), latents)
    # A straight way into the bottleneck: colours and coarse shapes are there from the first steps.
    x = layers.Add()([x, layers.Conv2D(latents, 8, 8, "same")(pixels)])
    x = _residual(_conv(x, WIDTHS[-1]))
    for channels in WIDTHS[-2::-1]:
        x = _residual(upsample(x, channels))
    x = _active(upsample(x, 16))
    painted = layers.Activation("linear", dtype="float32")(_conv(x, 3, init="glorot_normal"))
    return keras.Model(pixels, painted)


def train(
    painter: keras.Model, pictures: list[np.ndarray], steps: int, seed: int, name: str
) -> None:
    """Teach a painter to paint views of the pictures: Adam, cosine to nothing."""
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 20, warmup_target=LEARNING_RATE, warmup_steps=steps // 20
    )
    optimizer = keras.optimizers.Adam(rate, clipnorm=1.0)
    optimizer.build(painter.trainable_variables)

    @tf.function(jit_compile=False, autograph=False)
    def step(views: tf.Tensor) -> tf.Tensor:
        wanted = tf.cast(views, tf.float32) / 127.5 - 1
        with tf.GradientTape() as tape:
            loss = difference(wanted, painter(wanted, training=True))
        gradients = tape.gradient(loss, painter.trainable_variables)
        optimizer.apply(gradients, painter.trainable_variables)
        return loss

    rng = np.random.default_rng(seed)
    losses = []
    for number in range(1, steps + 1):
        drawn = rng.integers(len(pictures), size=BATCH)
        losses.append(step(tf.constant(np.stack([view(pictures[n], rng) for n in drawn]))))
        if number % 100 == 0:
            print(f"{name}: step {number}/{steps}, loss {np.mean(losses[-100:]):.4f}", flush=True)


def view(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random part of a picture, seen at SIDE pixels, half of the time mirrored."""
    side = rng.integers(SIDE, picture.shape[0] + 1)
    x, y = rng.integers(0, picture.shape[0] - side + 1, 2)
    part = picture[y : y + side, x : x + side]
    part = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return part[:, ::-1] if rng.random() < 0.5 else part


def difference(wanted: tf.Tensor, painted: tf.Tensor) -> tf.Tensor:
    """L1 of pixels and of what changes from one to the next, at full, half and quarter size.

    The latter keeps eyes and lips where plain L1 would leave mush.
    """
    total = 0.0
    for _ in range(3):
        error = wanted - painted
        total += tf.reduce_mean(tf.abs(error))
        for changes in (error[:, 1:] - error[:, :-1], error[:, :, 1:] - error[:, :, :-1]):
            total += tf.reduce_mean(tf.abs(changes))
        wanted, painted = (tf.nn.avg_pool2d(x, 2, 2, "VALID") for x in (wanted, painted))
    return total


def write(painter: keras.Model, path: Path) -> None:
    """OpenVINO IR: ``pixels`` (1, h, w, 3) uint8 RGB to ``painted``, float32 in 0..255."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    signature = tf.TensorSpec((1, None, None, 3), tf.float32)

    @tf.function(input_signature=[signature], autograph=False)
    def paint(pixels: tf.Tensor) -> tf.Tensor:
        painted = painter(pixels / 127.5 - 1, training=False)
        return tf.clip_by_value((painted + 1) * 127.5, 0.0, 255.0)

    network = openvino.convert_model(paint.get_concrete_function())
    steps = PrePostProcessor(network)
    steps.input().tensor().set_element_type(openvino.Type.u8)
    network = steps.build()
    network.input().get_tensor().set_names({"pixels"})
    network.output().get_tensor().set_names({"painted"})
    openvino.save_model(network, path, compress_to_fp16=True)


def _conv(x: keras.KerasTensor, channels: int, stride: int = 1, init="he_normal"):
    return layers.Conv2D(channels, 3, stride, "same", kernel_initializer=init)(x)


def _active(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.LeakyReLU(0.1)(x)


def _residual(x: keras.KerasTensor) -> keras.KerasTensor:
    # Nothing is added at first, so that training starts from a short network.
    inner = _active(_conv(x, x.shape[-1]))
    return layers.Add()([x, _conv(inner, x.shape[-1], init="zeros")])
