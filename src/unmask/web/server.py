"""Waitress, set up for long uploads and event streams.

Waitress writes the body of a request to disk before the application sees any of it. So who may
send a long one is decided here, from the head of the request.
"""

import copy
import io
import ipaddress
import json
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from flask import Flask
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.proxy_headers import proxy_headers_middleware
from waitress.server import BaseWSGIServer, create_server
from waitress.utilities import RequestEntityTooLarge
from werkzeug.exceptions import TooManyRequests

from unmask.errors import SettingError
from unmask.web import guard, intake
from unmask.web.stream import MOST_STREAMS

UPLOAD_PATH = "/api/v1/jobs"

_OTHER_THREADS = 24  # for all that are no event streams
_MOST_CONNECTIONS = 1000
_SLACK = 16_000_000
"""Bytes that an upload may be too long and still be read to its end: a browser that is cut off
while it sends never sees why."""


def bind(app: Flask, settings: SimpleNamespace) -> Any:
    """The server, bound to its port. Raises SettingError when that cannot be had."""
    servers: dict[int, Any] = {}
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        server = create_server(
            app, map=servers, host=host, port=settings.port,
            threads=MOST_STREAMS + _OTHER_THREADS,
            connection_limit=_MOST_CONNECTIONS,
            asyncore_use_poll=True,  # select() knows no file above number 1023
            channel_request_lookahead=1,  # tells event streams that their viewer has left
            max_request_body_size=intake.upload_bytes(settings) + _SLACK,
            ident=None,
            **_behind(settings.trusted_proxy),
        )  # fmt: skip
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingError(
            f"cannot listen on {settings.host} port {settings.port}: {reason}; choose others with "
            "--host and --port"
        ) from None
    for listener in servers.values():
        if isinstance(listener, BaseWSGIServer):
            listener.channel_class = _channel_class(app, listener.adj)
    return server


def _behind(proxy: str) -> dict[str, Any]:
    """Whom people's addresses, the host and the scheme are taken from: a proxy, if there is one.

    Raises SettingError for what is no address: it would never match one.
    """
    if not proxy:
        return {}
    try:
        proxy = str(ipaddress.ip_address(proxy))
    except ValueError:
        raise SettingError(
            f"--trusted-proxy takes the proxy's IP address, e.g. 127.0.0.1, not {proxy!r}"
        ) from None
    headers = {"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"}
    return {"trusted_proxy": proxy, "trusted_proxy_headers": headers}


def port_of(server: Any) -> int:
    """The port that a server got."""
    listen = getattr(server, "effective_listen", None)
    return int(listen[0][1] if listen else server.effective_port)


def _channel_class(app: Flask, adj: Adjustments) -> type[HTTPChannel]:
    short = copy.copy(adj)
    short.max_request_body_size = intake.OTHER_BYTES

    class Parser(HTTPRequestParser):
        refusal: type[RequestEntityTooLarge] | None = None  # of a long body that is not received

        def __init__(self, peer: str, adj: Adjustments):
            super().__init__(adj)
            self.peer = peer

        def parse_header(self, header_plus: bytes) -> None:
            super().parse_header(header_plus)
            if self.body_rcv is None:
                return
            is_upload = (self.command, self.path) == ("POST", UPLOAD_PATH)
            # What is short is left to the application, so that a wrong token counts once.
            is_long = self.chunked or self.content_length > short.max_request_body_size
            if not is_upload:
                self.refusal = _TooLarge
            elif is_long:
                self.refusal = _refusal(app, self, self.peer)
            if self.refusal:
                self.adj = short

        def received(self, data: bytes) -> int:
            consumed = super().received(data)
            if isinstance(self.error, RequestEntityTooLarge):
                self.error = (self.refusal or _TooLarge)("")
            return consumed

    class Channel(HTTPChannel):
        @property
        def parser_class(self) -> Callable[[Adjustments], Parser]:
            return partial(Parser, str(self.addr[0]))

    return Channel


def _refusal(app: Flask, head: HTTPRequestParser, peer: str) -> type[RequestEntityTooLarge] | None:
    """Why the long upload with this head, from the address ``peer``, is not received; or None."""
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "localhost", "SERVER_PORT": "80",
        "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), "REMOTE_ADDR": peer,
    }  # fmt: skip
    for name in ("COOKIE", "AUTHORIZATION", "X_FORWARDED_FOR"):
        if name in head.headers:
            environ[f"HTTP_{name}"] = head.headers[name]
    refusals: list[type[RequestEntityTooLarge] | None] = [_Stranger]

    def ask(environ: dict[str, Any], _: Any) -> list[bytes]:
        with app.request_context(environ):
            try:
                refusals.append(None if guard.signed_in() else _Stranger)
            except TooManyRequests:
                refusals.append(_TooManyTokens)
        return []

    adj = head.adj  # behind a proxy, the address is the one that it says
    of_whom = adj.trusted_proxy, adj.trusted_proxy_count, adj.trusted_proxy_headers
    proxy_headers_middleware(ask, *of_whom)(environ, lambda *_: None)
    is_too_long = head.content_length > adj.max_request_body_size
    if refusals[-1] or is_too_long:
        return refusals[-1] or _TooLarge
    # Once as it arrives, once as it is taken out of its form.
    has_room = app.extensions["unmask"].has_room(2 * head.content_length)
    return None if has_room else _NoRoom


class _TooLarge(RequestEntityTooLarge):
    """Said in the same form as all other errors."""

    detail = "The request is too large: hand in a shorter or smaller file."
    headers = (("Content-Type", "application/problem+json"), ("X-Content-Type-Options", "nosniff"))

    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        problem = {
            "type": "about:blank", "title": self.reason, "status": self.code,
            "detail": self.detail,
        }  # fmt: skip
        return f"{self.code} {self.reason}", [*self.headers], json.dumps(problem).encode()


class _Stranger(_TooLarge):
    """It is not the length that has to change."""

    code, reason = 401, "Unauthorized"
    detail = guard.SEND_THE_TOKEN
    headers = (*_TooLarge.headers, ("WWW-Authenticate", guard.CHALLENGE.to_header()))


class _TooManyTokens(_TooLarge):
    code, reason = 429, "Too Many Requests"
    detail = guard.TOO_MANY_TOKENS
    headers = (*_TooLarge.headers, ("Retry-After", "60"))


class _NoRoom(_TooLarge):
    code, reason = 507, "Insufficient Storage"
    detail = intake.NoRoom.description
