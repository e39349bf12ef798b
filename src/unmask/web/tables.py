"""The database: its tables, jobs and what happened to them, and what opening it takes."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    URL,
    BigInteger,
    Connection,
    Engine,
    ForeignKey,
    String,
    Text,
    create_engine,
    event,
    make_url,
    text,
)  # fmt: skip
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import DateTime, TypeDecorator

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
FINISHED = (DONE, FAILED, CANCELLED)

_LONGEST_SILENCE = 10.0  # seconds that a PostgreSQL may take to answer
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('unmask'))"


class _UTC(TypeDecorator):
    """Times in UTC: SQLite forgets the zone, PostgreSQL gives them in its own."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _: Any) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _: Any) -> datetime | None:
        if value and value.tzinfo:
            return value.astimezone(UTC)
        return value and value.replace(tzinfo=UTC)


class Table(DeclarativeBase):
    """What all tables are made by."""


class Job(Table):
    """One video or image, from its upload to its deletion. Times are UTC."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(22), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64), index=True)
    name: Mapped[str] = mapped_column(String(255))  # what its owner calls it; never a path
    kind: Mapped[str] = mapped_column(String(16))  # mp4, webm, jpg, ...: by content
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    address: Mapped[str | None] = mapped_column(Text)  # to be fetched by the worker
    state: Mapped[str] = mapped_column(String(16), index=True, default=QUEUED)
    progress: Mapped[float] = mapped_column(default=0.0)
    verdict: Mapped[str | None] = mapped_column(String(16))
    probability_fake: Mapped[float | None]
    headline: Mapped[str | None] = mapped_column(Text)  # the verdict in words
    error: Mapped[str | None] = mapped_column(Text)  # why it failed, and what to do
    created: Mapped[datetime] = mapped_column(_UTC, index=True)
    started: Mapped[datetime | None] = mapped_column(_UTC)
    finished: Mapped[datetime | None] = mapped_column(_UTC)
    expires: Mapped[datetime] = mapped_column(_UTC, index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    claim: Mapped[str | None] = mapped_column(String(22))
    lease_until: Mapped[datetime | None] = mapped_column(_UTC)
    stop_asked: Mapped[bool] = mapped_column(default=False)
    annotated: Mapped[str] = mapped_column(String(16), default="none")
    share: Mapped[str | None] = mapped_column(String(22), unique=True)


class EventRow(Table):
    """What happened to a job; ``number`` rises from 1 without gaps."""

    __tablename__ = "events"

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    data: Mapped[Any] = mapped_column(JSON)


def open_database(url: str | URL) -> Engine:
    """The database at SQLAlchemy's ``url``. Tables are made where there are none."""
    # A PostgreSQL that hangs must not hang the server.
    is_pg8000 = make_url(url).drivername == "postgresql+pg8000"
    options = {"timeout": _LONGEST_SILENCE} if is_pg8000 else {}
    engine = create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args=options)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
    with engine.begin() as connection:
        go_alone(connection)
        Table.metadata.create_all(connection)
    return engine


def go_alone(connection: Connection) -> None:
    """Wait until nobody else who calls this is in a transaction, and keep them out of this one."""
    on_sqlite = connection.dialect.name == "sqlite"
    connection.execute(text("BEGIN IMMEDIATE" if on_sqlite else _LOCK))


def empty_log(engine: Engine) -> None:
    """Have SQLite drop its log, which holds what was overwritten in the database itself."""
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _set_up_sqlite(connection: Any, _: Any) -> None:
    for pragma in (
        "busy_timeout=10000",
        "journal_mode=WAL",  # readers do not wait for the writer
        "foreign_keys=ON",
        "secure_delete=ON",  # what is deleted is overwritten
    ):
        connection.execute(f"PRAGMA {pragma}")
    # SQLite's own knows no letters but A to Z, so a search for 'ärzte' would miss 'Ärzte.mp4'.
    connection.create_function("lower", 1, lambda text: text and text.lower(), deterministic=True)
