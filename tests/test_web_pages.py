"""The pages as the server makes them; what their scripts do is tested in a browser."""

import dataclasses
import hashlib
import html
import re
import shutil
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from services import web_settings
from test_web_result import UNSURE, people
from werkzeug.exceptions import InternalServerError, RequestEntityTooLarge, TooManyRequests

from unmask.explain import Exhibits
from unmask.web import pages
from unmask.web.app import create_app
from unmask.web.result import write
from unmask.web.services import connect
from unmask.web.tables import DONE, FAILED, FINISHED, QUEUED, RUNNING

WEB = Path(pages.__file__).parent
STRANGE = "<b onclick=x>&\"'{{7*7}}\u202e.mp4"
OWNERS = ("data-delete=", 'id="share"', 'id="cancel"', "data-ask=")


class Site:
    """The application over an empty data folder, and one visitor."""

    def __init__(self, tmp_path: Path, **settings):
        self.settings = web_settings(tmp_path, **settings)
        self.services = connect(self.settings)
        self.store, self.app = self.services.store, create_app(self.settings, self.services)
        self.visitor = self.app.test_client()
        self.visitor.get("/")
        with self.visitor.session_transaction() as session:
            self.owner = session.get("owner")

    def read(self, address: str, status: int = 200) -> str:
        answer = self.visitor.get(address)
        assert answer.status_code == status
        return answer.text

    def add(self, name: str = "clip.mp4") -> str:
        return self.store.add(
            self.owner, name, "mp4", 1234, keep=timedelta(hours=1), queue_limit=99
        ).id

    def end(self, id: str, state: str, **values) -> str:
        self.store.finish(id, self.store.claim(id), state, **values)
        return id

    def done(self, results: Path, name: str = "clip.mp4", **values) -> str:
        """A job that is done, with these files."""
        id = self.add(name)
        for file in results.iterdir():
            copy = shutil.copy(file, self.services.folder / "copy")
            self.services.files.put(id, file.name, Path(copy))
        return self.end(id, DONE, **values)

    def page(self, id: str) -> str:
        return self.read(f"/jobs/{id}")


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path)


@pytest.fixture(scope="module")
def judged(analyzer, real_clip, tmp_path_factory) -> dict[str, tuple[Path, dict]]:
    """By verdict, the files of a job and what the database has of it."""
    made = {}
    broken = tmp_path_factory.mktemp("broken") / "broken.mp4"
    broken.write_bytes(real_clip.read_bytes()[:2000])
    for file, report in (
        (real_clip, None),
        (broken, None),
        (real_clip, people("uncertain", UNSURE)),
        (real_clip, people("no_face")),
    ):
        exhibits = Exhibits()
        report = report or analyzer.analyze(file, exhibits=exhibits)
        folder = tmp_path_factory.mktemp(report.verdict)
        card = analyzer.classifier.card
        headline = write(report, exhibits, card, analyzer.settings, file, folder)
        values = {"verdict": report.verdict, "probability_fake": report.probability_fake}
        made[report.verdict] = folder, values | {"headline": headline}
    return made


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and the text outside of tags."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def words(page: str) -> str:
    return " ".join(Tags(page).text.split())


def test_a_job_that_waits_or_runs_says_so(site):
    first, second = site.add("first.mp4"), site.add("second.mp4")
    assert "Waits It is next." in words(site.page(first))
    assert "Waits 1 before it." in words(site.page(second))
    claim = site.store.claim(first)
    site.store.renew(first, claim, 0.4)
    page = site.page(first)
    assert "first.mp4 Is being judged" in words(page)
    assert 'value="0.4"' in page
    assert "Is being judged, 40 %" in words(site.read("/"))


def test_a_job_that_ended_without_a_verdict_says_what_to_do(site):
    reason = "The video is 41 minutes long: cut out the part with the face."
    page = words(site.page(site.end(site.add(), FAILED, error=reason)))
    assert f"Could not be judged {reason}" in page
    assert "What you can do" in page
    cancelled = site.add()
    site.store.cancel(cancelled)
    assert "It was cancelled before all of it was judged" in words(site.page(cancelled))


@pytest.mark.parametrize(
    ("verdict", "sentences"),
    [
        (
            "real",
            (
                "clip.mp4 No sign of manipulation found: the face looks real. Probability of fake",
                "This is no proof of authenticity",
                "does not mean that",
                "Person 1: no sign of manipulation found",
                "How often is it wrong?",
            ),
        ),
        (
            "uncertain",
            ("Too close to call: the face could be real or fake.", "Until then, treat it as not"),
        ),
        ("no_face", ("No face to judge: none was found.", "is there a face, and is it large")),
        ("unreadable", ("The file could not be read.", "convert it to an ordinary MP4 (H.264)")),
    ],
)
def test_a_verdict_comes_in_words_first(site, judged, verdict, sentences):
    results, values = judged[verdict]
    page = site.page(site.done(results, **values))
    for sentence in sentences:
        assert sentence in words(page)
    assert f'<svg class="icon {verdict}"' in page  # a shape beside the words
    assert pages.HEADLINES[verdict] in words(site.read("/history"))
    assert ('id="timeline"' in page) == (verdict in ("real", "uncertain"))


