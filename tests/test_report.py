"""The report's JSON form, its schema and its writers."""

import dataclasses
import json
import os
import re
import sys

import jsonschema
import pytest

from unmask.console import JsonLines, Table
from unmask.errors import UsageError
from unmask.report import (
    SCHEMA,
    FrameReport,
    ModelReport,
    Report,
    Timings,
    TrackReport,
    VideoReport,
)
from unmask.text import printable

FRAME = FrameReport(0, 0.0, (1.0, 2.0, 30.5, 40.123456789), 0.99, 0.9312345678, 38.1, 120.5, 0.1, 0)
FAKE = Report(
    path="folder/clip.mp4",
    sha256="ab" * 32,
    verdict="fake",
    reason="Person 1, seen at 0:00.0 in 1 frame, looks manipulated (probability of fake 0.93).",
    probability_fake=0.9312345678,
    confidence=0.9312345678,
    threshold=0.5,
    model=ModelReport("xception", "1.0", "cd" * 32),
    video=VideoReport(360, 288, 3.0, 25.0, "h264", 0.05, 75, 5, "exact"),
    tracks=[TrackReport(1, "fake", 0.93, 0.0, 0.0, [FRAME])],
    timings_seconds=Timings(0.1, 0.2, 0.3, 0.4),
)
REAL = dataclasses.replace(FAKE, verdict="real", probability_fake=0.07, reason="No sign of it.")
UNREADABLE = dataclasses.replace(
    FAKE, verdict="unreadable", reason="clip.mp4 is empty.", probability_fake=None,
    confidence=None, sha256=None, video=None, tracks=[],
)  # fmt: skip
VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)


@pytest.mark.parametrize("report", [FAKE, REAL, UNREADABLE], ids=lambda r: r.verdict)
def test_json_follows_the_schema(report):
    line = report.to_json()
    assert "\n" not in line
    VALIDATOR.validate(json.loads(line))
    assert json.loads(line) == report.to_dict()


def test_json_has_the_fields_in_order_and_six_decimals():
    values = FAKE.to_dict()
    assert list(values) == VALIDATOR.schema["required"]
    assert values["probability_fake"] == 0.931235
    frame = VALIDATOR.schema["$defs"]["frame"]["required"]
    assert list(values["tracks"][0]["frames"][0]) == frame
    assert list(values["video"]) == VALIDATOR.schema["properties"]["video"]["required"]
    assert values["tracks"][0]["frames"][0]["box"] == [1.0, 2.0, 30.5, 40.123457]


@pytest.mark.parametrize(
    "change",
    [
        {"probability_fake": None},
        {"verdict": "maybe"},
        {"sha256": "AB" * 32},
        {"video": None},
        {"tracks": []},
        {"probability_fake": 1.2},
        {"damage": "none"},
    ],
)
def test_the_schema_refuses_what_contradicts_itself(change):
    assert not VALIDATOR.is_valid(FAKE.to_dict() | change)


def test_half_an_answer_for_an_unreadable_file_is_refused():
    assert not VALIDATOR.is_valid(UNREADABLE.to_dict() | {"probability_fake": 0.5})


def test_file_names_of_any_bytes_become_json():
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x98\x80 \x1b[31m.mp4")
    report = dataclasses.replace(FAKE, path=name, reason=f"{name} is odd.")
    line = report.to_json()
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["path"] == "caf\\xe9 \N{GRINNING FACE} \x1b[31m.mp4"


def test_printable_spells_out_what_could_steer_a_terminal():
    assert printable("a\x1b[31m\x9b\r\n\u202eb") == r"a\x1b[31m\x9b\r\n\u202eb"
    assert printable("naïve 漢字 😀.mp4") == "naïve 漢字 😀.mp4"
    assert printable("caf\udce9 \ud800") == r"caf\xe9 \ud800"
    assert printable("é漢", "ascii") == r"\xe9\u6f22"
    assert printable("é漢", "cp1252") == r"é\u6f22"


def test_lines_are_written_as_they_come(tmp_path):
    path = tmp_path / "out.jsonl"
    with JsonLines(path, total=2) as writer:
        writer.add(FAKE)
        assert json.loads(path.read_text())["verdict"] == "fake"
        writer.add(UNREADABLE)
    assert [json.loads(line)["verdict"] for line in path.open()] == ["fake", "unreadable"]


def test_lines_to_standard_output_leave_it_open(capsys):
    with JsonLines("-") as writer:
        writer.add(REAL)
    print("still open")
    line, rest = capsys.readouterr().out.splitlines()
    assert json.loads(line)["verdict"] == "real"
    assert rest == "still open"


def test_a_file_that_cannot_be_written_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="give --json another file"), JsonLines(tmp_path):
        pass


def table(capsys, *reports: Report) -> str:
    with Table(len(reports)) as writer:
        for report in reports:
            writer.add(report)
            writer.progress(0.5)
    done = capsys.readouterr()
    assert done.err == ""  # no progress bar where nobody sees it
    return done.out


def test_the_table_has_all_that_was_promised(capsys):
    out = table(capsys, FAKE, REAL, UNREADABLE)
    rows = [line.split() for line in out.splitlines() if line.startswith(" folder")]
    assert rows == [
        ["folder/clip.mp4", "fake", "0.93", "1", "1", "0.4"],
        ["folder/clip.mp4", "real", "0.07", "1", "1", "0.4"],
        ["folder/clip.mp4", "unreadable", "-", "0", "0", "0.4"],
    ]
    assert f"folder/clip.mp4: {FAKE.reason}" in out
    assert "folder/clip.mp4: clip.mp4 is empty." in out
    assert REAL.reason not in out
    assert "\x1b" not in out


def test_a_damaged_file_is_told_even_if_it_is_real(capsys):
    assert REAL.reason in table(capsys, dataclasses.replace(REAL, damage="it breaks off"))


def test_progress_shows_on_a_terminal_and_only_there(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with Table(2) as writer:
        writer.add(FAKE)
        writer.progress(0.5)
    done = capsys.readouterr()
    assert "judging" in done.err
    assert "1/2" in done.err
    assert "judging" not in done.out


def test_names_neither_steer_the_terminal_nor_are_markup(capsys):
    name = "[red]x[/red]\x1b[2J\udcff.mp4"
    out = table(capsys, dataclasses.replace(FAKE, path=name, reason=f"{name} is odd [bold]."))
    assert "[red]x[/red]\\x1b[2J\\xff.mp4" in out  # as in JSON
    assert "is odd [bold]." in out
    assert "\x1b" not in out


def test_on_a_narrow_terminal_nothing_is_lost(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    long = dataclasses.replace(FAKE, path="a_rather_long_folder/" * 3 + "clip.mp4")
    with Table(2) as writer:
        writer.add(long)
        writer.add(REAL)
    coloured = capsys.readouterr().out
    out = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert out != coloured
    assert max(map(len, out.splitlines())) <= 80
    margin = out.partition("verdict")[0].rpartition("\n")[2]
    column = "".join(line[: len(margin)].strip() for line in out.splitlines())
    assert f"─{long.path}folder/clip.mp4" in column
    assert all(word in out for word in (" fake ", " real ", " 0.93 ", " 0.07 "))


def test_names_can_be_read_at_40_columns(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")
    with Table() as writer:
        writer.add(UNREADABLE)
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, out.splitlines())) <= 40
    assert re.search(r"folder/clip\.m +unreadable +- *\n p4 ", out)
