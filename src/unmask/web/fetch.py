"""A video from a web address, without lending anybody the operator's network.

Only plain http(s) on the usual ports is spoken, and only with addresses on the open internet:
every name is resolved once and the connection goes to what was checked (requests-hardened), at
each redirect anew. Nothing of this machine goes along: no proxy, no cookie, no password.
"""

import ipaddress
import queue
import threading
import time
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
from requests_hardened import Config, Manager, ip_filter
from requests_hardened.ip_filter import InvalidIPAddress
from urllib3.exceptions import HTTPError

from unmask.errors import UnreadableError

_PORTS = (80, 443)
_ALLOW_LOOPBACK = False  # only tests change this
_REDIRECTS = 5
_SILENCE = 20.0  # seconds that a server may say nothing
_PAGES = ("text/html", "application/xhtml+xml")
_MORE_BLOCKED = (  # beyond what requests-hardened knows
    "168.63.129.16/32",  # the host of an Azure machine: its agent's settings, DHCP, DNS
    "fec0::/10",  # site-local
    "::/96", "::ffff:0:0:0/96",  # IPv4 in IPv6, compatible and translated
)  # fmt: skip
_INSTEAD = "download the video and upload it instead"

ip_filter.EXTRA_BLOCKED_NET_RANGES += tuple(map(ipaddress.ip_network, _MORE_BLOCKED))


def fetch(address: str, target: Path, limit_bytes: int, seconds: float) -> None:
    """Write what is at ``address``, the link to a video or image itself, into ``target``.

    Raises UnreadableError, and leaves no file, when the address is not on the open internet, gives
    no file, one of more than ``limit_bytes``, or takes more than ``seconds`` altogether.
    """
    outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    deadline = time.monotonic() + seconds

    def run() -> None:
        try:
            _download(address, target, limit_bytes, deadline)
            outcome.put(None)
        except Exception as error:
            outcome.put(error)

    # Neither looking up a name nor a server that dribbles its headers minds any other limit.
    threading.Thread(target=run, daemon=True).start()
    try:
        error = outcome.get(timeout=seconds + 1)
    except queue.Empty:
        error = _too_slow()
    if error:
        target.unlink(missing_ok=True)
        raise error


def _download(address: str, target: Path, limit_bytes: int, deadline: float) -> None:
    for _ in range(_REDIRECTS + 1):
        try:
            prepared = requests.Request("GET", address, headers=_HEADERS).prepare()
            host = _check(prepared.url)
        except ValueError:  # requests' own errors too
            raise UnreadableError("This is no web address: it should look like "
                                  "https://example.org/video.mp4") from None  # fmt: skip
        try:
            with _hardened().get_session() as session:
                session.trust_env = False  # no proxy and no password from the environment
                with session.send(prepared, stream=True) as response:
                    if not response.is_redirect:
                        return _save(response, target, limit_bytes, deadline)
                    address = urljoin(prepared.url, response.headers["Location"])
        except (InvalidIPAddress, requests.exceptions.ConnectionError) as error:
            # One sentence for both: whether a name exists in the operator's network is not told.
            raise UnreadableError(
                f"{host} cannot be reached on the open internet: check the address, or {_INSTEAD}"
            ) from error
        except (requests.RequestException, HTTPError, OSError) as error:
            raise UnreadableError(
                f"{host} broke off while sending the file: try again, or {_INSTEAD}"
            ) from error
        except ValueError as error:  # also of requests, which reads Location itself
            raise UnreadableError(
                f"{host} leads on to what is no web address: check the address, or {_INSTEAD}"
            ) from error
    raise UnreadableError(f"The address only leads on to others: {_INSTEAD}")


def _check(url: str) -> str:
    """The host of an address as it will be asked. Raises UnreadableError if it will not be."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise UnreadableError(f"Only http and https addresses can be fetched: {_INSTEAD}")
    if "@" in parts.netloc:
        raise UnreadableError(f"Addresses with a user name or password are not fetched: {_INSTEAD}")
    if parts.port not in (None, *_PORTS):
        raise UnreadableError(f"Only the usual ports, 80 and 443, are asked: {_INSTEAD}")
    return parts.hostname or ""


def _hardened() -> Manager:
    return Manager(
        Config(
            ip_filter_enable=True,
            ip_filter_allow_loopback_ips=_ALLOW_LOOPBACK,
            never_redirect=True,
            default_timeout=(_SILENCE, _SILENCE),
        )
    )


# Compressed answers are not wanted: what arrives is what is counted and kept.
_HEADERS = {"User-Agent": "unmask", "Accept": "video/*, image/*", "Accept-Encoding": "identity"}


def _save(response: requests.Response, target: Path, limit_bytes: int, deadline: float) -> None:
    if response.status_code != 200:
        raise UnreadableError(
            f"The address answers {response.status_code} ({response.reason or 'no reason given'}): "
            f"check that it is open to everybody, or {_INSTEAD}"
        )
    if response.headers.get("Content-Type", "").split(";")[0].strip().lower() in _PAGES:
        raise UnreadableError(f"This is the address of a web page, not of a video: {_INSTEAD}")
    if (response.raw.length_remaining or 0) > limit_bytes:
        raise _too_large(limit_bytes)
    _check_time(deadline)
    size = 0
    with target.open("wb") as file:
        # One piece as it comes, not as many as fill a buffer: a slow server meets the deadline.
        while piece := response.raw.read1(1 << 16):
            size += len(piece)
            if size > limit_bytes:
                raise _too_large(limit_bytes)
            _check_time(deadline)
            file.write(piece)
    if not size:
        raise UnreadableError(f"The address gives an empty file: {_INSTEAD}")


def _check_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise _too_slow()


def _too_large(limit_bytes: int) -> UnreadableError:
    return UnreadableError(
        f"The file is larger than {limit_bytes / 1e6:.0f} MB: upload a shorter piece of it"
    )


def _too_slow() -> UnreadableError:
    return UnreadableError(f"The address takes too long to give the file: {_INSTEAD}")
