"""468 points on a face: a face crop -> where eyes, nose, mouth and outline are.

The network is MediaPipe's face mesh (Kartynnik et al., arXiv 1907.06724), run by OpenVINO.
"""

import cv2
import numpy as np

from unmask.runtime import WEIGHTS, compile_model

OUTLINE = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
HAIRLINE = (21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251)
LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)  # fmt: skip
EYES = (
    33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246,
    263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466,
)  # fmt: skip
BROWS = (
    70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 300, 293, 334, 296, 336, 285, 295, 282, 283, 276,
)  # fmt: skip
RIGHT_EYE, LEFT_EYE = (*EYES[:16], *BROWS[:10]), (*EYES[16:], *BROWS[10:])
NOSE = (
    168, 6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 97, 326, 327, 294, 278, 344, 440, 275, 45, 220, 115,
    48, 64,
)  # fmt: skip
JAW = (
    58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 132, 361,
)  # fmt: skip
"""Where the points of each part of the face stand in the mesh (MediaPipe's numbering)."""

_SIDE = 192


class FaceMesh:
    """Finds the points of the one face in a square crop."""

    def __init__(self, threads: int = 0):
        # float32: in bfloat16 a point is off by up to a pixel of 256.
        self._network = compile_model(WEIGHTS / "face_landmark.onnx", threads, precision="f32")

    def points(self, crop: np.ndarray) -> np.ndarray | None:
        """(468, 2) float32 x, y in pixels of a square RGB ``uint8`` crop; None without a face."""
        small = cv2.resize(crop, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        output = self._network((small.astype(np.float32) / 255).transpose(2, 0, 1)[None])
        if output[1].item() < 0:  # a logit: more likely no face than one
            return None
        return output[0].reshape(468, 3)[:, :2] * (crop.shape[0] / _SIDE)
