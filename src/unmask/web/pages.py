"""The pages that people see: upload, one job, history, login. What they show is in templates/.

A page has everything in words when it arrives; the scripts in static/ make it live. They get what
they work with from data- attributes and the API, never from a script within the page.
"""

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from flask.blueprints import BlueprintSetupState
from jinja2 import StrictUndefined
from werkzeug.exceptions import HTTPException

from unmask.report import HEADLINES
from unmask.text import clock, printable
from unmask.web import guard
from unmask.web.current import services, settings, time_of
from unmask.web.files import RESULT
from unmask.web.tables import DONE, FINISHED, Job

pages = Blueprint("pages", __name__)

STATES = {
    "queued": "Waits",
    "running": "Is being judged",
    "done": "Judged",
    "failed": "Could not be judged",
    "cancelled": "Cancelled",
}

_PAGE = 25  # jobs of the history on one page
_LATEST = 8  # jobs below the upload
_COLOURS = 7  # of people, in app.css


@pages.get("/")
def upload() -> str:
    """Where videos are handed in, and the latest jobs."""
    store, owner = services().store, guard.owner()
    jobs = store.list(owner, limit=_LATEST)
    return render_template("upload.html", jobs=jobs, counts=store.counts(owner))


@pages.get("/jobs/<id>")
def job(id: str) -> str:
    """One job: how far it is, then what was found."""
    job = guard.visible_job(id)
    # Its owner sees a share link's page as everybody else does.
    owned = "share" not in request.args and job.owner == guard.owner()
    if job.state not in FINISHED:
        waiting = services().store.waiting_before(job)
        return render_template("live.html", job=job, owned=owned, waiting=waiting)
    if job.state != DONE:
        return render_template("outcome.html", job=job, owned=owned, result=None)
    try:
        with services().files.open(job.id, RESULT) as file:
            result = json.load(file)
    except FileNotFoundError:
        abort(404)  # it has just been deleted
    template = "result.html" if result["people"] else "outcome.html"
    return render_template(
        template, job=job, owned=owned, result=result, report=result["report"],
        tracks={track["id"]: track for track in result["report"]["tracks"]},
    )  # fmt: skip


@pages.get("/history")
def history() -> str:
    """All jobs of this browser, the newest first, with search."""
    search = request.args.get("search", "").strip()
    before = time_of(request.args.get("before") or None)
    store, owner = services().store, guard.owner()
    jobs = store.list(owner, search=search, limit=_PAGE + 1, before=before)
    return render_template(
        "history.html", jobs=jobs[:_PAGE], search=search, older=len(jobs) > _PAGE, before=before,
        counts=store.counts(owner),
    )  # fmt: skip


@pages.get("/login")
def login() -> str | Response:
    """Asks for the access token."""
    if guard.signed_in():
        return redirect(_target())
    return render_template("login.html", next=_target(), wrong=False)


@pages.post("/login")
def check_login() -> str | Response | tuple[str, int]:
    """Lets in whoever knows the access token."""
    if guard.sign_in(request.form.get("token", "")):
        return redirect(_target())
    return render_template("login.html", next=_target(), wrong=True), 401


@pages.post("/logout")
def logout() -> Response:
    """Forgets that this browser may come in."""
    guard.sign_out()
    return redirect(url_for("pages.login"))


def error_page(error: HTTPException) -> tuple[str, int, dict[str, str]]:
    """The page on an HTTP error: what happened and what to do next."""
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    page = render_template(
        "error.html", status=error.code or 500, said=error.description,
        wait=headers.get("Retry-After"),
    )  # fmt: skip
    return page, error.code or 500, headers


def _target() -> str:
    """Where to go after login: a page of this site, whatever the address says."""
    target = request.values.get("next", "/")
    # '//host' and '/\host' lead elsewhere, and browsers drop control characters before they look.
    is_local = target.startswith("/") and target[1:2] not in ("/", "\\") and target.isprintable()
    return target if is_local else url_for("pages.upload")


# What the templates use.


def size(count: int) -> str:
    """Bytes in kB, MB or GB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{max(count, 1) / 1e3:.0f} kB" if count >= 1e3 else f"{count} bytes"


def moment(time: datetime) -> str:
    """A time in UTC; times.js turns it into the reader's."""
    return time.astimezone(UTC).strftime("%-d %b %Y, %H:%M UTC")


def duration(hours: float) -> str:
    """Hours in words, such as '24 hours', '3 days' or '30 minutes'."""
    for unit, scale in (("day", 24), ("hour", 1), ("minute", 1 / 60)):
        count = hours / scale
        if count >= (2 if unit == "day" else 1) or unit == "minute":
            return f"{count:.3g} {unit}{'' if count == 1 else 's'}"
    raise AssertionError("the last unit takes all")


def api_address(job: Job, tail: str = "") -> str:
    """Where the API has this job, or something of it; on a shared page with the link's secret."""
    return _shared(f"{request.script_root}/api/v1/jobs/{job.id}{tail}")


def page_address(job: Job) -> str:
    """Where the page of this job is."""
    return url_for("pages.job", id=job.id)


def _shared(address: str) -> str:
    share = request.args.get("share")
    return f"{address}?{urlencode({'share': share})}" if share else address


@pages.record_once
def _set_up_templates(state: BlueprintSetupState) -> None:
    """A mistake in a template is an error, and a line with nothing but a tag leaves none."""
    environment = state.app.jinja_env
    environment.undefined = StrictUndefined
    # Control characters and those that turn the direction of writing, in names and messages.
    environment.finalize = lambda value: printable(value) if type(value) is str else value
    environment.trim_blocks = environment.lstrip_blocks = True


@pages.app_context_processor
def _words() -> dict[str, Any]:
    """What every template knows."""
    return {
        "settings": settings(),
        "signed_in": guard.signed_in(),
        "HEADLINES": HEADLINES,
        "STATES": STATES,
        "api_address": api_address,
        "page_address": page_address,
    }


for _filter in (clock, size, moment, duration):
    pages.add_app_template_filter(_filter)
pages.add_app_template_filter(lambda p: f"{p:.2f}", "probability")
pages.add_app_template_filter(lambda id: f"person-{(id - 1) % _COLOURS + 1}", "colour")
