"""The Content Credentials of a file: signed statements of where it comes from (C2PA).

They are checked by c2pa (extra 'provenance') in a process of its own (``credentials_check``): it
is a large parser that nobody vouches for on hostile files, and a crash, a hang or a greedy
allocation in there must not end a batch. It never uses the network.

Source: C2PA Technical Specification 2.2 (2025), chapter 'Validation'.
"""

import importlib.util
import json
import os
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from unmask.errors import UsageError, installation

CREDENTIAL_STATES = ("valid", "untrusted", "altered", "invalid", "none", "not_checked")
"""What Credentials.state can be; docs/provenance.md says what each means."""

_MAX_FILE = 8_000_000_000  # bytes; all of them are hashed, a gigabyte in about six seconds
_MAX_SECONDS = 120


@dataclass(frozen=True)
class Signer:
    """Who signed, as the certificate says.

    ``name`` is the certificate's subject and ``issuer`` the authority that made it, ``None`` where
    it gives none; anybody can make a certificate with any names, so they mean something in the
    state 'valid' only. ``time`` is when it was signed as a time stamp says, ISO 8601, ``None``
    where there is none; 'problems' says if its authority is not on the trust list.
    """

    name: str | None
    issuer: str | None
    time: str | None


@dataclass(frozen=True)
class Credentials:
    """The Content Credentials of a file.

    ``state`` is one of CREDENTIAL_STATES and ``reason`` says it in a sentence. The rest is empty
    unless credentials were read: the ``signer``, the ``tool`` that says it wrote them, ``actions``
    (what that tool, and those before it, say was done) and ``problems`` (what did not check out).
    In any state but 'valid', anybody may have written what they say.
    """

    state: str
    reason: str
    signer: Signer | None = None
    tool: str | None = None
    actions: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def checked_list(path: Path) -> Path:
    """The full path of a file of certificates. Raises UsageError if it is none."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} is no list of PEM certificates ({error}): give one such as the C2PA trust list"
        ) from None
    return path.resolve()


def read_credentials(path: Path, trust_list: Path | None) -> Credentials:
    """Have the file's credentials checked by a process of its own."""
    found = importlib.util.find_spec("c2pa")
    if not found or not found.origin:
        how = installation("provenance")
        return Credentials("not_checked", f"Not checked: {how} in Unmask's folder.")
    try:
        size = path.stat().st_size if path.is_file() else 0
        file = path.resolve()
    except (OSError, ValueError):
        size = 0
    if not size:
        return Credentials("none", "There is nothing to read at this path.")
    if size > _MAX_FILE:
        limit = f"{_MAX_FILE / 1e9:.0f} GB"
        return Credentials("not_checked", f"Not checked: files over {limit} are not read for it.")
    arguments = [file, *([trust_list] if trust_list else [])]
    # c2pa loads its library from the working folder if there is one of that name, which might be
    # a folder of downloads; -P keeps Python from doing the same with modules.
    environment = {k: v for k, v in os.environ.items() if k != "C2PA_LIBRARY_NAME"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "unmask.credentials_check", *arguments],
            cwd=Path(found.origin).parent, env=environment, timeout=_MAX_SECONDS,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        values = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return Credentials("not_checked", f"Not checked: it took over {_MAX_SECONDS} seconds.")
    except (OSError, ValueError):
        return Credentials(
            "not_checked", "Not checked: the checker failed on this file; c2patool may know more."
        )
    signer = values.pop("signer")
    lists = {name: tuple(values.pop(name)) for name in ("actions", "problems")}
    return Credentials(**values, **lists, signer=signer and Signer(**signer))
