"""Real workers: what they make of files, and that nothing is lost when something dies."""

import contextlib
import csv
import dataclasses
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jsonschema
import pytest
from sqlalchemy import event

from unmask.report import SCHEMA
from unmask.settings import resolve
from unmask.video import Video
from unmask.web import child, house, worker
from unmask.web.analysis import MOST_MEMORY
from unmask.web.house import House
from unmask.web.services import connect
from unmask.web.store import MAX_ATTEMPTS, new_id
from unmask.web.tables import CANCELLED, DONE, FAILED, FINISHED, QUEUED, RUNNING
from unmask.web.tasks import Tasks
from unmask.web.worker import Worker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# 'unmask worker' that is quick to find out that another has died.
RUNNER = """
import sys
from datetime import timedelta
from unmask.web import child, house, store
store._LEASE, house.SWEEP_SECONDS = timedelta(seconds=3), 0.5
if sys.argv[1].endswith(".py"):
    child.COMMAND = (sys.executable, sys.argv.pop(1))
from unmask.cli import main
sys.exit(main(["worker", *sys.argv[1:]]))
"""
# An analysis that does what the test says, with all its limits.
STRANGE = """
import os, signal, socket, sys, time
from pathlib import Path
from unmask.web import analysis
really = analysis.judge
def judge(order, folder, tell):
    found = {"verdict": "real", "probability_fake": 0.1, "headline": "So it is."}
    results = folder / analysis.RESULTS
    BODY
    return found
analysis.judge = judge
sys.exit(analysis.main(Path(sys.argv[1])))
"""
SLOW = "while True: tell({'progress': 0.5, 'faces': []}); time.sleep(0.05)"


