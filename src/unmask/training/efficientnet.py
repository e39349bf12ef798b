"""EfficientNet-Lite0 up to block 10: a second pair of eyes for textures, beside Xception.

EfficientNet is Tan and Le's (ICML 2019, arXiv 1905.11946); Lite leaves out squeeze-and-excitation
and uses ReLU6. Only the layers up to the last depthwise convolution at 16 pixels a cell are built,
with batch normalisation folded into the convolutions before it: they are never trained here.
"""

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

WEIGHTS = Path(__file__).parents[1] / "weights" / "efficientnet_lite0.npz"
"""The ImageNet weights of these layers (Apache-2.0): ``kernel`` and ``bias`` by layer name."""

LAST = "lite10_depthwise_act"
"""The layer whose output is looked at: cells of 16 pixels."""

CHANNELS = 672
"""How many channels LAST has."""


class _Block(NamedTuple):
    kernel: int
    stride: int
    expansion: int
    channels: int


_BLOCKS = [
    _Block(kernel, stride if number == 0 else 1, expansion, channels)
    for repeats, kernel, stride, expansion, channels in (
        (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112)
    )
    for number in range(repeats)
]  # fmt: skip


def layers(crops: keras.KerasTensor) -> keras.KerasTensor:
    """New layers: RGB in [0, 1], (n, size, size, 3) -> (n, size / 16, size / 16, CHANNELS)."""
    x = keras.layers.Rescaling(255 / 128, offset=-127 / 128, name="lite_scaled")(crops)
    x = keras.layers.Conv2D(32, 3, 2, padding="same", name="lite_stem")(x)
    x = keras.layers.ReLU(6.0, name="lite_stem_act")(x)
    for number, block in enumerate(_BLOCKS):
        before, name = x, f"lite{number}"
        if block.expansion > 1:
            x = keras.layers.Conv2D(x.shape[-1] * block.expansion, 1, name=f"{name}_expand")(x)
            x = keras.layers.ReLU(6.0, name=f"{name}_expand_act")(x)
        x = keras.layers.DepthwiseConv2D(
            block.kernel, block.stride, padding="same", name=f"{name}_depthwise"
        )(x)
        x = keras.layers.ReLU(6.0, name=f"{name}_depthwise_act")(x)
        if block is _BLOCKS[-1]:
            return x
        x = keras.layers.Conv2D(block.channels, 1, name=f"{name}_project")(x)
        if before.shape[-1] == block.channels and block.stride == 1:
            x = keras.layers.Add(name=f"{name}_add")([x, before])


def take_imagenet(model: keras.Model) -> None:
    """Give the layers of a model that ``layers`` made their ImageNet weights."""
    with np.load(WEIGHTS) as saved:
        for name in {key.rsplit("/", 1)[0] for key in saved}:
            model.get_layer(name).set_weights([saved[f"{name}/kernel"], saved[f"{name}/bias"]])
