"""The web application as people meet it: a real browser, a real server, a real worker."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import jsonschema
import numpy as np
import pytest
from browser import Visitor, carrier, examine, started, tab_to, until, upload
from clips import write_video
from playwright.sync_api import Browser, Page, expect
from web_server import TOKEN, serving

from unmask.report import SCHEMA
from unmask.video import Video

LONGEST = 25  # minutes
NOT_FOUND = "status of 404"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(chromium, tmp_path_factory) -> Iterator[str]:
    """The whole application, with one worker."""
    folder = tmp_path_factory.mktemp("site")
    with serving(folder, judge_here=True, upload_limit=8, longest_video=LONGEST) as (address, _):
        yield address


@pytest.fixture
def arrive(chromium) -> Iterator[Callable[..., Visitor]]:
    """Lets visitors come to a site; what went wrong on their pages fails the test at its end."""
    visitors: list[Visitor] = []

    def new(site: str, **options) -> Visitor:
        visitors.append(Visitor(chromium, site, **options))
        return visitors[-1]

    yield new
    for visitor in visitors:
        visitor.end()


@pytest.fixture
def visitor(arrive, site) -> Visitor:
    return arrive(site)


@pytest.fixture(scope="module")
def long_clip(real_frames, tmp_path_factory) -> Path:
    """Takes some seconds to judge."""
    path = tmp_path_factory.mktemp("clips") / "long.mp4"
    return write_video(path, real_frames * 14, encoder={"crf": "30"})


@pytest.fixture(scope="module")
def film(long_clip, tmp_path_factory) -> Path:
    """Takes much longer to judge than the test takes: the same clip, many times over."""
    path = tmp_path_factory.mktemp("clips") / "film.mp4"
    with av.open(str(path), "w") as output, av.open(str(long_clip)) as source:
        video = source.streams.video[0]
        stream = output.add_stream_from_template(video)
        packets = [packet for packet in source.demux(video) if packet.dts is not None]
        length = max(packet.pts for packet in packets) + packets[0].duration
        for turn in range(16):  # under the upload limit of this site
            for packet in packets:
                packet.stream = stream
                if turn:
                    packet.pts, packet.dts = packet.pts + length, packet.dts + length
                output.mux(packet)
    return path


def judged(visitor: Visitor, file: Path) -> Page:
    """The page of a file's result, which shows its video."""
    page = visitor.open()
    upload(page, file)
    page.locator("#boxes g.face[display=inline]").first.wait_for(state="attached")
    return page


def test_live_then_result(visitor, long_clip):
    page = visitor.open()
    examine(page)
    upload(page, long_clip)
    # These are on the live page only.
    face = page.locator("#live ~ section #faces img").first
    face.wait_for()
    assert 0 <= page.locator("#progress").evaluate("bar => bar.value") < 1
    expect(page).to_have_title(re.compile("long.mp4"))
    examine(page)
    expect(page.locator("h1")).to_contain_text(re.compile("real|fake|call|manipulat", re.I))
    expect(page.locator("#video")).to_be_visible()
    expect(page.locator("#no-faces")).to_have_count(0)


def test_player_and_timeline(visitor, fake_clip):
    page = judged(visitor, fake_clip)
    report = page.request.get(page.url.replace("/jobs/", "/api/v1/jobs/") + "/result").json()
    frames = report["report"]["tracks"][0]["frames"]

    def box() -> np.ndarray:
        """Where the face's box is, in pixels of the video."""
        corners = page.evaluate("""() => {
            const place = video.getBoundingClientRect();
            const {videoWidth, videoHeight} = video;
            const scale = Math.min(place.width / videoWidth, place.height / videoHeight);
            const left = place.left + (place.width - scale * videoWidth) / 2;
            const top = place.top + (place.height - scale * videoHeight) / 2;
            const line = document.querySelector("#boxes .line").getBoundingClientRect();
            return [line.left - left, line.top - top, line.right - left, line.bottom - top]
                .map((v) => v / scale);
        }""")
        return np.array(corners)

    assert box() == pytest.approx(np.array(frames[0]["box"]), abs=2)
    line = page.locator("#timeline")
    line.scroll_into_view_if_needed()
    place = line.locator(".u-over").bounding_box()
    page.mouse.click(place["x"] + 0.5 * place["width"], place["y"] + 40)
    until(page, "() => Math.abs(video.currentTime - video.duration / 2) < 0.2")
    expect(line).to_have_attribute("aria-valuetext", re.compile(r"^0:01\.\d of 0:03\.\d: person 1"))

    line.press("Home")
    line.press("ArrowRight")
    near = "second => !video.seeking && Math.abs(video.currentTime - second) < 0.02"
    until(page, near, frames[1]["second"])
    assert box() == pytest.approx(np.array(frames[1]["box"]), abs=2)
    line.press("End")
    until(page, "() => video.currentTime > video.duration - 0.2")

    page.locator("[data-seek]").first.click()
    until(page, "() => video.currentTime < video.duration - 0.2")
    expect(line).to_be_focused()  # whoever has a keyboard goes on from there
    page.locator("#show-boxes").uncheck()
    expect(page.locator("#boxes g.face[display=inline]")).to_have_count(0)
    page.locator("#video").evaluate("video => video.play()")
    until(page, "() => video.ended")
    examine(page)
    page.emulate_media(forced_colors="active")  # people are told apart by their colours
    for part, colour in (("h3 .chip", "230, 159, 0"), (".desk", "20, 23, 26"),
                         (".playhead", "255, 255, 255")):  # fmt: skip
        style = page.locator(part).first.evaluate("""element => {
            const style = getComputedStyle(element);
            return [style.backgroundColor, style.forcedColorAdjust];
        }""")
        assert style == [f"rgb({colour})", "none"], part


