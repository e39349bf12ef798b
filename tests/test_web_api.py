"""The API: its document, the life of a job, files, events, figures; then a server under load."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import pytest
import requests
import schemathesis
from services import web_settings
from sqlalchemy.exc import OperationalError
from web_server import RESULT, Web, add_done, hand_in, serving, web

import unmask.web
from unmask.errors import SettingError
from unmask.web import monitoring, stream
from unmask.web.server import bind
from unmask.web.services import Services, connect
from unmask.web.store import Store
from unmask.web.stream import Streams
from unmask.web.tables import DONE

MP4 = b"\0\0\0\x18ftypmp42" + bytes(100)
DOCUMENT = Path(unmask.web.__file__).with_name("openapi.json")


@pytest.fixture
def site(tmp_path) -> Web:
    return web(tmp_path)


# The document.

described = schemathesis.openapi.from_path(DOCUMENT)


@pytest.fixture(scope="module")
def described_server(tmp_path_factory) -> Iterator[tuple[str, list[str], Services]]:
    """The address of a server, jobs that it has, and what it stands on."""
    folder = tmp_path_factory.mktemp("described")
    generous = {"web_addresses": True, "queue_limit": 10**6, "upload_rate": 10**6}
    with serving(folder, **generous) as (address, _):
        services = connect(web_settings(folder))
        cancelled = services.store.add(
            "local", "a.mp4", "mp4", 5, keep=timedelta(days=1), queue_limit=10
        )
        services.store.cancel(cancelled.id)
        yield address, [cancelled.id, *(add_done(services).id for _ in range(4))], services


@described.parametrize()
@hypothesis.settings(max_examples=10, suppress_health_check=list(hypothesis.HealthCheck))
def test_the_api_is_as_described(case, described_server):
    address, jobs, services = described_server
    id, unchecked = str(case.path_parameters.get("id", "")), []
    if id and (choice := sum(map(ord, id)) % (len(jobs) + 1)):
        # Most calls are about a job that there is; then what was wrong with the id is no more.
        if services.store.get(jobs[choice - 1]) is None:  # an earlier call has deleted it
            jobs[choice - 1] = add_done(services).id
        case.path_parameters["id"] = jobs[choice - 1]
        unchecked = [schemathesis.checks.negative_data_rejection]
    if case.media_type == "multipart/form-data":  # no schema says what a video is
        unchecked = [schemathesis.checks.positive_data_acceptance]
    case.call_and_validate(base_url=address, excluded_checks=unchecked)


def test_every_route_is_described_and_there(site):
    found = {
        (method.lower(), str(rule.rule).replace("<", "{").replace(">", "}"))
        for rule in site.app.url_map.iter_rules()
        if not rule.endpoint.startswith(("pages.", "static"))
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    paths = json.loads(DOCUMENT.read_text())["paths"]
    methods = ("get", "post", "put", "patch", "delete")
    assert found == {(m, path) for path, item in paths.items() for m in item if m in methods}
    assert site.app.test_client().get("/api/v1/openapi.json").json["paths"] == paths


def test_errors_are_problems(site):
    client = site.app.test_client()
    for answer, status in (
        (client.get("/api/v1/jobs/x"), 404),
        (client.put("/api/v1/jobs"), 405),
        (client.get("/api/v1/jobs?limit=0"), 400),
        (client.get("/api/v1/jobs?before=yesterday"), 400),
        (client.post("/api/v1/jobs", data="x", content_type="text/plain"), 415),
        (client.post("/api/v1/jobs", data="{", content_type="application/json"), 400),
        (client.post("/api/v1/jobs", data="{" + " " * 99999, content_type="application/json"), 413),
    ):
        assert answer.status_code == answer.json["status"] == status
        assert answer.content_type == "application/problem+json"
        assert set(answer.json) == {"type", "title", "status", "detail"}
    assert "POST" in client.put("/api/v1/jobs").headers["Allow"]


# The life of a job.


def test_jobs_are_listed_page_by_page_and_found(site):
    browser = site.browser()
    made = [hand_in(browser, MP4, f"Übung {n}.mp4").json["id"] for n in range(5)]
    seen, before = [], None
    for _ in range(3):
        query = {"limit": 2} | ({"before": before} if before else {})
        page = browser.get("/api/v1/jobs", query_string=query).json
        seen += [job["id"] for job in page["jobs"]]
        before = page["next"]
    assert seen == made[::-1]
    assert before is None
    found = browser.get("/api/v1/jobs", query_string={"search": "übung 3"}).json["jobs"]
    assert [job["id"] for job in found] == [made[3]]
    assert [job["waiting_before"] for job in browser.get("/api/v1/jobs").json["jobs"]] == [
        4, 3, 2, 1, 0
    ]  # fmt: skip


def test_a_job_is_cancelled_once(site):
    browser = site.browser()
    job = hand_in(browser, MP4).json["id"]
    answer = browser.post(f"/api/v1/jobs/{job}/cancel")
    assert (answer.status_code, answer.json["state"]) == (202, "cancelled")
    assert browser.post(f"/api/v1/jobs/{job}/cancel").status_code == 409
    assert browser.get(f"/api/v1/jobs/{job}/result").status_code == 409
    assert browser.post(f"/api/v1/jobs/{job}/annotated").status_code == 409


def test_a_deleted_job_is_gone(site):
    client = site.app.test_client()
    job = add_done(site.services).id
    assert site.jobs() == [job]
    assert client.delete(f"/api/v1/jobs/{job}").status_code == 204
    assert site.jobs() == []
    assert site.services.store.events(job) == []
    assert client.delete(f"/api/v1/jobs/{job}").status_code == 404


def test_an_annotated_copy_is_asked_for_once(site):
    client = site.app.test_client()
    job = add_done(site.services).id
    for _ in range(2):
        answer = client.post(f"/api/v1/jobs/{job}/annotated")
        assert (answer.status_code, answer.json["annotated"]) == (202, "queued")
    assert site.services.tasks.waiting == 1
    assert client.get(f"/api/v1/jobs/{job}/files/annotated").status_code == 404


# Files.


@pytest.fixture(params=["folder", "s3"])
def stored(request, tmp_path) -> Web:
    """A site with files in a folder, and one with files in S3."""
    storage = request.getfixturevalue("s3") if request.param == "s3" else ""
    return web(tmp_path, storage=storage)


def test_files_are_sent_whole_and_in_ranges(stored):
    client = stored.app.test_client()
    job = add_done(stored.services, name="Gespräch;.exe").id
    address = f"/api/v1/jobs/{job}/files/source"
    whole = client.get(address)
    assert whole.data[-256:] == bytes(range(256))
    assert whole.content_type == "video/mp4"
    assert whole.headers["Content-Disposition"] == (
        "attachment; filename=\"Gespr_ch_.mp4\"; filename*=UTF-8''Gespr%C3%A4ch%3B.mp4"
    )
    for asked, start, stop in (("0-3", 0, 4), ("200-", 200, None), ("-10", -10, None)):
        part = client.get(address, headers={"Range": f"bytes={asked}"})
        assert part.status_code == 206
        assert part.data == whole.data[start:stop]
        assert part.content_length == len(part.data)
        assert part.headers["Content-Range"].endswith(f"/{len(whole.data)}")
    for asked in ("abc", "5-2", "0-0,5-6"):  # no range, none, two
        answer = client.get(address, headers={"Range": f"bytes={asked}"})
        assert (answer.status_code, answer.data) == (200, whole.data)
    beyond = client.get(address, headers={"Range": "bytes=999999-"})
    assert beyond.status_code == 416
    assert beyond.headers["Content-Range"] == f"bytes */{len(whole.data)}"
    same = client.get(address, headers={"If-None-Match": whole.headers["ETag"]})
    assert (same.status_code, same.data) == (304, b"")
    head = client.head(address)
    assert (head.data, head.content_length) == (b"", len(whole.data))
    other = {"Range": "bytes=0-3", "If-Range": '"something else"'}
    assert client.get(address, headers=other).data == whole.data


def test_only_known_files_are_sent(stored):
    client = stored.app.test_client()
    job = add_done(stored.services).id
    files = f"/api/v1/jobs/{job}/files"
    page = client.get(f"{files}/report.html")
    assert page.headers["Content-Disposition"].startswith('attachment; filename="clip-report.html"')
    assert client.get(f"{files}/person-1-0.jpg").content_type == "image/jpeg"
    for name in ("result.json", "person-1-1.jpg", "annotated", "frames.csv", "..%2Fsource",
                 "person-1-0.jpg%00", "%2e%2e/%2e%2e/session.key"):  # fmt: skip
        assert client.get(f"{files}/{name}").status_code == 404, name
    assert client.get(f"/api/v1/jobs/{job}/result").json == RESULT


# Events.


def numbers(text: bytes) -> list[int]:
    return [int(line[4:]) for line in text.decode().splitlines() if line.startswith("id: ")]


def test_events_go_on_where_they_stopped(site):
    client = site.app.test_client()
    address = f"/api/v1/jobs/{add_done(site.services).id}/events"
    everything = client.get(address)
    assert everything.mimetype == "text/event-stream"
    assert numbers(everything.data) == [1, 2, 3]
    assert b'event: state\ndata: {"state": "done"}\n\n' in everything.data
    assert numbers(client.get(f"{address}?after=2").data) == [3]
    resumed = client.get(f"{address}?after=1", headers={"Last-Event-ID": "2"})
    assert numbers(resumed.data) == [3]
    over = client.get(address, headers={"Last-Event-ID": "3"})
    assert (over.status_code, over.data) == (204, b"")  # a browser does not come again
    for wrong in ("x", "-1", "1.5", "9" * 30, ""):
        assert client.get(f"{address}?after={wrong}").status_code == 400


class CountingStore(Store):
    """A database that counts how often it is asked."""

    def __init__(self, url):
        super().__init__(url)
        self.asked = 0

    def events(self, *args, **kwargs):
        self.asked += 1
        return super().events(*args, **kwargs)


def test_many_viewers_ask_the_database_as_one(site, tmp_path):
    store = CountingStore(f"sqlite:///{site.services.folder}/unmask.db")
    streams, seen = Streams(store), [[] for _ in range(50)]
    job = store.add("local", "a.mp4", "mp4", 1, keep=timedelta(days=1), queue_limit=9).id
    claim = store.claim(job)
    before = threading.active_count()
    viewers = [
        threading.Thread(target=lambda mine=mine: mine.extend(streams.follow(job))) for mine in seen
    ]
    for viewer in viewers:
        viewer.start()
    while streams.open < 50 or not all(len(mine) == 3 for mine in seen):
        time.sleep(0.01)
    store.asked, began = 0, time.monotonic()
    for number in range(100):
        store.renew(job, claim, number / 100, [("faces", {"number": number})])
        time.sleep(0.02)
    store.finish(job, claim, DONE)
    for viewer in viewers:
        viewer.join(20)
    elapsed = time.monotonic() - began
    for mine in seen:
        assert numbers("".join(mine).encode()) == list(range(1, 104))
    # Alone, a viewer would look up to 5 times a second. Some fell behind on a busy machine.
    assert store.asked < 5 * elapsed + 60
    assert streams.open == 0
    assert not streams._tails
    assert threading.active_count() == before


def test_a_job_that_is_worked_on_is_looked_at_without_pause(site, monkeypatch):
    """So its end is told at once, also after a silence."""
    monkeypatch.setattr(stream, "_SHORTEST_WAIT", 0.01)
    monkeypatch.setattr(stream, "_LONGEST_WAIT", 3600.0)
    store = CountingStore(f"sqlite:///{site.services.folder}/unmask.db")
    job = store.add("local", "a.mp4", "mp4", 1, keep=timedelta(days=1), queue_limit=9).id
    claim = store.claim(job)
    texts = []
    viewer = threading.Thread(target=lambda: texts.extend(Streams(store).follow(job)), daemon=True)
    viewer.start()
    wait_for(lambda: store.asked > 30)  # were the pauses doubled, that would take years
    store.finish(job, claim, DONE)
    viewer.join(20)
    assert numbers("".join(texts).encode()) == [1, 2, 3]


def test_a_viewer_who_names_an_unknown_event_gets_all(site):
    store, streams = site.services.store, site.app.extensions["unmask_streams"]
    job = add_done(site.services).id
    store.ask_for_annotated(job)
    claim = store.claim_annotated(job)
    texts = []
    viewer = threading.Thread(target=lambda: texts.extend(streams.follow(job, after=10**8)))
    viewer.start()
    store.finish_annotated(job, claim, "ready")
    viewer.join(20)
    assert numbers("".join(texts).encode()) == [1, 2, 3, 4, 5]


def test_streams_end_when_the_job_is_deleted_or_the_viewer_is_gone(site, monkeypatch):
    monkeypatch.setattr(stream, "HEARTBEAT", 0.1)
    streams = site.app.extensions["unmask_streams"]
    first, second = (hand_in(site.browser(), MP4).json["id"] for _ in range(2))
    gone = threading.Event()
    waiting = streams.follow(first), streams.follow(second, is_gone=gone.is_set)
    for texts in waiting:
        heard = ""
        while "still here" not in heard:  # a comment keeps the line alive
            heard = next(texts)
    site.services.store.delete(first)
    gone.set()
    for texts in waiting:
        list(texts)
    assert streams.open == 0


# Figures.


def test_metrics_count(site):
    client = site.app.test_client()
    add_done(site.services)
    hand_in(client, MP4)
    client.get("/api/v1/jobs/anything")
    client.open("/api/v1/jobs", method="INVENTED")
    text = client.get("/metrics").text
    for line in (
        'unmask_jobs{state="done"} 1.0', 'unmask_jobs{state="queued"} 1.0',
        f"unmask_upload_bytes_total {len(MP4):.1f}", "unmask_event_streams 0.0",
        'unmask_request_seconds_count{method="GET",route="/api/v1/jobs/<id>",status="404"} 1.0',
    ):  # fmt: skip
        assert line in text
    assert "INVENTED" not in text


def test_health_tells_what_is_broken(site, monkeypatch):
    client = site.app.test_client()
    assert client.get("/healthz").status_code == 200

    def fail():
        raise OSError

    monkeypatch.setattr(site.services.store, "counts", fail)
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert (answer.json["database"], answer.json["queue"]) == (False, True)


def test_health_tells_that_nothing_can_be_stored(tmp_path, s3, monkeypatch):
    for storage in (s3, str(tmp_path / "jobs")):
        assert web(tmp_path, storage=storage).app.test_client().get("/healthz").json["storage"]
    (tmp_path / "file").touch()
    for storage in (s3.replace("unmask-", "missing-"), str(tmp_path / "file")):
        answer = web(tmp_path, storage=storage).app.test_client().get("/healthz")
        assert (answer.status_code, answer.json["storage"]) == (503, False)
    site, ending = web(tmp_path), threading.Event()
    monkeypatch.setattr(monitoring, "_PATIENCE", 2.0)
    monkeypatch.setattr(site.services.files, "check", lambda: ending.wait(60))
    answer = site.app.test_client().get("/healthz")
    ending.set()
    assert (answer.status_code, answer.json["storage"], answer.json["queue"]) == (503, False, True)


def test_a_full_disk_is_told_and_takes_nothing(site, monkeypatch):
    client = site.app.test_client()
    full = SimpleNamespace(free=1000)
    monkeypatch.setattr("unmask.web.services.shutil.disk_usage", lambda folder: full)
    assert client.get("/healthz").json["disk"] is False
    answer = hand_in(client, MP4 + bytes(1000))
    assert answer.status_code == 507
    assert "disk is full" in answer.json["detail"]
    assert not site.jobs()
    full.free = 2000  # one more copy of what has arrived
    assert hand_in(client, MP4 + bytes(1000)).status_code == 202


def test_what_is_deleted_makes_room_for_deleting(site, monkeypatch):
    job = add_done(site.services).id
    delete = site.services.store.delete

    def needs_room(id):
        if site.jobs():
            raise OperationalError("DELETE", {}, Exception("database or disk is full"))
        return delete(id)

    monkeypatch.setattr(site.services.store, "delete", needs_room)
    assert site.app.test_client().delete(f"/api/v1/jobs/{job}").status_code == 204
    assert site.services.store.get(job) is None


# A real server.


@pytest.fixture
def server(tmp_path) -> Iterator[tuple[str, Services, object]]:
    with serving(tmp_path) as (address, process):
        yield address, connect(web_settings(tmp_path)), process


def wait_for(what, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_sixty_viewers_hold_nobody_up_and_leave_nothing(server):
    address, services, process = server

    def open_streams() -> int:
        line = next(
            line for line in requests.get(f"{address}/metrics", timeout=5).text.splitlines()
            if line.startswith("unmask_event_streams ")
        )  # fmt: skip
        return int(float(line.split()[1]))

    job = services.store.add("local", "a", "mp4", 1, keep=timedelta(days=1), queue_limit=9).id
    with ExitStack() as stack:
        viewers = [
            stack.enter_context(
                requests.get(f"{address}/api/v1/jobs/{job}/events", stream=True, timeout=20)
            )
            for _ in range(60)
        ]
        lines = [viewer.iter_lines(chunk_size=1) for viewer in viewers]
        for line in lines:
            assert b"queued" in next(text for text in line if text.startswith(b"data"))
        assert open_streams() == 60
        began = time.monotonic()
        assert requests.get(address, timeout=5).status_code == 200
        assert time.monotonic() - began < 2
        for viewer in viewers[:30]:
            viewer.close()
        wait_for(lambda: open_streams() == 30)
        services.store.claim(job)
        for line in lines[30:]:
            assert b"running" in next(text for text in line if text.startswith(b"data"))
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert time.monotonic() - began < 8
        for line in lines[30:]:
            assert list(line) == [b""]  # ended, not cut off


def test_large_files_do_not_fill_the_memory_of_the_server(server, tmp_path):
    address, services, process = server
    job = add_done(services).id
    large = tmp_path / "large"
    with open(large, "wb") as file:
        file.truncate(300 << 20)
    services.files.put(job, "source", large)

    def memory() -> int:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return next(int(s.split()[1]) for s in status.splitlines() if s.startswith("VmHWM")) << 10

    before = memory()
    with requests.get(f"{address}/api/v1/jobs/{job}/files/source", stream=True, timeout=20) as got:
        assert sum(map(len, got.iter_content(1 << 20))) == 300 << 20
    part = requests.get(
        f"{address}/api/v1/jobs/{job}/files/source", timeout=20,
        headers={"Range": f"bytes={200 << 20}-{(201 << 20) - 1}"},
    )  # fmt: skip
    assert (part.status_code, len(part.content)) == (206, 1 << 20)
    assert memory() - before < 60 << 20


def test_a_port_that_is_taken_is_told(tmp_path):
    taken = web(tmp_path, host="127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken.settings.port = other.getsockname()[1]
        with pytest.raises(SettingError, match=f"{taken.settings.port}.*--port"):
            bind(taken.app, taken.settings)


def test_a_worker_that_dies_is_started_again_and_ends_with_the_server(tmp_path):
    (tmp_path / "huey.py").write_text("raise SystemExit('a module of the folder it is started in')")
    with serving(tmp_path, judge_here=True) as (address, process):
        wait_for(lambda: _worker_of(process.pid))
        first = _worker_of(process.pid)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: _worker_of(process.pid) not in (None, first))
        second = _worker_of(process.pid)
        wait_for(lambda: requests.get(f"{address}/healthz", timeout=5).json()["worker"])
    assert not Path(f"/proc/{second}").exists()


def _worker_of(server: int) -> int | None:
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and (folder / "cmdline").read_bytes().endswith(b"\0worker\0"):
                after_name = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(after_name[1]) == server and after_name[0] != "Z":
                    return int(folder.name)
        except OSError:  # it has just ended
            continue
    return None
