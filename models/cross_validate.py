"""Does what a network sees carry over to generators it was not shown? Leave-one-source-out.

    python models/cross_validate.py imagenet PREPROCESSED --head moments [--pairs 200 ...]
    python models/cross_validate.py MODEL.h5 PREPROCESSED

For every source of PREPROCESSED (what 'unmask preprocess' made; moving pictures only) a linear
classifier is fitted on what the head sees of all other sources' crops and judges this source's
videos by their mean: as they are, compressed, at half the size, and without colour. It is fitted as
the head ``moments`` is: to crops as they are, once more damaged (not with ``--degrade 0``), and
with ``--pairs`` to so many drawn batches; a row of its own is of one that is fitted to crops
without colour as well. With ``--head`` another head is put on the model's layers, of whose features
``--features`` takes the first so many. Of all features a row of its own is printed, in which stands
beside the classifier, with the share that training gives it, how far crops are from the real faces
of other sources. Prints video AUCs: of all fakes against all reals, and of those sources that have
fakes alone, where clips of one kind stand on both sides; and how many swaps lie above the original
of their group. A second table has, at the threshold that one in twenty real videos pass as they
are, how many real and fake ones are called fake. The network's own output is printed beside: it is
a fair figure only for sources that the network was not trained on. ``--learning-curve`` prints
instead how the AUC grows with the number of sources whose fakes are fitted to. Needs the extra
'train'.
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import script
from sklearn.metrics import roc_auc_score

from unmask.data.degrade import as_a_clip
from unmask.data.index import Crop, read_index
from unmask.runtime import Network
from unmask.training import model_file, real_distance, xception
from unmask.training.batches import Batches, read_crop
from unmask.training.export import compiled
from unmask.training.ridge import solve
from unmask.training.rows import as_they_are, equal_weights, see_drawn, share_out
from unmask.verdict import logit

SIZE = 256
RIDGE = 0.3
REAL_PARTS = 8  # sources without fakes are taken together in so many parts
COUNTS = (2, 4, 8, 12, 16, 20)  # sources with fakes, in the learning curve
DRAWS = 6  # of sources for each count
FALSE_ALARMS = 0.05  # of real videos as they are
COLOURLESS = 0.2  # of the weight, where crops without colour are fitted to


def without_colour(crop: np.ndarray, *_) -> np.ndarray:
    """A crop in grey, still with three channels."""
    return cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


# What becomes of a crop, by its face's size and a source of chance.
CONDITIONS = {
    "as they are": lambda crop, *_: crop,
    "CRF 35": lambda *crop: as_a_clip(*crop, 1.0, 35),
    "half the size": lambda *crop: as_a_clip(*crop, 0.5, 23),
    "without colour": without_colour,
}
COPIES = {  # that are fitted to beside crops as they are
    "damaged": as_a_clip,
    "damaged, without colour": lambda *crop: without_colour(as_a_clip(*crop)),
}


def main() -> None:
    """Print the table."""
    parser = script.parser(__doc__)
    parser.add_argument("model", help="an .h5; with --head also as 'unmask train --init' takes it")
    parser.add_argument("preprocessed", type=Path, help="a folder of 'unmask preprocess'")
    parser.add_argument("--head", choices=("pool", "moments"), help="default: the model's own")
    parser.add_argument(
        "--pairs", type=script.at_least(0), default=0, help="batches of pairs to fit on"
    )
    parser.add_argument("--degrade", type=float, default=0.6, help="as in 'unmask train'")
    parser.add_argument("--pseudo-fakes", type=float, default=0.35, help="as in 'unmask train'")
    parser.add_argument("--features", type=script.at_least(1), help="the first so many alone")
    parser.add_argument("--learning-curve", action="store_true", help="that table instead")
    args = parser.parse_args()
    index = read_index(args.preprocessed)
    crops = as_they_are(index)
    network = watched(args.model, args.head)
    see = compiled(network)
    if args.learning_curve:
        features, _ = seen(see, args.preprocessed, crops, CONDITIONS["as they are"])
        print_learning_curve(features[:, : args.features], crops)
        return
    wanted = CONDITIONS | (COPIES if args.degrade else {})
    found = {name: seen(see, args.preprocessed, crops, how) for name, how in wanted.items()}
    chosen = slice(args.features)
    features = {name: each[:, chosen] for name, (each, _) in found.items()}
    pairs = None
    if args.pairs:
        batches = Batches(
            args.preprocessed, index, size=SIZE, batch=24, paired=True, degraded=args.degrade,
            pseudo_fakes=args.pseudo_fakes,
        )  # fmt: skip
        pairs = see_drawn(see, batches, 0, args.pairs)
        pairs["features"] = pairs["features"][:, chosen]
    judged = probe(features, crops, pairs)
    both = probe(features, crops, pairs, COLOURLESS)
    own = {name: logit(found[name][1][:, 0], sure=1e-7) for name in CONDITIONS}
    rows = {
        "its own output": own, "a linear probe": judged,
        "a linear probe, of crops without colour as well": both,
    }  # fmt: skip
    if not args.features and real_distance.NAME in {layer.name for layer in network.layers}:
        apart = distances(network, args.preprocessed, crops, features)
        share = real_distance.share(*(
            list(of_videos(each["as they are"], crops).values()) for each in (judged, apart)
        ))  # fmt: skip
        rows["the probe and how far from real faces"] = {
            name: judged[name] + share * apart[name] for name in CONDITIONS
        }
    print(
        "| judged by | all | sources with fakes | swaps above their original | "
        + " | ".join(list(CONDITIONS)[1:])
        + " |\n|"
        + "---|" * (3 + len(CONDITIONS))
    )
    for name, logits in rows.items():
        whole, *others = logits.values()
        cells = [*figures(whole, crops), *(figures(each, crops)[0] for each in others)]
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\n| real, fake ones called fake | {' | '.join(CONDITIONS)} |\n"
          f"|{'---|' * (1 + len(CONDITIONS))}")  # fmt: skip
    for name, logits in rows.items():
        print(f"| {name} | {' | '.join(called_fake(logits, crops))} |")


def watched(model: str, head: str | None):
    """The network: crops -> what its head averages, (n, d), and what comes out, (n, 1)."""
    import keras

    if head:
        network = xception.build(SIZE, head=head)
        model_file.initialise(network, model)
    else:
        network = model_file.load(Path(model))
    averaged = "pool" if xception.head_of(network) == "pool" else xception.MOMENTS
    return keras.Model(network.input, [network.get_layer(averaged).output, network.output])


def seen(see: Network, folder: Path, crops: list[Crop], how: Callable) -> list[np.ndarray]:
    """The network's outputs for the crops, (n, d) each, after ``how``."""
    outputs, rng = [], np.random.default_rng(0)
    for start in range(0, len(crops), 16):
        images = [
            how(image, crop.face_size, rng)
            for crop in crops[start : start + 16]
            for image in [read_crop(folder / crop.path, SIZE)]
        ]
        found = see(np.stack(images).astype(np.float32) / 255)
        outputs.append([found[number] for number in range(len(found))])
    return [np.concatenate(each) for each in zip(*outputs, strict=True)]


