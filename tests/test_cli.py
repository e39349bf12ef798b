"""The command 'detect' as people and scripts run it: output, exit codes, Ctrl-C."""

import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import write_video

from unmask import cli
from unmask.cli import main
from unmask.outputs import in_one_step

UNMASK = [sys.executable, "-m", "unmask.cli"]


def run(capsys, *args) -> tuple[int, str, str]:
    code = main([str(a) for a in args])
    done = capsys.readouterr()
    return code, done.out, done.err


def test_every_input_gets_its_line_and_exit_code_0(capsys, tmp_path, real_clip):
    (tmp_path / "a.mp4").write_text("no video")
    shutil.copy(real_clip, tmp_path / "b.mp4")
    code, out, err = run(capsys, "detect", tmp_path, real_clip, "--json", "-", "--every", "30")
    assert code == 0
    assert err == ""
    first, second, third = map(json.loads, out.splitlines())
    assert first["path"].endswith("a.mp4")
    assert first["verdict"] == "unreadable"
    assert second["path"].endswith("b.mp4")
    assert second["video"]["frames_sampled"] == 3
    assert second["sha256"] == third["sha256"]
    assert second["tracks"] == third["tracks"]


def test_the_table(capsys, real_clip, fake_clip):
    code, out, err = run(capsys, "detect", real_clip, fake_clip, "--max-frames", "1")
    assert code == 0
    assert err == ""
    rows = [line.split() for line in out.splitlines() if line.startswith(f" {real_clip.parent}")]
    assert [row[0] for row in rows] == [str(real_clip), str(fake_clip)]
    assert all(row[1] in ("real", "fake", "uncertain") for row in rows)
    assert all(row[3:5] == ["1", "1"] for row in rows)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["missing.mp4"], "missing.mp4 does not exist"),
        (["."], "no videos or images in ."),
        (["clip.mp4", "--every", "0"], "--every must be at least 1, not 0"),
        (["clip.mp4", "--threshold", "high"], "--threshold takes a number, not 'high'"),
        (["clip.mp4", "--aggregate", "max"], "--aggregate takes one of person, mean"),
        (["clip.mp4", "--json", "no/such/folder.jsonl"], "cannot write no/such/folder.jsonl"),
        (["--json", "clip.mp4", "clip.mp4"], "clip.mp4 looks like an input"),
        (["clip.mp4", "no_ending", "--json", "./no_ending"], "./no_ending looks like an input"),
        (["clip.mp4", "--json", "x.html", "--html", "x.html"], "or is another output"),
        (["clip.mp4", "--html", "x.html", "--robustness", "--sampling", "fast"], "--sampling fast"),
    ],
)
def test_wrong_usage_is_exit_code_2(capsys, tmp_path, monkeypatch, args, message):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    if args != ["."]:
        (folder / "clip.mp4").write_text("no video")
        (folder / "no_ending").write_text("no video")
    code, out, err = run(capsys, "detect", *args)
    assert code == 2
    assert out == ""
    assert err.startswith("unmask detect: ")
    assert message in err
    assert err.count("\n") == 1
    assert args == ["."] or (folder / "clip.mp4").read_text() == "no video"


def test_a_very_long_name_does_not_stop_the_others(capsys, tmp_path, real_frame):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    for name in ("ä" * 124 + ".png", "short.png"):
        assert cv2.imwrite(str(folder / name), real_frame[:, :, ::-1])
    written = ["--html", out, "--annotate", out, "--json", out / "all.jsonl"]
    code, _, err = run(capsys, "detect", folder, *written, "--threads", "1")
    assert (code, err) == (0, "")
    assert len(list(out.glob("*.html"))) == len(list(out.glob("*.png"))) == 2


@pytest.mark.parametrize("args", [
    [], ["detect"], ["detect", "a.mp4", "--no-such-option"], ["detect", ""],
    ["detect", "a.mp4", "--json", ""], ["calibrate", "shipped", "--videos", ""],
])  # fmt: skip
def test_what_argparse_refuses_is_exit_code_2(capsys, args):
    with pytest.raises(SystemExit) as end:
        main(args)
    assert end.value.code == 2
    assert "usage: unmask" in capsys.readouterr().err


