"""Store an ONNX's weights in 16 bits, which is how the shipped one is half as large.

    python models/halve_onnx.py EXPORTED/xception_best.onnx src/unmask/weights/xception.onnx

They are computed with in float32, as before, and are rounded as those of the .xml beside it. Puts
the new file's checksum into the card beside it.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

_FEWEST = 64  # numbers, where halving saves anything


def halve(network: onnx.ModelProto) -> None:
    """Round the float32 constants of ``network`` to float16, each followed by a cast back."""
    casts = []
    for tensor in network.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= _FEWEST:
            name, half = tensor.name, f"{tensor.name}_half"
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
            casts.append(onnx.helper.make_node("Cast", [half], [name], to=onnx.TensorProto.FLOAT))
    rest = list(network.graph.node)
    del network.graph.node[:]
    network.graph.node.extend([*casts, *rest])
    onnx.checker.check_model(network)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exported", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    network = onnx.load(args.exported)
    halve(network)
    onnx.save(network, args.target)
    path = args.target.with_suffix(".json")
    card = json.loads(path.read_text())
    card["onnx_sha256"] = hashlib.sha256(args.target.read_bytes()).hexdigest()
    path.write_text(json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    main()
