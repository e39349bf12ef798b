"""The JSON API, /api/v1: all that the pages can do, for programs. openapi.json describes it."""

import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from flask import Blueprint, Response, abort, current_app, request, url_for
from fsspec.implementations.local import LocalFileOpener
from werkzeug.exceptions import Conflict, NotFound, ServiceUnavailable, UnsupportedMediaType

from unmask.web import guard, intake
from unmask.web.current import services, time_of
from unmask.web.files import ANNOTATED, FRAMES_CSV, REPORT_HTML, REPORT_JSON, RESULT, SOURCE
from unmask.web.store import new_id
from unmask.web.stream import MOST_STREAMS, has_ended
from unmask.web.tables import DONE, QUEUED, Job

api = Blueprint("api", __name__, url_prefix="/api/v1")

_MOST_JOBS = 100  # in one answer
_CHUNK = 1 << 18  # bytes of a file that are held at once
_PICTURE = re.compile(r"person-\d+-\d+(-heat)?\.jpg", re.ASCII)
_TYPES = {
    "mp4": "video/mp4", "mov": "video/quicktime", "3gp": "video/3gpp", "webm": "video/webm",
    "mkv": "video/x-matroska", "avi": "video/x-msvideo", "mpeg": "video/mpeg", "ts": "video/mp2t",
    "flv": "video/x-flv", "ogg": "video/ogg", "wmv": "video/x-ms-wmv", "mxf": "application/mxf",
    "gif": "image/gif", "jpg": "image/jpeg", "png": "image/png", "webp": "image/webp",
    "avif": "image/avif", "bmp": "image/bmp", "tiff": "image/tiff", "json": "application/json",
    "html": "text/html", "csv": "text/csv",
}  # fmt: skip


@api.post("/jobs")
def create() -> tuple[dict[str, Any], int, dict[str, str]]:
    """Hand in a file, or a web address."""
    guard.limit_uploads()
    if request.mimetype == "multipart/form-data":
        job = intake.take_file(request, guard.owner())
        current_app.extensions["unmask_metrics"].uploaded.inc(job.size_bytes)
    elif request.mimetype == "application/json":
        body = request.get_json()
        if not isinstance(body, dict) or set(body) != {"address"}:
            abort(400, "Send {'address': 'https://...'} and nothing else.")
        job = intake.take_address(body["address"], guard.owner())
    else:
        raise UnsupportedMediaType("Send a multipart/form-data form with the field 'file'.")
    return _as_json(job), 202, {"Location": url_for("api.show", id=job.id)}


@api.get("/jobs")
def listing() -> dict[str, Any]:
    """The jobs of whoever asks, the newest first."""
    limit = _whole_number("limit", request.args.get("limit", "50"))
    if not 1 <= limit <= _MOST_JOBS:
        abort(400, f"'limit' is between 1 and {_MOST_JOBS}.")
    search = request.args.get("search", "").strip()
    jobs = services().store.list(
        guard.owner(), search=search, limit=limit + 1, before=time_of(request.args.get("before"))
    )
    next = _moment(jobs[limit - 1].created) if len(jobs) > limit else None
    return {"jobs": [_as_json(job) for job in jobs[:limit]], "next": next}


@api.get("/jobs/<id>")
def show(id: str) -> dict[str, Any]:
    """One job."""
    return _as_json(guard.visible_job(id))


@api.delete("/jobs/<id>")
def delete(id: str) -> tuple[str, int]:
    """Forget a job and all its files, wherever it is in its life."""
    services().forget(guard.own_job(id).id)
    return "", 204


@api.post("/jobs/<id>/cancel")
def cancel(id: str) -> tuple[dict[str, Any], int]:
    """Stop a job that waits or runs."""
    job = guard.own_job(id)
    if not services().store.cancel(job.id):
        raise Conflict("The job is finished already: there is nothing to cancel.")
    return _as_json(guard.own_job(id)), 202


