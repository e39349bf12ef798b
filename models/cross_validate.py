"""Does what a network sees carry over to generators it was not shown? Leave-one-source-out.

    python models/cross_validate.py MODEL.h5 PREPROCESSED [--head moments]

For every source of PREPROCESSED (what 'unmask preprocess' made; moving pictures only) a linear
classifier is fitted on what the head sees of all other sources' crops and judges this source's
videos by their mean. With ``--head`` another head is put on the model's layers. Prints video AUCs:
of all fakes against all reals, and of those sources that have fakes alone, where clips of one kind
stand on both sides; and how many swaps lie above the original of their group. The network's own
output is printed beside: it is a fair figure only for sources that the network was not trained on.
Needs the extra 'train'.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from unmask.data.index import Crop, read_index
from unmask.training import xception
from unmask.training.batches import read_crop
from unmask.training.ridge import solve

FRAMES = 8  # of a video
SIZE = 256
RIDGE = 0.3
REAL_BLOCKS = 8  # sources without fakes are taken together in so many parts


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("preprocessed", type=Path)
    parser.add_argument("--head", choices=("pool", "moments"), help="default: the model's own")
    args = parser.parse_args()
    crops = moving(read_index(args.preprocessed))
    features, own = pooled_features(args.model, args.head, args.preprocessed, crops)
    print(
        "| judged by | all | sources with fakes | swaps above their original |\n|---|---|---|---|"
    )
    for name, logits in (("its own output", own), ("a linear probe", probe(features, crops))):
        print(f"| {name} | {' | '.join(figures(logits, crops))} |")


def moving(crops: list[Crop]) -> list[Crop]:
    """At most FRAMES crops of each video, evenly spaced; no stills."""
    videos = defaultdict(list)
    for crop in crops:
        if not crop.augmented:
            videos[crop.video].append(crop)
    chosen = []
    for shown in videos.values():
        if len(shown) > 1:
            places = np.linspace(0, len(shown) - 1, min(FRAMES, len(shown))).astype(int)
            chosen += [shown[i] for i in np.unique(places)]
    return chosen


def pooled_features(
    model: Path, head: str | None, folder: Path, crops: list[Crop]
) -> tuple[np.ndarray, np.ndarray]:
    """What goes into the network's last layer, (n, d), and the logits that come out, (n,)."""
    import keras

    network = xception.load(model)
    if head and head != xception.head_of(network):
        network = xception.build(SIZE, head=head)
        xception.initialise(network, str(model))
    both = keras.Model(network.input, [network.layers[-2].input, network.output])
    features, fake = [], []
    for start in range(0, len(crops), 32):
        images = [read_crop(folder / crop.path, SIZE) for crop in crops[start : start + 32]]
        found = both.predict_on_batch(np.stack(images).astype(np.float32) / 255)
        features.append(found[0])
        fake.append(found[1][:, 0])
    probability = np.clip(np.concatenate(fake), 1e-7, 1 - 1e-7)
    return np.concatenate(features), np.log(probability / (1 - probability))


def probe(features: np.ndarray, crops: list[Crop]) -> np.ndarray:
    """Logits of linear classifiers, each of crops of a source that it was not fitted on."""
    with_fakes = {crop.dataset for crop in crops if crop.is_fake}
    groups = sorted({crop.group for crop in crops})
    blocks = np.array([
        crop.dataset if crop.dataset in with_fakes
        else f"real {groups.index(crop.group) % REAL_BLOCKS}"
        for crop in crops
    ])  # fmt: skip
    labels = np.array([crop.is_fake for crop in crops])
    weights = equal(crops, np.ones(len(crops), bool))
    folds = np.unique(blocks, return_inverse=True)[1]
    return solve(features, labels, weights, folds, RIDGE).held_out


def equal(crops: list[Crop], chosen: np.ndarray) -> np.ndarray:
    """Weights by which every video counts the same, and fakes as much as reals."""
    some = [crop for crop, is_chosen in zip(crops, chosen, strict=True) if is_chosen]
    sizes, videos = defaultdict(int), defaultdict(set)
    for crop in some:
        sizes[crop.video] += 1
        videos[crop.is_fake].add(crop.video)
    weights = np.array([1 / sizes[c.video] / len(videos[c.is_fake]) for c in some])
    return weights * len(some) / weights.sum()


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
