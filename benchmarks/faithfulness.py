"""Are the heat maps faithful? They are tested on fakes whose changed area is known.

    python benchmarks/faithfulness.py [FOLDER_OF_PORTRAITS] [--model NAME.xml] [--seeds 2]

Needs the extra 'train'. What the columns mean and what was found is in docs/explain.md.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from unmask.classifier import Classifier
from unmask.data.pseudo_fakes import FAMILIES
from unmask.data.warps import Portrait
from unmask.errors import UnmaskError
from unmask.explain import FAINT, heat_map
from unmask.faces import FaceDetector, crop_face
from unmask.mesh import FaceMesh
from unmask.video import Video, is_image

FAMILY_NAMES = ("self_blend", "decoder_look", "cross_swap", "mouth_edit")
HOTTEST = 0.15
"""The share of the crop's area that is blurred."""

CHANGED = 0.1
"""A pixel counts as changed where the mask is above this."""

PEOPLE = Path(__file__).resolve().parents[1] / "samples" / "people"


@dataclass(frozen=True)
class Fake:
    """A synthesised fake: whose portrait, the real crop, the forged one, the mask of the change."""

    person: int
    real: np.ndarray
    crop: np.ndarray
    mask: np.ndarray


def portraits(folder: Path) -> list[Portrait]:
    """The largest face of every picture that can be read and shows one."""
    detector, mesh, found = FaceDetector(), FaceMesh(), []
    for path in sorted(p for p in folder.iterdir() if is_image(p)):
        try:
            with Video(path) as video:
                image = next(video.sample()).image
        except UnmaskError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        if faces := detector.detect(image):
            crop = crop_face(image, max(faces, key=lambda face: face.side))
            if (points := mesh.points(crop)) is not None:
                found.append(Portrait(crop, points))
    return found


def fakes(people: list[Portrait], family: str, seeds: int) -> list[Fake]:
    """``seeds`` fakes of each person; the next person is the donor."""
    made = []
    for person, face in enumerate(people):
        for seed in range(seeds):
            donor = people[(person + 1 + seed) % len(people)]
            rng = np.random.default_rng([seed, person])
            made.append(Fake(person, face.crop, *FAMILIES[family](face, donor, rng)))
    return made


def evidence(classifier: Classifier, crops: list[np.ndarray]) -> np.ndarray:
    """Maps (n, h, w), judged in batches of eight."""
    batches = (np.stack(crops[i : i + 8]) for i in range(0, len(crops), 8))
    return np.concatenate([classifier.evidence(batch) for batch in batches])


def inside(map_: np.ndarray, mask: np.ndarray) -> float:
    """The share of the map's positive evidence that lies in the mask."""
    positive = np.maximum(heat_map(map_, len(mask)), 0)
    return float(positive[mask > CHANGED].sum() / positive.sum())


def hottest(map_: np.ndarray) -> np.ndarray:
    """The cells that make up HOTTEST of the area: (h, w) bool."""
    count = round(HOTTEST * map_.size)
    chosen = np.zeros(map_.size, bool)
    chosen[np.argsort(-map_, axis=None, kind="stable")[:count]] = True
    return chosen.reshape(map_.shape)


