"""Reports as they come out of a command: JSON lines for programs, a table for people."""

import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from unmask.outputs import no_room, opened
from unmask.report import Report
from unmask.text import count, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table as RichTable
    from rich.text import Text

    from unmask.provenance import Provenance

_NO_PROOF = (
    "real: no trace of the manipulations that the model knows. That is no proof of authenticity."
)
_NARROW = 60  # columns of a terminal in which names have no room beside all figures
_STYLES = {"fake": "bold red", "real": "green", "uncertain": "yellow"}


class _Writer:
    """What both writers do: a progress bar on standard error, if that is a terminal."""

    def __init__(self, total: int):
        self._total = total
        self._bar: Progress | None = None
        self._finished = 0

    def _start_bar(self) -> None:
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

        self._bar = Progress(
            "{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._bar.add_task("judging", total=self._total)
        self._bar.start()

    def _stop_bar(self) -> None:
        if self._bar:
            self._bar.stop()

    def progress(self, share: float) -> None:
        """Show how much of the current input is judged, from 0 to 1."""
        self._show("judging", self._finished + share)

    def afterwards(self, doing: str) -> Callable[[float], None]:
        """What shows how much of what is done with the last input's report is done, from 0 to 1."""
        return lambda share: self._show(doing, self._finished - 1 + share)

    def _show(self, doing: str, completed: float) -> None:
        if self._bar:
            self._bar.update(self._bar.task_ids[0], description=doing, completed=completed)

    def _finish_one(self) -> None:
        self._finished += 1
        self.progress(0)


class JsonLines(_Writer):
    """Writes one JSON object a line, each as soon as it is there, to a file or ('-') the output.

    What is in the file goes, unless it ``is_resumed``; in the end it is then said how many reports
    were kept. Raises UsageError when the file cannot be opened, UnmaskError when it is full.
    """

    def __init__(self, target: str | Path, total: int = 1, is_resumed: bool = False):
        super().__init__(total)
        self._target, self._is_resumed, self._kept = str(target), is_resumed, 0

    def __enter__(self) -> Self:
        to_output = self._target == "-"
        mode = "a" if self._is_resumed else "w"
        self._file = sys.stdout if to_output else opened(self._target, mode)
        if not (to_output and sys.stdout.isatty()):
            self._start_bar()
        return self

    def add(self, report: Report) -> None:
        """Write a report."""
        try:
            self._file.write(report.to_json() + "\n")
            self._file.flush()
        except OSError as error:
            if self._file is sys.stdout or isinstance(error, BrokenPipeError):
                raise
            raise no_room(self._target, error) from None
        self._finish_one()

    def keep(self) -> None:
        """Count a report that is there already."""
        self._kept += 1
        self._finish_one()

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._stop_bar()
        if self._file is not sys.stdout:
            with suppress(OSError) if kind else nullcontext():  # what could not be written, again
                self._file.close()
        if self._is_resumed:
            judged = self._finished - self._kept
            print(f"{self._target}: {count(self._kept, 'report')} kept, {judged} judged",
                  file=sys.stderr)  # fmt: skip


class _Row(NamedTuple):
    """A report without its people, and how many people and frames of them it had."""

    report: Report
    people: int
    frames_judged: int


class Table(_Writer):
    """Prints a table of all reports, and the reasons of those that are not real, when it ends."""

    def __init__(self, total: int = 1):
        super().__init__(total)
        self._reports: list[_Row] = []

    def __enter__(self) -> Self:
        self._start_bar()
        return self

    def add(self, report: Report) -> None:
        """Take a report into the table."""
        # Not the frames, of which a folder of films has millions.
        row = _Row(replace(report, tracks=[]), len(report.tracks), report.frames_judged)
        self._reports.append(row)
        self._finish_one()

    def __exit__(self, *_: object) -> None:
        self._stop_bar()
        if self._reports:
            _print_rows(self._reports)


def output_console() -> "Console":
    """Standard output for tables; where nobody looks at it, nothing is cut or wrapped."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 1000
    return Console(width=width, highlight=False, soft_wrap=False)


def table_of_files(*verdicts: str) -> "RichTable":
    """An empty table with the columns 'file' and, so headed, ``verdicts``."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("file", overflow="fold")
    for heading in verdicts:
        table.add_column(heading, no_wrap=True)
    return table


def safe_text(text: str, style: str = "") -> "Text":
    """Text for standard output that cannot steer the terminal."""
    from rich.text import Text

    return Text(printable(text, sys.stdout.encoding or "utf-8"), style)


def verdict_text(verdict: str) -> "Text":
    """The verdict in its colour."""
    return safe_text(verdict, _STYLES.get(verdict, "cyan"))


def _print_rows(rows: list[_Row]) -> None:
    """Print the table of these reports to standard output, on a narrow terminal the most of it."""
    from rich.text import Text

    console = output_console()
    table = table_of_files("verdict")
    headings = ["probability\nof fake", "people", "frames\njudged", "seconds"]
    if console.width < _NARROW:
        del headings[1:]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for report, people, frames_judged in rows:
        p = report.probability_fake
        figures = (
            "-" if p is None else f"{p:.2f}",
            str(people),
            str(frames_judged),
            f"{report.timings_seconds.total:.1f}",
        )
        table.add_row(
            safe_text(report.path), verdict_text(report.verdict), *figures[: len(headings)]
        )
    console.print(table)
    for report, *_ in rows:
        if report.verdict != "real" or report.damage:
            line = safe_text(report.path, "bold"), ": ", safe_text(report.reason)
            console.print(Text.assemble(*line))
        if report.provenance:
            console.print(Text.assemble(safe_text(report.path, "bold"), ": ",
                                        safe_text(_origin(report.provenance))))  # fmt: skip
    if any(row.report.verdict == "real" for row in rows):
        console.print(_NO_PROOF)
    sys.stdout.flush()  # Ctrl-C ends the process without ceremony


def _origin(provenance: "Provenance") -> str:
    """What a file says of where it comes from, in a few sentences."""
    credentials, signer = provenance.credentials, provenance.credentials.signer
    said = [credentials.reason]
    if signer:
        said.append(f"Signed by {signer.name or signer.issuer or 'somebody without a name'}")
    said += [f"Problem: {problem}" for problem in credentials.problems]
    said += [*credentials.actions, *provenance.hints]
    return " ".join(text if text.endswith((".", "?")) else f"{text}." for text in said)
