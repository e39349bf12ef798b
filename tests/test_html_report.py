"""The report as a page: what it says, that nothing on it can run or load, and how it is written."""

import dataclasses
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from unmask import Analyzer, cli, html_report, timeline
from unmask.card import SHIPPED, Card, Measured
from unmask.credentials import Credentials, Signer
from unmask.errors import ModelError, UsageError
from unmask.explain import Exhibit, Exhibits
from unmask.html_report import plan_pages, render, shown_people
from unmask.provenance import Provenance
from unmask.report import FrameReport, ModelReport, Report, Timings, TrackReport, VideoReport
from unmask.robustness import ALTERATIONS, AlteredVerdict
from unmask.settings import resolve
from unmask.text import clock

EVIL = "<script>alert(1)</script>\"'&\u202egpj.mp4\x07\udce9"
VOID = {"meta", "img", "br", "link", "input", "hr"}
MEASURED = Measured(
    "a set", {"real": 12, "fake": 18}, (0.67, 0.5, 0.86), (0.28, 0.1, 0.5), (0.08, None, None),
    0.27, 0.5, "2026-11-23",
)  # fmt: skip
CARD = Card("xception", "1.0", "cd" * 32, 256, 1.0, 0.0)


class Page(HTMLParser):
    """A page taken apart: its elements, landmarks and headings, and its text."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.outline: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} is there twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag in ("h1", "h2", "h3", "h4"):
            self.outline.append(tag + " ")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"{tag} is closed out of turn"

    def handle_data(self, data):
        self.text += data
        if any(tag in self._open for tag in ("h1", "h2", "h3", "h4")):
            self.outline[-1] += data.strip()


def track(number: int, probabilities, step: int = 10, skip: int | None = None, **quality):
    values = {"face_size": 200.0, "sharpness": 50.0, "turn": 0.1} | quality
    frames = [
        FrameReport(step * i, step * i / 25, (0, 0, 9, 9), 0.99, p, sample=i, **values)
        for i, p in enumerate(probabilities)
        if i != skip
    ]
    p = float(np.mean(probabilities))
    verdict = "fake" if p > 0.6 else "real" if p < 0.4 else "uncertain"
    return TrackReport(number, verdict, p, frames[0].second, frames[-1].second, frames)


def report(*tracks, **changes) -> Report:
    worst = max((t.probability_fake for t in tracks), default=None)
    values = {
        "path": __file__, "sha256": "ab" * 32, "verdict": "fake" if tracks else "no_face",
        "reason": "So it is.", "probability_fake": worst, "confidence": worst, "threshold": 0.5,
        "model": ModelReport("xception", "1.0", "cd" * 32),
        "video": VideoReport(360, 288, 4.0, 25.0, "h264", 0.1, 100, 10, "exact"),
        "tracks": list(tracks),
        "timings_seconds": Timings(0.1, 0.2, 0.3, 0.4),
    }  # fmt: skip
    return Report(**values | changes)


def show(found: Report, exhibits: Exhibits | None = None, **given) -> str:
    values = {
        "card": CARD,
        "settings": resolve("detect", {"threads": 1}),
        "command_line": "unmask detect clip.mp4 --html page.html",
        "made": datetime(2026, 11, 23, 9, 30, tzinfo=UTC),
    }
    values |= given
    exhibits = exhibits or Exhibits()
    people = shown_people(found, exhibits, values["settings"])
    return render(found, people, cuts=exhibits.cuts, **values)


def exhibit(second: float, logit: float, picture: np.ndarray | None = None) -> Exhibit:
    crop = np.full((64, 64, 3), 99, np.uint8) if picture is None else picture
    return Exhibit(round(25 * second), second, logit, crop, np.full((4, 4), logit))


def test_a_file_that_is_gone_by_then_has_no_size_on_its_page(tmp_path):
    assert "<dt>Size</dt>" in show(report(track(1, [0.2] * 10)))
    gone = report(track(1, [0.2] * 10), path=str(tmp_path / "gone.mp4"))
    assert "<dt>Size</dt>" not in show(gone)


def test_the_structure_of_the_page(real_frame):
    exhibits = Exhibits()
    exhibits.offer(2, exhibit(0.4, 3.0, real_frame[20:276, 40:296]))
    provenance = Provenance(Credentials("none", "None."), {"container encoder": "Lavf"}, ("A.",))
    found = report(track(1, [0.2] * 10), track(2, [0.9] * 10), provenance=provenance)
    altered = [AlteredVerdict(name, "fake", 0.8) for name in ALTERATIONS]
    page = Page(show(found, exhibits, altered=altered))
    assert page.outline == [
        "h1 Looks manipulated",
        "h2 People",
        "h3 Person 2: looks manipulated",
        "h3 Person 1: no sign of manipulation found",
        "h3 How to read the heat maps",
        "h2 Quality of the material",
        "h2 How often the tool is wrong",
        "h2 Does the verdict hold?",
        "h2 The file",
        "h2 Where the file says it comes from",
        "h3 Content Credentials",
        "h3 Hints at generators and editors",
        "h3 Tags",
        "h2 How to make this again",
    ]
    tags = [tag for tag, _ in page.elements]
    assert [tag for tag in tags if tag in ("header", "main", "article")] == [
        "header", "main", "article", "article",
    ]  # fmt: skip
    ids = [attrs["id"] for _, attrs in page.elements if attrs.get("id")]
    assert len(ids) == len(set(ids))
    labels = [attrs["aria-labelledby"] for _, attrs in page.elements if "aria-labelledby" in attrs]
    assert set(" ".join(labels).split()) <= set(ids)
    assert ("html", {"lang": "en"}) in page.elements
    assert tags.count("img") == 3  # crop, heat map, ramp
    assert all(attrs["alt"] for tag, attrs in page.elements if tag == "img")
    for words in (
        "0.90 does\nnot mean that 90 %",
        "ab" * 32,
        "unmask detect clip.mp4",
        "2026-11-23",
    ):
        assert words in page.text


@pytest.mark.parametrize("verdict", ["no_face", "unreadable"])
def test_a_page_without_a_verdict_says_so_and_what_to_do(verdict):
    found = report(verdict=verdict, reason="It is empty.", video=None)
    page = Page(show(found, altered="There is no verdict that could hold or not."))
    assert page.outline == [
        f"h1 {html_report.HEADLINES[verdict]}",
        "h2 Does the verdict hold?",
        "h2 The file",
        "h2 How to make this again",
    ]
    assert "It is empty." in page.text
    assert "Nothing was judged, so nothing is known about this file." in page.text


def test_nothing_on_the_page_can_run_load_or_break_out(tmp_path):
    signed = Credentials("valid", EVIL, Signer(EVIL, EVIL, EVIL), EVIL, (EVIL,), (EVIL,))
    found = report(
        track(1, [0.7] * 3), path=str(tmp_path / EVIL.replace("/", "")), reason=EVIL, sha256=None,
        damage=EVIL, model=ModelReport(EVIL, EVIL, EVIL, EVIL),
        video=VideoReport(360, 288, 4.0, 25.0, EVIL, 0.01, 100, 10, "exact"),
        provenance=Provenance(signed, {EVIL: EVIL}, (EVIL,), EVIL),
    )  # fmt: skip
    settings = SimpleNamespace(**vars(resolve("detect")) | {"model": EVIL})
    card = dataclasses.replace(CARD, measured=dataclasses.replace(MEASURED, set=EVIL, date=EVIL))
    exhibits = Exhibits()
    exhibits.offer(1, exhibit(0.0, 1.0))
    html = show(
        found, exhibits, card=card, settings=settings, command_line=EVIL, altered=EVIL,
    )  # fmt: skip
    page = Page(html)
    assert page.text.count("<script>alert(1)") > 15
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
    for tag, attrs in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attrs), (tag, attrs)
        for name in ("src", "href", "srcset", "data", "poster"):
            assert attrs.get(name, "data:").startswith("data:image/jpeg;base64,"[:5])
    assert "http" not in html.replace("http-equiv", "")
    assert re.findall(r"url\((?!#)|@import", html) == []
    assert all(c.isprintable() or c == "\n" for c in html)
    policy = next(a["content"] for _, a in page.elements if "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_policy_lets_the_pages_own_style_sheet_through():
    import base64
    import hashlib

    html = show(report())
    css = html[html.index("<style>") + 7 : html.index("</style>")]
    assert base64.b64encode(hashlib.sha256(css.encode()).digest()).decode() in html


@pytest.mark.parametrize(
    ("changes", "quality", "words"),
    [
        ({}, {"face_size": 62.0}, "62 pixels"),
        ({}, {"sharpness": 7.0}, "sharpness 7"),
        ({}, {"colour": 2.0}, "black and white or in one tint: colour 2"),
        ({}, {"turn": 0.5}, "turn 0.50"),
        ({"damage": "it breaks off"}, {}, "it breaks off"),
        (
            {"video": VideoReport(9, 9, 4.0, 25.0, "h264", 0.012, 100, 10, "exact")},
            {},
            "0.012 bits",
        ),
    ],
)
def test_bad_material_is_warned_of(changes, quality, words):
    assert "Nothing to warn of" in Page(show(report(track(1, [0.5] * 10)))).text
    text = Page(show(report(track(1, [0.5] * 10, **quality), **changes))).text
    assert words in text
    assert "Nothing to warn of" not in text
    assert "hangs on 3 frames" in Page(show(report(track(1, [0.5] * 3)))).text


def test_how_often_it_is_wrong_is_told_from_the_card():
    found = report(track(1, [0.5] * 10))
    assert "No figures come with this model" in Page(show(found)).text
    card = dataclasses.replace(CARD, measured=MEASURED)
    text = Page(show(found, card=card)).text
    for words in ("12 real and 18 fake", "28 in 100 (95 % interval: 10 to 50)", "8 in 100."):
        assert words in text
    assert "do not hold for it" not in text
    # Of no false alarm among twelve, resampling says 0 to 0.
    spotless = dataclasses.replace(MEASURED, false_positive_rate=(0.0, 0.0, 0.0))
    text = Page(show(found, card=dataclasses.replace(CARD, measured=spotless))).text
    assert "none of 12; up to 22 in 100 remain possible" in text
    other = dataclasses.replace(found, threshold=0.7)
    page = Page(show(other, card=card, settings=resolve("detect", {"aggregate": "mean"})))
    assert "other settings (--aggregate, --threshold): these figures do not hold" in page.text


def test_robustness_is_told_in_words():
    found = report(track(1, [0.9] * 10))
    same = [AlteredVerdict(name, "fake", 0.8) for name in ALTERATIONS]
    assert "The verdict holds in all 4." in Page(show(found, altered=same)).text
    gone = [*same[:3], AlteredVerdict("blur", "no_face", None)]
    text = Page(show(found, altered=gone)).text
    assert "It changes in 1 of 4" in text
    assert "no face to judge" in text


def test_a_gap_breaks_the_line_and_a_cut_is_drawn():
    exhibits = Exhibits()
    html = show(report(track(1, [0.5] * 10, skip=4)), exhibits)
    assert html.count("<polyline") == 2
    assert html.count("url(#gap-1)") == 1
    assert 'class="cut"' not in html
    exhibits.cuts = [1.0, 2.0]
    html = show(report(track(1, [0.5] * 10)), exhibits)
    assert html.count("<polyline") == 1
    assert html.count('class="cut"') == 2


def test_the_timelines_figures():
    frames = track(1, [0.2, 0.8] * 300).frames
    points = timeline.running_mean(frames)
    assert len(points) == 200
    assert (points[0].second, points[-1].second) == (frames[0].second, frames[-1].second)
    assert points[100].mean == pytest.approx(0.5, abs=0.05)
    assert points[100].low == pytest.approx(0.2, abs=0.05)
    rows = timeline.rows(frames)
    assert len(rows) == 60
    assert sum(row.frames for row in rows) == 600
    assert (rows[0].mean, rows[0].low, rows[0].high) == pytest.approx((0.5, 0.2, 0.8))
    assert len(timeline.rows(frames[:7])) == 7
    assert [f.probability_fake for f in timeline.extremes(frames, 100)] == [0.2, 0.8] * 50
    assert timeline.extremes(frames[:7], 100) == frames[:7]
    assert timeline.ticks(3.0) == [0, 1, 2, 3]
    assert timeline.ticks(100_000)[-1] <= 100_000
    assert len(timeline.ticks(1_000_000)) <= 5
    assert [clock(s) for s in (0, 59.96, 61.25, 3600)] == [
        "0:00.0",
        "1:00.0",
        "1:01.2",
        "1:00:00.0",
    ]


def test_the_worst_pictures_are_kept_apart_in_time():
    exhibits = Exhibits()
    for number in range(500):
        exhibits.offer(1, exhibit(number / 10, 5 - abs(number / 10 - 25.3)))
    shown = exhibits.of(1)
    assert len(shown) == 3
    assert [e.logit for e in shown] == sorted((e.logit for e in shown), reverse=True)
    assert shown[0].logit == 5
    assert shown[2].logit > 3
    seconds = sorted(e.second for e in shown)
    assert min(np.diff(seconds)) >= 1


def test_who_flashes_up_does_not_push_out_who_decides():
    exhibits = Exhibits()
    for second in range(5):
        exhibits.offer(1, exhibit(second, 1.0))
    for person in range(2, 40):
        exhibits.offer(person, exhibit(person, 9.0))
    assert exhibits.of(1)
    assert sum(bool(exhibits.of(person)) for person in range(40)) == 12


def test_pictures_do_not_change_the_verdict(analyzer, fake_clip):
    exhibits = Exhibits()
    seen = analyzer.analyze(fake_clip, exhibits=exhibits)
    plain = analyzer.analyze(fake_clip)
    assert seen.probability_fake == pytest.approx(plain.probability_fake, abs=1e-5)
    logits = {f.index: f.probability_fake for f in seen.tracks[0].frames}
    worst = exhibits.of(1)[0]
    assert logits[worst.index] == max(logits.values())
    assert worst.crop.shape == (256, 256, 3)
    assert worst.evidence.mean() == pytest.approx(worst.logit, abs=1e-4)


def test_detect_writes_the_page(tmp_path, fake_clip, capsys):
    target = tmp_path / "page.html"
    assert cli.main(["detect", str(fake_clip), "--html", str(target), "--threads", "1"]) == 0
    html = target.read_text(encoding="utf-8")
    text = Page(html).text
    assert f"unmask detect {fake_clip} --html {target}" in text
    assert "in 5 frames" in text
    assert html.count("data:image/jpeg") >= 3
    assert len(html) < 500_000
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_where_pages_go(tmp_path):
    one, same, two = (tmp_path / n for n in ("a.mp4", "sub/A.mp4", "b.mp4"))
    assert plan_pages([one], tmp_path / "x.html") == [tmp_path / "x.html"]
    names = [page.name for page in plan_pages([one, same, two], tmp_path)]
    assert names == ["a.mp4.html", "A.mp4-2.html", "b.mp4.html"]
    odd = tmp_path / "a.mp4.html"
    odd.touch()
    assert plan_pages([odd, one], tmp_path)[1].name == "a.mp4-2.html"
    for inputs, target, words in [
        ([one, two], tmp_path / "x.html", "2 inputs"),
        ([one], tmp_path / "clip.mp4", "ends in .html"),
        ([one], tmp_path / "none" / "x.html", "no folder"),
        ([odd], odd, "to be judged"),
    ]:
        with pytest.raises(UsageError, match=words):
            plan_pages(inputs, target)


def test_robustness_without_a_page_is_refused(fake_clip, capsys):
    assert cli.main(["detect", str(fake_clip), "--robustness"]) == 2
    assert "--html" in capsys.readouterr().err


def model_copy(folder) -> dict:
    """Put the shipped model into a folder as m.xml, with a card that can be changed."""
    for suffix in (".xml", ".bin"):
        (folder / f"m{suffix}").symlink_to(SHIPPED.with_suffix(suffix))
    fields = json.loads(SHIPPED.with_suffix(".json").read_text())
    fields.pop("measured", None)
    (folder / "m.json").write_text(json.dumps(fields))
    return fields


def test_evaluate_records_its_figures_in_the_card(tmp_path, samples, capsys):
    before = model_copy(tmp_path)
    manifest = tmp_path / "videos.csv"
    rows = [f"{samples / label}.mp4,{label}" for label in ("real", "fake")]
    manifest.write_text("\n".join(["path,label", *rows]))
    command = ["evaluate", str(tmp_path / "m.xml"), "--output", str(tmp_path / "out")]
    assert cli.main([*command, "--record", "two clips"]) == 2
    assert "--videos" in capsys.readouterr().err
    videos = ["--videos", str(manifest), "--threads", "1"]
    assert cli.main([*command, *videos, "--record", "two clips"]) == 0
    after = json.loads((tmp_path / "m.json").read_text())
    measured = Measured(**after.pop("measured"))
    assert after == before
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())["videos"]["metrics"]
    assert measured.set == "two clips"
    assert measured.videos == {"real": 1, "fake": 1}
    for name in ("roc_auc", "recall", "false_positive_rate"):
        assert getattr(measured, name)[0] == figures[name]["value"]
    text = Page(show(report(track(1, [0.9])), card=Analyzer(
        model=str(tmp_path / "m.xml"), threads=1).classifier.card)).text  # fmt: skip
    assert "Measured on two clips: 1 real and 1 fake" in text


@pytest.mark.parametrize(
    "damage", [{"recall": [2, None, None]}, {"videos": {"real": 3}}, {"colour": 1}, {"recall": "x"}]
)
def test_a_card_with_impossible_figures_is_refused(tmp_path, damage):
    fields = model_copy(tmp_path)
    fields["measured"] = dataclasses.asdict(MEASURED)
    (tmp_path / "m.json").write_text(json.dumps(fields))
    analyzer = Analyzer(model=str(tmp_path / "m.xml"), threads=1)
    assert analyzer.classifier.card.measured.videos == {"real": 12, "fake": 18}
    fields["measured"] |= damage
    (tmp_path / "m.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError, match="no model card"):
        Analyzer(model=str(tmp_path / "m.xml"), threads=1)
