"""From labelled videos to face crops: a dataset -> ``{real,fake}/*.png`` and an index.

Every finished video leaves a record (records.py) after its crops are on disk. A run that was
interrupted therefore goes on where it stopped, and the index is made from the records.
"""

import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unmask.data import records
from unmask.data.cut import Job, stamp
from unmask.data.index import LABELS, Crop, write_index
from unmask.data.manifest import Source, read_manifest, scan_dataset
from unmask.data.records import NO_FACE, Plan, Record
from unmask.data.workers import work
from unmask.errors import DatasetError
from unmask.outputs import in_one_step
from unmask.settings import resolve
from unmask.text import in_unicode, printable

_SHOWN = 5  # failures that the summary lists
_FREE_TO_CHANGE = (
    "manifest",
    "balance",
    "workers",
)  # between an interrupted run and its resumption
_FROM_SOURCE = ("label", "group", "split", "method", "dataset")


@dataclass
class Summary:
    """What a run did; its text is for people."""

    output: Path
    videos: Counter = field(default_factory=Counter)
    crops: Counter = field(default_factory=Counter)
    kept_from_before: int = 0
    left_out: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    damaged: int = 0
    frame_folders: int = 0

    def __str__(self) -> str:
        lines = [
            f"{label}: {self.crops[label]} crops from {self.videos[label]} videos or images"
            for label in LABELS
        ]
        if self.kept_from_before:
            lines.append(f"{self.kept_from_before} videos or images were done in an earlier run")
        if self.frame_folders:
            lines.append(
                f"folders of numbered images, taken as one video each: {self.frame_folders} "
                "(photos that are named so belong in a --manifest)"
            )
        if self.left_out:
            lines.append(f"{self.left_out} fake videos left out for balance (--balance none)")
        if self.damaged:
            lines.append(f"{self.damaged} videos are damaged; what could be decoded is used")
        if self.failures:
            reasons = Counter(
                NO_FACE if reason == NO_FACE else "not readable" for _, reason in self.failures
            )
            counts = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
            lines.append(f"without crops: {counts}; all are in {self.output / 'failures.csv'}")
            unread = [f for f in self.failures if f[1] != NO_FACE]
            lines += [f"  {video}: {reason}" for video, reason in unread[:_SHOWN]]
        if not self.crops["real"]:
            lines.append("warning: no real crops: a detector cannot learn without them")
        if not self.crops["fake"]:
            lines.append("warning: no fake crops: train with --pseudo-fakes 1, or add fakes")
        lines.append(f"next: unmask split {self.output}")
        return "\n".join(map(printable, lines))


def preprocess(dataset: str | Path, output: str | Path, **given: Any) -> Summary:
    """Cut the faces out of a dataset into ``output/{real,fake}/`` and write ``index.csv``.

    ``given`` are settings of ``unmask preprocess``. Videos that cannot be read are recorded and
    skipped. Raises DatasetError when there is nothing to read, when ``output`` was made with other
    settings, when nothing at all gave a crop, or when the disk is full. Raises UsageError while
    another run fills ``output``.
    """
    output, s = Path(output), resolve("preprocess", given)
    sources = read_manifest(s.manifest) if s.manifest else scan_dataset(dataset)
    chosen = balanced(sources, s.seed) if s.balance == "real" else sources
    by_id = {video_id(source): source for source in chosen}
    # What all crops of one folder must have in common.
    settings = {name: value for name, value in vars(s).items() if name not in _FREE_TO_CHANGE}
    settings["dataset"] = str(Path(s.manifest or dataset).resolve())
    plan = Plan(settings, {id: source.label for id, source in by_id.items()})
    summary = Summary(output, left_out=len(sources) - len(chosen))
    with _claimed(output, plan):
        _run(summary, by_id, settings, s.workers)
    return summary


