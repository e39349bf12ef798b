"""How does the web application do with 50 viewers while 20 files are judged?

    python benchmarks/web_load.py [--minutes 10]

Starts 'unmask serve' with its defaults on a temporary folder. First samples are handed in one after
the other, from upload to verdict. Then 20 uploads of the two samples arrive at once; meanwhile 25
viewers follow jobs live and 25 reload pages, each about once a second, over connections that stay
open. Ends when all jobs have, with status 1 where something failed. Only this machine takes part.
"""

import argparse
import collections
import contextlib
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SAMPLES = [Path(__file__).resolve().parents[1] / "samples" / f"{n}.mp4" for n in ("real", "fake")]
ALONE = 6  # uploads one after the other, before all others
UPLOADS, STREAMS, READERS = 20, 25, 25
PAUSE = 1.0  # seconds between two pages of a reader, on average
FINAL = ("done", "failed", "cancelled")


class Load:
    """All that is asked of one server, and what it answered."""

    def __init__(self, port: int, deadline: float):
        self.port, self.deadline = port, deadline
        self.cookie = ""
        self.jobs: list[str] = []
        self.times: dict[str, list[float]] = collections.defaultdict(list)
        self.errors: list[str] = []
        self.judged = threading.Event()

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        """A connection that stays open; what goes wrong with it is an error of the server."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            yield connection
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            self.errors.append(repr(error))
        finally:
            connection.close()

    def ask(self, connection: http.client.HTTPConnection, path: str) -> bytes:
        """The body of a page; its time is written down under what it is."""
        start = time.perf_counter()
        connection.request("GET", path, headers={"Cookie": self.cookie})
        answer = connection.getresponse()
        body = answer.read()
        kind = path.split("/")[1].split("?")[0] or "first page"
        self.times[kind].append(time.perf_counter() - start)
        if answer.status != 200:
            self.errors.append(f"{answer.status} for {kind}")
        return body

    def enter(self) -> None:
        """Become somebody: all viewers are the same person, whose jobs these are."""
        with self.connection() as connection:
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            self.cookie = answer.getheader("Set-Cookie", "").split(";")[0]

    def upload(self, number: int) -> float:
        """Hand in a sample: the seconds until it is accepted."""
        file = SAMPLES[number % len(SAMPLES)]
        edge = "a-line-that-is-in-no-video"
        head = (
            f'--{edge}\r\nContent-Disposition: form-data; name="file"; '
            f'filename="{number}-{file.name}"\r\n\r\n'
        )
        body = head.encode() + file.read_bytes() + f"\r\n--{edge}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={edge}", "Cookie": self.cookie}
        start = time.perf_counter()
        with self.connection() as connection:
            connection.request("POST", "/api/v1/jobs", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status == 202:
                self.jobs.append(json.loads(text)["id"])
            else:
                self.errors.append(f"{answer.status} for an upload: {text[:200]!r}")
        return time.perf_counter() - start

    def follow(self, job: str) -> list[str]:
        """Watch a job until the server says that nothing comes any more: its states."""
        states: list[str] = []
        with self.connection() as connection:
            headers = {"Cookie": self.cookie}
            connection.request("GET", f"/api/v1/jobs/{job}/events", headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                self.errors.append(f"{answer.status} for a stream")
                return states
            kind, last = "", 0
            for line in answer:
                field, _, value = line.decode().rstrip("\n").partition(": ")
                if field == "id":
                    if int(value) != last + 1:
                        self.errors.append(f"event {value} came after {last}")
                    last = int(value)
                elif field == "event":
                    kind = value
                elif field == "data" and kind == "state":
                    states.append(json.loads(value)["state"])
                if time.monotonic() > self.deadline:
                    self.errors.append("a job was not done in time")
                    break
        return states

    def judge_alone(self, number: int) -> float:
        """Hand in a sample while there is nothing else to do: the seconds until its verdict."""
        start = time.perf_counter()
        self.upload(number)
        if self.jobs:  # else it was not accepted
            self.follow(self.jobs.pop())
        return time.perf_counter() - start

    def read(self, seed: int) -> None:
        """Reload pages until all jobs are judged."""
        chance = random.Random(seed)
        with self.connection() as connection:
            while not self.judged.is_set() and time.monotonic() < self.deadline:
                page = chance.choice(("/history", "/jobs/", "/jobs/", "/"))
                self.ask(connection, page + chance.choice(self.jobs) if page == "/jobs/" else page)
                self.judged.wait(chance.uniform(0, 2 * PAUSE))


def main() -> int:
    """Print the table; 1 where something failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="after these it is given up")
    deadline = time.monotonic() + 60 * parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder, served(folder) as port:
        load = Load(port, deadline)
        load.enter()
        alone = [load.judge_alone(number) for number in range(ALONE)]
        with ThreadPoolExecutor(UPLOADS + STREAMS + READERS) as pool:
            start = time.perf_counter()
            uploads = list(pool.map(load.upload, range(UPLOADS)))
            streams = [
                pool.submit(load.follow, load.jobs[i % len(load.jobs)])
                for i in range(STREAMS if load.jobs else 0)
            ]
            readers = [pool.submit(load.read, seed) for seed in range(READERS if load.jobs else 0)]
            watched = [stream.result() for stream in streams]
            took = time.perf_counter() - start
            load.judged.set()
            for reader in readers:
                reader.result()
        again = [load.follow(job) for job in load.jobs]
    once = [states for states in again if [s for s in states if s in FINAL] == ["done"]]
    whole = [states for states in watched if states and states[-1] == "done"]
    pages = [second for times in load.times.values() for second in times]
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print("| what | measured | goal |\n|---|---|---|")
    print(f"| errors | {len(load.errors)} | 0 |")
    print(f"| jobs that ended exactly once, as done | {len(once)} of {UPLOADS} | all |")
    print(f"| live viewers who saw the end | {len(whole)} of {STREAMS} | all |")
    print(f"| jobs that were started more than once | {restarted(again)} | 0 |")
    print(
        f"| a sample alone, from upload to verdict, median | {statistics.median(alone):.1f} s | - |"
    )
    print(f"| until all are judged | {took:.1f} s | - |")
    print(f"| an upload, median and 95 % | {shown(uploads)} | - |")
    print(f"| {len(pages)} pages meanwhile, median and 95 % | {shown(pages)} | under 200 ms |")
    for kind, times in sorted(load.times.items()):
        print(f"| of these {kind} ({len(times)}) | {shown(times)} | - |")
    for error, count in collections.Counter(load.errors).most_common(10):
        print(f"{count} x {error}", file=sys.stderr)
    return int(bool(load.errors) or len(once) < UPLOADS or len(whole) < STREAMS)


def restarted(jobs: list[list[str]]) -> int:
    """How many jobs a worker began more than once."""
    return sum(states.count("running") > 1 for states in jobs)


def shown(seconds: list[float]) -> str:
    """The median and the 95th percentile; '-' of nothing."""
    if not seconds:
        return "-"
    most = sorted(seconds)[int(0.95 * len(seconds))]
    return f"{1000 * statistics.median(seconds):.0f} and {1000 * most:.0f} ms"


@contextlib.contextmanager
def served(folder: str) -> Iterator[int]:
    """The server: its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "unmask.cli", "serve", "--port", str(port)]
    command += ["--data-folder", f"{folder}/data", "--upload-rate", "1000"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("UNMASK_")}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, **quiet) as process:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                if process.poll() is not None:
                    sys.exit("the server ended")
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()


if __name__ == "__main__":
    sys.exit(main())
