"""The web application for tests: within the test, or as a server of its own on a free port."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from services import free_port, running, web_settings

from unmask.settings import for_command
from unmask.web.app import create_app
from unmask.web.services import Services, connect
from unmask.web.tables import DONE, Job

TOKEN = "sixteen-or-more-characters"
RESULT = {
    "version": 1, "headline": "Likely real.", "advice": "Ask where it is from.", "warnings": [],
    "measured": [], "uncertain": 0.1, "is_image": False, "annotated_kind": "mp4", "people": [],
    "report": {},
}  # fmt: skip


@dataclass
class Web:
    """An application without a server, and what it stands on."""

    app: Flask
    services: Services
    settings: SimpleNamespace

    def browser(self) -> FlaskClient:
        """Somebody who has opened the first page."""
        client = self.app.test_client()
        client.get("/")
        return client

    def jobs(self) -> list[str]:
        """The jobs that have files."""
        return self.services.files.jobs()

    def incoming(self) -> list[Path]:
        """What lies about of uploads that are under way."""
        return list((self.services.folder / "incoming").iterdir())


def web(tmp_path: Path, **changes: Any) -> Web:
    """An application with its own data folder."""
    settings = web_settings(tmp_path, **{"upload_rate": 1000, **changes})
    services = connect(settings)
    return Web(create_app(settings, services), services, settings)


def hand_in(client: FlaskClient, content: bytes, name: str = "clip.mp4", **options: Any) -> Any:
    """Upload a file: the response."""
    data = {"file": (io.BytesIO(content), name)}
    return client.post("/api/v1/jobs", data=data, **options)


def add_done(services: Services, owner: str = "local", name: str = "clip.mp4") -> Job:
    """A job that is done, with some of its files."""
    job = services.store.add(owner, name, "mp4", 10, keep=timedelta(days=1), queue_limit=1000)
    claim = services.store.claim(job.id)
    for file, content in (
        ("source", b"\0\0\0\x18ftypmp42" + bytes(range(256))),
        ("result.json", json.dumps(RESULT).encode()),
        ("report.html", b"<p>A report</p>"),
        ("person-1-0.jpg", b"\xff\xd8\xff\xe0 a picture"),
    ):
        made = services.folder / file
        made.write_bytes(content)
        services.files.put(job.id, file, made)
    services.store.finish(
        job.id, claim, DONE, verdict="real", probability_fake=0.1, headline="Real."
    )
    return services.store.get(job.id)


@contextlib.contextmanager
def serving(
    tmp_path: Path, port: int = 0, **changes: Any
) -> Iterator[tuple[str, subprocess.Popen]]:
    """'unmask serve' as its own process: its address, and the process."""
    port = port or free_port()
    settings = web_settings(tmp_path, **{"port": port, "judge_here": False, **changes})
    environment = os.environ | {
        s.variable: str(getattr(settings, s.name)) for s in for_command("serve")
    }
    command = [sys.executable, "-P", "-m", "unmask.cli", "serve"]
    with running(command, port, env=environment, cwd=tmp_path) as process:
        yield f"http://127.0.0.1:{port}", process
