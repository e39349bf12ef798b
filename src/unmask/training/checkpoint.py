"""What a run needs to go on after a kill, in one file that is whole or not there."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from unmask.errors import ModelError
from unmask.outputs import in_one_step


def save_checkpoint(path: Path, state: dict[str, Any], **arrays: Iterable) -> None:
    """Write a ``state`` that JSON can hold, and under each name its arrays or variables."""
    numbered = {
        f"{name}{i}": np.asarray(each)
        for name, several in arrays.items()
        for i, each in enumerate(several)
    }
    with in_one_step(path) as partial, partial.open("wb") as file:
        np.savez(file, state=json.dumps(state), **numbered)


def load_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    """The state, and the arrays by name, in their order. Raises ModelError for a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            saved = dict(file)
        state = json.loads(str(saved.pop("state")))
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ModelError(
            f"{path} is damaged ({error}): train into another folder, with --init from the best "
            "epoch so far if you like, or delete it to learn anew what it held"
        ) from None
    arrays = defaultdict(list)
    for name, each in saved.items():
        arrays[name.rstrip("0123456789")].append(each)
    return state, arrays
