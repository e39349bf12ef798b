"""What a report looks like on the result page and in its downloads: words, pictures, tables.

``write`` makes all files of a job that is judged. It runs where the file was judged: the web
server, which must not load the decoder, only hands the files out.
"""

import csv
import json
import shlex
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from unmask import timeline
from unmask.annotate import plan_outputs
from unmask.card import Card
from unmask.explain import Exhibits
from unmask.findings import ADVICE, deciding, rate, seen, suspicion, unlike_measured, warnings
from unmask.html_report import Person, heat_picture, jpeg, render, shown_people
from unmask.report import HEADLINES, Report, TrackReport
from unmask.settings import changed
from unmask.text import clock, printable
from unmask.video import is_image
from unmask.web.files import FRAMES_CSV, REPORT_HTML, REPORT_JSON, RESULT

_APART = 0.05  # widths of the picture between two people of whom one is left of the other
_SIDES = ("at the left", "in the middle", "at the right")
_RANKS = ("second", "third", "fourth", "fifth", "sixth")
_MOST_NAMED = 3  # people in a sentence
_BRIEF = "Seen too briefly to decide the verdict."

_ADVICE = ADVICE | {
    # The stand-alone report names options that nobody here can set.
    "no_face": "Nothing was judged, so nothing is known about this file. If it shows a face, hand "
    "in a copy or a part in which that is larger, sharper and seen from the front.",
}


def write(
    report: Report, exhibits: Exhibits, card: Card, settings: SimpleNamespace, file: Path,
    folder: Path,
) -> str:  # fmt: skip
    """Write all files of a judged job into a folder. Returns the headline.

    ``report`` is on ``file``, but its path is the name that people know; ``settings`` are those of
    'unmask detect' that were in use and ``card`` is the model's.
    """
    people = shown_people(report, exhibits, settings)
    page = render(
        report, people, card=card, settings=_without_folders(settings),
        command_line=_command_line(report.path, settings), cuts=exhibits.cuts, file=file,
    )  # fmt: skip
    (folder / REPORT_HTML).write_text(page, encoding="utf-8")
    (folder / REPORT_JSON).write_text(report.to_json(), encoding="utf-8")
    _write_frames(report, folder / FRAMES_CSV)
    for person in people:
        for number, exhibit in enumerate(person.exhibits):
            name = f"person-{person.track.id}-{number}"
            (folder / f"{name}.jpg").write_bytes(jpeg(exhibit.crop))
            (folder / f"{name}-heat.jpg").write_bytes(jpeg(heat_picture(exhibit)))
    words = headline(report, settings)
    places = where(report, settings)
    result = {
        "version": 1,
        "headline": words,
        "advice": _ADVICE[report.verdict],
        "warnings": warnings(report),
        "measured": _measured(report, settings, card) if people else [],
        "uncertain": settings.uncertain,
        "is_image": is_image(file),
        "annotated_kind": plan_outputs([file], folder)[0].suffix.removeprefix("."),
        "people": [_person(p, places[p.track.id], report, settings) for p in people],
        "report": report.to_dict(),
    }
    (folder / RESULT).write_text(json.dumps(result, allow_nan=False), encoding="utf-8")
    return words


# --- in words ---


def headline(report: Report, settings: SimpleNamespace) -> str:
    """The verdict in a sentence: what, how many, and where those are that it hangs on."""
    if not report.tracks:
        end = ": none was found." if report.verdict == "no_face" else "."
        return HEADLINES[report.verdict] + end
    people, places = deciding(report, settings), where(report, settings)
    start = (HEADLINES | {"fake": "Likely fake"})[report.verdict]
    if max(people, key=suspicion).verdict != report.verdict:
        start += " when all faces are taken together"  # as 'unmask detect --aggregate mean' does
    groups = {v: [t for t in people if t.verdict == v] for v in ("fake", "uncertain", "real")}
    groups = {verdict: tracks for verdict, tracks in groups.items() if tracks}
    if set(groups) == {"fake", "real"}:
        return f"{start}: {_contrast(groups['real'], groups['fake'], places)}."
    if len(groups) > 1:
        parts = [f"{_named(tracks, len(people), places)} {_looks(tracks)}"
                 for tracks in groups.values()]  # fmt: skip
        return f"{start}: {'; '.join(parts)}."
    who = {1: "the face", 2: "both people"}.get(len(people), f"all {len(people)} people")
    return f"{start}: {who} {_looks(people)}."


