"""What is known of every job: one database, SQLite or PostgreSQL, that all processes share.

A job is one video or image that somebody handed in. Its life: ``queued`` -> ``running`` ->
``done``, ``failed`` or ``cancelled``. The annotated copy of a job that is done is made when
somebody asks for it: ``none`` -> ``queued`` -> ``running`` -> ``ready`` or ``failed``.

A worker holds what it works on by a claim, whose lease it renews; when it dies, the lease runs out
and another worker may claim the job. Whatever a worker writes names its claim, so one that lost
its job can no longer change it: a job finishes once.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import URL, ColumnElement, delete, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, sessionmaker

from unmask.web.tables import (
    CANCELLED,
    DONE,
    FAILED,
    QUEUED,
    RUNNING,
    EventRow,
    Job,
    empty_log,
    go_alone,
    open_database,
)  # fmt: skip

LEASE_SECONDS = 30.0
"""How long a worker may be silent before its job is given to another."""

MAX_ATTEMPTS = 3
"""A job that ended so many workers is what ends them: it fails."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a job; numbers rise from 1 without gaps."""

    number: int
    kind: str
    data: dict[str, Any]


class QueueFullError(Exception):
    """As many jobs wait as may."""


class Store:
    """All that is asked of the database. Every method is one transaction; threads may share it.

    ``url`` is SQLAlchemy's, e.g. ``sqlite:////data/unmask.db`` or
    ``postgresql+pg8000://user@host/unmask``. Tables are made where there are none.
    """

    def __init__(self, url: str | URL):
        self._engine = open_database(url)
        self._session = sessionmaker(self._engine, expire_on_commit=False).begin

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # What people do.

    def add(
        self, owner: str, name: str, kind: str, size_bytes: int, *, keep: timedelta,
        queue_limit: int, id: str | None = None, address: str | None = None,
    ) -> Job:  # fmt: skip
        """A new job, queued. Raises QueueFullError when ``queue_limit`` jobs wait already."""
        now = _now()
        job = Job(
            id=id or new_id(), owner=owner, name=name, kind=kind, size_bytes=size_bytes,
            address=address, created=now, expires=now + keep,
        )  # fmt: skip
        with self._session() as session:
            go_alone(session.connection())
            waiting = session.scalar(select(func.count()).where(Job.state == QUEUED)) or 0
            if waiting >= queue_limit:
                raise QueueFullError
            session.add(job)
            session.flush()
            _append(session, job.id, [("state", {"state": QUEUED})])
            return job

    def get(self, id: str) -> Job | None:
        """The job, if there is one."""
        with self._session() as session:
            return session.get(Job, _plain(id))

    def list(
        self, owner: str, *, search: str = "", limit: int = 50, before: datetime | None = None
    ) -> Sequence[Job]:
        """An owner's jobs, the newest first, with ``search`` in name or headline, or as verdict."""
        query = select(Job).where(Job.owner == owner).order_by(Job.created.desc(), Job.id)
        if search := _plain(search):
            words = (c.icontains(search, autoescape=True) for c in (Job.name, Job.headline))
            query = query.where(or_(*words, Job.verdict == search.lower()))
        if before:
            query = query.where(Job.created < before)
        with self._session() as session:
            return session.scalars(query.limit(limit)).all()

    def waiting_before(self, job: Job) -> int:
        """How many jobs are ahead of a queued one."""
        with self._session() as session:
            query = select(func.count()).where(Job.state == QUEUED, Job.created < job.created)
            return session.scalar(query) or 0

    def counts(self, owner: str | None = None) -> dict[str, int]:
        """How many jobs there are in each state, of all or of one owner."""
        query = select(Job.state, func.count()).group_by(Job.state)
        if owner is not None:
            query = query.where(Job.owner == owner)
        with self._session() as session:
            return dict(session.execute(query).all())

    def cancel(self, id: str) -> bool:
        """Stop a job: at once if it waits, as soon as its worker sees it if it runs.

        False where it is finished already, or there is none.
        """
        with self._session() as session:
            queued = update(Job).where(Job.id == id, Job.state == QUEUED)
            ended = queued.values(state=CANCELLED, finished=_now())
            if session.execute(ended).rowcount:
                _append(session, id, [("state", {"state": CANCELLED})])
                return True
            running = update(Job).where(Job.id == id, Job.state == RUNNING)
            return bool(session.execute(running.values(stop_asked=True)).rowcount)

    def delete(self, id: str) -> bool:
        """Forget a job and its events; a worker that holds it notices. False if there is none.

        Its files are not the database's: delete them too.
        """
        with self._session() as session:
            if not session.execute(delete(Job).where(Job.id == id)).rowcount:
                return False
        empty_log(self._engine)
        return True

    def set_share(self, id: str, share: str | None) -> None:
        """Set the secret of a job's share link, if it has none, or with None revoke it."""
        with self._session() as session:
            kept = () if share is None else (Job.share.is_(None),)
            session.execute(update(Job).where(Job.id == id, *kept).values(share=share))

    def ask_for_annotated(self, id: str) -> bool:
        """Have the annotated copy of a finished job made. False where there is nothing to do."""
        with self._session() as session:
            asked = update(Job).where(Job.id == id, Job.annotated.in_(("none", "failed")))
            asked = asked.where(Job.state == DONE, Job.verdict != "unreadable")
            if not session.execute(asked.values(annotated="queued", attempts=0)).rowcount:
                return False
            _append(session, id, [("annotated", {"state": "queued"})])
            return True

    def events(self, id: str, after: int = 0, limit: int = 500) -> Sequence[Event]:
        """What happened to a job after event ``after``, in order."""
        query = (
            select(EventRow).where(EventRow.job == id, EventRow.number > after)
            .order_by(EventRow.number).limit(limit)
        )  # fmt: skip
        with self._session() as session:
            return [Event(row.number, row.kind, row.data) for row in session.scalars(query)]

    # What workers do.

    def claim(self, id: str) -> str | None:
        """Take a job to work on it: the claim to name from now on, or None.

        Given are jobs that wait, and running ones whose worker has been silent for too long. One
        that has ended MAX_ATTEMPTS workers fails instead, one that is to be stopped is cancelled.
        """
        claim, now = new_id(), _now()
        taken = update(Job).where(Job.id == id, _is_free(Job.state)).values(
            state=RUNNING, claim=claim, attempts=Job.attempts + 1, progress=0.0,
            started=func.coalesce(Job.started, now), lease_until=now + _LEASE,
        )  # fmt: skip
        with self._session() as session:
            if not session.execute(taken).rowcount:
                return None
            job = session.get_one(Job, id)
            if job.stop_asked:
                _finish(session, id, claim, CANCELLED)
            elif job.attempts > MAX_ATTEMPTS:
                _finish(session, id, claim, FAILED, error=_BROKE_DOWN)
            else:
                _append(session, id, [("state", {"state": RUNNING})])
                return claim
            return None

    def claim_annotated(self, id: str) -> str | None:
        """Take the making of a job's annotated copy: the claim to name from now on, or None.

        One that has ended MAX_ATTEMPTS workers fails instead.
        """
        claim = new_id()
        taken = update(Job).where(Job.id == id, _is_free(Job.annotated)).values(
            annotated="running", claim=claim, attempts=Job.attempts + 1,
            lease_until=_now() + _LEASE,
        )  # fmt: skip
        with self._session() as session:
            if not session.execute(taken).rowcount:
                return None
            if session.get_one(Job, id).attempts > MAX_ATTEMPTS:
                _finish_annotated(session, id, claim, FAILED)
                return None
            return claim

    def renew(
        self, id: str, claim: str, progress: float = 1.0,
        events: Iterable[tuple[str, dict[str, Any]]] = (),
    ) -> bool:  # fmt: skip
        """Keep a claimed job, write down its ``progress`` and what happened.

        False where it is to be stopped: somebody cancelled or deleted it, or the claim is lost.
        """
        kept = {"lease_until": _now() + _LEASE, "progress": progress}
        with self._session() as session:
            if not _write(session, id, claim, kept):
                return False
            _append(session, id, events)
            return not session.get_one(Job, id).stop_asked

    def finish(self, id: str, claim: str, state: str, **values: Any) -> bool:
        """End a claimed job as ``state`` with its verdict, headline, error, ...

        False, and nothing is changed, where the claim is lost.
        """
        with self._session() as session:
            return _finish(session, id, claim, state, **values)

    def finish_annotated(self, id: str, claim: str, state: str) -> bool:
        """Say that the annotated copy is 'ready' or 'failed'. False where the claim is lost."""
        with self._session() as session:
            return _finish_annotated(session, id, claim, state)

    def release(self, id: str, claim: str) -> None:
        """Give a claimed job back, to be claimed again at once: that was no attempt."""
        back = {"claim": None, "attempts": Job.attempts - 1}
        with self._session() as session:
            if _write(session, id, claim, back | {"state": QUEUED}, Job.state == RUNNING):
                _append(session, id, [("state", {"state": QUEUED})])
            else:
                _write(session, id, claim, back | {"annotated": "queued"})

    def abandoned(self) -> Sequence[Job]:
        """Jobs that somebody should work on and perhaps nobody does, the oldest first.

        Those wait (or their annotated copy does), or their worker's lease ran out.
        """
        query = select(Job).where(or_(_is_free(Job.state), _is_free(Job.annotated)))
        with self._session() as session:
            return session.scalars(query.order_by(Job.created)).all()

    def ids(self) -> set[str]:
        """All jobs that there are."""
        with self._session() as session:
            return set(session.scalars(select(Job.id)))

    def expired(self) -> Sequence[str]:
        """Jobs that have been kept as long as was promised."""
        with self._session() as session:
            return session.scalars(select(Job.id).where(Job.expires < _now())).all()


