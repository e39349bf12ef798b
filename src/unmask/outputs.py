"""Where the files go that are made of the inputs, one for each, and how a file is written."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from unmask.errors import UsageError

ANNOTATED = ".annotated"
"""What the names of annotated copies in a folder end in, before the ending and a number."""

_LONGEST_STEM = 200  # bytes: file systems take 255, and endings, numbers and marks are to come


def plan(
    inputs: Sequence[Path], target: Path, option: str, name: Callable[[Path], tuple[str, str]]
) -> list[Path]:
    """The output of each input: ``target`` itself or, if that is a folder, a file in it.

    ``name`` gives the stem and ending of an input's file, which gets a number where it is taken
    by another's or by an input. Raises UsageError when several inputs would go
    to one file; ``option`` is what the user has to change then.
    """
    if not target.is_dir():
        if len(inputs) > 1:
            raise UsageError(
                f"there are {len(inputs)} inputs: give {option} a folder that exists, not {target}"
            )
        return [target]
    taken = set(map(_place, inputs))
    outputs = []
    for path in inputs:
        stem, end = name(path)
        stem = _short(stem)
        output, number = target / f"{stem}{end}", 1
        while _place(output) in taken:
            number += 1
            output = target / f"{stem}-{number}{end}"
        taken.add(_place(output))
        outputs.append(output)
    return outputs


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


@contextmanager
def in_one_step(target: Path) -> Iterator[Path]:
    """Gives a file to write into, which then becomes ``target``: that is whole or as it was."""
    # The process id keeps two runs from writing into each other's file.
    partial = target.with_name(f"{_short(target.name)}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _short(name: str) -> str:
    """A file's name, or as much of it as leaves room for what is put behind it."""
    encoded = os.fsencode(name)
    is_short = len(encoded) <= _LONGEST_STEM
    return name if is_short else encoded[:_LONGEST_STEM].decode("utf-8", "ignore")


def _place(path: Path) -> str:
    """Which file it is; some file systems make no difference of capitals."""
    return os.path.realpath(path).lower()
