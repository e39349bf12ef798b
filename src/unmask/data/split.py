"""From face crops to train, val and test: bad crops out, the rest dealt by group, linked."""

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unmask.data import records
from unmask.data.deal import assign, parse_ratios
from unmask.data.index import INDEX_NAME, LABELS, SPLITS, Crop, read_index, write_index
from unmask.data.png import is_whole_png
from unmask.errors import DatasetError
from unmask.settings import resolve


@dataclass
class Summary:
    """What a split did; its text is for people. Counters are by (split, label)."""

    output: Path
    crops: Counter = field(default_factory=Counter)
    videos: Counter = field(default_factory=Counter)
    groups: Counter = field(default_factory=Counter)
    dropped: Counter = field(default_factory=Counter)  # by (label, reason)
    wanted: Sequence[str] = SPLITS  # the parts that --ratios gives anything
    is_unrelated: bool = False  # no fake is in a group with a real video

    def __str__(self) -> str:
        lines = []
        for split in SPLITS:
            parts = [
                f"{self.crops[split, label]} {label} crops of {self.videos[split, label]} videos"
                for label in LABELS
            ]
            lines.append(f"{split}: {', '.join(parts)}; {self.groups[split]} groups")
        for (label, reason), count in sorted(self.dropped.items()):
            lines.append(f"dropped {count} {label} crops: {reason}")
        for split in self.wanted:
            lines += [
                f"warning: {split} has no {label} crops: there are too few groups of them, so add "
                "videos of other people, or change --ratios"
                for label in LABELS
                if not self.crops[split, label]
            ]
        if self.is_unrelated:
            lines.append(
                "warning: no fake shares a group with a real video: if some show the same people "
                "or were made of these videos, state groups in a manifest, or parts leak"
            )
        lines.append(f"next: unmask train {self.output}")
        return "\n".join(lines)


def split(preprocessed: str | Path, output: str | Path, **given: Any) -> Summary:
    """Make ``output/{train,val,test}/{real,fake}/`` and its ``index.csv`` from a folder of crops.

    A group never lies in two parts; a split that the dataset itself fixes is kept. Altered copies
    only go to train. ``given`` are settings of ``unmask split``. A former split in ``output`` is
    replaced once the new one is complete. Raises SettingError for senseless ratios, DatasetError
    when there is nothing to split, when a group is in two parts, or when ``output`` is something
    else than a split.
    """
    preprocessed, output, s = Path(preprocessed), Path(output), resolve("split", given)
    shares = parse_ratios(s.ratios)
    _check_output(output)
    crops = _read_finished(preprocessed)
    summary = Summary(output, wanted=[part for part in SPLITS if shares[part]])
    good = []
    for crop in crops:
        reason = _why_drop(crop, preprocessed / crop.path, s.min_face, s.min_blur)
        if reason:
            summary.dropped[crop.label, reason] += 1
        else:
            good.append(crop)
    if not any(crop.augmented == 0 for crop in good):
        raise DatasetError(
            f"no crop of {preprocessed} is left to split ({_counts(summary.dropped)}): lower "
            "--min-face or --min-blur, or preprocess more videos"
        )
    parts = assign(good, shares, s.seed)
    of_fakes, of_reals = ({c.group for c in good if c.is_fake == fake} for fake in (True, False))
    summary.is_unrelated = bool(of_fakes and of_reals) and not of_fakes & of_reals
    placed = []
    for crop in good:
        part = parts[crop.group]
        if crop.augmented and part != "train":
            summary.dropped[crop.label, "altered copies outside train"] += 1
            continue
        placed.append(replace(crop, split=part))
    _write(preprocessed, output, placed)
    for crop in placed:
        summary.crops[crop.split, crop.label] += 1
    for part, (_, label, *_) in {(crop.split, crop.source) for crop in placed}:
        summary.videos[part, label] += 1
    for part, _ in {(crop.split, crop.group) for crop in placed}:
        summary.groups[part] += 1
    return summary


