"""What a model makes of generators it was not shown.

    python models/held_out_table.py RUN MANIFEST [PREPROCESSED]

RUN is a folder of 'unmask train --head moments', whose held_out.csv has every training video's
logit by a head that never saw the video's group (a branch, of --local-steps, has: it is taught to
add nothing there); MANIFEST is what 'unmask preprocess' was given.
Prints the figures of all videos and of those sources that have fakes, where clips of one kind stand
on both sides; those of each method's fakes against all real videos, with 95 % intervals over
groups; how many of each dataset's real photos, and of the fake videos, lie above the threshold of
videos and that of photos; and, with the folder PREPROCESSED that 'unmask preprocess' made, the
figures of thirds of the videos, by how large and how sharp faces are. Needs the extra 'train'.
"""

import csv
from collections import defaultdict
from collections.abc import Container
from pathlib import Path

import numpy as np
import script

from unmask.data.index import read_index
from unmask.data.manifest import read_manifest
from unmask.errors import DatasetError
from unmask.training.calibrate import calibrate_held_out
from unmask.training.metrics import measure
from unmask.training.moments import HELD_OUT_NAME
from unmask.verdict import sigmoid

SHOWN = ("roc_auc", "equal_error_rate", "false_positive_rate", "recall")
FEWEST = 3  # fakes of a method that gets a line of its own


def main() -> None:
    """Print the tables."""
    parser = script.parser(__doc__)
    parser.add_argument("run", type=Path, help="a folder of 'unmask train --head moments'")
    parser.add_argument("manifest", type=Path, help="the CSV that its videos are listed in")
    parser.add_argument(
        "preprocessed", type=Path, nargs="?", help="its folder of 'unmask preprocess'"
    )
    args = parser.parse_args()
    with (args.run / HELD_OUT_NAME).open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    rows = [row for row in listed if row["kind"] == "shown"]
    methods = {(each.name, each.label): each.method for each in read_manifest(args.manifest)}
    require(rows, methods, args.manifest)
    with_fakes = {row["dataset"] for row in rows if row["label"] == "fake"}
    whole, alike = figures(rows), figures([r for r in rows if r["dataset"] in with_fakes])
    print("| [95 % interval] | all | sources with fakes |\n|---|---|---|")
    for name in ("real", "fake", "groups"):
        print(f"| {name} | {getattr(whole, name)} | {getattr(alike, name)} |")
    for name in SHOWN:
        print(f"| {name} | {whole.metrics[name]} | {alike.metrics[name]} |")
    real = [row for row in rows if row["label"] == "real"]
    by_method = defaultdict(list)
    for row in rows:
        if row["label"] == "fake":
            by_method[methods[row["video"], row["label"]]].append(row)
    print("\n| method | fakes | ROC-AUC against all reals | found at 0.5 |\n|---|---|---|---|")
    for method, fakes in sorted(by_method.items(), key=lambda item: -len(item[1])):
        if len(fakes) >= FEWEST:
            found = figures(real + fakes).metrics
            print(f"| {method} | {len(fakes)} | {found['roc_auc']} | {found['recall']} |")
    print_photos(listed, args.run)
    if args.preprocessed:
        print_quality(rows, args.preprocessed)


def print_photos(rows: list[dict[str, str]], run: Path) -> None:
    """The third table."""
    found = calibrate_held_out(run / HELD_OUT_NAME)
    logits_of = defaultdict(list)
    for row in rows:
        names = ["fake videos"] if row["label"] == "fake" else []
        if row["kind"] == "photo":
            names = [f"{row['label']} photos", f"{row['label']} photos of {row['dataset']}"]
        for name in names:
            logits_of[name].append(float(row["logit"]) * found.scale + found.offset)
    print("\n| | | above the videos' threshold | above the photos' |\n|---|---|---|---|")
    for name, logits in sorted(logits_of.items()):
        above = [f"{np.mean(np.add(logits, shift) > 0):.1%}" for shift in (0, found.photo_offset)]
        print(f"| {name} | {len(logits)} | {' | '.join(above)} |")


def print_quality(rows: list[dict[str, str]], preprocessed: Path) -> None:
    """The fourth table: terciles of the videos by the median of their crops."""
    crops_of = defaultdict(list)
    for crop in read_index(preprocessed):
        crops_of[crop.video, crop.label].append(crop)
    require(rows, crops_of, preprocessed)
    print("\n| videos by | real, fake | ROC-AUC | FPR | recall |\n|---|---|---|---|---|")
    for field, words in (("face_size", "face size, pixels"), ("blur", "sharpness")):
        values = np.array([
            np.median([getattr(crop, field) for crop in crops_of[row["video"], row["label"]]])
            for row in rows
        ])  # fmt: skip
        for members in np.array_split(np.argsort(values, kind="stable"), 3):
            low, high = values[members[[0, -1]]]
            found = figures([rows[number] for number in members])
            shown = (found.metrics[name] for name in ("roc_auc", "false_positive_rate", "recall"))
            cells = " | ".join(map(str, shown))
            print(f"| {words} {low:.0f} to {high:.0f} | {found.real}, {found.fake} | {cells} |")


def require(rows: list[dict[str, str]], known: Container[tuple[str, str]], where: Path) -> None:
    """Raise DatasetError where a video, by name and label, is not in what is of the same run."""
    missing = [row["video"] for row in rows if (row["video"], row["label"]) not in known]
    if missing:
        raise DatasetError(
            f"{len(missing)} of the run's {len(rows)} videos are not in {where}, as {missing[0]}: "
            "give what this very run was made from"
        )


def figures(rows: list[dict[str, str]]):
    """All metrics of some rows of held_out.csv."""
    return measure(
        [int(row["label"] == "fake") for row in rows],
        [float(sigmoid(float(row["logit"]))) for row in rows],
        [row["group"] for row in rows],
    )


if __name__ == "__main__":
    script.run(main)
