"""What a run of preprocess leaves behind to resume and to be watched: a plan, a record a video."""

import json
import os
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from unmask.errors import DatasetError
from unmask.outputs import exclusive, write_whole

FOLDER = ".done"
NO_FACE = "no face found"
"""The reason of a record whose video was read but shows nobody."""

_PLAN = "plan.json"
_LOCK = ".lock"


@dataclass(frozen=True)
class Plan:
    """What a folder of crops is to hold: the settings it is made with, and id -> label."""

    settings: dict[str, Any]
    videos: dict[str, str]


@dataclass(frozen=True)
class Record:
    """One video that is done with, its crops on disk.

    ``stamp`` tells a replaced source file from the one that was read. ``reason`` says why there
    are no crops (empty otherwise), ``is_final`` whether the next run may believe it, ``damage``
    where the file broke off. ``crops`` are the fields of index rows that come from the pixels;
    ``finished`` is seconds since 1970.
    """

    id: str
    label: str
    video: str
    stamp: str = ""
    faces: int = 0
    reason: str = ""
    damage: str = ""
    is_final: bool = True
    crops: list[dict] = field(default_factory=list)
    finished: float = field(default_factory=time.time)


def held(folder: Path) -> AbstractContextManager[IO[str]]:
    """Keeps other runs off the folder meanwhile. Raises UsageError when one is at it."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    return exclusive(folder / FOLDER / _LOCK, "choose a new folder")


def write_plan(folder: Path, plan: Plan) -> None:
    """Write the plan in one step."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    _write(folder / FOLDER / _PLAN, asdict(plan))


def read_plan(folder: Path) -> Plan | None:
    """The plan of a folder of crops, None if it has none. Raises DatasetError if damaged."""
    path = folder / FOLDER / _PLAN
    if not path.is_file():
        return None
    try:
        return Plan(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{path} is damaged ({error}): choose a new folder") from None


def started(folder: Path) -> float:
    """When the latest run began in a folder with a plan, as ``time.time()`` has it."""
    return (folder / FOLDER / _PLAN).stat().st_mtime


def write_record(folder: Path, record: Record) -> None:
    """Write a record in one step; its crops must be on disk already."""
    _write(_path(folder, record.id), asdict(record))


def read_record(folder: Path, id: str) -> Record | None:
    """The record of a video, None if there is none or if it cannot be read."""
    try:
        return Record(**json.loads(_path(folder, id).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def delete_record(folder: Path, id: str) -> None:
    """Delete a record; its crops must be gone already."""
    _path(folder, id).unlink()


def finished_ids(folder: Path) -> set[str]:
    """The ids of all videos that have a record."""
    names = (entry.name for entry in os.scandir(folder / FOLDER))
    return {name[: -len(".json")] for name in names if name.endswith(".json") and name != _PLAN}


def _path(folder: Path, id: str) -> Path:
    return folder / FOLDER / f"{id}.json"


def _write(path: Path, content: dict) -> None:
    write_whole(path, json.dumps(content))
