"""What does the jobs: takes them from the queue and has each one done by processes of its own.

The worker itself never opens a video. For every job it starts unmask.web.analysis, tells the
database how that goes, and ends it when it takes too long, says nothing any more or is no longer
wanted. Whatever dies, no job is lost: a child that breaks down is started once more; a worker that
dies loses its lease, and the job goes to the next one.
"""

import logging
import os
import shutil
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from unmask.processors import processors
from unmask.settings import shared
from unmask.web.analysis import RESULTS, Order, source
from unmask.web.child import BrokeDown, Child
from unmask.web.files import REPORT_JSON, SOURCE
from unmask.web.house import WORK, House
from unmask.web.intake import upload_bytes
from unmask.web.monitoring import log_as_json
from unmask.web.services import Services, check_judging, connect
from unmask.web.tables import CANCELLED, DONE, FAILED, RUNNING, Job

PARENT = "UNMASK_PARENT"
"""The environment variable with the process that a worker ends with, if a server started it."""

RENEW_SECONDS = 1.0  # between two signs of life; also how soon a cancelled job stops
SILENT_SECONDS = 150.0  # without a word, and the child hangs
FETCH_SECONDS = 600.0  # for a file from a web address; nothing is said on the way
END_SECONDS = 20.0  # to give all jobs back

_POLL_SECONDS = 0.5
_BROKE_DOWN = "The analysis broke down on this file: convert it to MP4 or JPEG and try again."
_HANGS = "The analysis got stuck on this file: convert it to MP4 or JPEG and try again."
_NO_ADDRESSES = "Nothing is fetched from the web here: download the video and upload the file."

_log = logging.getLogger(__name__)
T = TypeVar("T")


class _Failed(Exception):
    """The job cannot be done; the text says why and what to do."""


class _NotWanted(Exception):
    """The job is cancelled, deleted or another worker's."""


class _Ending(Exception):
    """This worker is to end."""


class _NotStored(Exception):
    """The storage gave or took no file: it is away for a while, perhaps."""


@dataclass(frozen=True)
class _Held:
    """A job that this worker holds: what is to be done, and where."""

    job: Job
    claim: str
    task: str  # 'judge' or 'annotate'
    folder: Path


def run(settings: SimpleNamespace) -> int:
    """Do jobs until SIGTERM or SIGINT, or until the server ends that started this process.

    Raises SettingError, ModelError and UsageError, before anything is done, as ``connect`` and
    ``check_judging`` do.
    """
    check_judging(settings)
    os.umask(0o077)  # what people hand in is nobody else's on this machine
    log_as_json()
    services = connect(settings)
    worker, house = Worker(services, settings), House(services)
    consumer = services.tasks.consumer(worker.look_at, worker.jobs_at_once)
    consumer.shutdown_timeout = END_SECONDS
    consumer.start()
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: signals.append(1))  # in place of the consumer's own
    keeper = threading.Thread(target=house.keep, args=(worker.ending,), daemon=True)
    keeper.start()
    parent = int(os.environ.get(PARENT, "0"))
    _log.info("worker is ready", extra={"jobs_at_once": worker.jobs_at_once})
    while not signals and (not parent or os.getppid() == parent):
        time.sleep(_POLL_SECONDS)
        consumer.check_worker_health()
    worker.ending.set()
    end = time.monotonic() + END_SECONDS
    consumer.stop(graceful=True)
    keeper.join(max(0.0, end - time.monotonic()))
    services.store.close()
    return 0