@api.get("/jobs/<id>/events")
def events(id: str) -> Response:
    """What happens to a job, live."""
    job = guard.visible_job(id)
    given = request.headers.get("Last-Event-ID") or request.args.get("after", "0")
    after = _whole_number("after", given)
    streams = current_app.extensions["unmask_streams"]
    if has_ended(job) and not services().store.events(job.id, after, 1):
        return Response(status=204)  # tells a browser that lost the line not to come again
    if streams.open >= MOST_STREAMS:
        raise ServiceUnavailable("Too many people watch: reload in a minute.", retry_after=30)
    is_gone = request.environ.get("waitress.client_disconnected", lambda: False)
    response = Response(streams.follow(job.id, after, is_gone), mimetype="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"  # nginx would collect them
    return response


@api.get("/jobs/<id>/result")
def result(id: str) -> Response:
    """What was found in a job that is done."""
    job = guard.visible_job(id)
    if job.state != DONE:
        raise Conflict(f"The job is {job.state}: there is a result only when it is done.")
    return _send(job, RESULT, "json")


@api.get("/jobs/<id>/files/<name>")
def download(id: str, name: str) -> Response:
    """One of a job's files, to be saved."""
    job = guard.visible_job(id)
    if name == SOURCE:
        kind, end = job.kind, ""
    elif name in (REPORT_JSON, REPORT_HTML, FRAMES_CSV):
        kind, end = name.rpartition(".")[2], f"-{name.rpartition('.')[0]}"
    elif name == ANNOTATED and job.annotated == "ready":
        kind, end = None, "-annotated"
    elif _PICTURE.fullmatch(name):
        kind, end = "jpg", f"-{name.removesuffix('.jpg')}"
    else:
        raise _no_file()
    return _send(job, name, kind, os.path.splitext(job.name)[0] + end)


@api.post("/jobs/<id>/annotated")
def annotate(id: str) -> tuple[dict[str, Any], int]:
    """Have the copy with boxes and verdicts made, if it is not there or on its way."""
    job = guard.own_job(id)
    if services().store.ask_for_annotated(job.id):
        intake.notify(job)
    elif job.state != DONE or job.annotated not in ("queued", "running", "ready"):
        raise Conflict("Only of a file that could be judged an annotated copy can be made.")
    return _as_json(guard.own_job(id)), 202


@api.post("/jobs/<id>/share")
def share(id: str) -> dict[str, str]:
    """A link with which anybody can see this job; the same until it is revoked."""
    job = guard.own_job(id)
    if not job.share:
        services().store.set_share(job.id, new_id())
        job = guard.own_job(id)  # another request may have been faster
    return {"url": url_for("pages.job", id=job.id, share=job.share, _external=True)}


@api.delete("/jobs/<id>/share")
def unshare(id: str) -> tuple[str, int]:
    """Make the link worthless."""
    services().store.set_share(guard.own_job(id).id, None)
    return "", 204


@api.get("/openapi.json")
def document() -> Response:
    """The description of all this."""
    text = Path(__file__).with_name("openapi.json").read_bytes()
    return Response(text, mimetype="application/json")


def _as_json(job: Job) -> dict[str, Any]:
    waiting = services().store.waiting_before(job) if job.state == QUEUED else None
    share = job.share if request.args.get("share") == job.share else None
    return {
        "id": job.id,
        "name": job.name,
        "kind": job.kind,
        "size_bytes": job.size_bytes,
        "state": job.state,
        "progress": job.progress,
        "verdict": job.verdict,
        "probability_fake": job.probability_fake,
        "headline": job.headline,
        "error": job.error,
        "created": _moment(job.created),
        "started": _moment(job.started),
        "finished": _moment(job.finished),
        "expires": _moment(job.expires),
        "annotated": job.annotated,
        "waiting_before": waiting,
        "url": url_for("pages.job", id=job.id, share=share, _external=True),
    }


def _moment(time: datetime | None) -> str | None:
    return time and time.isoformat().replace("+00:00", "Z")


def _whole_number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        abort(400, f"'{name}' is a whole number.")
    return int(text)


def _no_file() -> NotFound:
    return NotFound("There is no such file, or it is not there yet.")


def _send(job: Job, name: str, kind: str | None, stem: str = "") -> Response:
    """A file of a job, or the range of it that is asked for; with a ``stem``, to be saved.

    ``kind`` is its ending; None where only its first bytes tell.
    """
    try:
        file = services().files.open(job.id, name)
    except FileNotFoundError:
        raise _no_file() from None
    try:
        size = file.seek(0, os.SEEK_END)
        if kind is None:
            file.seek(0)
            kind = intake.kind_of(file.read(64)) or ""
        response = Response(direct_passthrough=True)
        response.content_type = _TYPES.get(kind, "application/octet-stream")
        response.content_length = size
        response.set_etag(f"{job.id}-{name}-{size}")
        if stem:
            _name(response, f"{stem}.{kind}")
        asked = dict(request.environ)
        if request.range is None or len(request.range.ranges) != 1:
            asked.pop("HTTP_RANGE", None)  # no range, or several: all of it
        response.make_conditional(asked, accept_ranges=True, complete_length=size)
        start = 0
        if response.status_code == 206:
            start, size = response.content_range.start, response.content_length
        if response.status_code == 304 or request.method == "HEAD":
            file.close()
            return response
        response.response = _body(file, start, size)
        return response
    except BaseException:
        file.close()
        raise


def _name(response: Response, name: str) -> None:
    """Have a browser save it under a name, whatever letters that is written in."""
    plain = re.sub(r"[^\w .()-]", "_", name, flags=re.ASCII)
    response.headers["Content-Disposition"] = (
        f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
    )


def _body(file: BinaryIO, start: int, size: int) -> Any:
    file.seek(start)
    if isinstance(file, LocalFileOpener) and "wsgi.file_wrapper" in request.environ:
        # The server sends it by itself: a viewer who pauses does not hold a thread.
        return request.environ["wsgi.file_wrapper"](file, _CHUNK)
    return _chunks(file, size)


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    with file:
        while size > 0 and (chunk := file.read(min(_CHUNK, size))):
            size -= len(chunk)
            yield chunk
