"""Watching a run by its records."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from unmask.data.monitor import Watch, monitor
from unmask.data.records import Plan, Record, finished_ids, write_plan, write_record
from unmask.errors import DatasetError


def test_a_foreign_folder_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(DatasetError, match="not a folder that 'unmask preprocess' fills"):
            monitor(folder, once=True)


def test_once_shows_what_is_done_what_failed_and_how_long_it_takes(tmp_path, capsys):
    labels = {f"r{n}": "real" for n in range(60)} | {f"f{n}": "fake" for n in range(40)}
    write_plan(tmp_path, Plan({}, labels))
    now = time.time()
    for n in range(20):
        write_record(tmp_path, Record(f"r{n}", "real", f"r{n}.mp4", faces=3,
                                      finished=now - 2 * n - 1))  # fmt: skip
    write_record(tmp_path, Record("f0", "fake", "f0.mp4", reason="no face found", finished=now - 9))
    write_record(tmp_path, Record("f1", "fake", "[f1]\x1b[2J.mp4", finished=now - 9,
                                  reason="f1\udcff.mp4 is cut off"))  # fmt: skip
    write_record(tmp_path, Record("x", "real", "not in the plan"))
    os.utime(tmp_path / ".done/plan.json", (now - 60, now - 60))
    # The night after the first run does not count.
    write_record(tmp_path, Record("r50", "real", "r50.mp4", faces=3, finished=now - 36_000))
    (tmp_path / ".done/r30.json").write_text("{")  # half of a record is none
    monitor(tmp_path, once=True)
    shown = capsys.readouterr().out
    rows = [[word for word in line.split() if word.isalnum()] for line in shown.splitlines()]
    assert ["real", "21", "60", "63", "0", "0"] in rows
    assert ["fake", "2", "40", "0", "1", "1"] in rows
    assert "[f1]\\x1b[2J.mp4: f1\\xff.mp4 is cut off" in shown
    assert "min" in shown
    watch = Watch(tmp_path)
    assert watch.rate(now) == pytest.approx(21 / 39, rel=0.01)
    assert watch.rate(now + 1000) < 0.03  # nothing happens any more
    assert not watch.is_finished


def test_it_follows_a_run_to_its_end(tmp_path, real_clip, capsys):
    (tmp_path / "data/real").mkdir(parents=True)
    for n in range(3):
        shutil.copy(real_clip, tmp_path / f"data/real/{n}.mp4")
    output = tmp_path / "crops"
    run = subprocess.Popen([sys.executable, "-m", "unmask.cli", "preprocess",
                            str(tmp_path / "data"), str(output)],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    end = time.monotonic() + 60
    while not (output / ".done/plan.json").exists() and time.monotonic() < end:
        time.sleep(0.01)
    monitor(output, interval=0.2)
    shown = capsys.readouterr().out
    assert "left" in shown
    assert "all done" in shown
    assert len(finished_ids(output)) == 3
    assert run.wait(30) == 0
