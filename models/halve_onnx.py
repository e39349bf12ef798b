"""Store an ONNX's weights in 16 bits, which is how the shipped one is half as large.

    python models/halve_onnx.py EXPORTED/xception_best.onnx src/unmask/weights/xception.onnx

They are computed with in float32, as before, and are rounded as those of the .xml beside it, with
which the new file has to agree. Puts its checksum into the card beside it. Needs the extra 'train'.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import script
from onnx import numpy_helper

from unmask.outputs import in_one_step, write_whole
from unmask.runtime import compile_model
from unmask.training.batches import read_crop

PEOPLE = Path(__file__).parents[1] / "samples" / "people"
AGREES = 0.1  # of a logit; rounding alone makes 0.01
_FEWEST = 64  # numbers, where halving saves anything


def halve(network: onnx.ModelProto) -> None:
    """Round the float32 weights of ``network`` to float16, each followed by a cast back."""
    casts = []
    for tensor in network.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= _FEWEST:
            if np.abs(values).max() > np.finfo(np.float16).max:
                raise SystemExit(f"{tensor.name} is too large for 16 bits: ship it as it is")
            name, half = tensor.name, f"{tensor.name}_half"
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
            casts.append(onnx.helper.make_node("Cast", [half], [name], to=onnx.TensorProto.FLOAT))
    rest = list(network.graph.node)
    del network.graph.node[:]
    network.graph.node.extend([*casts, *rest])
    onnx.checker.check_model(network)


def difference(network: Path, model: Path, size: int) -> float:
    """By how much the logits of an ONNX and of an .xml differ at most, on the sample people."""
    shown = np.stack([read_crop(path, size) for path in sorted(PEOPLE.glob("*.jpg"))])
    pixels = shown.astype(np.float32) / 255
    from_onnx = compile_model(network, precision="f32")(pixels)["logit"]
    return float(np.abs(from_onnx - compile_model(model, precision="f32")(shown)["logit"]).max())


def main() -> None:
    """The command line."""
    parser = script.parser(__doc__)
    parser.add_argument("exported", type=Path, help="an .onnx of 'unmask export'")
    parser.add_argument("target", type=Path, help="the .onnx to write, beside its .xml and .json")
    args = parser.parse_args()
    path, model = args.target.with_suffix(".json"), args.target.with_suffix(".xml")
    card = json.loads(path.read_text())
    network = onnx.load(args.exported)
    halve(network)
    with in_one_step(args.target) as partial:
        onnx.save(network, partial)
        apart = difference(partial, model, card["input_size"])
        if not apart < AGREES:
            raise SystemExit(f"{args.exported} is of other weights than {model}: {apart:.2f} apart")
        card["onnx_sha256"] = hashlib.sha256(partial.read_bytes()).hexdigest()
    write_whole(path, json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    script.run(main)
