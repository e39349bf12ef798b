"""The door to the process that works on a job's file: start it, hear what it says, end it."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from unmask.text import printable
from unmask.web.analysis import Order

COMMAND = (sys.executable, "-P", "-m", "unmask.web.analysis")

_LONGEST_LINE = 1 << 20  # bytes
_LOG_BYTES = 4000  # of what its libraries print, the end

# Nothing of where this server keeps things, and none of its passwords, goes to such a process.
_ENVIRONMENT = (
    "PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV",
    "SSL_CERT_FILE",
)  # fmt: skip


class BrokeDown(Exception):
    """The process has ended, or says what makes no sense."""


class Child:
    """One process of unmask.web.analysis. Use it in a ``with``: at the end it is killed."""

    def __init__(self, order: Order, folder: Path):
        kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        own = {"HOME": str(folder), "TMPDIR": str(folder), "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [*COMMAND, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=kept | own, start_new_session=True,
        )  # fmt: skip
        self._ready = selectors.DefaultSelector()
        for stream in (self._process.stdout, self._process.stderr):
            self._ready.register(stream, selectors.EVENT_READ)
        self._line = self._log = b""
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
            pipe.write(order.to_json().encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._ready.close()
        self._process.stdout.close()
        self._process.stderr.close()

    def listen(self, seconds: float) -> list[dict[str, Any]]:
        """What it says within so many seconds, perhaps nothing. Raises BrokeDown."""
        lines: list[bytes] = []
        for key, _ in self._ready.select(seconds):
            data = os.read(key.fd, 1 << 16)
            if key.fileobj is self._process.stderr:
                self._log = (self._log + data)[-_LOG_BYTES:]
                if not data:
                    self._ready.unregister(key.fileobj)
            elif data:
                *lines, self._line = (self._line + data).split(b"\n")
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(5)
                raise BrokeDown(f"it ended with {self._process.returncode}")
        if len(self._line) > _LONGEST_LINE:
            raise BrokeDown("it said too much at once")
        try:
            return [dict(json.loads(line)) for line in lines]
        except (ValueError, TypeError):
            raise BrokeDown("it said what is no JSON object") from None

    @property
    def log(self) -> str:
        """The end of what its libraries printed."""
        return printable(" | ".join(self._log.decode(errors="replace").splitlines()))
