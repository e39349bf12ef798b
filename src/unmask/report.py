"""The report on one input, and its writers: JSON lines for programs, a table for people.

The JSON form is described field by field in docs/report.md and by report.schema.json.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from unmask.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table as RichTable
    from rich.text import Text

    from unmask.provenance import Provenance

SCHEMA = Path(__file__).with_name("report.schema.json")
SCHEMA_VERSION = 1
HEADLINES = {
    "fake": "Looks manipulated",
    "real": "No sign of manipulation found",
    "uncertain": "Too close to call",
    "no_face": "No face to judge",
    "unreadable": "The file could not be read",
}
"""Each verdict in words, for people."""

_STYLES = {"fake": "bold red", "real": "green", "uncertain": "yellow"}


@dataclass(frozen=True)
class FrameReport:
    """A person's face in one frame: ``box`` is (x1, y1, x2, y2) in pixels of the shown frame.

    ``face_size`` (in the same pixels), ``sharpness`` and ``turn`` are those of quality.Quality.
    ``sample`` counts the frames in which faces were looked for, from 0: who is in two in a row was
    there in between.
    """

    index: int
    second: float
    box: tuple[float, float, float, float]
    detection_score: float
    probability_fake: float
    face_size: float
    sharpness: float
    turn: float
    sample: int


@dataclass(frozen=True)
class TrackReport:
    """One person: verdict, when it was seen (seconds), and every frame that was judged."""

    id: int
    verdict: str
    probability_fake: float
    first_second: float
    last_second: float
    frames: list[FrameReport]


@dataclass(frozen=True)
class ModelReport:
    """The model that judged; ``sha256`` is that of its .xml file followed by its .bin file.

    ``calibration`` is the sha256 of the user's calibration file, None where there was none.
    """

    name: str
    version: str
    sha256: str
    calibration: str | None = None


@dataclass(frozen=True)
class VideoReport:
    """The input's facts; ``duration_seconds`` and ``fps`` are what it says of itself, if it does.

    ``width`` and ``height`` are in pixels, as shown. The frames are counted, not read off;
    ``sampling`` is how they were chosen, 'exact', 'fast' or 'keyframes'.
    ``bits_per_pixel`` is that of quality.bits_per_pixel, None where it cannot be told.
    """

    width: int
    height: int
    duration_seconds: float | None
    fps: float | None
    codec: str
    bits_per_pixel: float | None
    frames_decoded: int
    frames_sampled: int
    sampling: str

    @property
    def is_image(self) -> bool:
        """Whether it is one picture, with no time in it."""
        return self.duration_seconds is None and self.fps is None and self.frames_decoded == 1


@dataclass(frozen=True)
class Timings:
    """Seconds that decoding, finding faces and judging them kept busy; they overlap in total."""

    decode: float
    faces: float
    classify: float
    total: float


@dataclass(frozen=True)
class Report:
    """What Unmask says of one input. Probabilities are always those of fake, from 0 to 1.

    ``probability_fake`` and ``confidence`` are None for the verdicts 'no_face' and 'unreadable',
    ``video`` is None for 'unreadable', ``sha256`` is None where the file could not be read at all.
    ``damage`` says what is wrong with a file that was judged by what could be decoded.
    ``provenance`` is what the file says of where it comes from, None unless that was asked for.
    """

    path: str
    sha256: str | None
    verdict: str
    reason: str
    probability_fake: float | None
    confidence: float | None
    threshold: float
    model: ModelReport
    video: VideoReport | None
    tracks: list[TrackReport]
    timings_seconds: Timings
    damage: str | None = None
    provenance: "Provenance | None" = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The report that ``to_dict`` gave as ``values``, without its provenance and damage.

        Raises KeyError and TypeError for values that are none.
        """
        tracks = [
            TrackReport(**track | {"frames": [FrameReport(**frame) for frame in track["frames"]]})
            for track in values["tracks"]
        ]
        own = {
            "model": ModelReport(**values["model"]),
            "video": values["video"] and VideoReport(**values["video"]),
            "tracks": tracks,
            "timings_seconds": Timings(**values["timings_seconds"]),
            "provenance": None,
        }
        return cls(**{n: v for n, v in values.items() if n != "schema_version"} | own)

    @property
    def is_image(self) -> bool:
        """Whether it is on one picture, with no time in it."""
        return self.video is not None and self.video.is_image

    @property
    def frames_judged(self) -> int:
        """In how many frames at least one face was judged."""
        return len({frame.index for track in self.tracks for frame in track.frames})

    def to_dict(self) -> dict[str, Any]:
        """The report as report.schema.json has it: plain types, ready for ``json.dumps``."""
        values = _plain(asdict(self))
        del values["damage"]  # the reason has it
        return {"schema_version": SCHEMA_VERSION, **values}

    def to_json(self) -> str:
        """The report as one line of JSON, in ASCII: safe for any pipe and any terminal."""
        return json.dumps(self.to_dict(), allow_nan=False)


