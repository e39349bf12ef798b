"""Paint a face as generators do: small convolutional autoencoders with the upsampling of decoders.

They are trained on real faces by ``models/train_painters.py``.
"""

import cv2
import numpy as np

from unmask.runtime import WEIGHTS, compile_model

PAINTERS = ("transpose", "nearest", "shuffle")
"""How each of them upsamples: transposed convolution, repeated pixels, channels to pixels."""

_FRAME = 16  # pixels around the picture, cut off again: at the very edge colours are off


class Painters:
    """Reconstructs pictures by way of a bottleneck. Safe to share by threads, which take turns."""

    def __init__(self, threads: int = 1):
        # float32: bfloat16 would leave steps of a grey level, and only on some processors.
        self._networks = {
            name: compile_model(WEIGHTS / f"painter_{name}.xml", threads, precision="f32")
            for name in PAINTERS
        }

    def paint(self, image: np.ndarray, side: int, name: str) -> np.ndarray:
        """What painter ``name`` makes of a square RGB ``uint8`` image, seen at ``side`` pixels.

        ``side`` is a multiple of 8; the result is as large as the image.
        """
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        framed = cv2.copyMakeBorder(small, *[_FRAME] * 4, cv2.BORDER_REFLECT_101)
        painted = self._networks[name](framed[None])["painted"][0]
        painted = np.rint(painted[_FRAME:-_FRAME, _FRAME:-_FRAME]).astype(np.uint8)
        if painted.shape == image.shape:
            return painted
        return cv2.resize(painted, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
