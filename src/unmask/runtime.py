"""The inference runtime's door: everything that detection knows about OpenVINO is in here."""

import os
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENVINO_TELEMETRY", "0")

import numpy as np
import openvino

from unmask.errors import ModelError

WEIGHTS = Path(__file__).parent / "weights"


@lru_cache(maxsize=1)
def _core() -> openvino.Core:
    return openvino.Core()


class Network:
    """A network ready to run: call it with an array, get arrays by name. Safe to share by threads.

    Callers take turns: the runtime's own call keeps one request and, in several threads at once,
    gives one of them the other's result.
    """

    def __init__(self, compiled: openvino.CompiledModel):
        self._compiled = compiled
        self._turn = threading.Lock()

    def __call__(self, array: np.ndarray) -> Mapping[Any, np.ndarray]:
        """The outputs by name or number; they belong to the caller."""
        with self._turn:
            return self._compiled(array)


def compile_model(path: Path, threads: int = 0, precision: str = "auto") -> Network:
    """The network in a file, made ready for the processor.

    ``threads`` 0 takes all; ``precision`` 'f32' forbids bfloat16. Raises ModelError when the
    file is missing or is no network.
    """
    if not path.is_file():
        raise ModelError(f"no model at {path}: check the path, or leave --model away")
    config: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads} if threads else {}
    if precision == "f32":
        config["INFERENCE_PRECISION_HINT"] = "f32"
    try:
        return Network(_core().compile_model(path, "CPU", config))
    except RuntimeError as error:
        raise ModelError(f"{path.name} is no model that can be run: {error}") from None
