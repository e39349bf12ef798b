"""Two reports, or two models, side by side."""

import json

import pytest

from unmask import Analyzer
from unmask.card import SHIPPED
from unmask.cli import main
from unmask.compare import compare
from unmask.errors import ModelError, UsageError


def line(path, sha256, verdict, probability):
    return json.dumps({
        "schema_version": 1, "path": path, "sha256": sha256 and sha256 * 32, "verdict": verdict,
        "probability_fake": probability,
    })  # fmt: skip


@pytest.fixture
def reports(tmp_path, monkeypatch):
    """Two reports: moved, changed, replaced, copied and missing files are in them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.jsonl").write_text("\n".join([
        line("same.mp4", "aa", "real", 0.1),
        line("moved.mp4", "bb", "uncertain", 0.45),
        line("replaced.mp4", "cc", "fake", 0.9),
        line("gone.mp4", "dd", "fake", 0.7),
        line("copy1.mp4", "ee", "real", 0.2),
        line("copy2.mp4", "ee", "real", 0.2),
        line("broken.mp4", None, "unreadable", None),
    ]))  # fmt: skip
    (tmp_path / "new.jsonl").write_text("\n".join([
        line("copy2.mp4", "ee", "real", 0.25),
        line("copy1.mp4", "ee", "real", 0.2),
        line("archive/moved.mp4", "bb", "fake", 0.8),
        line("same.mp4", "aa", "real", 0.1),
        line("replaced.mp4", "ff", "fake", 0.6),
        line("broken.mp4", None, "no_face", None),
        line("new\x1b.mp4", "99", "real", 0.3),
    ]))  # fmt: skip
    return "old.jsonl", "new.jsonl"


GOLDEN = """\
A: old.jsonl
B: new.jsonl

                                                        probability
 file                              A           B          of fake A     B  change
 ────────────────────────────────────────────────────────────────────────────────
 moved.mp4                         uncertain   fake            0.45  0.80   +0.35
 broken.mp4                        unreadable  no_face            -     -       -
 replaced.mp4 (not the same file)  fake        fake            0.90  0.60   -0.30
 copy2.mp4                         real        real            0.20  0.25   +0.05
 same.mp4                          real        real            0.10  0.10   +0.00
 copy1.mp4                         real        real            0.20  0.20   +0.00

only in A: gone.mp4: fake (0.70)
only in B: new\\x1b.mp4: real (0.30)
2 of 6 verdicts changed; probabilities moved by 0.140 on average (correlation 0.726); 1 only in A; \
1 only in B
"""


def test_the_table(reports, capsys):
    assert main(["compare", *reports]) == 0
    out = capsys.readouterr().out
    assert "\n".join(row.rstrip() for row in out.split("\n")) == GOLDEN


def test_the_json(reports, tmp_path):
    assert main(["compare", *reports, "--json", "out.json"]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["videos"], found["verdicts_changed"]) == (6, 2)
    assert found["mean_absolute_change"] == pytest.approx((0.35 + 0.3 + 0.05) / 5)
    moved = found["pairs"][0]
    assert moved["a"]["path"] == "moved.mp4"
    assert moved["b"]["path"] == "archive/moved.mp4"
    assert (moved["matched_by"], moved["change"]) == ("sha256", 0.35)
    assert [pair["matched_by"] for pair in found["pairs"]].count("path") == 2
    assert [rest["path"] for rest in found["only_b"]] == ["new\x1b.mp4"]


def test_a_report_is_the_same_as_itself(reports):
    found = compare(reports[0], reports[0])
    assert (found.verdicts_changed, found.mean_absolute_change) == (0, 0)
    assert found.correlation == pytest.approx(1)
    assert not found.only_a + found.only_b


def test_nothing_in_both(reports, tmp_path):
    (tmp_path / "other.jsonl").write_text(line("x.mp4", "77", "real", 0.3))
    found = compare(reports[0], "other.jsonl")
    assert found.summary == "no video is in both; 7 only in A; 1 only in B"


def test_models_judge_now_and_reports_what_detect_wrote(tmp_path, real_clip, capsys):
    saved = tmp_path / "saved.jsonl"
    frames = ["--max-frames", "1", "--threads", "1"]
    assert main(["detect", str(real_clip), "--json", str(saved), *frames]) == 0
    found = compare(saved, "shipped", [real_clip], max_frames=1, threads=1)
    assert [pair.change for pair in found.pairs] == [0]
    two = compare("shipped", SHIPPED, [real_clip], max_frames=1, threads=1)
    assert two.pairs == found.pairs


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["shipped", "old.jsonl"], "shipped is a model: name the videos"),
        (["old.jsonl", "new.jsonl", "clip.mp4"], "reports already"),
        (["old.jsonl", "none.jsonl"], "none.jsonl cannot be read"),
        (["old.jsonl", "empty.jsonl"], "empty.jsonl is empty"),
        (["old.jsonl", "cut.jsonl"], "cut.jsonl, line 2, is no report of an input"),
        (["old.jsonl", "odd.jsonl"], "odd.jsonl, line 1, is no report of an input"),
        (["old.jsonl", "new.jsonl", "--json", "new.jsonl"], "new.jsonl looks like an input"),
    ],
)
def test_wrong_usage_is_told(reports, tmp_path, capsys, args, message):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "cut.jsonl").write_text(line("x.mp4", "77", "real", 0.3) + '\n{"schema_ver')
    (tmp_path / "odd.jsonl").write_text(line("x.mp4", "77", "real", float("nan")))
    assert main(["compare", *args]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [([], 1, "none.xml"), (["--json", "none/x.json"], 2, "cannot write none/x.json")],
)
def test_what_is_missing_is_told_before_anything_is_judged(
    real_clip, capsys, monkeypatch, more, code, message
):
    monkeypatch.setattr(Analyzer, "analyze", None)
    other = "shipped" if more else "none.xml"
    assert main(["compare", "shipped", other, str(real_clip), *more]) == code
    assert message in capsys.readouterr().err


def test_a_file_of_another_kind_is_refused(real_clip, reports):
    with pytest.raises(UsageError, match="is no report"):
        compare(reports[0], real_clip)
    with pytest.raises(ModelError, match="unmask export"):
        compare(reports[0], "trained.h5", [real_clip])
