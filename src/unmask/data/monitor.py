"""Watch a running preprocess from another terminal, by nothing but the records it leaves."""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.data import records
from unmask.data.index import LABELS
from unmask.data.records import Plan, Record
from unmask.errors import DatasetError
from unmask.text import printable

if TYPE_CHECKING:
    from rich.table import Table

_RECENT = 50  # finished videos over which the rate is taken
_SHOWN = 5  # failures that are shown


class Watch:
    """What is known of a run; ``refresh`` reads only the records that are new.

    Raises DatasetError when ``folder`` is none that preprocess fills.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.plan: Plan
        self.done: dict[str, Record] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what was finished since the last time."""
        plan = records.read_plan(self.folder)
        if plan is None:
            raise DatasetError(
                f"{self.folder} is not a folder that 'unmask preprocess' fills: give its output "
                "folder, and start it first"
            )
        self.plan = plan
        ids = records.finished_ids(self.folder) & plan.videos.keys()
        known = {id: self.done.get(id) or records.read_record(self.folder, id) for id in ids}
        self.done = {id: record for id, record in known.items() if record}

    @property
    def is_finished(self) -> bool:
        """Whether every planned video is done with."""
        return len(self.done) == len(self.plan.videos)

    def rate(self, now: float) -> float | None:
        """Videos a second lately; falls while nothing happens; None before two are done.

        What an earlier run did, which may be a night ago, does not count.
        """
        started = records.started(self.folder)
        times = sorted(r.finished for r in self.done.values() if r.finished >= started)[-_RECENT:]
        if len(times) < 2 or now <= times[0]:
            return None
        return (len(times) - 1) / (now - times[0])


def monitor(preprocessed: str | Path, *, interval: float = 60.0, once: bool = False) -> None:
    """Print progress every ``interval`` seconds until all is done; with ``once``, a single time.

    Raises DatasetError when ``preprocessed`` is no folder that preprocess fills.
    """
    from rich.console import Console
    from rich.live import Live

    watch = Watch(Path(preprocessed))
    console = Console()
    if once:
        console.print(_table(watch))
        return
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                if console.is_terminal:
                    live.update(_table(watch), refresh=True)
                else:
                    console.print(_table(watch))
                if watch.is_finished:
                    return
                time.sleep(interval)
                watch.refresh()
    except KeyboardInterrupt:
        return  # watching leaves nothing undone


def _table(watch: Watch) -> "Table":
    """The picture of this moment."""
    from rich.table import Table
    from rich.text import Text

    now = time.time()
    planned = Counter(watch.plan.videos.values())
    title, caption = Text(printable(str(watch.folder))), Text(_caption(watch, now))
    table = Table(title=title, caption=caption, min_width=60)
    for name in ("", "videos done", "of", "faces", "no face", "failed"):
        table.add_column(name, justify="right" if name else "left")
    for label in LABELS:
        done = [record for record in watch.done.values() if record.label == label]
        no_face = sum(record.reason == records.NO_FACE for record in done)
        failed = sum(bool(record.reason) for record in done) - no_face
        faces = sum(record.faces for record in done)
        table.add_row(label, *map(str, (len(done), planned[label], faces, no_face, failed)))
    return table


def _caption(watch: Watch, now: float) -> str:
    """Rate, time left and the latest failures in words."""
    left = len(watch.plan.videos) - len(watch.done)
    rate = watch.rate(now)
    if not left:
        lines = [f"all done; next: unmask split {watch.folder}"]
    elif rate is None:
        lines = [f"{left} videos left; too early to say how long"]
    else:
        last = max(record.finished for record in watch.done.values())
        lines = [
            f"{rate * 60:.3g} videos a minute, about {_duration(left / rate)} left; the last one "
            f"finished {_duration(now - last)} ago"
        ]
    failed = [r for r in watch.done.values() if r.reason and r.reason != records.NO_FACE]
    failed.sort(key=lambda record: record.finished)
    lines += (f"{record.video}: {record.reason}" for record in failed[-_SHOWN:])
    return "\n".join(map(printable, lines))


def _duration(seconds: float) -> str:
    seconds = max(0, round(seconds))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds % 60:02d} s" if minutes else f"{seconds} s"
