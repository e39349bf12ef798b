"""The report as a page: one HTML file for people, with everything in it and no script.

The page is templates/report.html, its looks are templates/report.css; here is what they show.
Nothing on it is loaded from anywhere, and every text in it is escaped, whoever wrote it.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from unmask import timeline
from unmask.card import Card
from unmask.errors import UsageError
from unmask.explain import FULL, MOST_PEOPLE, Exhibit, Exhibits, heat_map, overlay, strongest
from unmask.findings import (
    ADVICE,
    deciding,
    face_warnings,
    rate,
    seen,
    suspicion,
    unlike_measured,
    warnings,
)
from unmask.mesh import FaceMesh
from unmask.outputs import plan
from unmask.report import HEADLINES, Report, TrackReport
from unmask.robustness import ALTERATIONS, LONGEST_SECONDS, AlteredVerdict
from unmask.text import clock, printable

MOST_DOTS = 400
"""Frames of a person that the chart shows one by one."""

_MOST_LISTED = 100  # in the table of the others
_ENDS = (".html", ".htm")
_LIBRARIES = ("unmask", "openvino", "av", "opencv-python-headless", "numpy")


@dataclass(frozen=True)
class Person:
    """A person's part of the page: the track, its pictures, and where the evidence lies."""

    track: TrackReport
    exhibits: list[Exhibit]
    strongest: str
    stretches: list[list]
    warnings: list[str]


def plan_pages(inputs: Sequence[Path], target: Path) -> list[Path]:
    """Where the page of each input goes: to ``target``, or into it if it is a folder.

    In a folder a page is called <file name>.html, with a number where two inputs have one name.
    Raises UsageError for a ``target`` that is one file for several inputs, that does not end in
    .html, that is an input itself, or whose folder does not exist.
    """
    pages = plan(inputs, target, "--html", lambda path: (path.name, ".html"))
    if pages == [target]:
        if target.suffix.lower() not in _ENDS:
            # Whoever takes --html for a switch would have a video overwritten.
            raise UsageError(f"--html takes a file that ends in .html, or a folder: not {target}")
        if target.exists() and any(target.samefile(path) for path in inputs):
            raise UsageError(f"{target} is what is to be judged: give --html another file")
        if not target.parent.is_dir():
            raise UsageError(f"there is no folder {target.parent}: make it, or give another")
    return pages


def shown_people(report: Report, exhibits: Exhibits, settings: SimpleNamespace) -> list[Person]:
    """Those who get a section of their own, the most suspicious first; ``render`` takes them."""
    mesh = _face_mesh(settings.threads) if report.tracks else None
    people = []
    for track in _ordered(report, settings)[:MOST_PEOPLE]:
        shown = exhibits.of(track.id)
        people.append(
            Person(
                track, shown, strongest(shown, mesh) if shown else "",
                timeline.stretches(track.frames), face_warnings(track),
            )
        )  # fmt: skip
    return people


_face_mesh = cache(FaceMesh)


def render(
    report: Report,
    people: Sequence[Person],
    *,
    card: Card,
    settings: SimpleNamespace,
    command_line: str,
    cuts: Sequence[float] = (),
    altered: Sequence[AlteredVerdict] | str | None = None,
    made: datetime | None = None,
    file: Path | None = None,
) -> str:
    """The page on one report.

    ``people`` are its ``shown_people``, ``card`` is the model's and ``settings`` those of 'unmask
    detect' that were in use. ``cuts`` are those of the exhibits. ``altered`` are
    robustness.verdicts_when_altered, or its sentence why there are none; None where nobody asked.
    ``made`` is now, if not given, and ``file`` is what was judged, if it is not at report.path.
    """
    order = _ordered(report, settings)
    css, environment = _environment()
    return environment.get_template("report.html").render(
        css=css,
        css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        report=report,
        name=Path(report.path).name,
        headline=HEADLINES[report.verdict],
        advice=ADVICE[report.verdict],
        people=people,
        deciding={track.id for track in deciding(report, settings)},
        others=order[MOST_PEOPLE : MOST_PEOPLE + _MOST_LISTED],
        unlisted=max(0, len(order) - MOST_PEOPLE - _MOST_LISTED),
        warnings=warnings(report),
        unlike_measured=unlike_measured(report, settings, card),
        cuts=cuts,
        span=_span(report),
        most_dots=MOST_DOTS,
        ramp=_ramp(),
        full=FULL,
        card=card,
        settings=settings,
        command_line=command_line,
        altered=altered,
        alterations=ALTERATIONS,
        robust_seconds=LONGEST_SECONDS,
        provenance=report.provenance,
        file_bytes=_size(file or Path(report.path)),
        made=(made or datetime.now(UTC)).astimezone(UTC),
        versions={name: version(name) for name in _LIBRARIES},
    )


def _size(path: Path) -> int | None:
    """A file's size in bytes; None where it is no longer there."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return None


def jpeg(image: np.ndarray) -> bytes:
    """An RGB ``uint8`` image as a JPEG."""
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return data.tobytes()


def picture(image: np.ndarray) -> str:
    """An RGB ``uint8`` image as a data: URI of a JPEG."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(image)).decode()


def heat_picture(exhibit: Exhibit) -> np.ndarray:
    """A crop in grey with where the model saw manipulation in colour: RGB ``uint8``."""
    return overlay(exhibit.crop, heat_map(exhibit.evidence, len(exhibit.crop)))


def _ordered(report: Report, settings: SimpleNamespace) -> list[TrackReport]:
    """The most suspicious first, but who was seen too briefly to decide after who was not."""
    long = {track.id for track in deciding(report, settings)}
    ranked = sorted(report.tracks, key=suspicion, reverse=True)
    return sorted(ranked, key=lambda track: track.id not in long)


@cache
def _environment() -> tuple[Any, Any]:
    """The style sheet, and the templates' environment: it escapes and spells out every text."""
    import jinja2
    from markupsafe import Markup

    loader = jinja2.PackageLoader("unmask")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Control characters and those that turn the direction of writing, in a file's name or tags.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= {
        "clock": clock,
        "picture": picture,
        "percent": lambda share: f"{100 * share:.0f} %",
        "headline": HEADLINES.__getitem__,
        "heat": heat_picture,
        "running_mean": timeline.running_mean,
        "rows": timeline.rows,
        "dots": lambda frames: timeline.extremes(frames, MOST_DOTS),
        "ticks": timeline.ticks,
        "seen": seen,
        "rate": rate,
    }
    css = loader.get_source(environment, "report.css")[0]
    return Markup(css), environment


def _span(report: Report) -> float:
    """How many seconds the timeline covers."""
    last = max((t.last_second for t in report.tracks), default=0.0)
    stated = report.video and report.video.duration_seconds
    # A duration that is stated wrongly must not squeeze all that was seen into a corner.
    return stated if stated and last <= stated <= max(2 * last, last + 60) else last


def _ramp() -> str:
    """The colours of the heat maps from none to FULL, as a picture."""
    heat = np.tile(np.linspace(0, FULL, 160, dtype=np.float32), (10, 1))
    return picture(overlay(np.full((10, 160, 3), 128, np.uint8), heat))
