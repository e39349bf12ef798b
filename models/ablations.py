"""What each part of a recipe is worth: python models/ablations.py IMAGENET.h5 SPLIT OUT.

SPLIT is a folder of 'unmask split' whose manifest was made by ``training_manifest.py --search``, so
that its part ``val`` shows generators and people that training never sees. Every row trains on the
same steps from the same weights and differs from the first in what its name says; then ``val`` is
judged. Prints a Markdown table and writes the learning curves to OUT; goes on where it was stopped.
Needs the extra 'train'.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

STEPS, BATCH = 160, 24
BASE = {
    "trainable-layers": "all", "train-crop": "128", "optimizer": "adamw", "schedule": "cosine",
    "learning-rate": "3e-4", "average": "0.98", "select": "last",
    "pseudo-fakes": "0.4", "degrade": "0.5",
}  # fmt: skip
ROWS = {
    "all parts": {},
    "the head 'moments'": {"head": "moments", "pseudo-fakes": "0", "train-crop": "0"},
    "no damage": {"degrade": "0"},
    "no synthesised fakes": {"pseudo-fakes": "0"},
    "synthesised fakes alone": {"pseudo-fakes": "1"},
    "only self_blend": {"families": "self_blend=1"},
    "only decoder_look": {"families": "decoder_look=1"},
    "only cross_swap": {"families": "cross_swap=1"},
    "only mouth_edit": {"families": "mouth_edit=1"},
    "only resynthesis": {"families": "resynthesis=1"},
    "the last 20 layers alone": {"trainable-layers": "20"},
    "no average of weights": {"average": "0"},
    "half the learning rate": {"learning-rate": "1.5e-4"},
}


def main() -> None:
    """Train and judge what is not done yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("init", help="an .h5 with ImageNet's weights, or 'imagenet'")
    parser.add_argument("split", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    print(f"| {STEPS * BATCH} crops | AUC of videos | of crops | training's loss | minutes |")
    print("|---|---|---|---|---|")
    for name, change in ROWS.items():
        run = args.output / "".join(c if c.isalnum() else "_" for c in name)
        judged = run / "val"
        if not (judged / "metrics.json").exists():
            options = BASE | change | {"init": args.init, "batch": str(BATCH), "epochs": "1"}
            options |= {"steps-per-epoch": str(STEPS)}
            given = [part for key, value in options.items() for part in (f"--{key}", value)]
            unmask("train", args.split, run, "--resume", *given)
            model = run / "xception_best.h5"
            unmask("evaluate", model, "--split", args.split, "--part", "val", "--output", judged)
        metrics = json.loads((judged / "metrics.json").read_text())
        videos, frames = (shown(metrics[level]["metrics"]) for level in ("videos", "frames"))
        with (run / "history.csv").open(newline="") as file:
            epoch = next(csv.DictReader(file))
        minutes = float(epoch["seconds"]) / 60
        print(f"| {name} | {videos} | {frames} | {epoch['loss'][:5]} | {minutes:.1f} |", flush=True)


def unmask(*words: object) -> None:
    """Run a command in a process of its own; its output stays out of the table."""
    command = [sys.executable, "-m", "unmask", *map(str, words)]
    subprocess.run(command, check=True, stdout=sys.stderr)


def shown(metrics: dict) -> str:
    """The AUC with its 95 % interval over groups."""
    auc = metrics["roc_auc"]
    return "{:.3f} [{:.3f} to {:.3f}]".format(auc["value"], *auc["interval"])


if __name__ == "__main__":
    main()
