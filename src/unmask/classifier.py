"""Judge face crops: crops -> calibrated logits."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unmask.card import find_model, find_onnx, read_card
from unmask.errors import ModelError
from unmask.runtime import CudaNetwork, compile_model


class Classifier:
    """Tells how fake face crops look. Loaded once, used for any number of videos.

    ``model`` None or 'shipped' is Unmask's own; ``calibration`` a file that 'unmask calibrate'
    made for it. So many threads as it has ``streams`` may use it side by side; on the ``device``
    'cuda', an NVIDIA processor, any. Raises ModelError when a file is missing, is damaged or does
    not fit, or the device cannot be used.
    """

    def __init__(
        self, model: str | Path | None = None, threads: int = 0, precision: str = "auto",
        calibration: str | Path | None = None, streams: int = 1, device: str = "cpu",
    ):  # fmt: skip
        self.card = read_card(model, calibration)
        path = find_model(model)
        if device == "cuda":
            self._network = CudaNetwork(find_onnx(path, self.card), threads, precision)
        else:
            self._network = compile_model(path, threads, precision, streams)

    def logits(self, crops: np.ndarray, is_photo: bool | Sequence[bool] = False) -> np.ndarray:
        """Calibrated logits of fake, ``float32`` (n,), of RGB ``uint8`` crops (n, S, S, 3).

        ``is_photo`` says of all of them, or of each, that it is of a photo rather than of a moving
        picture.
        """
        return self._calibrated(self._network(crops)["logit"].reshape(-1), is_photo)

    def evidence(self, crops: np.ndarray, is_photo: bool = False) -> np.ndarray:
        """What each part of the crops has to say: calibrated logits of fake, float32 (n, h, w).

        A map's mean is the crop's logit, so ``logits`` need not be called as well; crops are as
        there. Raises ModelError when the model was exported before it could tell.
        """
        try:
            raw = self._network(crops)["evidence"]
        except KeyError:
            raise ModelError(
                f"the model {self.card.name} {self.card.version} cannot tell where it looks: "
                "export it again with 'unmask export'"
            ) from None
        # From some exports it comes as (n, h, w, 1).
        return self._calibrated(raw.reshape(raw.shape[:3]), is_photo)

    def _calibrated(self, raw: np.ndarray, is_photo: bool | Sequence[bool]) -> np.ndarray:
        if not np.isfinite(raw).all():
            raise ModelError(
                f"the model {self.card.name} gave no number for a face: try --precision f32, or "
                "export it again"
            )
        offset = self.card.offset + np.multiply(is_photo, self.card.photo_offset)
        return (raw * self.card.scale + offset).astype(np.float32)
