"""The process that works on one job's file. It limits itself first: nobody vouches for the file.

``python -m unmask.web.analysis FOLDER`` reads its Order from standard input, works in FOLDER and
says on standard output how it goes, one JSON object a line: ``{"progress": 0.4, "faces": [...]}``,
then ``{"done": {...}}`` or ``{"failed": "A sentence."}``. When it ends without either, it broke
down. What it made is in FOLDER/results.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.errors import UnmaskError, UnreadableError
from unmask.web.files import ANNOTATED, REPORT_JSON

if TYPE_CHECKING:
    from unmask.report import Report
    from unmask.stages import JudgedFace

RESULTS = "results"
"""The folder with what was made."""

MOST_MEMORY = 8 << 30
"""Bytes of addresses: libraries reserve 1.5 GB, the largest pictures that are read take 3 more."""

_LARGEST_FILE = 4 << 30  # bytes
_MOST_FILES = 256  # open at once
_NICE = 10  # whoever looks at pages comes first

_LIVELY_SECONDS = 10.0  # in which faces are told of every _OFTEN seconds, then every _SELDOM
_OFTEN, _SELDOM = 0.25, 1.0
_MOST_CROPS, _FEW_CROPS = 8, 2  # told of at once, then and later: all of it is kept
_MOST_FACES = 200  # told of at once
_CROP_SIDE = 96

_TOO_LARGE = (
    "Judging it takes more memory than one file may have here: hand in a copy with fewer pixels."
)
_NOT_SET_UP = (
    "This server is not set up as it should be, so nothing was judged: tell whoever runs it to "
    "look into its log."
)

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Order:
    """What is to be done: ``task`` is 'fetch', 'judge' or 'annotate'.

    ``name`` is what people call the file, ``kind`` its ending, ``address`` where to fetch it.
    ``worker`` is the process that waits for it.
    """

    task: str
    name: str
    kind: str
    address: str | None
    worker: int
    threads: int
    seconds: float
    longest_video: float  # minutes
    largest_file: int  # bytes, of what is fetched
    settings: dict[str, Any]  # of the Analyzer

    def to_json(self) -> str:
        """For standard input."""
        return json.dumps(asdict(self))


class Refused(UnmaskError):
    """A file that this server does not take."""


def source(folder: Path, kind: str) -> Path:
    """Where the file that is worked on is to be."""
    return folder / f"source.{kind}"


# --- limits ---


def limit(order: Order) -> None:
    """Take from this process, for good, what it does not need. Where the system cannot, it stays.

    The process ends with the worker, and takes neither more time nor more memory than it should.
    """
    os.nice(_NICE)
    limits = {
        resource.RLIMIT_AS: MOST_MEMORY,
        resource.RLIMIT_CPU: int(order.seconds * order.threads) + 60,
        resource.RLIMIT_FSIZE: max(_LARGEST_FILE, order.largest_file),
        resource.RLIMIT_NOFILE: _MOST_FILES,
        resource.RLIMIT_CORE: 0,
    }
    for what, most in limits.items():
        allowed = resource.getrlimit(what)[1]
        most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(what, (most, most))
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != order.worker:  # it has died already
        sys.exit(1)
    if order.task != "fetch":
        _leave_network(libc)


def _leave_network(libc: ctypes.CDLL) -> None:
    """Move to a network of this process's own, in which there is nobody."""
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return
    maps = {"uid_map": f"{user} {user} 1", "setgroups": "deny", "gid_map": f"{group} {group} 1"}
    for name, text in maps.items():
        with contextlib.suppress(OSError):  # without a name it has the same rights
            Path(f"/proc/self/{name}").write_text(text)


# --- tasks ---


def fetch(order: Order, folder: Path, tell: Tell) -> dict[str, Any]:
    """Get the file from its address. Returns its kind."""
    from unmask.web.fetch import fetch
    from unmask.web.intake import kind_of

    assert order.address
    file = folder / "fetched"
    fetch(order.address, file, order.largest_file, order.seconds)
    with file.open("rb") as start:
        kind = kind_of(start.read(4096))
    if not kind:
        raise Refused("What is at this address is no video or image: give the file's own address.")
    file.rename(source(folder, kind))
    return {"kind": kind}


