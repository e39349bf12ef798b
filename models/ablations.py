"""What each part of a recipe is worth: python models/ablations.py imagenet SPLIT OUT.

SPLIT is a folder of 'unmask split' whose manifest was made by ``training_manifest.py --search``, so
that its part ``val`` shows generators and people that training never sees. Every row trains for the
same steps from the same weights, with three seeds, and differs from the first in what its name
says; the head 'moments' is fitted in one go instead, to up to eight crops of each video. Prints a
Markdown table of video AUCs on ``val``: of each seed, and of the seeds' mean logits with its 95 %
interval over groups, and minutes of training (too few where a run was stopped on the way). Goes on
where it was stopped; other settings need another OUT. Needs the extra 'train'.
"""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import script

from unmask.training.metrics import measure
from unmask.training.scores import SCORES_NAME
from unmask.verdict import logit, sigmoid

STEPS, BATCH, SEEDS = 160, 24, (0, 1, 2)
BASE = {
    "batch": BATCH, "epochs": 1, "steps-per-epoch": STEPS, "select": "last",
    "trainable-layers": "all", "train-crop": 128, "optimizer": "adamw", "schedule": "cosine",
    "learning-rate": 3e-4, "average": 0.98, "pseudo-fakes": 0.4, "degrade": 0.5,
}  # fmt: skip
ROWS = {
    "all_parts": {},
    "head_moments": {"head": "moments", "pseudo-fakes": 0, "train-crop": 0},
    "no_damage": {"degrade": 0},
    "no_synthesised_fakes": {"pseudo-fakes": 0},
    "last_20_layers": {"trainable-layers": 20},
}


def main() -> None:
    """Train and judge what is not done yet, then print the table."""
    parser = script.parser(__doc__)
    parser.add_argument("init", help="an .h5 with ImageNet's weights, or 'imagenet'")
    parser.add_argument("split", type=Path, help="a folder of 'unmask split'")
    parser.add_argument("output", type=Path, help="a folder for the runs, old and new")
    args = parser.parse_args()
    print(f"| {STEPS * BATCH:,} crops | each seed | mean logits | minutes |\n|---|---|---|---|")
    for name, change in ROWS.items():
        logits, minutes, videos = [], [], []
        for seed in SEEDS:
            run = args.output / f"{name}_{seed}"
            options = BASE | change | {"init": args.init, "seed": seed}
            train_and_judge(args.split, run, options)
            with (run / "history.csv").open(newline="") as file:
                minutes.append(float(next(csv.DictReader(file))["seconds"]) / 60)
            with (run / "val" / SCORES_NAME).open(newline="") as file:
                videos = [row for row in csv.DictReader(file) if row["level"] == "video"]
            logits.append(logit([float(row["probability_fake"]) for row in videos]))
        each = ", ".join(f"{auc(videos, own).value:.3f}" for own in logits)
        print(f"| {name} | {each} | {auc(videos, np.mean(logits, 0))} | {np.mean(minutes):.1f} |")
        sys.stdout.flush()


def train_and_judge(split: Path, run: Path, options: dict[str, object]) -> None:
    """One run, unless it is there already; each command is a process of its own."""
    judged = run / "val"
    if (judged / SCORES_NAME).exists():
        return
    given = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    model = run / "xception_best.h5"
    for words in (
        ("train", split, run, "--resume", *given),
        ("evaluate", model, "--split", split, "--part", "val", "--output", judged),
    ):
        command = [sys.executable, "-m", "unmask", *map(str, words)]
        if code := subprocess.run(command, stdout=sys.stderr).returncode:
            sys.exit(code)  # it has said why


def auc(videos: list[dict[str, str]], logits: np.ndarray):
    """The AUC of these logits, with its interval."""
    labels = [int(row["label"] == "fake") for row in videos]
    groups = [row["group"] or row["video"] for row in videos]
    return measure(labels, [sigmoid(each) for each in logits], groups).metrics["roc_auc"]


if __name__ == "__main__":
    script.run(main)
