"""Real PostgreSQL, Redis and S3 for tests: private servers on free ports, once a session.

``postgres``, ``redis_server`` and ``s3`` each give a test the address of something empty, in the
form that the settings ``database``, ``queue`` and ``storage`` take.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unmask.settings import resolve


def web_settings(tmp_path: Path, **changes: Any) -> SimpleNamespace:
    """The settings of 'serve' for a test: its own data folder, a free port, one worker."""
    own = {"data_folder": str(tmp_path / "data"), "port": 0, "workers": 1}
    return resolve("serve", own | changes)


def program(*names: str) -> str:
    """The path of the first program that is installed; else skips the test, in CI fails it."""
    places = [*Path("/usr/lib/postgresql").glob("*/bin")]
    path = os.pathsep.join([os.environ["PATH"], *map(str, places)])
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    reason = f"{names[0]} is not installed"
    return pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(command: list[str], port: int, stop: int = signal.SIGTERM, **options: Any) -> Iterator:
    """A server, from when it takes connections until the end of the block."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        try:
            for _ in range(300):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None:
                    break
                time.sleep(0.1)
            else:
                pytest.fail(f"{command[0]} takes no connections after 30 s")
            if process.poll() is not None:
                log.seek(0)
                pytest.fail(f"{command[0]} ended: {log.read()}")
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(stop)
            process.wait(timeout=60)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[int]:
    """A PostgreSQL that lets everybody in on loopback: its port. It refuses to run as root."""
    initdb, server = program("initdb"), program("postgres")
    someone = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="unmask-", ignore_cleanup_errors=True) as folder:
        if someone:
            shutil.chown(folder, **someone)
        data = f"{folder}/data"
        subprocess.run(
            [initdb, "--username=postgres", "--auth=trust", "--no-sync", "-D", data],
            check=True, stdout=subprocess.DEVNULL, cwd=folder, **someone,
        )  # fmt: skip
        port = free_port()
        command = [server, "-D", data, "-p", str(port), "-k", folder]
        for setting in ("listen_addresses=127.0.0.1", "timezone=Asia/Kolkata", "fsync=off"):
            command += ["-c", setting]
        # SIGQUIT: at once. What it holds is thrown away.
        with running(command, port, stop=signal.SIGQUIT, cwd=folder, **someone):
            yield port


@pytest.fixture
def postgres(postgres_server: int) -> str:
    """The address of a new, empty PostgreSQL database."""
    import pg8000.native

    name = f"unmask_{time.time_ns()}"
    for attempt in range(50):
        try:
            with contextlib.closing(
                pg8000.native.Connection("postgres", host="127.0.0.1", port=postgres_server)
            ) as connection:
                connection.run(f"CREATE DATABASE {name}")
            break
        except Exception:  # "the database system is starting up"
            if attempt == 49:
                raise
            time.sleep(0.1)
    return f"postgresql+pg8000://postgres@127.0.0.1:{postgres_server}/{name}"


@pytest.fixture(scope="session")
def redis_process() -> Iterator[int]:
    """A Redis that keeps nothing on disk: its port."""
    server, port = program("redis-server"), free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        with running(command, port, cwd=folder):
            yield port


@pytest.fixture
def redis_server(redis_process: int) -> str:
    """The address of an empty Redis."""
    import redis

    address = f"redis://127.0.0.1:{redis_process}/0"
    with redis.Redis.from_url(address) as client:
        client.flushall()
    return address


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An S3 on this machine: its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a folder in a new bucket; the environment says, as an operator's would, how
    to reach it, so processes that a test starts reach it too."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"unmask-{time.time_ns()}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/jobs"