def test_downloads(visitor, real_clip, tmp_path):
    page = judged(visitor, real_clip)

    def download(words: str) -> Path:
        with page.expect_download() as found:
            page.get_by_role("link", name=words, exact=True).click()
        path = tmp_path / found.value.suggested_filename
        found.value.save_as(path)
        return path

    report = json.loads(download("Report (JSON)").read_text())
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    assert report["path"] == "real.mp4"
    html = download("Report (HTML)")
    assert html.name == "real-report.html"
    with html.open() as file:
        assert "real.mp4" in file.read()
    with download("Frames (CSV)").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == sum(len(t["frames"]) for t in report["tracks"])
    copy = download("Video with boxes")
    with Video(copy) as video, Video(real_clip) as original:
        assert len(list(video.sample(every=1))) == len(list(original.sample(every=1)))
    assert copy.name == "real-annotated.mp4"
    assert copy.read_bytes() != real_clip.read_bytes()
    assert download("What was uploaded").read_bytes() == real_clip.read_bytes()


def test_sharing_and_deletion(visitor, arrive, real_clip):
    page = judged(visitor, real_clip)
    page.get_by_role("button", name="Make a share link").click()
    field = page.get_by_label("Share link")
    expect(field).to_have_value(re.compile("share="))
    link = field.input_value()
    examine(page)

    stranger = arrive(visitor.site)
    stranger.expected.append(NOT_FOUND)
    shown = stranger.open(link)
    expect(shown.locator("h1")).to_have_text(page.locator("h1").inner_text())
    shown.locator("#boxes g.face[display=inline]").first.wait_for(state="attached")
    for owners in ("#share", "[data-delete]", "[data-ask]"):
        expect(shown.locator(owners)).to_have_count(0)
    with shown.expect_download():
        shown.get_by_role("link", name="Report (JSON)").click()
    examine(shown)
    shown.goto(page.url)
    expect(shown.locator("h1")).to_have_text("Nothing is here")
    page.get_by_role("button", name="Take it back").click()
    expect(page.get_by_role("button", name="Make a share link")).to_be_focused()
    assert shown.goto(link).status == 404
    examine(shown)

    visitor.expected += [NOT_FOUND, "ERR_FAILED"]
    address = page.url
    page.get_by_role("button", name="Delete now").click()
    examine(page)
    for_good = page.get_by_role("button", name="Delete for good")
    page.route("**/api/v1/jobs/*", lambda request: request.abort(), times=1)
    for_good.click()
    expect(page.locator("#delete .problem")).to_be_visible()
    expect(for_good).to_be_focused()  # to try again
    for_good.press("Enter")
    page.wait_for_url("**/history")
    assert page.goto(address).status == 404
    assert page.goto(address.replace("/jobs/", "/api/v1/jobs/") + "/files/source").status == 404


def test_whole_flow_by_keyboard(visitor, real_clip):
    page = visitor.open()
    with page.expect_file_chooser() as chooser:
        tab_to(page.locator("#files"))
        page.keyboard.press("Enter")
    chooser.value.set_files(real_clip)
    page.locator("#timeline canvas").wait_for()
    tab_to(page.locator("#show-boxes"))
    page.keyboard.press("Space")
    assert not page.locator("#show-boxes").is_checked()
    tab_to(page.locator("#timeline"))
    page.keyboard.press("End")
    until(page, "() => video.currentTime > video.duration - 0.2")
    tab_to(page.get_by_role("button", name="Make a share link"))
    page.keyboard.press("Enter")
    expect(page.get_by_label("Share link")).to_be_focused()
    tab_to(page.get_by_role("button", name="Delete now"))
    page.keyboard.press("Enter")
    tab_to(page.get_by_role("button", name="Delete for good"))
    page.keyboard.press("Enter")
    expect(page.get_by_text("Nothing here yet.")).to_be_visible()


