"""Which part, train, val or test, each group of crops goes to: dealt evenly, never torn."""

from collections import Counter, defaultdict
from functools import partial

import numpy as np

from unmask.data.index import LABELS, SPLITS, Crop
from unmask.errors import DatasetError, SettingError


def parse_ratios(text: str) -> dict[str, float]:
    """'70/15/15' as shares of 1. Raises SettingError when they are not three that make 100."""
    try:
        values = [float(part) for part in text.split("/")]
    except ValueError:
        values = []
    fits = len(values) == 3 and all(0 <= v <= 100 for v in values) and abs(sum(values) - 100) < 0.01
    if not fits or values[0] == 0:
        raise SettingError(
            f"--ratios takes the percent of train, val and test, together 100, like 70/15/15 or "
            f"85/15/0, not {text!r}"
        )
    return {split: value / 100 for split, value in zip(SPLITS, values, strict=True)}


def assign(crops: list[Crop], shares: dict[str, float], seed: int) -> dict[str, str]:
    """The part (train, val or test) of each group.

    Groups are dealt one by one to the part that they would fill least, counted in videos and in
    crops of each label: those with many videos first, and groups of one kind (the same labels and
    methods) right after each other, by chance among themselves, so each kind is dealt in
    proportion. Raises DatasetError when a dataset's own split tears a group apart.
    """
    members: dict[str, list[Crop]] = defaultdict(list)
    for crop in crops:
        members[crop.group].append(crop)
    weights = {group: _weigh(inside) for group, inside in members.items()}
    total = sum(weights.values(), Counter())
    goals = {label: _goals(total[label, "videos"], shares) for label in LABELS}
    filled: dict[str, Counter] = {part: Counter() for part in SPLITS}
    parts = {}

    def fullness(group: str, part: str) -> float:
        """How full the part would be, on average over what the group brings most of."""
        brings = {key: count / total[key] for key, count in weights[group].items()}
        full = {
            key: (filled[part][key] + weights[group][key]) / total[key] / goals[key[0]][part]
            for key in brings
        }
        return sum(share * full[key] for key, share in brings.items()) / sum(brings.values())

    usable = [part for part in SPLITS if shares[part] > 0]
    fixed = _fixed_parts(members)
    for group in (*fixed, *_deal_order(members, weights, seed)):
        if group not in parts:
            parts[group] = fixed.get(group) or min(usable, key=partial(fullness, group))
            filled[parts[group]].update(weights[group])
    return parts


def _weigh(crops: list[Crop]) -> Counter:
    """How many videos and crops of each label there are, by (label, unit)."""
    videos = Counter((label, "videos") for _, label, *_ in {c.source for c in crops})
    return videos + Counter((crop.label, "crops") for crop in crops)


def _goals(videos: int, shares: dict[str, float]) -> dict[str, float]:
    """The share of a label's videos each part should get; few videos still make one for each."""
    largest = max(shares, key=lambda part: shares[part])
    wanted = {part: max(videos * share, 1.0) for part, share in shares.items() if share}
    wanted[largest] = max(1.0, videos - sum(n for part, n in wanted.items() if part != largest))
    return {part: count / max(videos, 1) for part, count in wanted.items()}


def _fixed_parts(members: dict[str, list[Crop]]) -> dict[str, str]:
    """Group -> part where the dataset itself says so."""
    fixed = {}
    for group, inside in sorted(members.items()):
        stated = sorted({crop.split for crop in inside} - {""})
        if len(stated) > 1:
            raise DatasetError(
                f"the dataset puts group {group!r} into {' and '.join(stated)}: it must be in one, "
                "or a detector is tested on what it has seen; correct the manifest"
            )
        if stated:
            fixed[group] = stated[0]
    return fixed


def _deal_order(
    members: dict[str, list[Crop]], weights: dict[str, Counter], seed: int
) -> list[str]:
    """Groups with many videos first, then by kind, then by chance."""
    order = np.random.default_rng(seed).permutation(sorted(members)).tolist()

    def key(group: str) -> tuple:
        # Counted by powers of two, so that chance has a say among groups of about one size.
        videos = sum(n for (_, unit), n in weights[group].items() if unit == "videos")
        return -videos.bit_length(), sorted({(c.label, c.method) for c in members[group]})

    return sorted(order, key=key)
