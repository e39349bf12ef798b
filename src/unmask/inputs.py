"""Which files to judge: those that are named, and all media in folders."""

import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from unmask.errors import UsageError
from unmask.outputs import ANNOTATED
from unmask.video import is_media

_COPY = re.compile(rf"{re.escape(ANNOTATED)}(-\d+)?$")  # ends the stem of an annotated copy


def _refuse(error: UsageError) -> None:
    raise error


def find_inputs(
    paths: Iterable[Path], on_unread: Callable[[UsageError], None] = _refuse
) -> list[Path]:
    """The files to judge, each once: files as they are, folders with all media, sorted by name.

    Annotated copies in a folder are left out: they are what this very tool made of others.
    ``on_unread`` is told of each folder in a folder that cannot be read. Raises UsageError for a
    path that is not there or is no file, and a folder without media or that cannot be read.
    """
    inputs: dict[str, Path] = {}
    for path in paths:
        if os.path.isdir(path):
            found = _media_in(path, on_unread)
        elif _is_file(path):
            found = [path]
        elif os.path.exists(path):
            raise UsageError(f"{path} is a device or pipe: save it to a file first")
        elif str(path) == "-":
            raise UsageError("videos are not read from standard input: save it to a file first")
        else:
            raise UsageError(f"{path} does not exist: check the spelling")
        for file in found:
            # A link of another name is an input of its own: whoever made it looks for its verdict.
            inputs.setdefault(os.path.join(os.path.realpath(file.parent), file.name), file)
    return list(inputs.values())


def _media_in(folder: Path, on_unread: Callable[[UsageError], None]) -> list[Path]:
    unread: list[OSError] = []
    walk = os.walk(folder, onerror=unread.append)
    paths = (Path(where, name) for where, _, names in walk for name in names)
    media = (p for p in paths if is_media(p) and _is_file(p))
    found = sorted(p for p in media if not _COPY.search(p.stem))
    for error in unread:
        (on_unread if found else _refuse)(UsageError(
            f"the folder {error.filename} cannot be read ({error.strerror}), so nothing in it is "
            "judged: get the right to read it, or leave it out"
        ))  # fmt: skip
    if not found:
        raise UsageError(f"no videos or images in {folder}: give a folder that has some")
    return found


def _is_file(path: Path) -> bool:
    """Whether it is a file; True also where nobody may look, so that it comes out unreadable."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except PermissionError:
        return True
    except OSError:
        return False