def _contrast(
    real: Sequence[TrackReport], fake: Sequence[TrackReport], places: Mapping[int, str]
) -> str:
    """How many look real, and who does not."""
    total = len(real) + len(fake)
    others = _named(fake, total, places) if len(fake) <= _MOST_NAMED else f"the other {len(fake)}"
    not_so = "does not" if len(fake) == 1 else "do not"
    return f"{len(real)} of {total} people {_looks(real)}; {others} {not_so}"


def _looks(tracks: Sequence[TrackReport]) -> str:
    """What these people, all of one verdict, look like."""
    if tracks[0].verdict == "uncertain":
        return "could be real or fake"
    look = "looks" if len(tracks) == 1 else "look"
    return f"{look} {'manipulated' if tracks[0].verdict == 'fake' else 'real'}"


def _named(tracks: Sequence[TrackReport], total: int, places: Mapping[int, str]) -> str:
    """'the person at the left', 'the people at the left and at the right', '5 of 9 people'.

    Where the place does not tell who is meant: 'person 4', 'people 4 and 11'.
    """
    if len(tracks) > _MOST_NAMED:
        return f"{len(tracks)} of {total} people"
    names, the = [places[t.id] for t in tracks], "the "
    if any(name.endswith(_number(t)) for name, t in zip(names, tracks, strict=True)):
        names, the = [str(t.id) for t in tracks], ""
    *first, last = names
    return f"{the}people {', '.join(first)} and {last}" if first else f"{the}person {last}"


def _number(track: TrackReport) -> str:
    """What is added to a place where several people are called the same."""
    return f" (person {track.id})"


def where(report: Report, settings: SimpleNamespace) -> dict[int, str]:
    """Where each person is in the picture, by id: 'at the left', 'second from the left', ...

    No two of those whom the verdict hangs on are called the same: where the place alone does not
    tell them apart, the time does, or else their number.
    """
    width = report.video.width if report.video else 1
    across = {
        t.id: sum(f.box[0] + f.box[2] for f in t.frames) / (2 * len(t.frames) * width)
        for t in report.tracks
    }
    thirds = {id: _SIDES[min(2, max(0, int(3 * x)))] for id, x in across.items()}
    people = deciding(report, settings)
    if row := _in_a_row(people, across):
        return thirds | row
    long = {t.id for t in people}
    called = Counter(thirds[id] for id in long)
    timed = any(t.last_second for t in report.tracks)  # a video, no picture
    for track in report.tracks if timed else ():
        if called[thirds[track.id]] > 1 or track.id not in long:
            thirds[track.id] += f" {_when(track)}"
    called = Counter(thirds[id] for id in long)
    for track in people:
        if called[thirds[track.id]] > 1:
            thirds[track.id] += _number(track)
    return thirds


def _in_a_row(people: Sequence[TrackReport], across: Mapping[int, float]) -> dict[int, str]:
    """Where people are who are seen together, side by side; empty if they are not."""
    if not people:
        return {}
    ids = sorted((t.id for t in people), key=across.__getitem__)
    together = max(t.first_second for t in people) <= min(t.last_second for t in people)
    gaps = [across[b] - across[a] for a, b in pairwise(ids)]
    if not together or min(gaps, default=0) < _APART or len(ids) > len(_RANKS) + 2:
        return {}
    if len(ids) == 2:
        names: Sequence[str] = (_SIDES[0], _SIDES[2])
    elif len(ids) == 3:
        names = _SIDES
    else:
        between = [f"{rank} from the left" for rank in _RANKS[: len(ids) - 2]]
        names = ("at the far left", *between, "at the far right")
    return dict(zip(ids, names, strict=True))