class Place:
    """A data folder with its services, and people who hand something in."""

    def __init__(self, folder: Path, **settings):
        self.settings = resolve("worker", {"data_folder": str(folder), "workers": 1} | settings)
        self.services = connect(self.settings)
        self.folder, self.store = folder, self.services.store

    def add(self, path: Path, name: str = "", keep=timedelta(hours=1)) -> str:
        id, copy = new_id(), self.folder / "copy"
        shutil.copy(path, copy)
        size = copy.stat().st_size
        self.services.files.put(id, "source", copy)
        kind = path.suffix[1:]
        self.store.add(
            "me", name or path.name, kind, size, keep=keep, queue_limit=99, id=id,
        )  # fmt: skip
        self.services.tasks.submit(id)
        return id

    def do(self, id: str):
        """Have the job done here and now."""
        Worker(self.services, self.settings).look_at(id)
        return self.store.get(id)

    def wait(self, id: str, *states: str, seconds: float = 60):
        end = time.monotonic() + seconds
        while (job := self.store.get(id)).state not in states:
            assert time.monotonic() < end, f"still {job.state}"
            time.sleep(0.02)
        return job

    def states(self, id: str) -> list[str]:
        return [e.data["state"] for e in self.store.events(id) if e.kind == "state"]

    def open(self, id: str, name: str):
        return self.services.files.open(id, name)

    def children(self) -> list[int]:
        """The processes that work in this place."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(self.folder / "work").encode() in entry.read_bytes():
                    found.append(int(entry.parent.name))
        return found

    @contextlib.contextmanager
    def worker(self, *arguments: str, **environment: str):
        command = [sys.executable, "-c", RUNNER, *arguments]
        for name in ("data_folder", "workers", "database", "queue", "storage"):
            command.append(f"--{name.replace('_', '-')}={getattr(self.settings, name)}")
        process = subprocess.Popen(command, env=os.environ | environment)
        try:
            yield process
            if process.poll() is None:
                process.terminate()
                assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.store.close()


@pytest.fixture
def strange(place, tmp_path, monkeypatch):
    """Has children do what a line of Python says."""

    def become(body: str) -> str:
        file = tmp_path / "strange.py"
        file.write_text(STRANGE.replace("BODY", body))
        monkeypatch.setattr(child, "COMMAND", (sys.executable, str(file)))
        return str(file)

    return become


@pytest.fixture
def portrait(samples) -> Path:
    return sorted((samples / "people").glob("*.jpg"))[0]


def test_from_the_queue_to_the_files(tmp_path, real_clip, fake_clip, portrait):
    place = Place(tmp_path, workers=2)
    ids = [place.add(path, "=evil <b>.mp4") for path in (real_clip, fake_clip, portrait)]
    with place.worker():
        jobs = [place.wait(id, *FINISHED) for id in ids]
        assert place.store.ask_for_annotated(ids[0])
        place.services.tasks.submit(ids[0])
        for job in jobs:
            assert (job.state, job.error, job.progress) == (DONE, None, 1.0)
        for id in ids:
            check_result(place, id)
        while place.store.get(ids[0]).annotated in ("queued", "running"):
            time.sleep(0.05)
    events = place.store.events(ids[0])
    kinds = [e.kind for e in events]
    assert [e.number for e in events] == list(range(1, len(events) + 1))
    assert kinds == ["state", "state", *["faces"] * (len(kinds) - 5), "state", *["annotated"] * 2]
    faces = [face for e in events if e.kind == "faces" for face in e.data["faces"]]
    assert [face["index"] for face in faces] == [0, 15, 30, 45, 60]
    assert faces[0]["crop"].startswith("data:image/jpeg;base64,")
    assert events[-4].data["progress"] == 1.0
    with Video(tmp_path / "jobs" / ids[0] / "annotated") as video:
        assert len(list(video.sample(every=1))) == 75
    assert list((tmp_path / "work").iterdir()) == []


def check_result(place: Place, id: str) -> None:
    """The files of a job that is done belong together, and tell nothing of the server."""
    folder, job = place.folder / "jobs" / id, place.store.get(id)
    result = json.loads((folder / "result.json").read_text())
    report = json.loads((folder / "report.json").read_text())
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    assert result["report"] == report
    assert (report["path"], report["verdict"]) == ("=evil <b>.mp4", job.verdict)
    assert report["probability_fake"] == pytest.approx(job.probability_fake, abs=1e-6)
    assert result["headline"] == job.headline
    assert result["is_image"] == (job.kind == "jpg") == (result["annotated_kind"] == "jpg")
    pictures = [p for person in result["people"] for p in person["pictures"]]
    named = {p[which] for p in pictures for which in ("crop", "heat")}
    others = {"source", "result.json", "report.json", "report.html", "frames.csv"}
    assert {path.name for path in folder.iterdir()} - {"annotated"} == named | others
    assert named
    with (folder / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(track["frames"]) for track in report["tracks"])
    assert rows[0]["file"] == "'=evil <b>.mp4"
    for path in folder.iterdir():
        data = path.read_bytes()
        assert str(place.folder).encode() not in data
        assert b"source." not in data


def test_on_several_machines(tmp_path, postgres, redis_server, s3, portrait):
    place = Place(tmp_path, database=postgres, queue=redis_server, storage=s3)
    id = place.add(portrait)
    with place.worker():
        assert place.wait(id, *FINISHED).state == DONE
        assert place.store.ask_for_annotated(id)
        place.services.tasks.submit(id)
        while place.store.get(id).annotated in ("queued", "running"):
            time.sleep(0.05)
    with place.open(id, "result.json") as file:
        assert json.load(file)["people"]
    with place.open(id, "annotated") as file:
        assert file.read(3) == b"\xff\xd8\xff"
    place.store.close()


def test_a_worker_that_is_killed_loses_nothing(place, strange, real_clip):
    id = place.add(real_clip)
    with place.worker(strange(SLOW)) as first:
        while "faces" not in {e.kind for e in place.store.events(id)}:
            time.sleep(0.02)
        first.kill()
        first.wait()
        assert place.store.get(id).state == RUNNING
    while place.children():  # until the kernel has got round to it
        time.sleep(0.02)
    with place.worker():
        assert place.wait(id, *FINISHED).state == DONE
    assert place.states(id) == [QUEUED, RUNNING, RUNNING, DONE]


def test_a_child_that_is_killed_is_started_again(place, strange, real_clip):
    id = place.add(real_clip)
    first_slow = f"""
    if (folder / "begun").exists():
        return really(order, folder, tell)
    (folder / "begun").touch()
    {SLOW}