def moved(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many cells of the same shape at another place: turned, mirrored and shifted at random."""
    rows, columns = np.nonzero(np.rot90(cells, rng.integers(4)))
    if rng.random() < 0.5:
        columns = columns.max() - columns
    side, placed = len(cells), np.zeros_like(cells)
    rows = rows - rows.min() + rng.integers(side - np.ptp(rows))
    columns = columns - columns.min() + rng.integers(side - np.ptp(columns))
    placed[rows, columns] = True
    return placed


def blurred(crop: np.ndarray) -> np.ndarray:
    """The crop blurred beyond any fine trace."""
    return cv2.GaussianBlur(crop, (0, 0), len(crop) / 32)


def replaced(crop: np.ndarray, other: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The crop with what ``other`` shows in these cells, softly faded in."""
    side = len(crop)
    where = cv2.resize(cells.astype(np.float32), (side, side), interpolation=cv2.INTER_NEAREST)
    where = cv2.GaussianBlur(where, (0, 0), side / 64)[..., None]
    return np.round(other * where + crop * (1 - where)).astype(np.uint8)


def falls(
    classifier: Classifier,
    crops: list[np.ndarray],
    others: list[np.ndarray],
    maps: np.ndarray,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """By how much each crop's logit falls when part of it is replaced, (n,) for each choice.

    'hottest' is the part that the crop's own map says, 'random' the same shape elsewhere,
    "another's" what another crop's map says, which knows what all maps have in common.
    """
    rng = np.random.default_rng(seed)
    own = [hottest(map_) for map_ in maps]
    chosen = {
        "hottest": own,
        "random": [moved(cells, rng) for cells in own],
        "another's": [own[i - len(own) // 2] for i in range(len(own))],
    }
    before = maps.mean((1, 2))
    return {
        name: before - evidence(classifier, [*map(replaced, crops, others, cells)]).mean((1, 2))
        for name, cells in chosen.items()
    }


def interval(values: np.ndarray, people: np.ndarray, draws: int = 2000) -> tuple[float, ...]:
    """The mean and its 95 % interval, of a bootstrap over people."""
    names, which = np.unique(people, return_inverse=True)
    sums, counts = np.bincount(which, values), np.bincount(which)
    drawn = np.random.default_rng(0).integers(len(names), size=(draws, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return float(values.mean()), *np.percentile(means, (2.5, 97.5)).tolist()


@dataclass(frozen=True)
class Measured:
    """Fakes in whose maps something shows: who they are, (n,), and test -> part chosen -> (n,)."""

    people: np.ndarray
    tests: dict[str, dict[str, np.ndarray]]


def measure(classifier: Classifier, made: list[Fake]) -> Measured:
    """All tests of the fakes in whose maps something shows. The first part is the map's own."""
    maps = evidence(classifier, [fake.crop for fake in made])
    shown = np.flatnonzero(maps.max((1, 2)) >= FAINT)
    if not len(shown):
        raise SystemExit("in none of these fakes does the model see anything: nothing to test")
    made, maps = [made[i] for i in shown], maps[shown]
    crops, masks = [fake.crop for fake in made], [fake.mask for fake in made]
    tests = {
        "evidence inside the mask": {
            "own": np.array([*map(inside, maps, masks)]),
            "area": np.array([np.mean(mask > CHANGED) for mask in masks]),
            "another's": np.array([*map(inside, np.roll(maps, len(maps) // 2, axis=0), masks)]),
        },
        "fall of the logit, 15 % made real again": falls(
            classifier, crops, [fake.real for fake in made], maps
        ),
        "fall of the logit, 15 % blurred": falls(classifier, crops, [*map(blurred, crops)], maps),
    }
    return Measured(np.array([fake.person for fake in made]), tests)


def joined(found: list[Measured]) -> Measured:
    """The same of several families' fakes together."""
    tests = {
        test: {part: np.concatenate([m.tests[test][part] for m in found]) for part in parts}
        for test, parts in found[0].tests.items()
    }
    return Measured(np.concatenate([m.people for m in found]), tests)


def print_tests(found: dict[str, Measured]) -> None:
    """For each test: the map's own part, and each chance with the gain over it."""
    for test, parts in found["all"].tests.items():
        own, *chances = parts
        heads = "".join(f"{chance:>12}  {'gain (95 %)':22}" for chance in chances)
        print(f"\n{test}\n{'':14}{own:>8}{heads}".rstrip())
        for family, measured in found.items():
            values = measured.tests[test]
            line = f"{family:14}{values[own].mean():8.2f}"
            for chance in chances:
                gain, low, high = interval(values[own] - values[chance], measured.people)
                spread = f"{gain:+.2f} ({low:+.2f}, {high:+.2f})"
                line += f"{values[chance].mean():12.2f}  {spread:22}"
            print(line.rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "portraits", nargs="?", type=Path, default=PEOPLE, help="default: the sample people"
    )
    parser.add_argument("--model", type=Path, help="default: the shipped one")
    parser.add_argument("--seeds", type=int, default=2, help="fakes of each person and family")
    parser.add_argument("--threads", type=int, default=0, help="0: all processors")
    args = parser.parse_args()
    if args.seeds < 1 or args.threads < 0:
        parser.error("--seeds is 1 or more, --threads 0 or more")
    try:
        classifier, people = Classifier(args.model, args.threads), portraits(args.portraits)
    except (UnmaskError, OSError) as error:
        parser.error(str(error))
    if len(people) < 2:
        parser.error(f"portraits of two people or more are needed: {len(people)} found")
    found = {}
    for family in FAMILY_NAMES:
        made = fakes(people, family, args.seeds)
        found[family] = measure(classifier, made)
        print(f"{family}: {len(made)} fakes, evidence shows in {len(found[family].people)}")
    found["all"] = joined([*found.values()])
    print_tests(found)


if __name__ == "__main__":
    main()
