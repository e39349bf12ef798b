"""What the scripts here share: a --help that teaches, and problems told in one line."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from unmask.errors import UnmaskError


def parser(docstring: str) -> argparse.ArgumentParser:
    """A parser whose --help shows the script's docstring as it is."""
    how = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=docstring, formatter_class=how)


def at_least(fewest: int) -> Callable[[str], int]:
    """The type of an argument: a whole number from ``fewest`` on."""

    def number(text: str) -> int:
        if int(text) < fewest:
            raise argparse.ArgumentTypeError(f"{text} is less than {fewest}")
        return int(text)

    return number


def run(main: Callable[[], None]) -> None:
    """Run the script; what is wrong with its files is told without a traceback."""
    try:
        main()
    except (UnmaskError, OSError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