def test_a_model_of_another_form_is_exit_code_1_and_spares_an_earlier_report(
    capsys, tmp_path, real_clip
):
    report = tmp_path / "report.jsonl"
    report.write_text("earlier")
    code, _, err = run(capsys, "detect", real_clip, "--model", "xception_best.h5", "--json", report)
    assert code == 1
    assert "unmask export xception_best.h5" in err
    assert report.read_text() == "earlier"


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_standard_output_is_no_error(tmp_path, real_frame, closed):
    cv2.imwrite(str(tmp_path / "a.png"), real_frame)
    lines = tmp_path / "lines.jsonl"
    for output in ([], ["--json", lines]):
        ask = shlex.join(map(str, [*UNMASK, "detect", tmp_path / "a.png", *output]))
        done = subprocess.run(["sh", "-c", f"{ask} {closed}"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(lines.read_text())["path"].endswith("a.png")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told_in_one_line(capsys, real_clip):
    code, _, err = run(capsys, "detect", real_clip, "--json", "/dev/full", "--max-frames", "1")
    assert code == 1
    assert "cannot write /dev/full: No space left on device; make room, and go on with" in err
    assert "Traceback" not in err


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX pipes")
@pytest.mark.parametrize("output", [["--json", "-"], []], ids=["json", "table"])
def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path, output):
    (tmp_path / "a.mp4").write_text("no video")
    reader, writer = os.pipe()
    os.close(reader)
    command = [*UNMASK, "detect", tmp_path, *output]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_ends_promptly_and_keeps_what_was_finished(tmp_path, real_clip):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number:03}.mp4").symlink_to(real_clip)
    lines = tmp_path / "lines.jsonl"
    process = subprocess.Popen(
        [*UNMASK, "detect", folder, "--every", "5", "--json", lines],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (lines.exists() and lines.read_text().count("\n") >= 2):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert time.monotonic() - sent < 5
    assert "Traceback" not in err
    assert "what was finished is kept; go on with --resume" in err
    done = [json.loads(line) for line in lines.open()]
    assert 2 <= len(done) < 200
    assert [d["path"] for d in done] == [str(folder / f"{i:03}.mp4") for i in range(len(done))]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_polite_kill_leaves_no_half_of_a_copy(tmp_path):
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 255, (480, 640, 3), np.uint8) for _ in range(200))
    clip = write_video(tmp_path / "noise.mkv", noise, "ffv1", "bgr0")
    copies = tmp_path / "copies"
    copies.mkdir()
    process = subprocess.Popen(
        [*UNMASK, "detect", clip, "--annotate", copies], stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not list(copies.glob("*.partial")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not list(copies.iterdir())


def test_a_place_without_rights_is_named_with_what_to_do(capsys, monkeypatch, real_clip):
    def refuse(*_, **__):
        with in_one_step(Path("out/report.html")) as partial:
            raise PermissionError(errno.EACCES, "Permission denied", str(partial))

    monkeypatch.setattr("unmask.detect.detect", refuse)
    code, _, err = run(capsys, "detect", str(real_clip))
    assert code == 1
    assert err.startswith("unmask detect: out/report.html: Permission denied; get the right")


def test_no_name_steers_the_terminal(capsys):
    assert main(["detect", "x\x1b[31m\udcff.mp4"]) == 2
    err = capsys.readouterr().err
    assert err == "unmask detect: x\\x1b[31m\\xff.mp4 does not exist: check the spelling\n"


@pytest.mark.parametrize(
    ("command", "goes_on"),
    [
        (["preprocess"], True),
        (["calibrate", "shipped", "--videos", "a.csv"], True),
        (["evaluate", "shipped", "--videos", "a.csv"], True),
        (["evaluate", "shipped"], False),
        (["split"], False),
    ],
)
def test_what_is_kept_is_not_promised_where_nothing_is(command, goes_on):
    assert bool(cli._what_is_kept(cli._parser().parse_args(command))) == goes_on
