"""Who may come in, who may see a job, and what browsers are told not to do.

A browser is known by a random owner id in Flask's signed session cookie. With an access token,
people sign in with it once and programs send it with every request; a share link opens one job to
whoever has it. Somebody else's job is answered like one that does not exist.
"""

import hashlib
import hmac
import logging
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

from flask import (
    Flask,
    Response,
    abort,
    current_app,
    g,
    redirect,
    request,
    session,
    url_for,
)  # fmt: skip
from flask.sessions import SecureCookieSessionInterface
from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import NotFound, TooManyRequests, Unauthorized
from werkzeug.wrappers import Response as AnyResponse

from unmask.web.current import services, settings
from unmask.web.tables import Job

SHORTEST_TOKEN = 16
"""Shorter access tokens could be guessed."""

WRONG_TOKENS = 20
"""Wrong access tokens that one address may try in a minute."""

SEND_THE_TOKEN = "Send the access token: 'Authorization: Bearer TOKEN'."
TOO_MANY_TOKENS = "Too many wrong tokens: try again in a minute."
CHALLENGE = WWWAuthenticate("bearer", {"realm": "Unmask"})
"""What who may not come in is told, in words and for programs."""

_REDIS_SECONDS = 0.5
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SAFE = ("GET", "HEAD", "OPTIONS")
_OPEN = ("static", "pages.login", "pages.check_login", "api.document",
         "monitoring.health")  # fmt: skip
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # The secrets of share links are in addresses. Not 'no-referrer': forms would have no origin.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_log = logging.getLogger(__name__)


def protect(app: Flask, settings: SimpleNamespace, folder: Path) -> None:
    """Put the guard before every request of the application and its headers on every response."""
    app.secret_key = _session_key(folder)
    app.session_interface = _Sessions()
    # Not 'session': browsers send a cookie to every port of a host, other programs' too.
    app.config.update(SESSION_COOKIE_NAME="unmask_session", SESSION_COOKIE_SAMESITE="Lax")
    # A Redis that hangs must not hang the server.
    limits = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), _REDIS_SECONDS)
    storage = storage_from_string(
        settings.queue or "memory://", wrap_exceptions=True, **(limits if settings.queue else {})
    )
    app.extensions["unmask_rates"] = FixedWindowRateLimiter(storage)
    app.before_request(_admit)
    app.after_request(_harden)


# Who it is.


def signed_in() -> bool:
    """Whether whoever asks may use the application: always where there is no access token."""
    token = settings().access_token
    return not token or _has_bearer() or _same(session.get("entered", ""), _fingerprint(token))


def sign_in(token: str) -> bool:
    """Let this browser in if it knows the access token. After too many wrong ones, status 429."""
    expected = settings().access_token
    if expected and not _is_right(token):
        return False
    session["entered"] = _fingerprint(expected)
    owner()
    return True


def sign_out() -> None:
    """Forget that this browser may come in; its jobs are there when somebody signs in again."""
    session.pop("entered", None)


def owner() -> str:
    """Whose jobs these are. A browser that sees a page for the first time becomes somebody."""
    if "owner" not in session and request.blueprint == "pages":
        session["owner"] = secrets.token_urlsafe(16)
        session.permanent = True  # outlives the browser's window
    return session.get("owner") or ("token" if _has_bearer() else "local")


def visible_job(id: str) -> Job:
    """The job, for its owner or, to look at, for who has its share link; else status 404."""
    job = services().store.get(id)
    if job is None or not (_is_own(job) or _is_shared(job)):
        raise NotFound("There is no such job: it was deleted, or it never was.")
    return job


def own_job(id: str) -> Job:
    """The job, for its owner only; else status 404."""
    job = services().store.get(id)
    if job is None or not _is_own(job):
        raise NotFound("There is no such job: it was deleted, or it never was.")
    return job


def limit_uploads() -> None:
    """Count an upload of this address. After too many in a minute, status 429."""
    if not _hit("upload", settings().upload_rate):
        raise TooManyRequests("Too many uploads: try again in a minute.", retry_after=60)


# What is checked of every request.


