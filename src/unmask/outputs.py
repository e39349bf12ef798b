"""Where the files go that are made of the inputs, one for each, and how a file is written."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from unmask.errors import UsageError


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
        output, number = target / f"{stem}{end}", 1
        while _place(output) in taken:
            number += 1
            output = target / f"{stem}-{number}{end}"
        taken.add(_place(output))
        outputs.append(output)
    return outputs


def check_json(target: str | None, inputs: Iterable[Path]) -> None:
    """Raise UsageError where --json would overwrite an input, as whoever takes it for a switch."""
    from unmask.video import is_media  # brings the decoder

    if target in (None, "-"):
        return
    path = Path(target)
    there = filter(Path.exists, inputs) if path.exists() else ()
    if is_media(path) or any(map(path.samefile, there)):
        raise UsageError(f"--json takes the file to write, or '-': {target} looks like an input")


@contextmanager
def in_one_step(target: Path) -> Iterator[Path]:
    """Gives a file to write into, which then becomes ``target``: that is whole or as it was."""
    # The process id keeps two runs from writing into each other's file.
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _place(path: Path) -> str:
    """Which file it is; some file systems make no difference of capitals."""
    return os.path.realpath(path).lower()
