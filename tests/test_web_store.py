"""Jobs, events and claims, on SQLite and on PostgreSQL."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import text, update

from unmask.web import store as room
from unmask.web import tables
from unmask.web.store import MAX_ATTEMPTS, QueueFullError, Store
from unmask.web.tables import CANCELLED, DONE, FAILED, FINISHED, QUEUED, RUNNING, Job

DAY = timedelta(days=1)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/unmask.db"
    return request.getfixturevalue("postgres")


@pytest.fixture
def store(database):
    store = Store(database)
    yield store
    store.close()


def add(store, name="a.mp4", owner="me", keep=DAY, queue_limit=1000):
    return store.add(owner, name, "mp4", 1, keep=keep, queue_limit=queue_limit)


def done(store, verdict="fake", **job):
    job = add(store, **job)
    assert store.finish(job.id, store.claim(job.id), DONE, verdict=verdict)
    return job


def at_once(count, do):
    """``do(number)`` in as many threads, all let go together: what each returned."""
    ready = threading.Barrier(count)

    def run(number):
        ready.wait()
        return do(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


def told(store, job):
    return [(e.kind, e.data["state"]) for e in store.events(job.id) if "state" in e.data]


def silent_for_long(store):
    """Every worker has died a while ago."""
    with store._session() as session:
        session.execute(update(Job).values(lease_until=datetime.now(UTC) - DAY))


def test_a_job_from_upload_to_verdict(store):
    before = datetime.now(UTC)
    job = store.add("me", "a.mp4", "mp4", 5_000_000_000, keep=DAY, queue_limit=1)
    claim = store.claim(job.id)
    assert store.renew(job.id, claim, 0.5, [("faces", {"progress": 0.5, "faces": []})])
    assert store.get(job.id).progress == 0.5
    assert store.finish(job.id, claim, DONE, verdict="fake", probability_fake=0.9, headline="Oh")
    kept = store.get(job.id)
    assert (kept.state, kept.verdict, kept.probability_fake, kept.progress, kept.headline) == (
        DONE, "fake", 0.9, 1.0, "Oh",
    )  # fmt: skip
    assert kept.size_bytes == 5_000_000_000
    assert before <= kept.created <= kept.started <= kept.finished <= datetime.now(UTC)
    assert kept.expires - kept.created == DAY
    for time in (kept.created, kept.started, kept.finished, kept.expires):
        assert time.utcoffset() == timedelta(0)
    events = store.events(job.id)
    assert [(e.number, e.kind) for e in events] == [
        (1, "state"), (2, "state"), (3, "faces"), (4, "state"),
    ]  # fmt: skip
    assert [e.data.get("state") for e in events] == [QUEUED, RUNNING, None, DONE]
    assert [e.number for e in store.events(job.id, after=2, limit=1)] == [3]


CLAIM_ALL = """
import sys
from unmask.web.store import Store
store = Store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(*(id for id in sys.argv[2:] if store.claim(id)))
"""


def test_many_processes_never_claim_the_same_job(database):
    # They also make the tables, all at the same time.
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM_ALL, database, *(f"job{i}" for i in range(20))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    assert all(process.stdout.readline() == "ready\n" for process in processes)
    store = Store(database)
    for i in range(20):
        store.add("me", "a.mp4", "mp4", 1, keep=DAY, queue_limit=20, id=f"job{i}")
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    claimed = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(chain(*claimed)) == sorted(f"job{i}" for i in range(20))
    store.close()


def test_many_threads_never_claim_the_same_job(store):
    jobs = [add(store) for _ in range(10)]
    claims = at_once(8, lambda _: [store.claim(job.id) for job in jobs])
    for of_one in zip(*claims, strict=True):
        assert sum(claim is not None for claim in of_one) == 1


def test_a_silent_worker_loses_its_job_and_can_change_nothing(store):
    job = add(store)
    lost = store.claim(job.id)
    assert store.claim(job.id) is None
    assert not store.abandoned()
    silent_for_long(store)
    assert [j.id for j in store.abandoned()] == [job.id]
    started = store.get(job.id).started
    claim = store.claim(job.id)
    assert claim not in (None, lost)
    assert not store.renew(job.id, lost, 0.9, [("faces", {"faces": ["late"]})])
    assert not store.finish(job.id, lost, FAILED, error="late")
    assert not store.abandoned()
    assert store.finish(job.id, claim, DONE, verdict="real")
    assert not store.finish(job.id, claim, DONE, verdict="fake")
    assert (store.get(job.id).verdict, store.get(job.id).started) == ("real", started)
    assert told(store, job) == [("state", s) for s in (QUEUED, RUNNING, RUNNING, DONE)]


def test_renewing_keeps_a_job(store, monkeypatch):
    monkeypatch.setattr(room, "_LEASE", timedelta(seconds=-1))
    job = add(store)
    claim = store.claim(job.id)
    assert store.abandoned()
    monkeypatch.setattr(room, "_LEASE", timedelta(seconds=30))
    assert store.renew(job.id, claim, 0.1)
    assert not store.abandoned()
    assert store.claim(job.id) is None


def test_a_job_that_ends_its_workers_fails(store):
    job = add(store)
    for _ in range(MAX_ATTEMPTS):
        assert store.claim(job.id)
        silent_for_long(store)
    assert store.claim(job.id) is None
    kept = store.get(job.id)
    assert kept.state == FAILED
    assert "try again" in kept.error
    assert told(store, job)[-1] == ("state", FAILED)
    assert not store.abandoned()


def test_cancelling(store):
    waiting, running, finished = add(store), add(store), done(store)
    claim = store.claim(running.id)
    assert store.cancel(waiting.id)
    assert store.claim(waiting.id) is None
    assert told(store, waiting) == [("state", QUEUED), ("state", CANCELLED)]
    assert store.cancel(running.id)
    assert store.get(running.id).state == RUNNING  # until its worker sees it
    assert not store.renew(running.id, claim, 0.5)
    assert store.finish(running.id, claim, CANCELLED)
    for job in (waiting, running, finished):
        assert not store.cancel(job.id)
    assert not store.cancel("nobody")


def test_a_job_that_is_to_be_stopped_is_not_started_again(store):
    job = add(store)
    store.claim(job.id)
    store.cancel(job.id)
    silent_for_long(store)
    assert store.claim(job.id) is None
    assert store.get(job.id).state == CANCELLED


def test_deleting_under_a_claim(store):
    job, other = add(store), add(store)
    claim = store.claim(job.id)
    assert store.delete(job.id)
    assert not store.delete(job.id)
    assert store.get(job.id) is None
    assert not store.events(job.id)
    assert not store.renew(job.id, claim, 0.5, [("faces", {})])
    assert not store.finish(job.id, claim, DONE)
    assert store.claim(job.id) is None
    assert not store.events(job.id)
    assert store.get(other.id).state == QUEUED


def test_deleting_while_events_are_written_leaves_nothing(store):
    for _ in range(5):
        job = add(store)
        claim = store.claim(job.id)

        def act(number, job=job, claim=claim):
            if number == 0:
                return store.delete(job.id)
            return [store.renew(job.id, claim, 0.5, [("faces", {})]) for _ in range(3)]

        assert at_once(3, act)[0]
        assert store.get(job.id) is None
        assert not store.events(job.id)


def test_events_of_two_writers_have_no_gaps_and_keep_their_order(store):
    job = add(store)
    claim = store.claim(job.id)

    def write(writer):
        for i in range(0, 30, 3):
            events = [("faces", {"writer": writer, "i": i + k}) for k in range(3)]
            assert store.renew(job.id, claim, 0.5, events)

    at_once(2, write)
    events = store.events(job.id)
    assert [e.number for e in events] == list(range(1, 63))
    for writer in (0, 1):
        own = [e.data["i"] for e in events if e.data.get("writer") == writer]
        assert own == list(range(30))


def test_no_more_jobs_wait_than_may(store):
    def try_to_add(_):
        try:
            return add(store, queue_limit=5)
        except QueueFullError:
            return None

    added = [job for job in at_once(12, try_to_add) if job]
    assert len(added) == 5
    assert store.counts() == {QUEUED: 5}
    store.claim(added[0].id)
    add(store, queue_limit=5)  # there is room again
    assert store.counts() == {QUEUED: 5, RUNNING: 1}


def test_how_many_are_ahead(store):
    jobs = [add(store) for _ in range(3)]
    assert [store.waiting_before(job) for job in jobs] == [0, 1, 2]
    store.claim(jobs[0].id)
    assert store.waiting_before(jobs[2]) == 1


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("", ["100%.mp4", "a_b.mp4", "axb.mp4", "Ärzte.mov", "O'Neil.mp4"]),
        ("%", ["100%.mp4"]),
        ("_", ["a_b.mp4"]),
        ("A_B", ["a_b.mp4"]),
        ("/", []),
        ("ärzte", ["Ärzte.mov"]),
        ("o'n", ["O'Neil.mp4"]),
        ("FAKE", ["axb.mp4"]),
        ("\0", []),
    ],
)
def test_search(store, search, found):
    for name in ("100%.mp4", "a_b.mp4", "Ärzte.mov", "O'Neil.mp4"):
        add(store, name)
    done(store, name="axb.mp4")
    add(store, "100% of somebody else_.mp4", owner="you")
    assert sorted(job.name for job in store.list("me", search=search)) == sorted(found)


def test_pages_of_a_history(store):
    names = [f"{i}.mp4" for i in range(5)]
    for name in names:
        add(store, name)
    pages, before = [], None
    while page := store.list("me", limit=2, before=before):
        pages.append([job.name for job in page])
        before = page[-1].created
    assert pages == [["4.mp4", "3.mp4"], ["2.mp4", "1.mp4"], ["0.mp4"]]


def test_what_was_kept_long_enough(store):
    old, new = add(store, keep=timedelta(seconds=-1)), add(store)
    assert store.expired() == [old.id]
    assert store.ids() == {old.id, new.id}
    store.delete(old.id)
    assert not store.expired()
    assert store.ids() == {new.id}


def test_an_annotated_copy(store):
    job = done(store)
    assert store.ask_for_annotated(job.id)
    assert not store.ask_for_annotated(job.id)
    assert [j.id for j in store.abandoned()] == [job.id]
    lost = store.claim_annotated(job.id)
    assert store.claim_annotated(job.id) is None
    assert store.renew(job.id, lost)
    silent_for_long(store)
    claim = store.claim_annotated(job.id)
    assert not store.finish_annotated(job.id, lost, "ready")
    assert store.finish_annotated(job.id, claim, "failed")
    assert store.ask_for_annotated(job.id)  # once more
    assert store.finish_annotated(job.id, store.claim_annotated(job.id), "ready")
    assert not store.ask_for_annotated(job.id)
    assert (store.get(job.id).annotated, store.get(job.id).state) == ("ready", DONE)
    assert [s for kind, s in told(store, job) if kind == "annotated"] == [
        "queued", "failed", "queued", "ready",
    ]  # fmt: skip


def test_an_annotated_copy_that_ends_its_workers_fails(store):
    job = done(store)
    store.ask_for_annotated(job.id)
    for _ in range(MAX_ATTEMPTS):
        assert store.claim_annotated(job.id)
        silent_for_long(store)
    assert store.claim_annotated(job.id) is None
    assert (store.get(job.id).annotated, store.get(job.id).state) == ("failed", DONE)


def test_an_annotated_copy_is_made_of_what_was_finished_while_being_stopped(store):
    job = add(store)
    claim = store.claim(job.id)
    store.cancel(job.id)
    store.finish(job.id, claim, DONE, verdict="real")
    assert store.ask_for_annotated(job.id)
    assert store.renew(job.id, store.claim_annotated(job.id))


def test_no_annotated_copy_where_there_is_nothing_to_show(store):
    running = add(store)
    store.claim(running.id)
    for job in (running, add(store), done(store, verdict="unreadable")):
        assert not store.ask_for_annotated(job.id)


def test_a_worker_that_ends_on_purpose_gives_its_job_back(store):
    job = add(store)
    for _ in range(MAX_ATTEMPTS + 1):  # which is no attempt
        claim = store.claim(job.id)
        assert store.renew(job.id, claim, 0.5)
        store.release(job.id, claim)
        assert store.get(job.id).state == QUEUED
        assert not store.finish(job.id, claim, DONE)
    assert told(store, job)[-2:] == [("state", RUNNING), ("state", QUEUED)]
    newer = store.claim(job.id)
    store.release(job.id, claim)
    assert store.renew(job.id, newer)  # nobody gives back what another holds
    store.finish(job.id, newer, DONE, verdict="real")
    store.ask_for_annotated(job.id)
    store.release(job.id, store.claim_annotated(job.id))
    assert (store.get(job.id).annotated, store.get(job.id).state) == ("queued", DONE)
    assert store.claim_annotated(job.id)


def test_share_links(store):
    job = add(store)
    for share in ("secret", "late"):  # the first is what somebody was told
        store.set_share(job.id, share)
        assert store.get(job.id).share == "secret"
    store.set_share(job.id, None)
    assert store.get(job.id).share is None


def test_a_database_that_hangs_does_not_hang_who_asks(postgres, monkeypatch):
    monkeypatch.setattr(tables, "_LONGEST_SILENCE", 2.0)
    store = Store(postgres)
    job = add(store)
    with store._engine.connect() as connection:
        server = connection.scalar(text("SELECT pg_backend_pid()"))
    os.kill(server, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(store.get, job.id)
            try:
                assert isinstance(asked.exception(20), OSError)
            finally:
                os.kill(server, signal.SIGCONT)
        assert store.get(job.id).state == QUEUED
    finally:
        store.close()


def test_no_id_makes_the_database_fail(store):
    for id in ("", "\0", "x" * 1000, "'; DROP TABLE jobs; --", "\N{SNOWMAN}"):
        assert store.get(id) is None


def test_what_is_deleted_is_not_in_the_files_of_sqlite(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/unmask.db")
    reader = Store(f"sqlite:///{tmp_path}/unmask.db")  # the other process keeps the log open
    for i in range(12):
        job = add(store, f"secret-name-{i}.mp4")
        claim = store.claim(job.id)
        for _ in range(10):
            store.renew(job.id, claim, 0.5, [("faces", {"crop": "secret-face" * 50})])
        store.finish(job.id, claim, DONE, headline="secret-verdict")

    def kept() -> int:
        return sum(file.read_bytes().count(b"secret") for file in tmp_path.iterdir())

    assert kept() > 100
    for job in reader.list("me"):
        assert store.delete(job.id)
        assert job.name.encode() not in b"".join(f.read_bytes() for f in tmp_path.iterdir())
    assert kept() == 0
    reader.close()
    store.close()


class LifeOfAJob(RuleBasedStateMachine):
    """Whatever workers and people do, in whatever order: a job ends once and stays as it ended."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(f"sqlite:///{Path(self.folder.name)}/unmask.db")
        self.id = add(self.store).id
        self.claims = ["nobody's"]
        self.end = None

    def teardown(self):
        self.store.close()
        self.folder.cleanup()

    @rule()
    def claim(self):
        if claim := self.store.claim(self.id):
            assert self.end is None
            self.claims.append(claim)

    @rule(back=st.integers(1, 3))
    def renew(self, back):
        if self.store.renew(self.id, self.claims[-back:][0], 0.5, [("faces", {})]):
            assert self.end is None

    @rule(back=st.integers(1, 3), state=st.sampled_from(FINISHED))
    def finish(self, back, state):
        claim = self.claims[-back:][0]
        if self.store.finish(self.id, claim, state):
            assert self.end is None
            assert claim == self.claims[-1]

    @rule(back=st.integers(1, 3))
    def release(self, back):
        self.store.release(self.id, self.claims[-back:][0])

    @rule()
    def cancel(self):
        assert self.store.cancel(self.id) == (self.end is None)

    @rule()
    def worker_dies(self):
        silent_for_long(self.store)

    @precondition(lambda self: self.end)
    @rule()
    def annotate(self):
        if self.store.ask_for_annotated(self.id):
            assert self.end == DONE

    @invariant()
    def it_ended_once(self):
        state = self.store.get(self.id).state
        if self.end:
            assert state == self.end
        elif state in FINISHED:
            self.end = state
        events = self.store.events(self.id)
        assert [e.number for e in events] == list(range(1, len(events) + 1))
        states = [e.data["state"] for e in events if e.kind == "state"]
        assert states[-1] == state
        assert sum(s in FINISHED for s in states) == (self.end is not None)


LifeOfAJob.TestCase.settings = settings(max_examples=15, stateful_step_count=20)
TestLifeOfAJob = LifeOfAJob.TestCase
