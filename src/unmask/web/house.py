"""Keeping house: jobs that nobody works on are handed out again, what is too old is deleted.

Every worker does it, for all: who comes second finds nothing to do.
"""

import logging
import math
import re
import shutil
import threading
import time
from pathlib import Path

from unmask.web.services import Services

WORK, INCOMING = "work", "incoming"
"""The folders of what is under way: here a worker's, there an upload's."""

SWEEP_SECONDS = 10.0  # between two looks for jobs that nobody works on
CLEAN_SECONDS = 60.0  # between two looks for what is too old
STALE_SECONDS = 600.0  # what is under way and was not touched for so long is left over

_JOB = re.compile(r"[\w-]{22}", re.ASCII)

_log = logging.getLogger(__name__)


class House:
    """Keeps the house of these services."""

    def __init__(self, services: Services):
        self._services = services
        self._ownerless: set[str] = set()

    def keep(self, ending: threading.Event) -> None:
        """Go on until the event is set."""
        cleaned = -math.inf
        while True:
            try:
                self.sweep()
                if time.monotonic() - cleaned >= CLEAN_SECONDS:
                    self.clean()
                    cleaned = time.monotonic()
            except Exception:  # the database is away for a moment, perhaps
                _log.exception("keeping house failed")
            if ending.wait(SWEEP_SECONDS):
                return

    def sweep(self) -> None:
        """Have all jobs looked at that should be worked on, if the queue can't have them all."""
        jobs = self._services.store.abandoned()
        if self._services.tasks.waiting < len(jobs):
            for job in jobs:
                self._services.tasks.submit(job.id)

    def clean(self) -> None:
        """Delete jobs whose time is over, files without a job, and what is left under way."""
        store, files = self._services.store, self._services.files
        for id in store.expired():
            try:
                self._services.forget(id)
                _log.info("job expired", extra={"job": id})
            except Exception:  # the others' time is over, too
                _log.exception("an expired job cannot be deleted", extra={"job": id})
        # A new upload's files are there before its job: they go when they are seen again. And the
        # jobs are asked for after the files: those of one that was added meanwhile have an owner.
        found = set(filter(_JOB.fullmatch, files.jobs()))
        found -= store.ids()
        for id in found & self._ownerless:
            files.delete(id)
        self._ownerless = found
        for name in (WORK, INCOMING):
            delete_stale(self._services.folder / name)


def keep_clean(folder: Path, ending: threading.Event) -> None:
    """Delete what is left over in such a folder, again and again until the event is set."""
    while not ending.wait(CLEAN_SECONDS):
        delete_stale(folder)


def delete_stale(folder: Path) -> None:
    """Delete what nobody touched for STALE_SECONDS in a folder of what is under way."""
    oldest = time.time() - STALE_SECONDS
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            if path.lstat().st_mtime < oldest:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except FileNotFoundError:
            pass  # somebody else was faster
        except OSError:  # the others are left over, too
            _log.exception("what is left over cannot be deleted")