"""
    with place.worker(strange(first_slow)):
        while "faces" not in {e.kind for e in place.store.events(id)}:
            time.sleep(0.02)
        children = place.children()
        os.kill(children[0], signal.SIGKILL)
        assert place.wait(id, *FINISHED).state == DONE
    assert place.states(id) == [QUEUED, RUNNING, RUNNING, DONE]


def test_a_worker_that_ends_gives_its_job_back(place, strange, real_clip):
    id = place.add(real_clip)
    with place.worker(strange(SLOW)) as process:
        place.wait(id, RUNNING)
        process.terminate()
        assert process.wait(30) == 0
    job = place.store.get(id)
    assert (job.state, job.attempts, job.claim) == (QUEUED, 0, None)
    assert place.services.tasks.waiting
    assert place.children() == []


def test_a_worker_ends_with_the_server_that_started_it(place):
    # No process has such a number.
    with place.worker(**{worker.PARENT: "4194305"}) as process:
        assert process.wait(30) == 0


@pytest.mark.parametrize("deleted", [False, True])
def test_a_job_that_is_not_wanted_any_more_stops(place, strange, real_clip, deleted):
    strange(SLOW)
    id = place.add(real_clip)
    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(place.do, id)
        while place.store.get(id).progress < 0.5:
            time.sleep(0.02)
        if deleted:
            assert place.store.delete(id)
            place.services.files.delete(id)
        else:
            assert place.store.cancel(id)
        job = doing.result(10)
    assert place.children() == []
    assert list((place.folder / "work").iterdir()) == []
    if deleted:
        assert job is None
        assert place.services.files.jobs() == []
    else:
        assert job.state == CANCELLED


def test_a_job_that_is_deleted_as_it_is_done_leaves_no_files(place, strange, real_clip):
    strange("(results / 'report.json').write_text('{}')")
    id = place.add(real_clip)
    put = place.services.files.put

    def late(*arguments):
        place.store.delete(id)
        place.services.files.delete(id)
        put(*arguments)

    place.services.files.put = late
    assert place.do(id) is None
    assert place.services.files.jobs() == []


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("time.sleep(99)", "got stuck"),
        (SLOW, "more than 0.03 minutes"),
        ("import numpy; kept = [numpy.empty(1 << 30, 'u1') for _ in range(9)]", "more memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "broke down"),
        ("tell({'progress': 'much'})", "broke down"),
        ("raise analysis.UnmaskError('/srv/model.xml is not there')", "whoever runs it"),
    ],
)
def test_what_can_go_wrong_is_told(place, strange, real_clip, monkeypatch, body, error):
    if "sleep(99)" in body:
        monkeypatch.setattr(worker, "SILENT_SECONDS", 1.0)
    place.settings.time_limit = 0.03 if body == SLOW else 1.0
    strange(body)
    job = place.do(place.add(real_clip))
    assert job.state == FAILED
    assert error in job.error
    assert "/srv" not in job.error
    assert place.children() == []
    assert place.states(job.id) == [QUEUED, *[RUNNING] * (2 if "broke" in error else 1), FAILED]


def test_a_child_has_nothing_of_the_server(place, strange, real_clip, monkeypatch):
    for name in ("UNMASK_DATABASE", "UNMASK_ACCESS_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "a secret")
    monkeypatch.setattr(place.settings, "time_limit", 5.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        strange(f"""
    import json, resource
    try:
        socket.create_connection(("127.0.0.1", {port}), 2)
        reached = True
    except OSError:
        reached = False
    names = ("AS", "CPU", "FSIZE", "NOFILE", "CORE")
    limits = {{n: resource.getrlimit(getattr(resource, f"RLIMIT_{{n}}")) for n in names}}
    about = {{"reached": reached, "environment": dict(os.environ), "limits": limits,
              "session": os.getsid(0) == os.getpid(), "nice": os.nice(0)}}
    (results / "report.json").write_text(json.dumps(about))
    (results / "frames.csv").symlink_to("/etc/passwd")
