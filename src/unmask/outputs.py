"""Where the files go that are made of the inputs, one for each, and how a file is written."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from unmask.errors import UnmaskError, UsageError

ANNOTATED = ".annotated"
"""What the names of annotated copies in a folder end in, before the ending and a number."""

HALF_WRITTEN = ".unmask.partial"
"""What the names of files and folders end in that are being written."""

_PAGE_MARK = b"(Unmask report)</title>"  # ends the title of every page that was made here
_ANOTHER_FILE = "give --json another file"
_HEAD = 16384  # bytes of a page that its title is in, however long a name is in it
_LONGEST_STEM = 200  # bytes: file systems take 255, and endings, numbers and marks are to come


def plan(
    inputs: Sequence[Path], target: Path, option: str, name: Callable[[Path], tuple[str, str]]
) -> list[Path]:
    """The output of each input: ``target`` itself or, if that is a folder, a file in it.

    For several inputs the folder is made where there is none. ``name`` gives the stem and ending of
    an input's file, which gets a number where it is taken by another's or by an input. Raises
    UsageError when several inputs would go to one file, and where nothing can be written;
    ``option`` is what the user has to change then.
    """
    if len(inputs) > 1 and not target.is_dir():
        if target.exists() or target.suffix or not target.parent.is_dir():
            raise UsageError(
                f"there are {len(inputs)} inputs: give {option} a folder, not {target}"
            )
        _check_writable(target.parent, option)
        target.mkdir()
    if not target.is_dir():
        if target.parent.is_dir():
            _check_writable(target.parent, option)
        return [target]
    _check_writable(target, option)
    taken = set(map(_place, inputs))
    numbers: dict[str, int] = {}  # the last one of each name
    outputs = []
    for path in inputs:
        stem, end = name(path)
        stem = _short(stem)
        unnumbered = f"{stem}{end}".lower()
        number = numbers.get(unnumbered, 0) + 1
        while _place(output := target / _numbered(stem, number, end)) in taken:
            number += 1
        numbers[unnumbered] = number
        taken.add(_place(output))
        outputs.append(output)
    return outputs


def check_pages(pages: Iterable[Path]) -> None:
    """Raise UsageError where a page would overwrite what is none of this tool's."""
    for page in pages:
        if page.exists() and not is_page(page):
            raise UsageError(
                f"{page} exists and is no page of Unmask's: move it away, or give --html another "
                "place"
            )


def is_page(path: Path, sha256: str = "") -> bool:
    """Whether it is a page that this tool made, and of the file with that ``sha256``."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            return _PAGE_MARK in head and (not sha256 or sha256.encode() in head + file.read())
    except OSError:
        return False


def check_json(target: str | None, inputs: Iterable[Path]) -> None:
    """Raise UsageError where --json would overwrite an input, as whoever takes it for a switch.

    ``inputs`` may be other outputs, too. Also where there is no folder to write it into.
    """
    from unmask.video import is_media  # brings the decoder

    if target in (None, "-"):
        return
    path = Path(target)
    if is_media(path) or _place(path) in set(map(_place, inputs)):
        raise UsageError(
            f"--json takes the file to write, or '-': {target} looks like an input or is another "
            "output"
        )
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"cannot write {target}: give --json a file in a folder that exists")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"no right to write {target}: give --json another file")


def opened(target: str | Path, mode: str, instead: str = _ANOTHER_FILE) -> IO[str]:
    """The file, open. Raises UsageError where it cannot be; ``instead`` says what to do then."""
    try:
        return open(target, mode, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}; {instead}") from None


def no_room(target: str | Path, error: OSError) -> UnmaskError:
    """What to raise when a batch's file cannot be written to the end."""
    return UnmaskError(
        f"cannot write {target}: {error.strerror}; make room, and go on with --resume"
    )


@contextmanager
def exclusive(target: Path, instead: str = _ANOTHER_FILE) -> Iterator[IO[str]]:
    """Gives the file, to read and to append to, which no other run can have meanwhile.

    It is made if it is not there. Raises UsageError when another run has it; ``instead`` says what
    to do but wait.
    """
    with opened(target, "a+", instead) as file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            raise UsageError(f"another run holds {target}: wait for it, or {instead}") from None
        except OSError:
            pass  # a file system without locks
        file.seek(0)
        yield file


@contextmanager
def in_one_step(target: Path) -> Iterator[Path]:
    """Gives a file to write into, which then becomes ``target``: that is whole or as it was."""
    # The process id keeps two runs from writing into each other's file.
    partial = target.with_name(f"{_short(target.name)}.{os.getpid()}{HALF_WRITTEN}")
    try:
        yield partial
        partial.replace(target)
    except OSError as error:
        if str(error.filename) == str(partial):
            error.filename = str(target)  # which is what whoever reads of it knows
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_whole(target: Path, text: str) -> None:
    """Write a file of text, in UTF-8; it is there whole, or as it was. Raises OSError."""
    with in_one_step(target) as partial:
        partial.write_text(text, encoding="utf-8")


def delete_half_written(folder: Path) -> None:
    """Delete what a killed run of ours left in a folder; nobody may be writing there now."""
    for left in folder.glob(f"*{HALF_WRITTEN}"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _check_writable(folder: Path, option: str) -> None:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(
            f"cannot write into {folder}: {error.strerror}; give {option} another folder"
        ) from None


def _numbered(stem: str, number: int, end: str) -> str:
    return f"{stem}{end}" if number == 1 else f"{stem}-{number}{end}"


def _lock(file: IO[str]) -> None:
    """Lock a file until it is closed, or the process ends. Raises OSError if another has it."""
    try:
        import fcntl
    except ImportError:  # Windows, where nobody can read what is locked: a byte behind the end
        import msvcrt

        os.lseek(file.fileno(), 1 << 30, os.SEEK_SET)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _short(name: str) -> str:
    """A file's name, or as much of it as leaves room for what is put behind it."""
    encoded = os.fsencode(name)
    is_short = len(encoded) <= _LONGEST_STEM
    return name if is_short else encoded[:_LONGEST_STEM].decode("utf-8", "ignore")


def _place(path: Path) -> str:
    """Which file it is; some file systems make no difference of capitals."""
    return os.path.realpath(path).lower()
