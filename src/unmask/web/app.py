"""The web application and the server that runs it."""

import ipaddress
import os
import re
import signal
import tempfile
import threading
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from unmask.errors import SettingError
from unmask.web import guard, intake, monitoring
from unmask.web.api import api
from unmask.web.house import INCOMING, delete_stale, keep_clean
from unmask.web.pages import error_page, pages
from unmask.web.server import bind, port_of
from unmask.web.services import Services, check_judging, connect
from unmask.web.stream import Streams
from unmask.web.supervisor import Supervisor

_FORM_PARTS = 10
_NEXT = {  # what to do, where nobody of ours said it
    400: "The request cannot be understood: /api/v1/openapi.json says what it has to be like.",
    404: "There is nothing at this address: /api/v1/openapi.json lists what there is.",
    405: "That cannot be done with this address: /api/v1/openapi.json lists what can.",
    413: "The request is too large: hand in a shorter or smaller file, as the field 'file' of a "
    "form, with a file name.",
    500: "Something broke here: try again, then tell whoever runs the server, whose log has it.",
}
_FOR_PROGRAMS = ("/api/", "/healthz", "/metrics")  # they are told of errors in JSON
_ORIGIN = re.compile(r"(https?)(://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\]))(:\d{1,5})?")
_USUAL_PORTS = {"https": ":443", "http": ":80"}


def create_app(settings: SimpleNamespace, services: Services) -> Flask:
    """The Flask application over what ``connect`` opened.

    Raises SettingError where the settings name sites that there cannot be.
    """
    app = Flask(__name__)
    app.debug = False  # whatever FLASK_DEBUG says
    app.request_class = intake.UploadRequest
    app.config.update(
        UNMASK=settings,
        UNMASK_ORIGINS=parse_origins(settings.allowed_origins),
        MAX_CONTENT_LENGTH=intake.OTHER_BYTES,
        MAX_FORM_PARTS=_FORM_PARTS,
    )
    (services.folder / INCOMING).mkdir(mode=0o700, exist_ok=True)
    streams = Streams(services.store)
    app.extensions.update(unmask=services, unmask_streams=streams)
    monitoring.watch(app, services.store, streams)
    guard.protect(app, settings, services.folder)
    for blueprint in (pages, api, monitoring.monitoring):
        app.register_blueprint(blueprint)
    app.register_error_handler(HTTPException, _answer_error)
    return app


def serve(settings: SimpleNamespace) -> int:
    """Serve, with a worker beside, until SIGTERM or Ctrl-C.

    Raises SettingError, ModelError and UsageError, before anybody is served.
    """
    check(settings)
    if settings.judge_here:
        check_judging(settings)
    os.umask(0o077)  # what people hand in is nobody else's on this machine
    monitoring.log_as_json()
    services = connect(settings)
    app = create_app(settings, services)
    server = bind(app, settings)
    incoming = services.folder / INCOMING
    delete_stale(incoming)  # what is younger another server may be receiving
    # No worker has this folder, perhaps, and what was just left by a server that died is young.
    ending = threading.Event()
    threading.Thread(target=keep_clean, args=(incoming, ending), daemon=True).start()
    tempfile.tempdir = str(incoming)  # all spools go there
    supervisor = Supervisor(settings) if settings.judge_here else None

    def end(*_: Any) -> None:
        if supervisor:
            supervisor.ask_to_stop()
        app.extensions["unmask_streams"].close()
        raise SystemExit

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        if supervisor:
            app.extensions["unmask_worker"] = supervisor
            supervisor.start()
        print(_announcement(settings.host, port_of(server)), flush=True)
        server.run()
    except SystemExit:
        pass  # between two steps of the server, which catches it otherwise
    finally:
        ending.set()
        server.close()
        if supervisor:
            supervisor.stop()
        services.store.close()
    return 0


def check(settings: SimpleNamespace) -> None:
    """Raise SettingError where the settings would let strangers in."""
    token = settings.access_token
    if token and len(token) < guard.SHORTEST_TOKEN:
        raise SettingError(
            f"--access-token must have at least {guard.SHORTEST_TOKEN} characters: make one with "
            "'openssl rand -base64 24'"
        )
    if not token and not _is_loopback(settings.host):
        raise SettingError(
            f"--host {settings.host} lets other machines in: set UNMASK_ACCESS_TOKEN to a secret "
            "that they have to give, or leave --host out"
        )


def parse_origins(text: str) -> frozenset[str]:
    """``https://a.example, http://b.example:80/`` -> these web sites as browsers name them.

    Raises SettingError for what no browser calls a site.
    """
    origins = set()
    for part in filter(None, (part.strip().lower() for part in text.split(","))):
        found = _ORIGIN.fullmatch(part.removesuffix("/"))
        if not found:
            raise SettingError(
                f"--allowed-origins takes https://HOST[:PORT], several with commas, not {part!r}"
            )
        scheme, host, port = found.groups("")
        origins.add(scheme + host + ("" if port == _USUAL_PORTS[scheme] else port))
    return frozenset(origins)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _announcement(host: str, port: int) -> str:
    """Where a browser on this machine finds the server, and who else can reach it."""
    is_everywhere = host in ("0.0.0.0", "::")
    if is_everywhere or host == "127.0.0.1":
        shown = "localhost"
    else:
        shown = f"[{host}]" if ":" in host else host
    others = ", listening on all addresses of this machine" if is_everywhere else ""
    return f"Unmask is at http://{shown}:{port}{others} (Ctrl-C ends it)"


def _answer_error(error: HTTPException) -> Any:
    """Every error, as a page for people and as application/problem+json for programs."""
    if not request.path.startswith(_FOR_PROGRAMS):
        return error_page(error)
    status = error.code or 500
    is_default = error.description == type(error).description
    response: Response = jsonify(
        type="about:blank", title=HTTPStatus(status).phrase, status=status,
        detail=_NEXT.get(status, error.description) if is_default else error.description,
    )  # fmt: skip
    response.status_code = status
    response.content_type = "application/problem+json"
    for name, value in error.get_headers():
        if name.lower() != "content-type":
            response.headers.add(name, value)
    return response
