"""From what somebody hands in to a queued job: size, magic bytes, a harmless name.

What a file is, its first bytes say; the name it came with is shown to people and nothing else.
Only the worker's child process looks further into it.
"""

import io
import logging
import os
import tempfile
import unicodedata
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import IO
from urllib.parse import unquote, urlsplit

from flask import Request, abort
from werkzeug.exceptions import (
    HTTPException,
    RequestEntityTooLarge,
    TooManyRequests,
    UnsupportedMediaType,
)

from unmask.web.current import services, settings
from unmask.web.files import SOURCE
from unmask.web.house import INCOMING
from unmask.web.store import QueueFullError, new_id
from unmask.web.tables import QUEUED, Job

OTHER_BYTES = 65536
"""How long requests may be that hand in no file, and what is around the file in those that do."""

_HEAD = 4096  # bytes that tell what a file is
_LONGEST_NAME = 255  # characters
_LONGEST_ADDRESS = 2048  # characters
_RETRY_SECONDS = 30  # after which a full queue may have room
_MAGIC = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"FLV\x01", "flv"),
    (b"OggS\0", "ogg"),
    (b"\0\0\x01\xba", "mpeg"),
    (b"\0\0\x01\xb3", "mpeg"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "wmv"),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01", "mxf"),
)
_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_PICTURE_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avis")
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_TS_PACKET, _M2TS_PACKET = 188, 192
_log = logging.getLogger(__name__)


def kind_of(head: bytes) -> str | None:
    """What a file is by its first 4096 bytes: 'mp4', 'webm', 'jpg', ...; None if not allowed."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in _PICTURE_BRANDS:
            return None
        if brand == b"avif":
            return "avif"
        return "mov" if brand == b"qt  " else "3gp" if brand[:3] in (b"3gp", b"3g2") else "mp4"
    if head[4:8] in _QUICKTIME:
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):  # EBML; its type is one of its first fields
        return "webm" if b"webm" in head[:64] else "mkv" if b"matroska" in head[:64] else None
    if head[:4] == b"RIFF":
        return {b"AVI ": "avi", b"WEBP": "webp"}.get(head[8:12])
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    for size in (_TS_PACKET, _M2TS_PACKET):
        syncs = head[size - _TS_PACKET :: size][:4]
        if len(syncs) == 4 and set(syncs) == {0x47}:
            return "ts"
    return None


def clean_name(name: str) -> str:
    """A file's name as it may be shown: without folders, line ends and invisible characters."""
    name = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    name = "".join(
        " " if c.isspace() else c
        for c in unicodedata.normalize("NFC", name)
        # C: control characters, surrogates, and those that turn the direction of writing
        if c.isspace() or unicodedata.category(c)[0] != "C"
    )
    name = " ".join(name.split()).strip(" .")
    if len(name) > _LONGEST_NAME:
        end = os.path.splitext(name)[1][:16]
        name = name[: _LONGEST_NAME - len(end)] + end
    return name or "unnamed"


class UploadRequest(Request):
    """A request whose files go straight into the folder of incoming ones."""

    def _get_file_stream(self, *args: object, **kwargs: object) -> IO[bytes]:
        return _Incoming(services().folder / INCOMING, upload_bytes(settings()))


class _Incoming(io.BufferedRandom):
    """A file that is being received: gone when it is closed, unless somebody took it away."""

    def __init__(self, folder: Path, limit: int):
        handle, self.path = tempfile.mkstemp(dir=folder)  # mode 0600
        self._left = limit
        super().__init__(io.FileIO(handle, "r+"))

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise _too_large()
        return super().write(data)

    def close(self) -> None:
        try:
            super().close()
        finally:
            Path(self.path).unlink(missing_ok=True)


def upload_bytes(settings: SimpleNamespace) -> int:
    """The size of the largest file that is taken."""
    return settings.upload_limit * 1_000_000


class NoRoom(HTTPException):
    """The disk is full."""

    code = 507
    description = "The server's disk is full: tell whoever runs it, or try again later."


def _too_large() -> RequestEntityTooLarge:
    return RequestEntityTooLarge(
        f"The file is larger than {settings().upload_limit} MB: hand in a shorter or smaller copy."
    )


def take_file(request: Request, owner: str) -> Job:
    """Queue the uploaded file. Raises werkzeug's exceptions for 400, 413, 415, 429 and 507.

    A job that is returned is written down: nothing that happens to this process loses it.
    """
    _check_queue()
    if not services().has_room(request.content_length or 0):
        raise NoRoom
    request.max_content_length = upload_bytes(settings()) + OTHER_BYTES
    if (request.content_length or 0) > request.max_content_length:
        raise _too_large()
    files = [file for _, file in request.files.items(multi=True)]
    if len(files) != 1 or "file" not in request.files:
        abort(400, "Send one file as the field 'file' of a multipart/form-data form.")
    upload = files[0].stream
    size = upload.seek(0, os.SEEK_END)
    upload.seek(0)
    head = upload.read(_HEAD)
    kind = kind_of(head)
    if kind is None:
        raise UnsupportedMediaType(_refusal(head))
    id = new_id()
    try:
        services().files.put(id, SOURCE, Path(upload.path))
        return _queue(owner, clean_name(files[0].filename or ""), kind, size, id=id)
    except BaseException:
        services().files.delete(id)
        raise


def take_address(address: object, owner: str) -> Job:
    """Queue a web address; the worker fetches it. Raises werkzeug's exceptions, as above."""
    if not settings().web_addresses:
        abort(403, "This server takes no web addresses: download the video and upload the file.")
    _check_queue()
    if not isinstance(address, str) or len(address) > _LONGEST_ADDRESS:
        abort(400, f"'address' is a text of at most {_LONGEST_ADDRESS} characters.")
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or not address.isprintable():
        abort(400, "That is no web address of a video: it should start with https://.")
    name = clean_name(unquote(parts.path))
    return _queue(owner, clean_name(host) if name == "unnamed" else name, "", 0, address=address)


def _check_queue() -> None:
    if services().store.counts().get(QUEUED, 0) >= settings().queue_limit:
        raise _queue_full()


def _queue(owner: str, name: str, kind: str, size: int, **values: str) -> Job:
    keep = timedelta(hours=settings().retention)
    try:
        job = services().store.add(
            owner, name, kind, size, keep=keep, queue_limit=settings().queue_limit, **values
        )
    except QueueFullError:
        raise _queue_full() from None
    notify(job)
    return job


def notify(job: Job) -> None:
    """Tell the workers to look at a job. If the queue does not answer, they come by anyway."""
    try:
        services().tasks.submit(job.id)
    except Exception:
        _log.exception("the queue does not answer", extra={"job": job.id})


def _queue_full() -> TooManyRequests:
    return TooManyRequests(
        "Too many files wait to be judged: try again in a minute.", retry_after=_RETRY_SECONDS
    )


def _refusal(head: bytes) -> str:
    """Why a file is not taken, and what to hand in."""
    instead = "hand in the video (MP4, MOV, WebM, ...) or image (JPEG, PNG, ...) itself."
    if not head:
        return f"The file is empty: {instead}"
    if head[4:8] == b"ftyp":
        return "HEIC pictures cannot be read: save it as JPEG or PNG and hand in that."
    if b"\0" not in head:
        return f"This is text, a page or a playlist, not a video or image: {instead}"
    return f"This is no video or image that can be read: {instead}"