def _admit() -> AnyResponse | None:
    """Refuse what no page of ours sends, then whoever may not come in."""
    if not settings().access_token and not _names_this_machine(request.host):
        # A page elsewhere whose name was made to lead here: it could read everything.
        abort(400, "This server is only for its own machine: use http://localhost.")
    if request.method == "OPTIONS":  # answers with what is allowed, nothing else
        return None
    if request.method not in _SAFE and not _is_from_us():
        abort(403, "Only pages of this server may do that: open it in this browser and try again.")
    if request.endpoint in _OPEN or signed_in():
        return None
    job = services().store.get((request.view_args or {}).get("id", ""))
    if job and _is_shared(job):
        return None
    if request.endpoint == "pages.job" and "share" in request.args:
        raise NotFound("There is no such job, or it is no longer shared.")
    if request.blueprint == "pages":
        back = request.full_path if request.query_string else request.path
        return redirect(url_for("pages.login", next=back if request.method == "GET" else None))
    raise Unauthorized(SEND_THE_TOKEN, www_authenticate=CHALLENGE)


def _names_this_machine(host: str) -> bool:
    with suppress(ValueError):
        return urlsplit(f"//{host}").hostname in (*_LOOPBACK, settings().host)
    return False


def _is_from_us() -> bool:
    """Whether no page of another site made the browser send this."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site in ("same-origin", "none"):
        return True
    # Only the host counts: behind a proxy, the page's scheme is not the one that arrives here.
    if site is None and (origin is None or origin.partition("://")[2] == request.host):
        return True
    allowed = origin in current_app.config["UNMASK_ORIGINS"]
    return allowed and (_has_bearer() or not settings().access_token)


def _harden(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers[name] = value
    if request.is_secure or _names_this_machine(request.host):  # elsewhere browsers complain of it
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    origins = current_app.config["UNMASK_ORIGINS"]
    if origins and request.path.startswith("/api/"):
        response.vary.add("Origin")
        if request.headers.get("Origin") in origins:
            _allow_origin(response, request.headers["Origin"])
    return response


def _allow_origin(response: Response, origin: str) -> None:
    """Let a page of another site read this. It sends no cookies, but the access token."""
    response.access_control_allow_origin = origin
    response.access_control_expose_headers = (
        "Content-Disposition", "Content-Range", "ETag", "Location", "Retry-After",
    )  # fmt: skip
    if request.method == "OPTIONS":
        response.access_control_allow_methods = ("GET", "HEAD", "POST", "DELETE")
        response.access_control_allow_headers = (
            "Authorization", "Content-Type", "Last-Event-ID", "Range",
        )  # fmt: skip
        response.access_control_max_age = 600


# Secrets.


class _Sessions(SecureCookieSessionInterface):
    """Session cookies that go over HTTPS only where they came over HTTPS."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def _session_key(folder: Path) -> bytes:
    """What signs the session cookies: made once, readable by nobody else."""
    path = folder / "session.key"
    if not path.exists():
        handle, made = tempfile.mkstemp(dir=folder)  # mode 0600
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
        with suppress(FileExistsError):  # another server was faster
            os.link(made, path)
        os.unlink(made)
    return path.read_bytes()


def _same(given: str, expected: str) -> bool:
    """Compare secrets in a time that tells nothing."""
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def _fingerprint(token: str) -> str:
    """What a browser that is let in carries: worth nothing once the access token changes."""
    return hmac.new(current_app.secret_key, token.encode(), hashlib.sha256).hexdigest()


def _is_right(token: str) -> bool:
    """Whether it is the access token; too many wrong ones from one address end in status 429."""
    if not _hit("token", WRONG_TOKENS, count=False):
        raise TooManyRequests(TOO_MANY_TOKENS, retry_after=60)
    if _same(token, settings().access_token):
        return True
    _hit("token", WRONG_TOKENS)
    return False


def _has_bearer() -> bool:
    """Whether this request carries the access token."""
    if "unmask_bearer" not in g:
        g.unmask_bearer = False  # the page on status 429 asks again
        given = request.authorization
        is_token = given is not None and given.type == "bearer" and bool(settings().access_token)
        g.unmask_bearer = is_token and _is_right(given.token or "")
    return g.unmask_bearer


def _is_own(job: Job) -> bool:
    return signed_in() and job.owner == owner()


def _is_shared(job: Job) -> bool:
    share = request.args.get("share", "")
    return job.share is not None and request.method in _SAFE and _same(share, job.share)


# Rates, by the address that a request comes from.


def _hit(what: str, per_minute: int, count: bool = True) -> bool:
    """Whether this address may do that (once more); counts it unless told not to."""
    rates = current_app.extensions["unmask_rates"]
    ask = rates.hit if count else rates.test
    try:
        return ask(RateLimitItemPerMinute(per_minute), "unmask", what, request.remote_addr or "")
    except StorageError:
        _log.warning("rates are not limited: Redis does not answer")
        return True