def test_of_a_picture_nothing_is_said_that_only_videos_have(site, analyzer, samples, tmp_path):
    portraits = sorted((samples / "people").glob("*.jpg"))[:2]
    picture = tmp_path / "two people.jpg"
    cv2.imwrite(str(picture), np.hstack([cv2.imread(str(path)) for path in portraits]))
    exhibits = Exhibits()
    found = analyzer.analyze(picture, exhibits=exhibits)
    assert len(found.tracks) == 2
    nobody = {"verdict": "no_face", "tracks": [], "probability_fake": None}
    for changes in ({}, {"verdict": "uncertain"}, nobody):
        report = dataclasses.replace(found, **changes)
        folder = tmp_path / report.verdict
        folder.mkdir()
        write(report, exhibits, analyzer.classifier.card, analyzer.settings, picture, folder)
        values = {"verdict": report.verdict, "probability_fake": report.probability_fake}
        page = site.page(site.done(folder, picture.name, headline="So it is.", **values))
        alone = (folder / "report.html").read_text()
        for each in (page, alone[alone.index("<main>") :]):
            # How often the model is wrong was measured with videos, and settings are of both.
            of_both = '<section aria-labelledby="(errors|again)">.*?</section>'
            text = words(re.sub(of_both, "", each, flags=re.DOTALL))
            text = text.replace("a video of the same person would say more", "")
            for stray in ("video", "longer", "a cut ", " 0:00", "briefly", "decoded frames"):
                assert stray not in text, (report.verdict, stray)


def test_the_table_has_the_figures_of_the_chart(site, judged):
    results, values = judged["real"]
    page = site.page(site.done(results, **values))
    table = page[page.index("<tbody>") : page.index("</tbody>")]
    shown = [float(p) for p in re.findall(r"<td>(0\.\d{3})</td><td>0\.\d{3}</td><td>", table)]
    assert len(shown) == 5  # of 75 frames every fifteenth
    assert all(0 < p < 1 for p in shown)


def test_names_are_text_and_nothing_else(site, judged):
    results, values = judged["real"]
    waits, done = site.add(STRANGE), site.done(results, STRANGE, **values)
    failed = site.end(site.add(STRANGE), FAILED, error=STRANGE)
    for address in ("/", "/history", *(f"/jobs/{id}" for id in (waits, done, failed))):
        page = site.read(address)
        assert "<b onclick" not in page
        assert "\u202e" not in page  # would turn the name's end around
        shown = html.unescape(page)
        assert STRANGE.replace("\u202e", "\\u202e") in shown
    search = "\"'><script>alert(1)</script>"
    page = site.visitor.get("/history", query_string={"search": search}).text
    assert "<script>alert" not in page
    assert search in html.unescape(page)


def test_a_shared_page_is_for_looking_only(site, judged):
    results, values = judged["real"]
    id = site.done(results, **values)
    assert all(control in site.page(id) for control in OWNERS if control != 'id="cancel"')
    site.store.set_share(id, "s" * 22)
    stranger = site.app.test_client()
    assert stranger.get(f"/jobs/{id}").status_code == 404
    page = stranger.get(f"/jobs/{id}?share={'s' * 22}").text
    assert "No sign of manipulation found" in page
    assert not any(control in page for control in OWNERS)
    of_the_job = [
        value
        for _, attributes in Tags(page).tags
        for value in attributes.values()
        if value and f"/api/v1/jobs/{id}" in value
    ]
    assert len(of_the_job) > 8
    assert all(value.endswith(f"?share={'s' * 22}") for value in of_the_job)
    assert site.read(f"/jobs/{id}?share={'s' * 22}").count("data-delete=") == 0  # as others see it
    site.store.set_share(id, None)
    assert stranger.get(f"/jobs/{id}?share={'s' * 22}").status_code == 404


def test_a_job_that_is_shared_while_it_runs_cannot_be_cancelled_by_others(site):
    id = site.add()
    assert 'id="cancel"' in site.page(id)
    site.store.set_share(id, "s" * 22)
    page = site.app.test_client().get(f"/jobs/{id}?share={'s' * 22}").text
    assert "Waits" in page
    assert 'id="cancel"' not in page