def test_drop_paste_history_and_search(visitor, real_clip, samples):
    portrait = next((samples / "people").glob("*.jpg"))
    page = visitor.open()
    data = carrier(page, real_clip, portrait)
    page.dispatch_event("body", "dragover", {"dataTransfer": data})
    expect(page.locator("#drop")).to_have_class(re.compile("over"))
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    expect(page.locator("#jobs [data-state=done]")).to_have_count(2)
    expect(page.locator("#counts")).to_have_text("2 judged")
    ended = re.compile(r"(mp4|jpg): .+, probability of fake \d\.\d\d\.$")
    expect(page.locator("#spoken")).to_have_text(ended)
    examine(page)
    page.evaluate(
        """data => document.body.dispatchEvent(
            new ClipboardEvent("paste", {clipboardData: data, bubbles: true}))""",
        carrier(page, portrait),
    )
    page.wait_for_url("**/jobs/*")
    page.locator("#boxes g.face[display=inline]").first.wait_for(state="attached")
    examine(page)

    page.get_by_role("link", name="History").click()
    expect(page.locator("#jobs li")).to_have_count(3)
    page.set_viewport_size({"width": 360, "height": 740})
    page.evaluate("() => { document.documentElement.style.fontSize = '200%'; }")
    until(page, "() => document.documentElement.scrollWidth <= 360")
    page.evaluate("() => { document.documentElement.style.fontSize = ''; }")
    search = page.get_by_role("searchbox")
    search.fill("REAL.mp4")
    expect(page.locator("#jobs li")).to_have_count(1)
    examine(page)
    search.fill("nothing of the kind")
    expect(page.get_by_text("Nothing matches.")).to_be_visible()
    examine(page)


def test_webcam(visitor):
    page = visitor.open()
    page.get_by_role("button", name="Record 10 seconds").click()
    start = page.locator("#webcam-start:enabled")
    start.wait_for()
    examine(page)
    page.keyboard.press("Enter")
    expect(page.locator("#webcam-state")).to_have_text("Records 10 seconds")
    expect(page.locator("#webcam-start")).to_be_focused()
    page.keyboard.press("Enter")  # does nothing
    page.wait_for_url("**/jobs/*")
    expect(page.locator(".verdict.no_face h1")).to_be_visible()
    expect(page.locator(".file").first).to_contain_text("Webcam")
    examine(page)


def test_what_cannot_be_judged(visitor, real_clip, real_frame, tmp_path):
    """Every wrong file says what is wrong, where it was handed in or on its page."""
    visitor.expected.append("status of 415")
    text, empty, large = (tmp_path / name for name in ("text.mp4", "empty.mp4", "large.mp4"))
    text.write_text("Not a video.\n" * 100)
    empty.touch()
    with large.open("wb") as file:
        file.truncate(8_000_001)
    page = visitor.open()
    upload(page, text, empty, large)
    for file, words in (
        (text, "This is text"), (empty, "The file is empty"), (large, "It is too large"),
    ):  # fmt: skip
        row = page.locator("#uploads li", has_text=file.name)
        expect(row.locator(".problem")).to_contain_text(words)
    examine(page)
    page.get_by_role("button", name="Remove text.mp4").click()
    expect(page.locator("#uploads li")).to_have_count(2)

    broken = tmp_path / "broken.mp4"
    broken.write_bytes(real_clip.read_bytes()[:2000])
    endless = write_video(tmp_path / "endless.mp4", [real_frame] * 2, seconds=[0, 60 * LONGEST + 9])
    for file, kind in ((broken, "unreadable"), (endless, "failed")):
        page = visitor.open()
        upload(page, file)
        expect(page.locator(f".verdict.{kind}")).to_be_visible()
        examine(page)


def test_videos_that_browsers_play_otherwise_or_not(visitor, real_frames, tmp_path):
    seconds = [5 + number / 25 for number in range(len(real_frames))]
    late = judged(visitor, write_video(tmp_path / "late.mp4", real_frames, seconds=seconds))
    late.locator("#timeline").press("PageUp")
    until(late, "() => Math.abs(video.currentTime - 5.3) < 0.02")
    expect(late.locator("#moment")).to_have_text("0:00.3")
    expect(late.locator("#boxes g.face[display=inline]")).to_have_count(1)

    page = visitor.open()
    upload(page, write_video(tmp_path / "old.avi", real_frames[:25], codec="mpeg4"))
    expect(page.locator("#player-note")).to_contain_text("here is a converted copy")
    until(page, "() => video.videoWidth > 0")
    examine(page)


