"""Keeps a worker process going beside the web server."""

import logging
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

from unmask.settings import for_command
from unmask.web.worker import PARENT

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds before a worker that died is started again
_STEADY_SECONDS = 60.0  # a worker that lived so long was well: the next pause is short again
_LONGEST_END = 25.0  # seconds that a worker may take to give back what it does
_log = logging.getLogger(__name__)


class Supervisor:
    """Runs ``unmask worker`` with the server's settings, again when it dies, until ``stop``."""

    def __init__(self, settings: SimpleNamespace):
        self._environment = _environment(settings)
        self._stopping = threading.Event()
        self._changing = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._thread = threading.Thread(target=self._keep_going, daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether a worker runs."""
        process = self._process
        return process is not None and process.poll() is None

    def ask_to_stop(self) -> None:
        """Have the worker give back what it does and end."""
        self._stopping.set()
        with self._changing:
            if self._process:
                self._process.terminate()

    def stop(self) -> None:
        """End the worker; returns when it has."""
        self.ask_to_stop()
        if self._process:
            try:
                self._process.wait(_LONGEST_END)
            except subprocess.TimeoutExpired:
                self._process.kill()  # another worker gets its job when the lease has run out
        self._thread.join()

    def _keep_going(self) -> None:
        pause = _SHORTEST_PAUSE
        while True:
            with self._changing:
                if self._stopping.is_set():
                    return
                self._process = subprocess.Popen(
                    # -P: no module that lies in the folder where it was started
                    [sys.executable, "-P", "-m", "unmask.cli", "worker"],
                    env=self._environment, stdin=subprocess.DEVNULL,
                    process_group=0,  # Ctrl-C is for the server, which then ends it
                )  # fmt: skip
            began = time.monotonic()
            code = self._process.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > _STEADY_SECONDS:
                pause = _SHORTEST_PAUSE
            _log.error("worker died", extra={"code": code, "again_in_seconds": pause})
            self._stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _environment(settings: SimpleNamespace) -> dict[str, str]:
    """The server's settings for the worker: not on the command line, which everybody can read."""
    environment = {k: v for k, v in os.environ.items() if k != "UNMASK_ACCESS_TOKEN"}
    for setting in for_command("worker"):
        environment[setting.variable] = str(getattr(settings, setting.name))
    environment["UNMASK_CONFIG"] = ""  # what it says is among the settings
    return environment | {PARENT: str(os.getpid())}