def distances(
    network, folder: Path, crops: list[Crop], features: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """How far each crop, (n,), is from the real ones of other parts; drawn pairs are left out."""
    folds, fitted = parts(crops), fitted_to(features)
    is_real = np.tile([not crop.is_fake for crop in crops], len(fitted))
    weights = row_weights(crops, len(fitted), 0, 0.0)
    reals = real_distance.real_cells_of_folds(
        np.concatenate([features[name] for name in fitted]),
        weights * is_real,
        np.tile(folds, len(fitted)),
    )
    see = compiled(real_distance.network_of(network, reals))
    return {
        name: seen(see, folder, crops, how)[0][np.arange(len(crops)), folds]
        for name, how in CONDITIONS.items()
    }


def probe(
    shown: dict[str, np.ndarray],
    crops: list[Crop],
    pairs: dict[str, np.ndarray] | None,
    colourless: float = 0.0,
) -> dict[str, np.ndarray]:
    """Logits of linear classifiers, each of crops of a source that it was not fitted on.

    They are fitted on those ``shown`` that ``fitted_to`` names, and on the features, labels and
    groups of ``pairs``, where there are any.
    """
    folds, is_fake = parts(crops), np.array([crop.is_fake for crop in crops])
    fitted = fitted_to(shown)
    # The conditions that are judged alone come first: they weigh nothing.
    others = [name for name in CONDITIONS if name not in fitted]
    names = [*others, *fitted]
    features = [shown[name] for name in names]
    targets, all_folds = [is_fake] * len(names), [folds] * len(names)
    drawn_count = 0
    if pairs:
        drawn_count = len(pairs["labels"])
        fold_of = dict(zip((crop.group for crop in crops), folds, strict=True))
        features.append(pairs["features"])
        targets.append(pairs["labels"])
        all_folds.append(
            [fold_of.get(each, -1) for each in pairs["groups"]]
        )  # stills are never judged
    weights = [
        np.zeros(len(others) * len(crops)),
        row_weights(crops, len(fitted), drawn_count, colourless),
    ]
    found = solve(*map(np.concatenate, (features, targets, weights, all_folds)), RIDGE)
    judged = np.split(found.held_out[: len(names) * len(crops)], len(names))
    by_name = dict(zip(names, judged, strict=True))
    return {name: by_name[name] for name in CONDITIONS}


def fitted_to(features: dict[str, np.ndarray]) -> list[str]:
    """What a classifier is fitted to: first what ``share_out`` knows, then that without colour."""
    order = ("as they are", "damaged", "without colour", "damaged, without colour")
    return [name for name in order if name in features]


def row_weights(crops: list[Crop], kinds: int, drawn: int, colourless: float) -> np.ndarray:
    """The weights of so many kinds of rows, each of all crops, and of the drawn ones."""
    is_fake = np.array([crop.is_fake for crop in crops])
    weights = equal_weights(np.array([crop.video for crop in crops]), is_fake)
    shares = share_out(weights, kinds == 2 + len(COPIES), drawn)
    of_crops = shares[: len(shares) - drawn]
    return np.concatenate(
        [(1 - colourless) * of_crops, colourless * of_crops, shares[len(of_crops) :]]
    )


def print_learning_curve(features: np.ndarray, crops: list[Crop]) -> None:
    """AUCs of fakes of sources none of whose fakes was fitted to, by the number of other sources.

    Each real video is judged by what was not fitted to its source either. Crops as they are alone.
    """
    fold, is_fake = parts(crops), np.array([bool(crop.is_fake) for crop in crops])
    weights = equal_weights(np.array([crop.video for crop in crops]), is_fake)
    rng = np.random.default_rng(0)
    print("| sources whose fakes are fitted to | AUC of other sources' fakes |\n|---|---|")
    for count in COUNTS:
        aucs = []
        for _ in range(DRAWS):
            chosen = rng.choice(np.unique(fold[is_fake]), count, replace=False)
            is_left_out = is_fake & ~np.isin(fold, chosen)
            fitted = np.where(is_left_out, 0, weights)
            fitted[is_fake] /= 2 * fitted[is_fake].sum()
            logits = solve(features, is_fake, fitted, fold, RIDGE).held_out
            judged = np.flatnonzero(is_left_out | ~is_fake)
            aucs.append(auc_of(of_videos(logits[judged], [crops[number] for number in judged])))
        print(f"| {count} | {np.mean(aucs):.3f} ({min(aucs):.3f} to {max(aucs):.3f}) |", flush=True)


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


def of_videos(logits: np.ndarray, crops: list[Crop]) -> dict[tuple[str, int, str, str], float]:
    """The mean logit of each video, by its name, label, dataset and group."""
    by_video = defaultdict(list)
    for crop, score in zip(crops, logits, strict=True):
        by_video[crop.video, crop.is_fake, crop.dataset, crop.group].append(score)
    return {video: float(np.mean(each)) for video, each in by_video.items()}


def auc_of(scores: dict[tuple[str, int, str, str], float]) -> float:
    """The ROC-AUC of what ``of_videos`` gave."""
    return roc_auc_score([is_fake for _, is_fake, *_ in scores], list(scores.values()))


def figures(logits: np.ndarray, crops: list[Crop]) -> list[str]:
    """The columns of the table."""
    scores = of_videos(logits, crops)
    with_fakes = {dataset for _, is_fake, dataset, _ in scores if is_fake}
    swaps = defaultdict(lambda: ([], []))
    for (_, is_fake, _, group), score in scores.items():
        if group.startswith("dfl_"):
            swaps[group][is_fake].append(score)
    above = [max(real) < min(fake) for real, fake in swaps.values() if real and fake]
    rows = []
    for chosen in (scores, {video: s for video, s in scores.items() if video[2] in with_fakes}):
        labels = [is_fake for _, is_fake, *_ in chosen]
        rows.append(f"{auc_of(chosen):.3f} ({sum(labels)} fake, {len(labels) - sum(labels)} real)")
    return [*rows, f"{sum(above)} of {len(above)}"]


def called_fake(logits: dict[str, np.ndarray], crops: list[Crop]) -> list[str]:
    """The second table's row: shares of real and fake videos, in each of CONDITIONS."""
    scores = {name: of_videos(each, crops) for name, each in logits.items()}
    is_fake = np.array([fake for _, fake, *_ in scores["as they are"]], bool)
    values = {name: np.array(list(each.values())) for name, each in scores.items()}
    limit = np.quantile(values["as they are"][~is_fake], 1 - FALSE_ALARMS)
    return [
        f"{np.mean(each[~is_fake] > limit):.0%}, {np.mean(each[is_fake] > limit):.0%}"
        for each in values.values()
    ]


if __name__ == "__main__":
    script.run(main)
