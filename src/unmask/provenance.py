"""Where a file says it comes from: signed Content Credentials (C2PA), tags, what the tags hint at.

Nothing here is part of the score. A tag can be stripped or forged in a minute, so a missing one
says nothing, and a present one only what somebody wanted to say, unless it is signed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unmask.credentials import Credentials, read_credentials
from unmask.errors import UnreadableError
from unmask.makers import named
from unmask.text import one_line

_MAX_TAGS = 64
_MAX_NAME, _MAX_VALUE = 80, 300  # characters of a shown tag
_MAX_SEARCHED = 20_000  # characters of a value that are searched for names
_SOFTWARE = re.compile("encode|software|handler|tool|application|creator|producer|writer", re.I)


@dataclass(frozen=True)
class Provenance:
    """What a file says of where it comes from; ``dataclasses.asdict`` makes plain JSON of it.

    ``credentials`` are signed. ``metadata`` are the tags of the container, its streams and its
    first picture (EXIF, PNG texts), named like 'container title', 'stream 0 encoder' and 'picture
    Make', printable and cut to bounds; anybody can write them. ``hints`` are sentences about the
    generators and editors that credentials and tags name. ``metadata_problem`` says why tags are
    missing, ``None`` if all were read.
    """

    credentials: Credentials
    metadata: dict[str, str]
    hints: tuple[str, ...]
    metadata_problem: str | None = None


def inspect(path: str | Path, trust_list: Path | None = None) -> Provenance:
    """What one video or image says of where it comes from.

    ``trust_list``, as ``checked_list`` gives it, is a file of PEM certificates whose owners you
    trust to vouch for signers, such as the C2PA's; without one no signer is 'valid'. What the file
    is like never raises anything.
    """
    path = Path(path)
    credentials = read_credentials(path, trust_list)
    try:
        tags, problem = _tags(path), None
    except UnreadableError as error:
        tags, problem = [], str(error)
    if len(tags) > _MAX_TAGS:
        problem = f"only the first {_MAX_TAGS} of {len(tags)} tags are listed"
    metadata: dict[str, str] = {}
    for name, value in tags[:_MAX_TAGS]:
        metadata.setdefault(one_line(name, _MAX_NAME), one_line(value, _MAX_VALUE))
    return Provenance(credentials, metadata, tuple(named(_searched(credentials, tags))), problem)


def _tags(path: Path) -> list[tuple[str, str]]:
    """Every tag with its name. Raises UnreadableError where the file cannot be decoded."""
    from unmask.video import Video

    with Video(path, threads=1) as video:
        stream, frame = video.source
        places = [("container", stream.container.metadata)]
        places += [(f"stream {s.index}", s.metadata) for s in stream.container.streams]
        places.append(("picture", frame.metadata))
        return [
            (f"{place} {name}", value)
            for place, tags in places
            for name, value in tags.items()
            if value.strip()
        ]


def _searched(
    credentials: Credentials, tags: list[tuple[str, str]]
) -> Iterator[tuple[str, str, bool]]:
    """What is searched for names of programs, as ``named`` takes it."""
    for text in (credentials.tool or "", *credentials.actions):
        yield "The Content Credentials name", text, True
    for name, value in tags[:_MAX_TAGS]:
        where = f"The tag '{one_line(name, _MAX_NAME)}' names"
        yield where, f"{name} {value[:_MAX_SEARCHED]}", bool(_SOFTWARE.search(name))