def _run(
    summary: Summary, by_id: dict[str, Source], settings: dict[str, Any], workers: int
) -> None:
    """Cut what is not done, write the lists of all, and put into the summary what there is."""
    output = summary.output
    done = {id: r for id, s in by_id.items() if (r := _finished(output, id, s))}
    summary.kept_from_before = len(done)
    jobs = [Job(id, source, output, settings) for id, source in by_id.items() if id not in done]
    faces_before = sum(record.faces for record in done.values())
    for record in work(jobs, workers, len(done), faces_before):
        done[record.id] = record

    rows = []
    for id, source in by_id.items():
        record = done[id]
        about = {name: getattr(source, name) for name in _FROM_SOURCE}
        rows += [Crop(video=source.name, **about, **crop) for crop in record.crops]
        summary.videos[source.label] += bool(record.crops)
        summary.crops[source.label] += len(record.crops)
        summary.damaged += bool(record.damage and record.crops)
        summary.frame_folders += source.path.is_dir()
        if record.reason:
            # Records of earlier versions may hold names that are no UTF-8.
            summary.failures.append((source.name, in_unicode(record.reason)))
    _write_failures(output / "failures.csv", summary.failures)
    if not rows:
        raise DatasetError(
            f"not one face in {len(by_id)} videos or images; first reason: "
            f"{': '.join(summary.failures[0])}. All are in {output / 'failures.csv'}"
        )
    write_index(output, rows)


def _write_failures(path: Path, failures: list[tuple[str, str]]) -> None:
    with in_one_step(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("video", "reason"), *failures])


def video_id(source: Source) -> str:
    """A file name for a video that no other has: its path made plain, and a hash of it."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "_", source.name).strip("._")[-80:]
    key = f"{source.label}:{source.name}".encode()
    return f"{plain}-{hashlib.sha256(key).hexdigest()[:10]}"


def balanced(sources: list[Source], seed: int) -> list[Source]:
    """All real videos and at most as many fakes, of each method in proportion.

    All are kept where there is nothing real to match.
    """
    fakes = defaultdict(list)
    for source in sources:
        if source.label == "fake":
            fakes[source.method].append(source)
    total = sum(map(len, fakes.values()))
    wanted = len(sources) - total
    if not 0 < wanted < total:
        return sources
    rng = np.random.default_rng(seed)
    shares = {method: wanted * len(fakes[method]) / total for method in sorted(fakes)}
    counts = {method: int(share) for method, share in shares.items()}
    rest = sorted(shares, key=lambda method: counts[method] - shares[method])
    for method in rest[: wanted - sum(counts.values())]:
        counts[method] += 1
    kept = set()
    for method, count in counts.items():
        names = sorted(source.name for source in fakes[method])
        kept.update(rng.permutation(names)[:count])
    return [s for s in sources if s.label == "real" or s.name in kept]


@contextmanager
def _claimed(output: Path, plan: Plan) -> Iterator[None]:
    """Makes the output folder and its plan, and keeps other runs off it meanwhile.

    Raises DatasetError if it belongs to another dataset or holds something else, UsageError if
    another run is at it.
    """
    _check_ours(output)
    with records.held(output):
        _check_same(output, plan)
        records.write_plan(output, plan)
        for label in LABELS:
            (output / label).mkdir(exist_ok=True)
        yield


def _check_ours(output: Path) -> None:
    """Raise DatasetError where there is something that no run of ours has left."""
    if not output.exists() or records.read_plan(output):
        return
    # A run that was killed at once, or has just begun, may have left a folder for its plan alone.
    if not output.is_dir() or {path.name for path in output.iterdir()} - {records.FOLDER}:
        raise DatasetError(f"{output} is not a folder of crops and not empty: choose a new folder")


def _check_same(output: Path, plan: Plan) -> None:
    """Raise DatasetError where the crops that are there were made with other settings."""
    former = records.read_plan(output) or plan
    changed = [
        f"{name} {former.settings.get(name)} -> {value}"
        for name, value in plan.settings.items()
        if former.settings.get(name) != value
    ]
    if changed:
        raise DatasetError(
            f"{output} holds crops made with other settings ({'; '.join(changed)}): give the "
            "same settings to go on with it, or choose a new folder"
        )


def _finished(output: Path, id: str, source: Source) -> Record | None:
    """The video's record if it still holds; a record that does not goes, with its crops."""
    record = records.read_record(output, id)
    if record is None:
        return None
    crops = [output / crop["path"] for crop in record.crops]
    if record.is_final and record.stamp == stamp(source.path) and all(map(Path.is_file, crops)):
        return record
    for crop in crops:
        crop.unlink(missing_ok=True)
    records.delete_record(output, id)
    return None
