"""Two exported models as the shipped one: python models/join.py POOL MOMENTS RUN SPLIT OUTPUT.

POOL and MOMENTS are .xml of models with the two heads, RUN the run of MOMENTS (its held_out.csv),
SPLIT the split that POOL was validated on. The joined logit is the sum of both calibrated logits,
POOL's two and a half times: the scores of MOMENTS vary twice as much, and heat maps, which POOL
alone keeps to what was changed, need the rest. It is calibrated on videos that neither was trained
on: POOL's validation videos, on which MOMENTS' logits come from held_out.csv.
Writes OUTPUT.xml, .bin and .json and prints video AUCs of both and of the sum on these videos.
Needs the extra 'train'.
"""

import argparse
import csv
import hashlib
import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import numpy as np
import openvino
from openvino import opset13 as ops
from sklearn.metrics import roc_auc_score

from unmask import __version__
from unmask.classifier import Classifier
from unmask.data.index import read_split, without_stills
from unmask.training.calibrate import Calibration, fit_calibration
from unmask.training.evaluate import crop_logits
from unmask.training.moments import HELD_OUT_NAME

POOL_WEIGHT = 2.5
CELLS = 8  # a side of the joined evidence


def main() -> None:
    """Join, calibrate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("pool", "moments", "run", "split", "output"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    pool, moments = Classifier(args.pool), Classifier(args.moments)
    found = calibrated(pool, args.split, args.run / HELD_OUT_NAME)
    parts = ((args.pool, pool.card, POOL_WEIGHT), (args.moments, moments.card, 1.0))
    network = joined([(path, w * card.scale, w * card.offset) for path, card, w in parts])
    openvino.save_model(network, args.output.with_suffix(".xml"), compress_to_fp16=True)
    data = b"".join(args.output.with_suffix(end).read_bytes() for end in (".xml", ".bin"))
    card = {
        "name": "xception", "version": __version__, "sha256": hashlib.sha256(data).hexdigest(),
        "input_size": pool.card.input_size, "calibration": asdict(found),
    }  # fmt: skip
    args.output.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")


def joined(parts: list[tuple[Path, float, float]]) -> openvino.Model:
    """One network of several, each with its scale and offset; evidence is added up cell by cell."""
    networks = [openvino.Core().read_model(path) for path, _, _ in parts]
    crops = networks[0].get_parameters()[0]
    total = None
    for network, (_, scale, offset) in zip(networks, parts, strict=True):
        if network is not networks[0]:
            for target in network.input(0).get_target_inputs():
                target.replace_source_output(crops.output(0))
        evidence = network.output("evidence").node.input_value(0)
        finer = network.output("evidence").partial_shape[1].get_length() // CELLS
        shape = np.int64([0, CELLS, finer, CELLS, finer])
        cells = ops.reduce_mean(ops.reshape(evidence, shape, True), np.int64([2, 4]), False)
        scaled = ops.add(ops.multiply(cells, np.float32(scale)), np.float32(offset))
        total = scaled if total is None else ops.add(total, scaled)
    flat = ops.reshape(total, np.int64([0, CELLS * CELLS]), True)
    logit = ops.reduce_mean(flat, np.int64([1]), True)
    network = openvino.Model([logit.output(0), total.output(0)], [crops], "xception")
    for output, name in zip(network.outputs, ("logit", "evidence"), strict=True):
        output.get_tensor().set_names({name})
    return network


def calibrated(pool: Classifier, split: Path, held_out: Path) -> Calibration:
    """The joined logit's calibration, on videos that neither part was trained on."""
    with held_out.open(newline="", encoding="utf-8") as file:
        from_moments = {
            (row["video"], int(row["label"] == "fake")): float(row["logit"])
            for row in csv.DictReader(file)
        }
    crops = without_stills([crop for crop in read_split(split, "val") if not crop.augmented])
    seen = defaultdict(list)
    for crop, logit in crop_logits(crops, split, pool):
        if logit is not None:
            seen[crop.video, crop.is_fake].append(logit)
    both = [key for key in seen if key in from_moments]
    labels = np.array([key[1] for key in both])
    one = np.array([POOL_WEIGHT * np.mean(seen[key]) for key in both])
    other = np.array([from_moments[key] for key in both])
    for name, logits in (("pool", one), ("moments", other), ("joined", one + other)):
        print(f"{name}: video AUC {roc_auc_score(labels, logits):.3f} on {len(both)} videos")
    return fit_calibration(one + other, labels)


if __name__ == "__main__":
    main()
