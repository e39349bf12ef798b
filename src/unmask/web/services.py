"""What web server and workers share: the database, the files and the queue, by the settings."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from unmask.errors import SettingError
from unmask.web.files import Files
from unmask.web.store import Store
from unmask.web.tasks import Tasks


@dataclass(frozen=True)
class Services:
    """The doors to everything that is kept; ``folder`` is this machine's own."""

    folder: Path
    store: Store
    files: Files
    tasks: Tasks

    def forget(self, id: str) -> None:
        """Delete a job and all its files."""
        try:
            # First: a worker that has it sees that it is gone, and puts no more files there.
            self.store.delete(id)
        except SQLAlchemyError:  # SQLite deletes nothing on a full disk: the files make room
            self.files.delete(id)
            self.store.delete(id)
        self.files.delete(id)

    def has_room(self, size: int) -> bool:
        """Whether so many bytes can be written into this machine's folder."""
        return shutil.disk_usage(self.folder).free > size


def connect(settings: SimpleNamespace) -> Services:
    """Open them all; what is not there yet is made, readable by nobody else.

    Raises SettingError for one that cannot be reached.
    """
    folder = Path(settings.data_folder).absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SettingError(
            f"--data-folder {folder} cannot be written into ({error.strerror}): choose another"
        ) from None
    try:
        return Services(
            folder,
            Store(settings.database or URL.create("sqlite", database=str(folder / "unmask.db"))),
            Files(settings.storage or str(folder / "jobs")),
            Tasks(settings.queue or folder / "queue.db"),
        )
    except SQLAlchemyError as error:  # its text has no password in it
        reason = str(getattr(error, "orig", error)).splitlines()[0]
        raise SettingError(
            f"the database cannot be used ({reason}): check --database, and that it runs"
        ) from None
    except ValueError as error:  # an address of a kind that nobody knows
        raise SettingError(f"--queue or --storage cannot be used: {error}") from None
