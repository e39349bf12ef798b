"""The painters of the pseudo-fakes: python models/train_painters.py SPLIT OUT.

Trains three small face autoencoders on the real crops of SPLIT's train part and writes each as
OpenVINO IR (``painter_*.xml`` and ``.bin``) into OUT. What they reconstruct carries the traces
that the decoders of face generators leave; they differ in how they upsample. The shipped ones were
trained on a split of ``training_manifest.py --open``.
"""

from pathlib import Path

import script

from unmask.data.index import read_split
from unmask.training.batches import read_crop


def main() -> None:
    """Train and write one painter after the other."""
    parser = script.parser(__doc__)
    parser.add_argument("split", type=Path, help="a folder of 'unmask split'")
    parser.add_argument("out", type=Path, help="a folder for what is written")
    parser.add_argument(
        "--steps", type=script.at_least(1), default=900, help="batches a painter (default 900)"
    )
    parser.add_argument("--seed", type=script.at_least(0), default=0, help="default 0")
    args = parser.parse_args()
    crops = [crop for crop in read_split(args.split, "train") if not crop.is_fake]

    from painter import RECIPES, SIDE, make, write  # brings TensorFlow with it

    read = (read_crop(args.split / crop.path, 2 * SIDE) for crop in crops)
    pictures = [picture for picture in read if picture is not None]
    args.out.mkdir(parents=True, exist_ok=True)
    for name in RECIPES:
        painter = make(name, pictures, args.steps, args.seed)
        write(painter, args.out / f"painter_{name}.xml")


if __name__ == "__main__":
    script.run(main)
