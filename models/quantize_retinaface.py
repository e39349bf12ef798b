"""RetinaFace's largest convolutions in eight bits: what faces are looked for with.

    python models/quantize_retinaface.py [--check FOLDER]

Writes src/unmask/weights/retinaface_mnet025_int8.{xml,bin} from retinaface_mnet025.onnx beside it,
over what is shipped, unless --check is given.
The convolutions at 8 and 16 pixels a cell between the trunk and what gives boxes, half of the time,
compute in eight bits (NNCF); what ranges their inputs have is learned from ``samples``. The rest
stays as it is: in eight bits it moves the boxes, and is no faster. With ``--check`` it is told
instead how the faces of a folder's pictures and videos differ from those of the network in float32,
in eight bits and in bfloat16. Needs the extra 'int8'.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import script

from unmask.errors import UnmaskError, UsageError
from unmask.faces import MEAN_BGR, Face, FaceDetector, overlap, shrink
from unmask.inputs import find_inputs
from unmask.runtime import WEIGHTS, compile_model
from unmask.video import Video

SAMPLES = Path(__file__).parents[1] / "samples"
EXACT, EIGHT_BITS = WEIGHTS / "retinaface_mnet025.onnx", WEIGHTS / "retinaface_mnet025_int8.xml"
IN_EIGHT_BITS = ("/fpn/merge", "/ssh1/", "/ssh2/")
SIZE = 640  # the longer side, as in detection
FRAMES = 2  # of each video
SAME = 0.5  # intersection over union from which on two boxes are of one face


def main() -> None:
    """Write the network, or check it."""
    parser = script.parser(__doc__)
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="compare alone: write nothing")
    folder = parser.parse_args().check
    if folder:
        check(folder)
    else:
        quantize()


def quantize() -> None:
    """Write the network in eight bits."""
    import nncf
    import openvino

    network = openvino.Core().read_model(EXACT)
    names = [op.get_friendly_name() for op in network.get_ops() if op.get_type_name() != "Constant"]
    kept = [n for n in names if not ("/Conv/" in n and n.startswith(IN_EIGHT_BITS))]
    shown = [as_input(image) for image in images(SAMPLES)]
    quantized = nncf.quantize(
        network, nncf.Dataset(shown), subset_size=len(shown),
        preset=nncf.QuantizationPreset.PERFORMANCE, ignored_scope=nncf.IgnoredScope(names=kept),
    )  # fmt: skip
    openvino.save_model(quantized, EIGHT_BITS, compress_to_fp16=True)


def images(folder: Path) -> Iterator[np.ndarray]:
    """The first frames of all pictures and videos that can be read, RGB ``uint8``."""
    for path in find_inputs([folder]):
        try:
            with Video(path) as video:
                for _, frame in zip(range(FRAMES), video.sample(), strict=False):
                    yield frame.image
        except UnmaskError as error:
            print(error)


def as_input(image: np.ndarray) -> np.ndarray:
    """What the network is given of an image: (1, 3, height, width) float32."""
    small = shrink(image, SIZE)
    return (small[:, :, ::-1] - np.float32(MEAN_BGR)).transpose(2, 0, 1)[None]


def check(folder: Path) -> None:
    """Print how the boxes in eight bits, and in bfloat16, lie on those in float32."""
    exact, eight_bits, bfloat16 = FaceDetector(precision="f32"), FaceDetector(), FaceDetector()
    bfloat16._network = compile_model(EXACT, mean_bgr=MEAN_BGR)
    shown = list(images(folder))
    expected = [exact.detect(image) for image in shown]
    if not any(expected):
        raise UsageError(f"no faces in {folder}: give a folder of pictures that show some")
    for name, detector in (("eight bits", eight_bits), ("bfloat16", bfloat16)):
        found = [detector.detect(image) for image in shown]
        on_theirs = overlaps(expected, found)
        same = [value for value in on_theirs if value >= SAME]
        missed = len(on_theirs) - len(same)
        extra = sum(value < SAME for value in overlaps(found, expected))
        print(
            f"{name}: of {len(on_theirs)} faces {missed} missed, {extra} more; intersection over "
            f"union {np.mean(same):.4f}, of the worst in a hundred {np.quantile(same, 0.01):.3f}"
        )


def overlaps(faces: list[list[Face]], others: list[list[Face]]) -> list[float]:
    """Each face's largest intersection over union with one that the other found, image by image."""
    return [
        max((overlap(face.box, other.box) for other in there), default=0.0)
        for here, there in zip(faces, others, strict=True) for face in here
    ]  # fmt: skip


if __name__ == "__main__":
    script.run(main)
