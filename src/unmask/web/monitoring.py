"""How it goes: /healthz for whoever watches the server, /metrics for Prometheus, logs as JSON.

None of them says anything about a person: no file names, addresses, tokens or query strings.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from flask import Blueprint, Flask, Response, current_app, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pythonjsonlogger.json import JsonFormatter

from unmask.web.current import settings
from unmask.web.intake import upload_bytes
from unmask.web.services import Services
from unmask.web.store import Store
from unmask.web.stream import Streams
from unmask.web.tables import CANCELLED, DONE, FAILED, QUEUED, RUNNING

monitoring = Blueprint("monitoring", __name__)

_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")  # others are anybody's inventions
_PATIENCE = 5.0  # seconds that the parts of the server have to answer
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_log = logging.getLogger(__name__)


@monitoring.get("/healthz")
def health() -> tuple[dict[str, Any], int]:
    """Whether the parts of the server work; status 503 if one does not."""
    services: Services = current_app.extensions["unmask"]
    worker = current_app.extensions.get("unmask_worker")
    parts = {
        **_working(
            database=services.store.counts,
            queue=lambda: services.tasks.waiting,
            storage=services.files.check,
        ),
        "disk": services.has_room(2 * upload_bytes(settings())),
        "worker": worker.is_alive() if worker else None,  # None: on other machines
    }
    is_well = False not in parts.values()
    return {"status": "ok" if is_well else "unavailable", **parts}, 200 if is_well else 503


@monitoring.get("/metrics")
def metrics() -> Response:
    """Figures for Prometheus."""
    text = generate_latest(current_app.extensions["unmask_metrics"].registry)
    return Response(text, content_type="text/plain; version=0.0.4; charset=utf-8")


class Metrics:
    """What is counted, by one application."""

    def __init__(self, store: Store, streams: Streams):
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "unmask_request_seconds", "Time until the response began",
            ("route", "method", "status"), buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.uploaded = Counter(
            "unmask_upload_bytes", "Bytes of files that were taken", registry=self.registry
        )
        open_streams = Gauge("unmask_event_streams", "Open streams", registry=self.registry)
        open_streams.set_function(lambda: streams.open)
        self.registry.register(_Jobs(store))


class _Jobs(Collector):
    def __init__(self, store: Store):
        self._store = store

    def describe(self) -> list[GaugeMetricFamily]:
        return [GaugeMetricFamily("unmask_jobs", "Jobs by state", labels=["state"])]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        (family,) = self.describe()
        counts = self._store.counts()
        for state in (QUEUED, RUNNING, DONE, FAILED, CANCELLED):
            family.add_metric([state], counts.get(state, 0))
        yield family


def watch(app: Flask, store: Store, streams: Streams) -> None:
    """Count and log every request of the application."""
    app.extensions["unmask_metrics"] = Metrics(store, streams)
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    g.unmask_began = time.monotonic()


def _end(response: Response) -> Response:
    seconds = time.monotonic() - g.unmask_began
    route = request.url_rule.rule if request.url_rule else "none"
    method = request.method if request.method in _METHODS else "other"
    current_app.extensions["unmask_metrics"].requests.labels(
        route, method, response.status_code
    ).observe(seconds)
    job = {"job": request.view_args["id"]} if "id" in (request.view_args or {}) else {}
    _log.info(
        "request", extra={"route": route, "method": method, "status": response.status_code,
                          "milliseconds": round(1000 * seconds, 1), **job},
    )  # fmt: skip
    return response


def log_as_json() -> None:
    """Write this process's logs to standard error, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    fields = {"levelname": "level", "name": "logger", "message": "event"}
    handler.setFormatter(
        JsonFormatter("%(levelname)s %(name)s %(message)s", rename_fields=fields, timestamp=True)
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for noisy in ("waitress", "huey", "botocore", "aiobotocore", "s3fs"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _working(**asks: Callable[[], Any]) -> dict[str, bool]:
    """Which of these answer in time. One that hangs holds up neither the others nor the caller."""
    working = dict.fromkeys(asks, False)

    def ask(name: str) -> None:
        with suppress(Exception):
            asks[name]()
            working[name] = True

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in asks]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return working.copy()