_LEASE = timedelta(seconds=LEASE_SECONDS)
_BROKE_DOWN = "The analysis broke down several times: convert it to MP4 or JPEG and try again."


def new_id() -> str:
    """A random name of 22 characters, safe in URLs: 128 bits nobody can guess."""
    return secrets.token_urlsafe(16)


def _now() -> datetime:
    return datetime.now(UTC)


def _plain(text: str) -> str:
    """PostgreSQL has no text with a zero character, so nothing that has one can be found."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _is_free(state: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Whether somebody should work on it: it waits, or its worker's lease ran out."""
    return or_(state == QUEUED, (state == RUNNING) & (Job.lease_until < _now()))


def _append(session: Session, job: str, events: Iterable[tuple[str, dict[str, Any]]]) -> None:
    # Whoever is here has changed the job's row in this transaction, so is alone with its events.
    number = session.scalar(select(func.max(EventRow.number)).where(EventRow.job == job)) or 0
    for kind, data in events:
        number += 1
        session.add(EventRow(job=job, number=number, kind=kind, data=data))


def _write(
    session: Session, job: str, claim: str, values: dict[str, Any], *only: ColumnElement[bool]
) -> bool:
    """Change a job where it is held by this claim (and ``only``...); False where it is not."""
    held = update(Job).where(Job.id == job, Job.claim == claim, *only)
    return bool(session.execute(held.values(values)).rowcount)


def _finish(session: Session, job: str, claim: str, state: str, **values: Any) -> bool:
    values |= {"state": state, "finished": _now(), "claim": None, "stop_asked": False}
    if state == DONE:
        values["progress"] = 1.0
    if not _write(session, job, claim, values):
        return False
    _append(session, job, [("state", {"state": state})])
    return True


def _finish_annotated(session: Session, job: str, claim: str, state: str) -> bool:
    if not _write(session, job, claim, {"annotated": state, "claim": None}):
        return False
    _append(session, job, [("annotated", {"state": state})])
    return True