class Worker:
    """Does jobs, in as many threads as call it. ``ending`` is set when it is to stop."""

    def __init__(self, services: Services, settings: SimpleNamespace):
        cores = processors()
        self.jobs_at_once = settings.workers or cores
        self.ending = threading.Event()
        self._threads = max(1, cores // self.jobs_at_once)
        self._settings, self._tasks = settings, services.tasks
        self._store, self._files = services.store, services.files
        self._work = services.folder / WORK
        self._work.mkdir(mode=0o700, exist_ok=True)

    def look_at(self, id: str) -> None:
        """Do what there is to do for a job, if nobody else is at it."""
        if self.ending.is_set():
            self._tasks.submit(id)
        elif claim := self._store.claim(id):
            self._hold(id, claim, "judge")
        elif claim := self._store.claim_annotated(id):
            self._hold(id, claim, "annotate")

    def _hold(self, id: str, claim: str, task: str) -> None:
        """Do a job that is claimed, and end the claim."""
        job, start = self._store.get(id), time.monotonic()
        if not job:
            return  # deleted in between
        folder = Path(tempfile.mkdtemp(dir=self._work))
        held = _Held(job, claim, task, folder)
        end = "lost"  # when the database is away, say: the lease runs out
        try:
            self._do(held)
            end = DONE
        except _Failed as error:
            end = FAILED
            if task == "annotate":
                self._store.finish_annotated(id, claim, FAILED)
            else:
                self._store.finish(id, claim, FAILED, error=str(error))
        except _NotWanted:
            end = "not wanted"
            self._drop(id, claim)
        except _Ending:
            end = "given back"
            self._store.release(id, claim)
            self._tasks.submit(id)
        except _NotStored:
            end = "given back"  # and handed out again by whoever keeps house, not at once
            _log.exception("the storage does not answer", extra={"job": id})
            self._store.release(id, claim)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            seconds = round(time.monotonic() - start, 2)
            _log.info("job ended", extra={"job": id, "task": task, "end": end, "seconds": seconds})

    def _do(self, held: _Held) -> None:
        """Have the job done, keep what was made, and say so."""
        id, is_judged = held.job.id, held.task == "judge"
        kind, is_fetched = held.job.kind, is_judged and held.job.address is not None
        if is_fetched:
            # Also where a worker that died has put the file: nobody wrote down what kind it is.
            if not self._settings.web_addresses:
                raise _Failed(_NO_ADDRESSES)
            kind = str(self._have_done(held, "fetch", kind)["kind"])
        else:
            try:
                if not is_judged:
                    self._bring(held, REPORT_JSON, held.folder / REPORT_JSON)
                self._bring(held, SOURCE, source(held.folder, kind))
            except FileNotFoundError:
                raise _Failed("The file is gone: hand it in again.") from None
        found = self._have_done(held, held.task, kind)
        file = source(held.folder, kind)
        size = file.stat().st_size
        made = [(path, path.name) for path in sorted((held.folder / RESULTS).iterdir())]
        for path, name in [*made, (file, SOURCE)] if is_fetched else made:
            if stat.S_ISREG(path.lstat().st_mode):  # a link could lead to anything of the server's
                self._meanwhile(held, self._files.put, id, name, path)
        if is_judged:
            is_ours = self._store.finish(
                id, held.claim, DONE, kind=kind, size_bytes=size, verdict=found["verdict"],
                probability_fake=found["probability_fake"], headline=found["headline"],
            )  # fmt: skip
        else:
            is_ours = self._store.finish_annotated(id, held.claim, "ready")
        if not is_ours:
            raise _NotWanted

    def _bring(self, held: _Held, name: str, target: Path) -> None:
        """Put one of the job's files where the child finds it. Raises FileNotFoundError."""
        found = self._meanwhile(held, self._files.fetch, held.job.id, name, target)
        if found != target:
            target.symlink_to(found)

    def _meanwhile(self, held: _Held, do: Callable[..., T], *arguments: Any) -> T:
        """Have the storage do something, which may take long, and keep the job meanwhile.

        Raises FileNotFoundError, or _NotStored for whatever else went wrong.
        """
        doing: Future[T] = Future()

        def work() -> None:
            try:
                doing.set_result(do(*arguments))
            except Exception as error:
                doing.set_exception(error)

        # No executor: a worker that ends would wait for its thread, for as long as that hangs.
        threading.Thread(target=work, daemon=True).start()
        while not wait([doing], RENEW_SECONDS).done:
            self._keep(held)
        try:
            return doing.result()
        except FileNotFoundError:
            raise
        except Exception as error:
            raise _NotStored from error

    def _have_done(self, held: _Held, task: str, kind: str) -> dict[str, Any]:
        """What a child found. One that breaks down, or is killed, is started once more."""
        settings = self._settings
        seconds = 60 * settings.time_limit  # what the storage takes does not count
        deadline = time.monotonic() + seconds
        if task == "fetch":
            seconds = min(seconds, FETCH_SECONDS)
        order = Order(
            task, held.job.name, kind, held.job.address, os.getpid(), self._threads, seconds,
            settings.longest_video, upload_bytes(settings), shared(settings, "detect"),
        )  # fmt: skip
        for attempt in (1, 2):
            if attempt == 2:  # the faces that were told of are void
                self._keep(held, 0.0, [("state", {"state": RUNNING})])
            shutil.rmtree(held.folder / RESULTS, ignore_errors=True)
            with Child(order, held.folder) as child:
                try:
                    patience = seconds if task == "fetch" else SILENT_SECONDS
                    return self._hear(held, child, patience, deadline)
                except (BrokeDown, _Failed) as error:
                    # Why somebody's file is refused is said to them: it may have names in it.
                    problem = str(error) if isinstance(error, BrokeDown) else "refused or stopped"
                    about = {"job": held.job.id, "task": task, "problem": problem}
                    _log.warning("no result", extra=about | {"printed": child.log})
                    if isinstance(error, _Failed):
                        raise
        raise _Failed(_BROKE_DOWN)

    def _hear(self, held: _Held, child: Child, patience: float, deadline: float) -> dict[str, Any]:
        """Pass on what a child says until it is done: what it found. Raises BrokeDown."""
        progress, heard = 0.0, time.monotonic()
        renewed = heard
        while True:
            said, now = child.listen(RENEW_SECONDS), time.monotonic()
            try:
                told = [what for what in said if "progress" in what]
                done = [dict(what["done"]) for what in said if "done" in what]
                failed = [str(what["failed"]) for what in said if "failed" in what]
                progress = max([progress, *(float(what["progress"]) for what in told)])
            except (TypeError, ValueError):
                raise BrokeDown("it said what nobody asked for") from None
            if told or now - renewed >= RENEW_SECONDS:
                self._keep(held, progress, [("faces", what) for what in told])
                renewed = now
            if failed:
                raise _Failed(failed[0])
            if done:
                return done[0]
            if now > deadline:
                raise _Failed(
                    f"It took more than {self._settings.time_limit:g} minutes, which is all that "
                    "one file gets here: cut out the part that matters and hand that in."
                )
            if said:
                heard = now
            elif now - heard > patience:
                raise _Failed(_HANGS)

    def _keep(
        self, held: _Held, progress: float = 0.0, events: Iterable[tuple[str, dict]] = ()
    ) -> None:
        """Show that the job is being worked on. Raises what ends that."""
        if self.ending.is_set():
            raise _Ending
        if held.task == "annotate":
            progress, events = 1.0, ()  # the job itself is done
        if not self._store.renew(held.job.id, held.claim, progress, events):
            raise _NotWanted
        os.utime(held.folder)  # it is not left over

    def _drop(self, id: str, claim: str) -> None:
        """End a job that is not wanted any more; what is another worker's is left alone."""
        job = self._store.get(id)
        if job is None:
            self._files.delete(id)
        elif job.claim == claim and job.state == RUNNING:
            self._store.finish(id, claim, CANCELLED)