def _when(track: TrackReport) -> str:
    first, last = clock(track.first_second, 0), clock(track.last_second, 0)
    return f"at {first}" if first == last else f"from {first} to {last}"


def _measured(report: Report, settings: SimpleNamespace, card: Card) -> list[str]:
    """How often the model is wrong, in sentences; none where nobody measured it."""
    if not (m := card.measured):
        return []
    found = [
        f"Measured on {m.set}: {m.videos['real']} real and {m.videos['fake']} fake videos with "
        f"known answers, {m.date}.",
        f"Fakes that it finds: {rate(m.recall, m.videos['fake'])}; it misses the others.",
        f"Real videos that it calls fake: {rate(m.false_positive_rate, m.videos['real'])}.",
        f"Too close to call: {100 * m.uncertain:.0f} in 100.",
    ]
    if unlike := unlike_measured(report, settings, card):
        found.append(f"They do not hold with the settings that are in use ({', '.join(unlike)}).")
    return found


# --- in files ---


def _person(
    person: Person, place: str, report: Report, settings: SimpleNamespace
) -> dict[str, Any]:
    track = person.track
    probability = {frame.index: frame.probability_fake for frame in track.frames}
    brief = track not in deciding(report, settings)
    return {
        "id": track.id,
        "where": place.removesuffix(_number(track)),
        "verdict": track.verdict,
        "probability_fake": round(track.probability_fake, 6),
        "seen": seen(track),
        "strongest": person.strongest,
        "warnings": [_BRIEF, *person.warnings] if brief else person.warnings,
        "rows": [asdict(row) for row in timeline.rows(track.frames)],
        "pictures": [
            {
                "index": e.index,
                "second": round(e.second, 6),
                "probability_fake": round(probability[e.index], 6),
                "crop": f"person-{track.id}-{number}.jpg",
                "heat": f"person-{track.id}-{number}-heat.jpg",
            }
            for number, e in enumerate(person.exhibits)
        ],
    }


def _write_frames(report: Report, target: Path) -> None:
    """A table with a row for every judged face."""
    with target.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(
            ("file", "person", "frame", "second", "x1", "y1", "x2", "y2", "detection_score",
             "probability_fake", "face_size", "sharpness", "turn", "colour")
        )  # fmt: skip
        name = _cell(report.path)
        for track in report.tracks:
            for f in track.frames:
                numbers = (f.second, *f.box, f.detection_score, f.probability_fake, f.face_size,
                           f.sharpness, f.turn, f.colour)  # fmt: skip
                known = (None if n is None else round(n, 6) for n in numbers)  # None: an empty cell
                table.writerow((name, track.id, f.index, *known))


def _cell(text: str) -> str:
    """People's text for a table: no spreadsheet may take it for a formula."""
    text = printable(text)
    start = unicodedata.normalize("NFKC", text).lstrip()[:1]  # wide signs count, too
    return f"'{text}" if start in tuple("=+-@") else text


def _without_folders(settings: SimpleNamespace) -> SimpleNamespace:
    """The settings as people may see them: files by their names, not where the server has them."""
    values = vars(settings)
    files = ("model", "calibration", "trust_list")
    return SimpleNamespace(**values | {n: Path(values[n]).name for n in files if values[n]})


def _command_line(name: str, settings: SimpleNamespace) -> str:
    """The command that makes the same report of the file."""
    shown = vars(_without_folders(settings))
    given = [
        f"{s.option}={shown[s.name]}"
        for s in changed("detect", shown)
        if s.name not in ("threads", "provenance")
    ]
    return shlex.join(["unmask", "detect", *given, "--html", REPORT_HTML, "--", name])
