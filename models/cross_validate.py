"""Does what a network sees carry over to generators it was not shown? Leave-one-source-out.

    python models/cross_validate.py MODEL.h5 PREPROCESSED [--head moments] [--learning-curve ...]

For every source of PREPROCESSED (what 'unmask preprocess' made; moving pictures only) a linear
classifier is fitted on what the head sees of all other sources' crops and judges this source's
videos by their mean: as they are, compressed, and at half the size. It is fitted as the head
``moments`` is: to crops as they are, once more damaged (not with ``--degrade 0``), and to real ones
painted anew (not with ``--pseudo-fakes 0``). With ``--head`` another head is put on the model's
layers, of whose features ``--features`` takes the first so many. Prints video
AUCs: of all fakes against all reals, and of those sources that have fakes alone, where clips of one
kind stand on both sides; and how many swaps lie above the original of their group. The network's
own output is printed beside: it is a fair figure only for sources that the network was not trained
on. ``--learning-curve`` then prints the AUC by the number of sources whose fakes are fitted to.
Needs the extra 'train'.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from unmask.data.degrade import as_a_clip
from unmask.data.index import Crop, read_index
from unmask.runtime import Network
from unmask.training import model_file, xception
from unmask.training.batches import read_crop
from unmask.training.export import compiled
from unmask.training.ridge import solve
from unmask.training.rows import ALTERED, Row, as_they_are, rows_of, weigh

SIZE = 256
RIDGE = 0.3
REAL_PARTS = 8  # sources without fakes are taken together in so many parts
CONDITIONS = {
    "as they are": ALTERED["shown"],
    "CRF 35": lambda image, crop, rng: as_a_clip(image, crop.face_size, rng, 1.0, 35),
    "half the size": lambda image, crop, rng: as_a_clip(image, crop.face_size, rng, 0.5, 23),
}
COUNTS = (2, 4, 8, 12, 16, 20)  # sources with fakes, in the learning curve
DRAWS = 6  # of sources for each count


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("preprocessed", type=Path)
    parser.add_argument("--head", choices=("pool", "moments"), help="default: the model's own")
    parser.add_argument("--degrade", type=float, default=0.6, help="0: no damaged copies")
    parser.add_argument(
        "--pseudo-fakes", type=float, default=0.1, help="the painted ones' share of fakes"
    )
    parser.add_argument("--features", type=int, help="the first so many alone")
    parser.add_argument("--learning-curve", action="store_true")
    args = parser.parse_args()
    crops = as_they_are(read_index(args.preprocessed))
    see = watched(args.model, args.head)
    found = {name: seen(see, args.preprocessed, crops, how) for name, how in CONDITIONS.items()}
    features = {name: each[:, : args.features] for name, (each, _) in found.items()}
    rows = rows_of(crops, bool(args.degrade), bool(args.pseudo_fakes))
    copies = [
        seen(see, args.preprocessed, [row.crop for row in rows if row.kind == kind], how)[0]
        for kind, how in ALTERED.items()
        if kind != "shown" and any(row.kind == kind for row in rows)
    ]
    copies = [each[:, : args.features] for each in copies]
    weights = weigh(rows, args.pseudo_fakes)
    judged = probe(features, copies, rows, weights)
    print(
        "| judged by | all | sources with fakes | swaps above their original | "
        + " | ".join(list(CONDITIONS)[1:])
        + " |\n|"
        + "---|" * (3 + len(CONDITIONS))
    )
    own = {name: each for name, (_, each) in found.items()}
    for name, logits in (("its own output", own), ("a linear probe", judged)):
        whole, *damaged = logits.values()
        cells = [*figures(whole, crops), *(figures(each, crops)[0] for each in damaged)]
        print(f"| {name} | {' | '.join(cells)} |")
    if args.learning_curve:
        print("\n| sources whose fakes are fitted to | AUC of the others' fakes |\n|---|---|")
        for count in COUNTS:
            aucs = learned_from(count, features["as they are"], crops)
            print(f"| {count} | {np.mean(aucs):.3f} ({min(aucs):.3f} to {max(aucs):.3f}) |")


def watched(model: Path, head: str | None) -> Network:
    """The network: crops -> what goes into its last layer, (n, d), and what comes out, (n, 1)."""
    import keras

    network = model_file.load(model)
    if head and head != xception.head_of(network):
        network = xception.build(SIZE, head=head)
        model_file.initialise(network, str(model))
    return compiled(keras.Model(network.input, [network.layers[-2].input, network.output]))


def seen(see: Network, folder: Path, crops: list[Crop], how) -> tuple[np.ndarray, np.ndarray]:
    """What the network sees of the crops, altered so, (n, d), and its logits, (n,)."""
    features, fake, rng = [], [], np.random.default_rng(0)
    for start in range(0, len(crops), 16):
        images = [
            how(read_crop(folder / crop.path, SIZE), crop, rng)
            for crop in crops[start : start + 16]
        ]  # fmt: skip
        found = see(np.stack(images).astype(np.float32) / 255)
        features.append(found[0])
        fake.append(found[1][:, 0])
    probability = np.clip(np.concatenate(fake), 1e-7, 1 - 1e-7)
    return np.concatenate(features), np.log(probability / (1 - probability))


def probe(
    shown: dict[str, np.ndarray], copies: list[np.ndarray], rows: list[Row], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Logits of linear classifiers, each of crops of a source that it was not fitted on.

    They are fitted to ``rows``, whose features are the first of ``shown`` and then ``copies``.
    """
    whole, *others = shown.values()
    crops = [row.crop for row in rows[: len(whole)]]
    folds = dict(zip(crops, parts(crops), strict=True))
    # The conditions that are judged alone come first: they weigh nothing.
    judged_alone = [Row(crop, "shown") for _ in others for crop in crops]
    rows, weights = judged_alone + rows, np.concatenate([np.zeros(len(judged_alone)), weights])
    found = solve(
        np.concatenate([*others, whole, *copies]), np.array([row.is_fake for row in rows]),
        weights, np.array([folds[row.crop] for row in rows]), RIDGE,
    )  # fmt: skip
    *others, whole = np.split(found.held_out[: len(shown) * len(whole)], len(shown))
    return dict(zip(shown, (whole, *others), strict=True))


