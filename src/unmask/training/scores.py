"""The table of scores: one row a judged frame or video, kept as a CSV that outlives a crash."""

import csv
import hashlib
import json
import os
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from unmask import __version__
from unmask.outputs import in_one_step

SCORES_NAME = "scores.csv"
_NUMBERS = {
    "frame": int, "second": float, "probability_fake": float, "face_size": float,
    "sharpness": float, "turn": float, "bits_per_pixel": float,
}  # fmt: skip


@dataclass(frozen=True)
class Score:
    """One judged frame or video (``level``) and what it is labelled.

    ``path`` is the crop or the video, ``video`` the video it belongs to, ``frame`` and ``second``
    where in it. ``probability_fake`` is None and ``reason`` says why where there is no telling.
    A frame's ``face_size``, ``sharpness`` and ``turn`` are those of quality.Quality, a video's
    ``bits_per_pixel`` that of quality.bits_per_pixel; None where they were not measured.
    ``key`` names the file, model and settings that the probability came from.
    """

    level: str
    path: str
    video: str
    label: str
    group: str
    method: str
    dataset: str
    frame: int | None
    second: float | None
    probability_fake: float | None
    verdict: str
    reason: str = ""
    face_size: float | None = None
    sharpness: float | None = None
    turn: float | None = None
    bits_per_pixel: float | None = None
    key: str = ""

    @property
    def is_fake(self) -> int:
        """1 for fake, 0 for real."""
        return int(self.label == "fake")

    @property
    def source(self) -> tuple[str, str, str, str]:
        """Which video it is of, as index.Crop has it."""
        return self.dataset, self.label, self.method, self.video

    @property
    def cluster(self) -> str:
        """What is drawn as a whole for intervals: the group or, with none stated, the video."""
        return self.group or self.video

    @property
    def wrongness(self) -> float:
        """How far the probability is from the label, in [0, 1]; 0 where there is none."""
        return 0.0 if self.probability_fake is None else abs(self.is_fake - self.probability_fake)


def score_key(path: Path, model_sha256: str, settings: dict[str, Any]) -> str:
    """Names what a video's probability depends on: the file, the model, the settings, the code."""
    state = path.stat()
    parts = [str(path.resolve()), state.st_size, state.st_mtime_ns, model_sha256, __version__]
    text = json.dumps([*parts, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_scores(path: Path, scores: Iterable[Score]) -> None:
    """Write the whole table in one step."""
    with in_one_step(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Score)])
        writer.writeheader()
        writer.writerows(map(asdict, scores))


def append_scores(path: Path, scores: Iterable[Score]) -> None:
    """Add the rows of one video, its own row last; they are on disk when this returns."""
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, [f.name for f in fields(Score)]).writerows(map(asdict, scores))
        file.flush()
        os.fsync(file.fileno())


def read_finished(path: Path, keys: Collection[str]) -> dict[str, list[Score]]:
    """The rows of an earlier run by key, of those videos in ``keys`` that it judged to the end.

    A video's own row is written last and a row's key stands last in it, so a video whose writing
    was cut off has no such row and is left out.
    """
    if not path.is_file():
        return {}
    rows: dict[str, list[Score]] = {}
    finished = set()
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            try:
                score = _score(row)
            except (KeyError, ValueError):
                continue  # another table, or a row that was cut off
            if score.key in finished:  # two runs wrote here at once: the later one's rows count
                finished.remove(score.key)
                del rows[score.key]
            if score.key in keys:
                rows.setdefault(score.key, []).append(score)
                if score.level == "video":
                    finished.add(score.key)
    return {key: rows[key] for key in finished}


def _score(row: dict[str, str]) -> Score:
    values: dict[str, Any] = {f.name: row[f.name] for f in fields(Score)}
    if None in values.values():
        raise ValueError("a row that was cut off")
    for name, kind in _NUMBERS.items():
        values[name] = kind(values[name]) if values[name] else None
    return Score(**values)
