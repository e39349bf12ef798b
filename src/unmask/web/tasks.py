"""The queue that tells workers to look at a job. What is to be done is in the database.

So a note that is lost is made good by a new one, and one too many does no harm: who looks at a job
that another holds, or that is finished, finds nothing to do.
"""

import json
from collections.abc import Callable
from pathlib import Path

from huey import RedisHuey, SqliteHuey
from huey.consumer import Consumer
from huey.registry import Message
from huey.serializer import Serializer

_LONGEST_WAIT = 0.5  # seconds between two looks into SQLite; Redis wakes its readers
_LONGEST_SILENCE = 10.0  # seconds that a Redis may take to answer


class Tasks:
    """The queue, in a SQLite file (a path) or in Redis (its address, ``redis://...``)."""

    def __init__(self, target: Path | str):
        options = {"results": False, "serializer": _Json()}
        if isinstance(target, Path):
            self._huey = SqliteHuey("unmask", filename=str(target), **options)
        else:
            from redis import ConnectionPool

            pool = ConnectionPool.from_url(target, socket_timeout=_LONGEST_SILENCE)
            self._huey = RedisHuey("unmask", connection_pool=pool, **options)
        self._look_at: Callable[[str], None] | None = None
        self._note = self._huey.task(name="look_at")(lambda job: self._look_at(job))

    def submit(self, job: str) -> None:
        """Have a worker look at a job, by its id."""
        self._note(job)

    @property
    def waiting(self) -> int:
        """How many notes no worker has taken yet."""
        return self._huey.pending_count()

    def consumer(self, look_at: Callable[[str], None], threads: int) -> Consumer:
        """What calls ``look_at`` with the id of one job after the other, in so many threads."""
        self._look_at = look_at
        return self._huey.create_consumer(
            workers=threads, periodic=False, max_delay=_LONGEST_WAIT, scheduler_interval=60
        )


class _Json(Serializer):
    """Notes as JSON: Huey's pickles would let who can write to the queue run code in a worker."""

    def _serialize(self, data: Message) -> bytes:
        return json.dumps(data).encode()

    def _deserialize(self, data: bytes) -> Message:
        return Message(*json.loads(data))
