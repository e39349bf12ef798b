"""What happens to a job, as server-sent events, to any number of viewers.

All viewers of a job share one tail of its events. Whichever of them is first to find that it is
time looks into the database for all; nobody looks when nobody watches, and there is no thread but
the viewers' own.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from unmask.web.store import Event, Store
from unmask.web.tables import FINISHED, RUNNING, Job

HEARTBEAT = 15.0
"""Seconds of silence after which a comment tells a viewer's connection from a dead one."""

MOST_STREAMS = 200
"""Open event streams; each holds a thread of the server."""

_SHORTEST_WAIT = 0.2  # seconds between two looks into the database while a job is worked on
_LONGEST_WAIT = 1.0  # and while it waits: many may
_KEPT = 32  # newest events that a tail keeps; who is further behind reads the database
_BATCH = 50  # events read at once: one can carry 8 pictures
_MAKING = ("queued", "running")  # an annotated copy that will have an event yet


class _Tail:
    """The newest events of one job, and whether more will come."""

    def __init__(self, store: Store, job: str, after: int):
        self.viewers = 0
        self.ended = False
        self._store, self._job = store, job
        self._news = threading.Condition()
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._last = after  # the number of the newest event that is known
        self._looking = False
        self._wait, self._next_look = _SHORTEST_WAIT, 0.0

    def after(self, number: int) -> Sequence[Event] | None:
        """The events after one, perhaps none yet; None when there will be no more.

        Waits a second at most.
        """
        with self._news:
            left = self._next_look - time.monotonic()
            must_look = number >= self._last and left <= 0 and not self._looking
            if must_look:
                self._looking = True
            elif number >= self._last:
                self._news.wait(left if left > 0 else _LONGEST_WAIT)
        if must_look:
            self._look()
        with self._news:
            if number >= self._last:
                return None if self.ended else ()
            if self._events and self._events[0].number <= number + 1:
                return [event for event in self._events if event.number > number]
        return self._store.events(self._job, number, _BATCH)

    def wake(self) -> None:
        """Let waiting viewers go on."""
        with self._news:
            self._news.notify_all()

    def _look(self) -> None:
        job, events, is_busy = None, (), False
        try:
            # In this order: when the job has ended, its last event is there.
            job = self._store.get(self._job)
            events = self._store.events(self._job, self._last, _BATCH)
            self.ended = not events and (job is None or has_ended(job))
            is_busy = bool(events) or (job is not None and RUNNING in (job.state, job.annotated))
        finally:
            with self._news:
                self._events.extend(events)
                self._last = events[-1].number if events else self._last
                self._wait = _SHORTEST_WAIT if is_busy else min(2 * self._wait, _LONGEST_WAIT)
                self._next_look = time.monotonic() + self._wait
                self._looking = False
                self._news.notify_all()


def has_ended(job: Job) -> bool:
    """Whether nothing will happen to a job any more unless somebody asks for it."""
    return job.state in FINISHED and job.annotated not in _MAKING


class Streams:
    """All open event streams of this process."""

    def __init__(self, store: Store):
        self.open = 0
        self._store = store
        self._tails: dict[str, _Tail] = {}
        self._lock = threading.Lock()
        self._closing = False

    def close(self) -> None:
        """End all streams, now and from now on."""
        with self._lock:
            self._closing = True
            tails = list(self._tails.values())
        for tail in tails:
            tail.wake()

    def follow(
        self, job: str, after: int = 0, is_gone: Callable[[], bool] = lambda: False
    ) -> Iterator[str]:
        """The events of a job after one, in the text form of server-sent events, until its end.

        ``is_gone`` tells, if the server knows, that the viewer has left.
        """
        if after and not self._store.events(job, after - 1, 1):
            after = 0  # there is no such event: not one of this job
        with self._counted():
            yield ": the events of one job\n\n"
            while events := self._store.events(job, after, _BATCH):
                for event in events:
                    yield as_text(event)
                    after = event.number
            with self._joined(job, after) as tail:
                yield from self._watch(tail, after, is_gone)

    def _watch(self, tail: _Tail, after: int, is_gone: Callable[[], bool]) -> Iterator[str]:
        spoken = time.monotonic()
        while not self._closing and not is_gone():
            events = tail.after(after)
            if events is None:
                return
            for event in events:
                yield as_text(event)
                after = event.number
            if events:
                spoken = time.monotonic()
            elif time.monotonic() - spoken > HEARTBEAT:
                spoken = time.monotonic()
                yield ": still here\n\n"

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self.open += 1
        try:
            yield
        finally:
            with self._lock:
                self.open -= 1

    @contextmanager
    def _joined(self, job: str, after: int) -> Iterator[_Tail]:
        with self._lock:
            tail = self._tails.get(job)
            if tail is None or tail.ended:  # since then somebody asked for an annotated copy
                tail = self._tails[job] = _Tail(self._store, job, after)
            tail.viewers += 1
        try:
            yield tail
        finally:
            with self._lock:
                tail.viewers -= 1
                if not tail.viewers and self._tails.get(job) is tail:
                    del self._tails[job]


def as_text(event: Event) -> str:
    """One event as it goes over the line."""
    return f"id: {event.number}\nevent: {event.kind}\ndata: {json.dumps(event.data)}\n\n"
