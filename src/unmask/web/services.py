"""What web server and workers share: the database, the files and the queue, by the settings."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from unmask.card import read_card
from unmask.credentials import checked_list
from unmask.errors import SettingError
from unmask.web.files import Files
from unmask.web.store import Store
from unmask.web.tasks import Tasks

_DATABASES = ("postgresql+pg8000", "sqlite")
_POSTGRESQL = "postgresql+pg8000://USER:PASSWORD@HOST/NAME"
_ENCODED = "special characters in a password must be percent-encoded, @ as %40 and / as %2F"


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


def check_judging(settings: SimpleNamespace) -> None:
    """Raise ModelError or UsageError where files that judging takes are missing or do not fit."""
    read_card(settings.model, settings.calibration)
    if settings.trust_list:
        checked_list(Path(settings.trust_list))


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
    return Services(
        folder,
        _open_store(_database(settings.database, folder)),
        _open_files(settings.storage or str(folder / "jobs")),
        _open_tasks(settings.queue or folder / "queue.db"),
    )


def _database(address: str, folder: Path) -> URL:
    if not address:
        return URL.create("sqlite", database=str(folder / "unmask.db"))
    try:
        url = make_url(address)
    except (SQLAlchemyError, ValueError):  # the text may have a piece of the password
        url = None
    if url is None or (url.host and "@" in f"{url.host}{url.database}"):
        raise SettingError(f"--database has to be like {_POSTGRESQL}; {_ENCODED}")
    if url.drivername not in _DATABASES:
        raise SettingError(
            f"--database takes PostgreSQL alone, and not as {url.drivername}://: give an address "
            f"like {_POSTGRESQL}, or leave it out"
        )
    return url


def _open_store(url: URL) -> Store:
    try:
        return Store(url)
    except (SQLAlchemyError, TimeoutError) as error:
        raise SettingError(
            f"the database cannot be used ({_reason(error)}): check --database, and that it runs"
        ) from None


def _reason(error: Exception) -> str:
    """What a database says, in a line. It has no password in it."""
    error = getattr(error, "orig", None) or error
    said = error.args[0] if error.args else ""
    if isinstance(said, dict):  # PostgreSQL's fields, M for the message
        said = said.get("M", "")
    return next(iter(str(said).splitlines()), type(error).__name__)


def _open_files(address: str) -> Files:
    kind, is_address, _ = address.partition("://")
    if is_address and kind != "s3":
        raise SettingError(f"--storage takes a folder or s3://BUCKET/FOLDER, not {kind}://")
    return Files(address)


def _open_tasks(target: Path | str) -> Tasks:
    try:
        return Tasks(target)
    except ValueError:  # its text may have a piece of the password
        raise SettingError(
            f"--queue has to be like redis://:PASSWORD@HOST:6379/0; {_ENCODED}"
        ) from None