""")
        job = place.do(place.add(real_clip))
    assert job.state == DONE
    with place.open(job.id, "report.json") as file:
        about = json.load(file)
    if subprocess.run(["unshare", "-rn", "true"]).returncode == 0:  # containers may forbid it
        assert about["reached"] is False
    assert "a secret" not in about["environment"].values()
    assert not any(name.startswith("UNMASK_") for name in about["environment"])
    assert about["limits"]["AS"] == [MOST_MEMORY] * 2
    assert about["limits"]["CORE"] == [0, 0]
    assert all(soft == hard > -1 for soft, hard in about["limits"].values())
    assert about["session"]
    assert about["nice"] >= 10
    with pytest.raises(FileNotFoundError):
        place.open(job.id, "frames.csv")


def test_videos_are_judged_with_the_settings_of_the_worker(place, fake_clip):
    place.settings.threshold, place.settings.uncertain, place.settings.max_frames = 1.0, 0.0, 2
    job = place.do(place.add(fake_clip))
    assert (job.state, job.verdict) == (DONE, "real")
    with place.open(job.id, "report.json") as file:
        (track,) = json.load(file)["tracks"]
    assert len(track["frames"]) == 2


def test_unreadable_and_too_long_files(place, tmp_path, real_clip):
    text = tmp_path / "text.mp4"
    text.write_bytes(bytes(99))
    job = place.do(place.add(text, "my holiday.mp4"))
    assert (job.state, job.verdict, job.probability_fake) == (DONE, "unreadable", None)
    with place.open(job.id, "result.json") as file:
        result = json.load(file)
    assert result["headline"] == job.headline == "The file could not be read."
    assert result["report"]["reason"].startswith("my holiday.mp4 is no video")
    assert result["people"] == []
    assert not place.store.ask_for_annotated(job.id)
    place.settings.longest_video = 0.04
    job = place.do(place.add(real_clip))
    assert (job.state, job.error) == (
        FAILED, "The video lasts 0.1 minutes; at most 0.04 are taken here: cut out the part that "
        "matters and hand that in.",
    )  # fmt: skip


def test_a_file_from_a_web_address(place, tmp_path, monkeypatch, real_clip):
    (tmp_path / "shown").mkdir()
    shutil.copy(real_clip, tmp_path / "shown" / "clip")
    show = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path / "shown")
    with ThreadingHTTPServer(("127.0.0.1", 0), show) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever)
        open_up = "import sys; from pathlib import Path; from unmask.web import analysis, fetch; "
        open_up += f"fetch._ALLOW_LOOPBACK, fetch._PORTS = True, ({server.server_port},); "
        open_up += "sys.exit(analysis.main(Path(sys.argv[1])))"
        monkeypatch.setattr(child, "COMMAND", (sys.executable, "-c", open_up))
        address = f"http://127.0.0.1:{server.server_port}/clip"
        common = {"keep": timedelta(hours=1), "queue_limit": 9}
        jobs = [place.store.add("me", "clip", "", 0, address=a, **common).id
                for a in (address, address, f"{address}s")]  # fmt: skip
        assert "Nothing is fetched" in place.do(jobs[0]).error
        place.settings.web_addresses = True
        left = tmp_path / "left by a worker that died"
        shutil.copy(real_clip, left)
        place.services.files.put(jobs[1], "source", left)
        judged, failed = place.do(jobs[1]), place.do(jobs[2])
        server.shutdown()
    size = real_clip.stat().st_size
    assert (judged.state, judged.kind, judged.size_bytes) == (DONE, "mp4", size)
    with place.services.files.open(judged.id, "source") as file:
        assert file.seek(0, os.SEEK_END) == size
    assert (failed.state, "answers 404" in failed.error) == (FAILED, True)


def test_a_file_that_is_gone(place, real_clip):
    id = place.add(real_clip)
    place.services.files.delete(id)
    assert place.do(id).error == "The file is gone: hand it in again."


@pytest.mark.parametrize("task", ["fetch", "put"])
def test_a_storage_that_is_away_costs_no_job(place, strange, real_clip, monkeypatch, task):
    def fail(*_):
        raise ConnectionError("nobody is there")

    strange("(results / 'report.json').write_text('{}')")
    id = place.add(real_clip)
    notes = place.services.tasks.waiting
    with monkeypatch.context() as away:
        away.setattr(place.services.files, task, fail)
        for _ in range(MAX_ATTEMPTS + 1):
            job = place.do(id)
            assert (job.state, job.attempts, job.claim) == (QUEUED, 0, None)
    assert place.services.tasks.waiting == notes  # it is not tried over and over
    assert place.do(id).state == DONE
    place.store.ask_for_annotated(id)
    with monkeypatch.context() as away:
        away.setattr(place.services.files, "fetch", fail)
        assert place.do(id).annotated == QUEUED


def test_a_storage_that_hangs_costs_no_job_and_holds_up_no_end(
    place, strange, real_clip, monkeypatch
):
    strange("(results / 'report.json').write_text('{}')")
    monkeypatch.setattr(place.settings, "time_limit", 0.05)
    monkeypatch.setattr(worker, "RENEW_SECONDS", 0.1)
    id, put = place.add(real_clip), place.services.files.put

    def late(*arguments):
        assert threading.current_thread().daemon  # the interpreter's end does not wait for it
        time.sleep(3.5)
        put(*arguments)

    monkeypatch.setattr(place.services.files, "put", late)
    job = place.do(id)
    assert (job.state, job.error) == (DONE, None)


def test_what_is_left_over_is_deleted_while_a_server_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(house, "CLEAN_SECONDS", 0.01)
    ending, left = threading.Event(), tmp_path / "left"
    with ThreadPoolExecutor(1) as pool:
        pool.submit(house.keep_clean, tmp_path, ending)
        left.touch()
        os.utime(left, (0, 0))
        for _ in range(500):
            if not left.exists():
                break
            time.sleep(0.01)
        ending.set()
    assert not left.exists()


def test_what_is_too_old_is_deleted(place, real_clip, monkeypatch):
    kept, old = place.add(real_clip), place.add(real_clip, keep=timedelta(seconds=-1))
    ownerless = new_id()
    (place.folder / "jobs" / ownerless).mkdir()
    (place.folder / "jobs" / "not ours").mkdir()
    for name in ("work", "incoming"):
        for age in (0, 3600):
            file = place.folder / name / str(age)
            file.parent.mkdir(exist_ok=True)
            file.touch()
            os.utime(file, (time.time() - age,) * 2)
    keeper = House(place.services)
    keeper.clean()
    assert place.store.get(old) is None
    assert set(place.services.files.jobs()) == {kept, ownerless, "not ours"}
    keeper.clean()
    assert set(place.services.files.jobs()) == {kept, "not ours"}
    for name in ("work", "incoming"):
        assert [path.name for path in (place.folder / name).iterdir()] == ["0"]


def test_the_files_of_a_job_that_is_added_meanwhile_stay(place, monkeypatch):
    keeper, files, id = House(place.services), place.services.files, new_id()
    (place.folder / "jobs" / id).mkdir(parents=True)
    keeper.clean()  # its upload takes long
    jobs = files.jobs

    def add_meanwhile():
        found = jobs()
        place.store.add("me", "a.mp4", "mp4", 1, keep=timedelta(hours=1), queue_limit=9, id=id)
        return found

    monkeypatch.setattr(files, "jobs", add_meanwhile)
    keeper.clean()
    assert jobs() == [id]


def test_one_question_tells_which_files_have_a_job(place, real_clip):
    ids = {place.add(real_clip) for _ in range(3)}
    asked = []
    event.listen(place.store._engine, "before_cursor_execute", lambda *about: asked.append(about))
    House(place.services).clean()
    assert len(asked) == 2  # what is expired, and what there is
    assert set(place.services.files.jobs()) == ids


def test_what_cannot_be_deleted_does_not_keep_the_rest(place, monkeypatch):
    for number in range(3):
        folder = place.folder / "incoming" / str(number)
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0))
    delete = shutil.rmtree

    def refuse(path):
        if path.name == "1":
            raise PermissionError(path)
        delete(path)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    House(place.services).clean()
    assert [path.name for path in (place.folder / "incoming").iterdir()] == ["1"]


def test_jobs_that_the_queue_has_lost_are_handed_out_again_but_not_over_and_over(place, real_clip):
    ids = [place.add(real_clip) for _ in range(3)]
    tasks, keeper = place.services.tasks, House(place.services)
    keeper.sweep()
    assert tasks.waiting == 3
    claims = [place.store.claim(id) for id in ids[:2]]
    (place.folder / "queue.db").rename(place.folder / "lost.db")
    again = Tasks(place.folder / "queue.db")
    keeper = House(dataclasses.replace(place.services, tasks=again))
    for _ in range(5):
        keeper.sweep()
    assert again.waiting == 1
    assert all(claims)


@pytest.mark.parametrize(
    ("package", "extra", "option"),
    [("huey", "web", "--workers=1"), ("redis", "cluster", "--queue=redis://127.0.0.1/0")],
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, package, extra, option):
    run = f"import sys; sys.modules['{package}'] = None; from unmask.cli import main; "
    run += "sys.exit(main(['worker', '--data-folder', *sys.argv[1:]]))"
    command = [sys.executable, "-c", run, str(tmp_path), option]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"needs the package {package}" in done.stderr
    assert f"pip install '.[{extra}]'" in done.stderr
