"""A batch that was interrupted and is gone on with, and what 'detect' never writes over."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from unmask import outputs
from unmask.cli import main
from unmask.outputs import exclusive


@pytest.fixture
def batch(tmp_path, samples):
    """A folder ``in`` of three photos, and ``out``, which is empty."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for name in "abc":
        shutil.copy(samples / "people" / "london_001.jpg", tmp_path / "in" / f"{name}.jpg")
    return tmp_path


def detect(capsys, *args) -> tuple[int, str]:
    code = main(["detect", *map(str, args)])
    return code, capsys.readouterr().err


def names(lines) -> list[str]:
    return [os.path.basename(json.loads(line)["path"]) for line in lines.open()]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_killed_batch_is_gone_on_with(batch, capsys):
    lines, pages, copies = batch / "k.jsonl", batch / "out", batch / "copies"
    copies.mkdir()
    for number in range(12):
        os.link(batch / "in" / "a.jpg", batch / "in" / f"d{number:02}.jpg")
    args = [batch / "in", "--json", lines, "--html", pages, "--annotate", copies]
    process = subprocess.Popen([sys.executable, "-m", "unmask.cli", "detect", *args])
    try:
        deadline = time.monotonic() + 60
        while not (lines.exists() and lines.read_bytes().count(b"\n") >= 3):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (copies / "b.annotated.jpg").exists()  # drawn before the next one is judged
    whole = lines.read_bytes().rpartition(b"\n")[0].split(b"\n")
    assert 3 <= len(whole) < 15
    first, second = whole[:2]
    lines.write_bytes(b"\n".join([first, second, b'{"schema_ver']))
    (copies / "a.annotated.jpg").unlink()
    code, err = detect(capsys, *args, "--resume")
    assert code == 0
    assert err == f"{lines}: 2 reports kept, 13 judged\n"
    assert lines.read_bytes().split(b"\n")[:2] == [first, second]
    assert names(lines) == sorted(os.listdir(batch / "in"))
    assert len(list(pages.glob("*.html"))) == len(list(copies.glob("*.jpg"))) == 15


def test_only_what_still_holds_is_kept(batch, capsys):
    lines, pages = batch / "k.jsonl", batch / "out"
    (batch / "in" / "d.mp4").write_text("no video")
    args = [batch / "in", "--json", lines, "--resume", "--threads", "1"]
    assert detect(capsys, *args) == (0, f"{lines}: 0 reports kept, 4 judged\n")
    with (batch / "in" / "b.jpg").open("ab") as changed:
        changed.write(b"\0")
    assert detect(capsys, *args) == (0, f"{lines}: 2 reports kept, 2 judged\n")
    assert names(lines) == ["a.jpg", "c.jpg", "b.jpg", "d.mp4"]
    # Pages take pictures of the faces, and what the files say of themselves.
    assert detect(capsys, *args, "--html", pages)[1].endswith("0 reports kept, 4 judged\n")
    (pages / "c.jpg.html").unlink()
    (pages / "b.jpg.html").write_bytes((pages / "a.jpg.html").read_bytes())  # another file's
    assert detect(capsys, *args, "--html", pages)[1].endswith("1 report kept, 3 judged\n")
    assert sorted(names(lines)) == sorted(os.listdir(batch / "in"))


def test_what_something_else_made_is_not_gone_on_with(batch, capsys):
    lines = batch / "k.jsonl"
    args = [batch / "in", "--json", lines, "--resume"]
    lines.write_text("precious")
    code, err = detect(capsys, *args)
    assert (code, lines.read_text()) == (2, "precious")
    assert "there is no k.jsonl.run beside it: give --json another file" in err
    assert not (batch / "k.jsonl.run").exists()
    assert detect(capsys, *args[:-1]) == (0, "")
    written = lines.read_bytes()
    code, err = detect(capsys, *args, "--every", "7", "--threshold", "0.6")
    assert (code, lines.read_bytes()) == (2, written)
    assert "another model or other settings made it (every, threshold)" in err
    code, err = detect(capsys, *args, "--html", batch / "out", "--robustness")
    assert (code, lines.read_bytes()) == (2, written)
    assert "other settings made it (robustness)" in err
    for other in (b'{"model": 3}\n', written.replace(b'"version": "', b'"version": "9')):
        lines.write_bytes(other)
        code, err = detect(capsys, *args)
        assert (code, lines.read_bytes()) == (2, other)
        assert "line 1 is no report by this model" in err
    (batch / "k.jsonl.run").write_bytes(b"mine \xff")
    code, err = detect(capsys, *args)
    assert (code, (batch / "k.jsonl.run").read_bytes()) == (2, b"mine \xff")
    assert "k.jsonl.run is in the way: move it" in err
    for without in ([], ["--json", "-"]):
        code, err = detect(capsys, batch / "in", "--resume", *without)
        assert code == 2
        assert "add --json FILE" in err


def test_two_runs_never_write_one_file(batch, capsys):
    lines = batch / "k.jsonl"
    lines.write_text("the other run's\n")
    (batch / "link.jsonl").symlink_to(lines)
    with exclusive(batch / "k.jsonl.run"):
        for name in (lines, batch / "link.jsonl"):
            code, err = detect(capsys, batch / "in", "--json", name)
            assert code == 2
            assert "another run holds" in err
    assert lines.read_text() == "the other run's\n"
    assert detect(capsys, batch / "in", "--json", lines) == (0, "")


def test_only_pages_of_its_own_are_written_over(batch, capsys):
    mine = batch / "out" / "b.jpg.html"
    mine.write_text("precious")
    lines = batch / "k.jsonl"
    for given, page in ((batch / "in", batch / "out"), (batch / "in" / "a.jpg", mine)):
        code, err = detect(capsys, given, "--html", page, "--json", lines)
        assert code == 2
        assert "b.jpg.html exists and is no page of Unmask's: move it away" in err
        assert (mine.read_text(), lines.exists()) == ("precious", False)
    mine.unlink()
    photo = batch / "in" / "b.jpg"
    for _ in range(2):
        assert detect(capsys, photo, "--html", batch / "out") == (0, "")


@pytest.mark.parametrize("option", ["--html", "--annotate"])
def test_a_folder_without_rights_is_told_before_anything_is_judged(
    batch, capsys, monkeypatch, option
):
    def refused(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(outputs.tempfile, "TemporaryFile", refused)
    lines = batch / "k.jsonl"
    code, err = detect(capsys, batch / "in", option, batch / "out", "--json", lines)
    assert (code, lines.exists()) == (2, False)
    assert f"cannot write into {batch / 'out'}: Permission denied; give {option} another" in err


def test_a_folder_that_cannot_be_read_is_told_and_the_others_are_judged(batch, capsys, monkeypatch):
    (batch / "in" / "secret").mkdir()
    scandir = os.scandir

    def guarded(path="."):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    code, err = detect(capsys, batch / "in", "--json", batch / "k.jsonl")
    assert (code, names(batch / "k.jsonl")) == (1, ["a.jpg", "b.jpg", "c.jpg"])
    secret = batch / "in" / "secret"
    assert err.startswith(f"unmask detect: the folder {secret} cannot be read (Permission denied)")
    code, err = detect(capsys, secret)
    assert code == 2
    assert f"the folder {secret} cannot be read (Permission denied)" in err
