"""The files of every job: one folder a job, on this machine or in S3-compatible storage."""

import contextlib
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

SOURCE = "source"  # what was uploaded
RESULT = "result.json"  # what the result page shows
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
FRAMES_CSV = "frames.csv"
ANNOTATED = "annotated"

_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)


class Files:
    """Files by job and name. ``url`` is a folder or ``s3://bucket/folder``.

    Names are this package's own, never people's. Raises FileNotFoundError for what is not there.
    """

    def __init__(self, url: str):
        self._url = url
        self._is_local = "://" not in url
        self._root = os.path.abspath(url) if self._is_local else fsspec.url_to_fs(url)[1]

    @property
    def _system(self) -> fsspec.AbstractFileSystem:
        # fsspec keeps one for every process: an S3 that a parent opened is of no use after a fork.
        # It must not keep listings: other machines add files and delete them.
        if self._is_local:
            return LocalFileSystem()
        from botocore import handlers

        # Enough connections for all uploads of a server: else they wait for each other.
        config = {"retries": {"total_max_attempts": 2}, "max_pool_connections": 128}
        system = fsspec.url_to_fs(self._url, use_listings_cache=False, config_kwargs=config)[0]
        # An S3 that hangs is told within half a minute: not each attempt five times over again, and
        # no put first asks whether it may go on, whose answer is waited for without an end.
        system.retries = 1
        system.s3.meta.events.unregister("before-call.s3", handlers.add_expect_header)
        return system

    def put(self, job: str, name: str, file: Path) -> None:
        """Take over a finished local file: it is moved here, and there whole or not at all."""
        target = self._path(job, name)
        if self._is_local:
            os.makedirs(self._root, mode=0o700, exist_ok=True)
            os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            partial = f"{target}.{secrets.token_hex(4)}"
            shutil.move(file, partial)  # copies, from another disk
            os.replace(partial, target)
        else:
            self._system.put_file(os.fspath(file), target)
            file.unlink(missing_ok=True)

    def fetch(self, job: str, name: str, target: Path) -> Path:
        """A local copy, or the file itself where it is on this machine: do not change it."""
        path = self._path(job, name)
        if self._is_local:
            if not os.path.isfile(path):
                raise FileNotFoundError(path)
            return Path(path)
        self._system.get_file(path, os.fspath(target))
        return target

    def open(self, job: str, name: str) -> BinaryIO:
        """The file, open for reading; it can be sought in."""
        return self._system.open(self._path(job, name), "rb")

    def delete(self, job: str) -> None:
        """Delete all files of a job, if it has any."""
        with contextlib.suppress(FileNotFoundError):  # or somebody else is deleting them
            self._system.rm(self._path(job), recursive=True)

    def check(self) -> None:
        """Raise an exception if no file could be put here. It asks for next to nothing."""
        if self._is_local:
            os.makedirs(self._root, mode=0o700, exist_ok=True)
            if not os.access(self._root, os.W_OK):
                raise PermissionError(self._root)
            return
        # fsspec's own questions take an empty folder and a missing bucket for the same.
        bucket, _, folder = self._root.partition("/")
        prefix = f"{folder}/" if folder else ""
        self._system.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)

    def jobs(self) -> list[str]:
        """The jobs that have files."""
        try:
            paths = self._system.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        return [os.path.basename(path.rstrip("/")) for path in paths]

    def _path(self, *names: str) -> str:
        for name in names:
            if not _NAME.fullmatch(name):
                raise FileNotFoundError(name)
        return "/".join((self._root, *names))
