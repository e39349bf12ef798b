"""Where the files go that are made of the inputs, one for each."""

import os
from collections.abc import Callable, Sequence
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


def _place(path: Path) -> str:
    """Which file it is; some file systems make no difference of capitals."""
    return os.path.realpath(path).lower()