def test_looking_without_scripts(visitor, chromium, real_clip):
    """Nothing is shown that needs scripts, and what they would show is there in words."""
    made = judged(visitor, real_clip)
    context = chromium.new_context(
        base_url=visitor.site, storage_state=visitor.context.storage_state(),
        java_script_enabled=False,
    )  # fmt: skip
    page = context.new_page()
    page.goto(made.url)
    shown = page.locator("figcaption").first.inner_text()
    assert re.match(r"0:0\d\.\d, probability", shown), shown
    page.get_by_text("The figures of person 1 as a table").click()
    expect(page.locator("tbody tr")).to_have_count(5)
    links = page.locator("a[download]:visible")
    assert links.count() == 4
    for link in links.all():
        assert page.request.get(link.get_attribute("href")).ok
    assert page.locator("button:visible").count() == 0
    page.goto("/")
    assert "Uploading here needs JavaScript" in page.locator("main").inner_text()
    assert page.locator("button:visible").count() == 0
    context.close()


def test_where_no_face_was_found_yet_the_live_page_says_so(visitor, film):
    page = visitor.open()
    events = 'id: 1\nevent: faces\ndata: {"progress": 0.5, "faces": []}\n\n'
    page.route(
        "**/events", lambda route: route.fulfill(content_type="text/event-stream", body=events)
    )
    upload(page, film)
    page.wait_for_url("**/jobs/*")
    until(page, "() => document.getElementById('progress').value === 0.5")
    expect(page.locator("#no-faces")).to_be_visible()
    page.unroute_all()
    page.locator("#cancel").click()
    expect(page.locator(".verdict.cancelled h1")).to_be_visible()


def test_queue_reload_and_cancel(visitor, film):
    others, page = visitor.open(), visitor.open()
    upload(others, film, film)
    expect(others.locator("#jobs li")).to_have_count(2)
    upload(page, film)
    expect(page.locator("#place")).to_have_text(re.compile(r"^It is next\.|\d before it\.$"))
    examine(page)
    # A tab that nobody looks at holds none of the few connections, and still sees the end.
    page.evaluate("""() => {
        Object.defineProperty(document, "hidden", {get: () => true});
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    until(page, """async () => {
        const metrics = await (await fetch("/metrics")).text();
        return metrics.includes("unmask_event_streams 0");
    }""")  # fmt: skip
    expect(others.locator("#jobs li")).to_have_count(3)
    others.locator("[data-state=queued] button").first.press("Enter")  # the newest
    expect(others.locator("#spoken")).to_have_text("film.mp4 is cancelled.")
    expect(others.get_by_role("button", name="Delete film.mp4")).to_be_focused()
    expect(page.locator(".verdict.cancelled h1")).to_have_text("Cancelled")
    examine(page)

    # A row changes in place: what somebody is about to press is not replaced under the finger.
    row = others.locator("[data-state=running]").first
    row.locator("a").evaluate("link => { link.pressed = true; }")
    row.get_by_role("button").focus()
    said = row.locator(".said").text_content()
    expect(row.locator(".said")).not_to_have_text(said)
    assert row.locator("a").evaluate("link => link.pressed")
    expect(row.get_by_role("button")).to_be_focused()

    for _ in range(2):
        others.locator("[data-state=running] a").first.click()
        face = others.locator("#live ~ section #faces img").first
        face.wait_for()
        others.reload()
        face.wait_for()
        others.locator("#cancel").click()
        expect(others.locator(".verdict.cancelled h1")).to_have_text("Cancelled")
        others.goto("/")


def test_access_token(arrive, chromium, tmp_path, real_clip):
    with serving(tmp_path, access_token=TOKEN) as (site, _):
        visitor = arrive(site)
        visitor.expected.append("status of 401")
        page = visitor.open("/history")
        examine(page)
        page.get_by_label("Access token").fill("something else altogether")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("not the token")
        examine(page)
        page.get_by_label("Access token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_url("**/history")
        other = visitor.open()
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/login")
        upload(other, real_clip)
        expect(other.locator("#uploads .problem")).to_have_text(re.compile("^You are signed out"))
        page.goto("/")
        expect(page.get_by_role("heading")).to_have_text("Sign in")