def _plain(value: Any) -> Any:
    """Floats to six decimals, tuples to lists; bytes of a name that are no UTF-8 to ``\\xNN``."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return value


def printable(text: str, encoding: str = "utf-8") -> str:
    """Text that cannot steer a terminal, nor fail to be written in ``encoding``.

    Control and invisible characters are spelled out, as are those the encoding lacks.
    """
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def clock(second: float, digits: int = 1) -> str:
    """Seconds as m:ss.s, or h:mm:ss.s from an hour on."""
    scale = 10**digits
    whole, part = divmod(round(second * scale), scale)
    hours, rest = divmod(whole, 3600)
    text = f"{hours}:{rest // 60:02}" if hours else f"{rest // 60}"
    text += f":{rest % 60:02}"
    return f"{text}.{part:0{digits}}" if digits else text


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
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self._finished + share)

    def _finish_one(self) -> None:
        self._finished += 1
        self.progress(0)


class JsonLines(_Writer):
    """Writes one JSON object a line, each as soon as it is there, to a file or ('-') the output.

    Raises UsageError when the file cannot be written.
    """

    def __init__(self, target: str | Path, total: int = 1):
        super().__init__(total)
        self._target = str(target)

    def __enter__(self) -> Self:
        to_output = self._target == "-"
        try:
            self._file = sys.stdout if to_output else open(self._target, "w", encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"cannot write {self._target}: {error.strerror}; give --json another file"
            ) from None
        if not (to_output and sys.stdout.isatty()):
            self._start_bar()
        return self

    def add(self, report: Report) -> None:
        """Write a report."""
        self._file.write(report.to_json() + "\n")
        self._file.flush()
        self._finish_one()

    def __exit__(self, *_: object) -> None:
        self._stop_bar()
        if self._file is not sys.stdout:
            self._file.close()


class Table(_Writer):
    """Prints a table of all reports, and the reasons of those that are not real, when it ends."""

    def __init__(self, total: int = 1):
        super().__init__(total)
        self._reports: list[Report] = []

    def __enter__(self) -> Self:
        self._start_bar()
        return self

    def add(self, report: Report) -> None:
        """Take a report into the table."""
        self._reports.append(report)
        self._finish_one()

    def __exit__(self, *_: object) -> None:
        self._stop_bar()
        if self._reports:
            print_reports(self._reports)


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


def print_reports(reports: list[Report]) -> None:
    """Print the table of these reports to standard output."""
    from rich.text import Text

    console = output_console()
    table = table_of_files("verdict")
    for heading in ("probability\nof fake", "people", "frames\njudged", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for report in reports:
        p = report.probability_fake
        table.add_row(
            safe_text(report.path),
            verdict_text(report.verdict),
            "-" if p is None else f"{p:.2f}",
            str(len(report.tracks)),
            str(report.frames_judged),
            f"{report.timings_seconds.total:.1f}",
        )
    console.print(table)
    for report in reports:
        if report.verdict != "real" or report.damage:
            line = safe_text(report.path, "bold"), ": ", safe_text(report.reason)
            console.print(Text.assemble(*line))
        if report.provenance:
            console.print(Text.assemble(safe_text(report.path, "bold"), ": ",
                                        safe_text(_origin(report.provenance))))  # fmt: skip
    sys.stdout.flush()  # Ctrl-C ends the process without ceremony


def _origin(provenance: "Provenance") -> str:
    """What a file says of where it comes from, in a few sentences."""
    credentials = provenance.credentials
    return " ".join([credentials.reason, *credentials.actions, *provenance.hints])