def judge(order: Order, folder: Path, tell: Tell) -> dict[str, Any]:
    """Judge the file and write its results. Returns the verdict, in figures and words."""
    import cv2

    from unmask.analyzer import Analyzer
    from unmask.explain import Exhibits
    from unmask.web.result import write

    cv2.setNumThreads(order.threads)
    file = source(folder, order.kind)
    _check_length(file, order.longest_video)
    analyzer = Analyzer(**order.settings, threads=order.threads, provenance=True, device="cpu")
    exhibits, live = Exhibits(), Live(tell)
    report = analyzer.analyze(file, on_progress=live.progress, exhibits=exhibits, on_face=live.face)
    live.finish()
    report = _called(report, order.name, file.name)
    card = analyzer.classifier.card
    headline = write(report, exhibits, card, analyzer.settings, file, folder / RESULTS)
    return {
        "verdict": report.verdict, "probability_fake": report.probability_fake,
        "headline": headline,
    }  # fmt: skip


def annotate(order: Order, folder: Path, tell: Tell) -> dict[str, Any]:
    """Make the annotated copy of the file by its report.json, which is in the folder."""
    import cv2

    from unmask.annotate import annotate, plan_outputs
    from unmask.report import Report

    cv2.setNumThreads(order.threads)
    report = Report.from_dict(json.loads((folder / REPORT_JSON).read_bytes()))
    file, live = source(folder, order.kind), Live(tell)
    (output,) = plan_outputs([file], folder / RESULTS)
    annotate(file, report, output, live.progress, order.threads)
    output.rename(folder / RESULTS / ANNOTATED)
    return {}


def _check_length(file: Path, most: float) -> None:
    """Raise Refused for a video of more than ``most`` minutes, by header or by time stamps."""
    from unmask.timetable import read_timetable
    from unmask.video import Video

    try:
        with Video(file, threads=1) as video:
            timetable = read_timetable(file, video.source[0])
            minutes = max(video.info.duration_seconds or 0.0, timetable.seconds) / 60
    except UnreadableError:
        return  # that is for the report to say
    if minutes > most:
        raise Refused(
            f"The video lasts {minutes:.1f} minutes; at most {most:g} are taken here: cut out the "
            "part that matters and hand that in."
        )


def _called(report: "Report", name: str, file_name: str) -> "Report":
    """The report with the name that people know, not that of the file that was worked on."""
    origin = report.provenance
    if origin and origin.metadata_problem:
        problem = origin.metadata_problem.replace(file_name, name)
        origin = replace(origin, metadata_problem=problem)
    reason = report.reason.replace(file_name, name)
    return replace(report, path=name, reason=reason, provenance=origin)


class Live:
    """Tells of progress and faces, only as often as people can look."""

    def __init__(self, tell: Tell):
        self._tell = tell
        self._faces: list[dict[str, Any]] = []
        self._crops, self._share = 0, 0.0
        self._start = self._told = time.monotonic()

    def face(self, face: "JudgedFace") -> None:
        """A face has been judged."""
        import cv2

        from unmask.html_report import picture

        if len(self._faces) == _MOST_FACES:
            return
        crop = None
        if self._crops < (_MOST_CROPS if self._is_lively() else _FEW_CROPS):
            size = (_CROP_SIDE, _CROP_SIDE)
            crop = picture(cv2.resize(face.crop, size, interpolation=cv2.INTER_AREA))
            self._crops += 1
        self._faces.append(
            {
                "person": face.person, "index": face.index, "second": round(face.second, 3),
                "box": [round(float(v), 1) for v in face.box],
                "probability_fake": round(face.probability_fake, 4), "crop": crop,
            }
        )  # fmt: skip

    def progress(self, share: float) -> None:
        """So much is done, from 0 to 1."""
        self._share = max(self._share, share)
        if time.monotonic() - self._told >= (_OFTEN if self._is_lively() else _SELDOM):
            self._flush()

    def finish(self) -> None:
        """All is done."""
        self._share = 1.0
        self._flush()

    def _flush(self) -> None:
        self._tell({"progress": round(self._share, 4), "faces": self._faces})
        self._faces, self._crops, self._told = [], 0, time.monotonic()

    def _is_lively(self) -> bool:
        return time.monotonic() - self._start < _LIVELY_SECONDS


def main(folder: Path) -> int:
    """Do what standard input says."""
    order = Order(**json.load(sys.stdin))
    # What libraries print is none of our lines.
    pipe = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)

    def tell(what: dict[str, Any]) -> None:
        pipe.write(json.dumps(what, allow_nan=False) + "\n")
        pipe.flush()

    limit(order)
    (folder / RESULTS).mkdir()
    task = {"fetch": fetch, "judge": judge, "annotate": annotate}[order.task]
    try:
        tell({"done": task(order, folder, tell)})
    except (Refused, UnreadableError) as error:
        tell({"failed": str(error) if str(error).endswith((".", "?")) else f"{error}."})
    except MemoryError:
        tell({"failed": _TOO_LARGE})
    except UnmaskError:  # a model that cannot be run, a setting that does not fit
        traceback.print_exc()
        tell({"failed": _NOT_SET_UP})
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