def test_the_history_is_searched_and_paged_without_scripts(site):
    for number in range(30):
        site.add(f"clip {number:02}.mp4")
    page = site.read("/history")
    assert page.count('<li id="job-') == 25
    assert "clip 29" in page
    assert "clip 04" not in page
    older = html.unescape(re.search(r'href="([^"]+)">Older', page)[1])
    page = site.read(older)
    assert page.count('<li id="job-') == 5
    assert "clip 04" in page
    assert "Older" not in page
    page = site.read("/history?search=P+1")
    assert page.count('<li id="job-') == 10
    assert 'value="P 1"' in page
    assert "Nothing matches." in site.read("/history?search=other")
    site.read("/history?before=yesterday", 400)
    site.read("/history?before=0001-01-01T00:00:00%2B14:00", 400)


def test_other_peoples_jobs_are_not_listed(site):
    site.add("secret.mp4")
    stranger = site.app.test_client()
    seen = stranger.get("/").text + stranger.get("/history").text
    assert "secret" not in seen
    assert "1 waiting" not in seen


def test_how_many_files_wait_and_are_judged_is_said(site):
    first, *_ = [site.add(f"{number}.mp4") for number in range(30)]
    site.end(first, FAILED, error="It is damaged.")
    site.store.claim(site.add("now.mp4"))
    for page in ("/", "/history"):
        assert "1 being judged, 29 waiting, 1 could not be judged" in words(site.read(page))


def test_signing_in_leads_back_to_this_site_only(tmp_path):
    site = Site(tmp_path, access_token="correct horse battery")
    answer = site.visitor.get("/history?search=a%20b")
    assert answer.status_code == 302
    assert "Access token" in site.read(answer.location)
    token = {"token": "correct horse battery", "next": "/history?search=a%20b"}
    wrong = site.visitor.post("/login", data=token | {"token": "wrong"})
    assert wrong.status_code == 401
    assert "That is not the token." in wrong.text
    assert site.visitor.post("/login", data=token).location == "/history?search=a%20b"
    for elsewhere in ("https://evil.example/", "//evil.example", "/\\evil.example", "/\t/evil"):
        assert site.visitor.post("/login", data=token | {"next": elsewhere}).location == "/"
    assert "Sign out" in site.read("/")
    assert site.visitor.post("/logout").location == "/login"
    assert site.visitor.get("/").status_code == 302


def test_errors_have_pages_that_say_what_to_do(site):
    assert "results are kept for 24 hours" in words(site.read("/jobs/unknown", 404))
    assert "Nothing is here" in site.read("/nothing", 404)
    for error, sentence in (
        (RequestEntityTooLarge(), "At most 500 MB are taken."),
        (TooManyRequests("Too many files wait.", retry_after=30), "Try again in 30 seconds."),
        (InternalServerError(), "It is not your fault."),
    ):
        with site.app.test_request_context("/"):
            page, status, headers = pages.error_page(error)
        assert sentence in words(page)
        assert status == error.code
        assert headers.get("Retry-After") == ("30" if status == 429 else None)


def test_web_addresses_are_asked_for_only_where_they_are_allowed(tmp_path):
    field = 'id="address-field"'
    assert field not in Site(tmp_path / "a").read("/")
    assert field in Site(tmp_path / "b", web_addresses=True).read("/")


@pytest.mark.parametrize("path", sorted((WEB / "templates").iterdir()), ids=lambda path: path.name)
def test_templates_have_no_inline_script_or_style(path):
    for tag, attributes in Tags(path.read_text()).tags:
        assert tag != "style"
        assert tag != "script" or attributes.get("src")
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert not any("javascript:" in (value or "") for value in attributes.values())


@pytest.mark.parametrize("path", sorted((WEB / "static").glob("*.*")), ids=lambda path: path.name)
def test_scripts_and_styles_load_nothing_from_elsewhere_and_read_no_text_as_html(path):
    text = path.read_text()
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[\w/.]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML\s*\+?=[^=]|insertAdjacentHTML|document\.write|\beval\(", text)


def test_vendored_files_are_those_that_were_published():
    folder = WEB / "static" / "vendor"
    listed = [line.split() for line in (folder / "SHA256SUMS").read_text().splitlines()]
    notes = {"README.md", "SHA256SUMS"}
    assert {name for _, name in listed} | notes == {file.name for file in folder.iterdir()}
    for digest, name in listed:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("hours", "text"),
    [(24, "24 hours"), (1, "1 hour"), (0.5, "30 minutes"), (72, "3 days"), (1 / 60, "1 minute")],
)
def test_how_long_files_are_kept_is_said_in_words(hours, text):
    assert pages.duration(hours) == text


def test_sizes_are_said_in_words():
    sizes = [(999, "999 bytes"), (128142, "128 kB"), (5e8, "500.0 MB"), (2.5e9, "2.5 GB")]
    for count, text in sizes:
        assert pages.size(int(count)) == text


def test_every_job_has_words_for_its_state():
    assert set(pages.STATES) == {QUEUED, RUNNING, *FINISHED}