def _read_finished(preprocessed: Path) -> list[Crop]:
    """The crops of a folder. Raises DatasetError where 'preprocess' has not finished it."""
    plan, problem = records.read_plan(preprocessed), ""
    if plan and (
        not (preprocessed / INDEX_NAME).is_file()
        or plan.videos.keys() - records.finished_ids(preprocessed)
    ):
        problem = "is not finished"
    crops = [] if problem else read_index(preprocessed)
    if plan and not problem:
        found = (records.read_record(preprocessed, id) for id in plan.videos)
        if len(crops) != sum(len(record.crops) for record in found if record):
            problem = f"has an {INDEX_NAME} that does not list all crops"
    if problem:
        raise DatasetError(
            f"{preprocessed} {problem}: run the same 'unmask preprocess' again, it goes on where "
            "it stopped"
        )
    return crops


def _why_drop(crop: Crop, file: Path, min_face: int, min_blur: float) -> str:
    """Why a crop is not good enough, in words; empty when it is."""
    if crop.face_size < min_face:
        return f"face under {min_face} pixels"
    if crop.blur < min_blur:
        return f"blurred (under {min_blur:g})"
    try:
        return "" if is_whole_png(file.read_bytes()) else "the file is damaged"
    except OSError:
        return "the file is missing"


def _counts(dropped: Counter) -> str:
    return ", ".join(f"{n} {label}: {why}" for (label, why), n in dropped.items()) or "it is empty"


def _check_output(output: Path) -> None:
    """Raise DatasetError when ``output`` holds anything that a split would not."""
    if not output.exists():
        return
    if output.is_mount():
        raise DatasetError(f"{output} is a disk of its own, to be replaced as a whole: name a "
                           "folder in it")  # fmt: skip
    names = {path.name for path in output.iterdir()} if output.is_dir() else {output.name}
    if names and not (INDEX_NAME in names and names <= {INDEX_NAME, *SPLITS}):
        raise DatasetError(
            f"{output} holds something else than a split: choose a new folder for the split"
        )


def _write(preprocessed: Path, output: Path, crops: list[Crop]) -> None:
    """Build the split beside ``output``, check it, and put it in its place."""
    output = output.resolve()
    fresh, former = (output.with_name(f".{output.name}.{end}") for end in ("partial", "former"))
    for leftover in (fresh, former):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        for part in SPLITS:
            for label in LABELS:
                (fresh / part / label).mkdir(parents=True)
        link = _first_that_works(preprocessed / crops[0].path, fresh)
        listed = []
        for crop in crops:
            path = f"{crop.split}/{crop.label}/{Path(crop.path).name}"
            link((preprocessed / crop.path).resolve(), fresh / path)
            listed.append(replace(crop, path=path))
        write_index(fresh, listed)
        check_no_leak(fresh)
        if output.exists():
            output.rename(former)
        fresh.rename(output)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        if former.exists() and not output.exists():
            former.rename(output)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _first_that_works(source: Path, folder: Path) -> Callable[[Path, Path], object]:
    """Hard links if the system has them here, else symbolic links, else copies."""
    trial = folder / "trial"
    for link in (os.link, os.symlink):
        try:
            link(source.resolve(), trial)
        except OSError:
            continue
        trial.unlink()
        return link
    return shutil.copyfile


def check_no_leak(folder: Path) -> None:
    """Read a written split back. Raises DatasetError when a group or video is in two parts, or
    when the index and the files do not agree."""
    crops = read_index(folder)
    keys = {"group": lambda crop: (crop.group,), "video": lambda crop: crop.source}
    for kind, key in keys.items():
        parts = defaultdict(set)
        for crop in crops:
            parts[key(crop)].add(crop.split)
        torn = sorted(name for name, where in parts.items() if len(where) > 1)
        if torn:
            raise DatasetError(
                f"{kind} {torn[0][-1]!r} is in {' and '.join(sorted(parts[torn[0]]))} of {folder} "
                f"({len(torn)} such): do not use this split; make it again with 'unmask split'"
            )
    files = {
        path.relative_to(folder).as_posix()
        for part in SPLITS
        for label in LABELS
        for path in (folder / part / label).iterdir()
    }
    listed = {crop.path for crop in crops if crop.path.startswith(f"{crop.split}/{crop.label}/")}
    if files != listed or len(listed) != len(crops):
        raise DatasetError(
            f"the index of {folder} and its pictures do not agree: make it again with 'unmask "
            "split'"
        )
