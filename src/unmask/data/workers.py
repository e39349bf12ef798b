"""Processes that cut videos side by side; one that dies takes no other video with it."""

import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import cv2

from unmask.data import records
from unmask.data.cut import Job, cut_video
from unmask.data.records import Record
from unmask.errors import DatasetError, UnmaskError
from unmask.faces import FaceDetector
from unmask.processors import processors


class _Worker:
    """A process and the pipe to it; ``job`` is what it is busy with, None while it starts."""

    def __init__(self, settings: dict[str, Any], decoder_threads: int):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, settings, decoder_threads), daemon=True
        )
        with _deaf_to_ctrl_c():
            self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.job: Job | None = None

    def give(self, job: Job) -> None:
        """Send a job. If it died meanwhile, the next ``hear`` says so."""
        self.job = job
        with suppress(OSError):
            self.pipe.send(job)

    def hear(self) -> Record | None:
        """What it has to say: a record, or None when it is merely ready.

        Closes its pipe when it died; the video it was busy with then gets a record that says so.
        """
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            self.pipe.close()
            self.process.join()
            return self._obituary()
        if isinstance(message, UnmaskError):
            raise message
        return message

    def _obituary(self) -> Record:
        code = self.process.exitcode
        if self.job is None:
            raise DatasetError(
                f"the processes that read videos cannot start (exit code {code}): see what is "
                "printed above; a script that calls preprocess needs if __name__ == '__main__'"
            )
        # It may have died between its record and its word.
        if record := records.read_record(self.job.output, self.job.id):
            return record
        record = Record(
            id=self.job.id,
            label=self.job.source.label,
            video=self.job.source.name,
            reason=f"the process that read it died (exit code {code}); the next run tries again",
            is_final=False,
        )
        records.write_record(self.job.output, record)
        return record


def work(
    jobs: list[Job], workers: int = 0, done_before: int = 0, faces_before: int = 0
) -> Iterator[Record]:
    """Cut all videos with so many processes (0: one a processor); a record each, as they end.

    Shows a progress bar. Raises DatasetError when the processes cannot start or cannot write.
    """
    if not jobs:
        return
    cpus = processors()
    workers = min(workers or cpus, len(jobs))
    queue = deque(jobs)
    how = jobs[0].settings, max(1, cpus // workers)
    crew: list[_Worker] = []
    try:
        crew += (_Worker(*how) for _ in range(workers))
        with _Progress(len(jobs), done_before, faces_before) as progress:
            while crew:
                ready = wait([worker.pipe for worker in crew])
                for worker in [w for w in crew if w.pipe in ready]:
                    if record := worker.hear():
                        progress.add(record)
                        yield record
                    if worker.pipe.closed and queue:
                        crew.append(_Worker(*how))
                    elif queue:
                        worker.give(queue.popleft())
                    else:
                        worker.pipe.close()  # it goes home
                crew = [worker for worker in crew if not worker.pipe.closed]
    finally:
        for worker in crew:
            worker.process.terminate()
        for worker in crew:
            worker.process.join()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started in here leave Ctrl-C to their parent from their first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change what a signal does
        return
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _serve(pipe: Connection, settings: dict[str, Any], decoder_threads: int) -> None:
    """The life of a worker: get ready, then a job in, a record out, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it is not inherited
    cv2.setNumThreads(1)
    try:
        detector = FaceDetector(
            settings["detection_size"], settings["detection_score"], settings["min_face"], threads=1
        )
        pipe.send(None)
        while True:
            pipe.send(cut_video(pipe.recv(), detector, decoder_threads))
    except UnmaskError as error:
        pipe.send(error)
    except (EOFError, OSError):
        pass  # the parent is done, or gone


class _Progress:
    """A bar on standard error: videos, faces, videos a second, time left."""

    def __init__(self, todo: int, done_before: int, faces_before: int):
        from rich import progress
        from rich.console import Console

        self._faces, self._failed = faces_before, 0
        self._bar = progress.Progress(
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("videos  {task.fields[news]}"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(
            "", total=todo + done_before, completed=done_before, news="starting"
        )

    def add(self, record: Record) -> None:
        """Count one finished video."""
        self._faces += record.faces
        self._failed += bool(record.reason)
        speed = self._bar.tasks[0].speed
        rate = f"  {speed:.2g} a second" if speed else ""
        news = f"{self._faces} faces  {self._failed} without{rate}"
        self._bar.update(self._task, advance=1, news=news)

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()