def learned_from(count: int, features: np.ndarray, crops: list[Crop]) -> list[float]:
    """AUCs of fakes of sources none of whose fakes was fitted to, one for each draw of others.

    Fitted to are crops as they are alone, so that it takes minutes.
    """
    rows, fold = rows_of(crops, False, False), parts(crops)
    is_fake, weights = np.array([row.is_fake for row in rows]), weigh(rows, 0)
    rng, aucs = np.random.default_rng(0), []
    for _ in range(DRAWS):
        chosen = rng.choice(np.unique(fold[is_fake]), count, replace=False)
        is_left_out = is_fake & ~np.isin(fold, chosen)
        fitted = np.where(is_left_out, 0, weights)
        fitted[is_fake] *= weights[is_fake].sum() / fitted[is_fake].sum()
        (logits,) = probe({"": features}, [], rows, fitted).values()
        by_video = defaultdict(list)
        for number in np.flatnonzero(is_left_out | ~is_fake):
            by_video[crops[number].video, crops[number].is_fake].append(logits[number])
        scores = [np.mean(each) for each in by_video.values()]
        aucs.append(roc_auc_score([fake for _, fake in by_video], scores))
    return aucs


def parts(crops: list[Crop]) -> np.ndarray:
    """Which part is held out with each crop: its source's, or one of those of real people alone.

    Sources that share a group are one part, or what was seen of one would help to judge the other.
    """
    part = {crop.dataset: crop.dataset for crop in crops}
    first: dict[str, str] = {}
    for crop in crops:
        with_it = first.setdefault(crop.group, crop.dataset)
        old, new = part[crop.dataset], part[with_it]
        part = {source: new if each == old else each for source, each in part.items()}
    with_fakes = {part[crop.dataset] for crop in crops if crop.is_fake}
    groups = sorted({crop.group for crop in crops})
    names = [
        part[crop.dataset] if part[crop.dataset] in with_fakes
        else f"real {groups.index(crop.group) % REAL_PARTS}"
        for crop in crops
    ]  # fmt: skip
    return np.unique(names, return_inverse=True)[1]


def figures(logits: np.ndarray, crops: list[Crop]) -> list[str]:
    """The columns of the table."""
    by_video = defaultdict(list)
    for crop, logit in zip(crops, logits, strict=True):
        by_video[crop.video, crop.is_fake, crop.dataset, crop.group].append(logit)
    scores = {video: float(np.mean(each)) for video, each in by_video.items()}
    with_fakes = {dataset for _, is_fake, dataset, _ in scores if is_fake}
    swaps = defaultdict(lambda: ([], []))
    for (_, is_fake, _, group), score in scores.items():
        if group.startswith("dfl_"):
            swaps[group][is_fake].append(score)
    above = [max(real) < min(fake) for real, fake in swaps.values() if real and fake]
    rows = []
    for chosen in (scores, {video: s for video, s in scores.items() if video[2] in with_fakes}):
        labels = [is_fake for _, is_fake, *_ in chosen]
        auc = roc_auc_score(labels, list(chosen.values()))
        rows.append(f"{auc:.3f} ({sum(labels)} fake, {len(labels) - sum(labels)} real)")
    return [*rows, f"{sum(above)} of {len(above)}"]


if __name__ == "__main__":
    main()
