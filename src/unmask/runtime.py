"""The inference runtime's door: everything that Unmask knows about OpenVINO is in here."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENVINO_TELEMETRY", "0")

import openvino

from unmask.errors import ModelError

WEIGHTS = Path(__file__).parent / "weights"


@lru_cache(maxsize=1)
def _core() -> openvino.Core:
    return openvino.Core()


def compile_model(path: Path, threads: int = 0, precision: str = "auto") -> Any:
    """A network ready to run on the processor: call it with an array, get arrays by name.

    ``threads`` 0 takes all; ``precision`` 'f32' forbids bfloat16. Raises ModelError when the
    file is missing or is no network.
    """
    if not path.is_file():
        raise ModelError(f"no model at {path}: check the path, or leave --model away")
    config: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads} if threads else {}
    if precision == "f32":
        config["INFERENCE_PRECISION_HINT"] = "f32"
    try:
        return _core().compile_model(path, "CPU", config)
    except RuntimeError as error:
        raise ModelError(f"{path.name} is no model that can be run: {error}") from None
