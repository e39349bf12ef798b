"""Text for people: what comes from a file, made safe to show, and times."""

import re
from typing import Any


def in_unicode(text: str) -> str:
    """The text with those bytes of a file's name that are no UTF-8 spelled out as ``\\xNN``."""
    return re.sub("[\udc80-\udcff]", lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)


def printable(text: str, encoding: str = "utf-8") -> str:
    """Text that cannot steer a terminal, nor fail to be written in ``encoding``.

    Control and invisible characters are spelled out, as are those the encoding lacks.
    """
    text = in_unicode(text)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def one_line(value: Any, limit: int) -> str:
    """Printable text on one line, of ``limit`` characters at most."""
    text = printable(" ".join(str(value)[: 4 * limit].split()))
    return text if len(text) <= limit else text[: limit - 3] + "..."


def count(number: int, noun: str) -> str:
    """A number of things, e.g. '1 frame' or '3 frames'."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def span(first: float, last: float, frames: int) -> str:
    """When somebody was seen, e.g. 'from 0:00.0 to 0:02.4 in 5 frames', by seconds."""
    where = f"at {clock(first)}" if first == last else f"from {clock(first)} to {clock(last)}"
    return f"{where} in {count(frames, 'frame')}"


def clock(second: float, digits: int = 1) -> str:
    """Seconds as m:ss.s, or h:mm:ss.s from an hour on."""
    scale = 10**digits
    whole, part = divmod(round(second * scale), scale)
    hours, rest = divmod(whole, 3600)
    text = f"{hours}:{rest // 60:02}" if hours else f"{rest // 60}"
    text += f":{rest % 60:02}"
    return f"{text}.{part:0{digits}}" if digits else text
