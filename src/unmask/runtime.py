"""The door to the inference runtimes: all that detection knows about them is in here.

OpenVINO runs on the processor; ONNX Runtime (extra 'cuda'), for who asks for it, on NVIDIA's.
"""

import queue
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino.preprocess import ColorFormat, PrePostProcessor

from unmask.errors import ModelError, installation
from unmask.processors import processors

WEIGHTS = Path(__file__).parent / "weights"
CUDA = "CUDAExecutionProvider"


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


class CudaNetwork:
    """A classifier on an NVIDIA processor, called as a Network is. Safe to share by threads.

    ``path`` is an ONNX that 'unmask export' wrote; ``threads`` prepare what it computes;
    ``precision`` 'f32' forbids TensorFloat-32. Raises ModelError where it cannot run there:
    ONNX Runtime itself would quietly take the ordinary processor instead.
    """

    def __init__(self, path: Path, threads: int = 0, precision: str = "auto"):
        how = f"{installation('cuda')} in Unmask's folder, or leave --device away"
        try:
            import onnxruntime
        except ImportError:
            raise ModelError(f"--device cuda needs ONNX Runtime for NVIDIA: {how}") from None
        if CUDA not in onnxruntime.get_available_providers():
            raise ModelError(
                "--device cuda: the ONNX Runtime that is installed is not the one for NVIDIA: "
                f"pip uninstall -y onnxruntime onnxruntime-gpu, then {how}"
            )
        options = {
            "use_tf32": "0" if precision == "f32" else "1",
            # Else each new size of a batch is tried out with every algorithm there is.
            "cudnn_conv_algo_search": "HEURISTIC",
        }
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = processors(threads)
        with redirect_stdout(sys.stderr):  # it prints what it misses, maybe into someone's JSON
            onnxruntime.preload_dlls()  # those that pip installed
        try:
            self._session = onnxruntime.InferenceSession(
                path, session, providers=[(CUDA, options)], enable_fallback=0
            )
        except Exception as error:
            raise _cuda_failed(error) from None
        if CUDA not in self._session.get_providers():
            raise _cuda_failed("no NVIDIA processor can be used; the reason is above")
        self._names = [output.name for output in self._session.get_outputs()]
        shape = self._session.get_inputs()[0].shape
        self(np.zeros((1, *shape[1:]), np.uint8))  # a card that is too old fails only here

    def __call__(self, crops: np.ndarray) -> Mapping[Any, np.ndarray]:
        """The outputs by name, of RGB ``uint8`` crops (n, S, S, 3)."""
        pixels = crops.astype(np.float32) / 255
        try:
            found = self._session.run(None, {"crops": pixels})
        except Exception as error:
            raise _cuda_failed(error) from None
        return dict(zip(self._names, found, strict=True))


def _cuda_failed(error: Exception | str) -> ModelError:
    return ModelError(
        f"--device cuda: {error}. Check that nvidia-smi shows an NVIDIA processor with memory to "
        "spare, and that its driver is as new as the installed CUDA, or leave --device away"
    )


def _from_rgb(model: openvino.Model, mean_bgr: Sequence[float]) -> openvino.Model:
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().tensor().set_color_format(ColorFormat.RGB)
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    wanted = steps.input().preprocess()
    wanted.convert_element_type(openvino.Type.f32).convert_color(ColorFormat.BGR)
    wanted.mean(list(mean_bgr))
    return steps.build()
