"""The inference runtime's door: everything that detection knows about OpenVINO is in here."""

import queue
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino.preprocess import ColorFormat, PrePostProcessor

from unmask.errors import ModelError
from unmask.processors import processors

WEIGHTS = Path(__file__).parent / "weights"


@lru_cache(maxsize=1)
def _core() -> openvino.Core:
    return openvino.Core()


class Network:
    """A network ready to run: call it with an array, get arrays by name. Safe to share by threads.

    As many calls run side by side as it has ``streams``, each on its share of the processors;
    further callers wait.
    """

    def __init__(self, compiled: openvino.CompiledModel, streams: int):
        # The runtime's own call keeps one request and, in several threads at once, gives one of
        # them the other's result.
        self._requests: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())

    def __call__(self, array: np.ndarray) -> Mapping[Any, np.ndarray]:
        """The outputs by name or number; they belong to the caller."""
        request = self._requests.get()
        try:
            return request.infer(array, share_inputs=True)  # it is done with it when it returns
        finally:
            self._requests.put(request)


def compile_model(
    path: Path, threads: int = 0, precision: str = "auto", streams: int = 1,
    mean_bgr: Sequence[float] = (),
) -> Network:  # fmt: skip
    """The network in a file, made ready for the processor.

    ``threads`` (0: one for each processor) are shared out to ``streams``; ``precision`` 'f32'
    forbids bfloat16. With ``mean_bgr`` the network wants (n, 3, height, width) BGR less that mean,
    and is called with RGB ``uint8`` pictures (n, height, width, 3). Raises ModelError when the file
    is missing or is no network.
    """
    if not path.is_file():
        raise ModelError(f"no model at {path}: check the path, or leave --model away")
    config: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": processors(threads),
        "NUM_STREAMS": streams,
        # Else every process puts its first thread on the first processor, where they fight.
        "ENABLE_CPU_PINNING": False,
    }
    if precision == "f32":
        config["INFERENCE_PRECISION_HINT"] = "f32"
    try:
        model = _core().read_model(path)
        if mean_bgr:
            model = _from_rgb(model, mean_bgr)
        return Network(_core().compile_model(model, "CPU", config), streams)
    except RuntimeError as error:
        raise ModelError(f"{path.name} is no model that can be run: {error}") from None


def _from_rgb(model: openvino.Model, mean_bgr: Sequence[float]) -> openvino.Model:
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().tensor().set_color_format(ColorFormat.RGB)
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    wanted = steps.input().preprocess()
    wanted.convert_element_type(openvino.Type.f32).convert_color(ColorFormat.BGR)
    wanted.mean(list(mean_bgr))
    return steps.build()
