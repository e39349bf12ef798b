"""PyAV's door: open files that nobody vouches for, and turn what they hold into upright pictures.

Files are opened by content, never by name, and only as one of a list of plain containers:
playlists and scripts (HLS, concat, SDP, ...) that could make the decoder read other files or the
network are refused.
"""

import logging
import math
import re
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.sidedata import sidedata

MAX_PIXELS = 8192 * 8192
"""Larger pictures are refused: nothing that records faces makes them."""

DECODER_LIMITS = {"max_pixels": str(MAX_PIXELS)}
DECODER_ERRORS = (FFmpegError, OSError, ValueError)
"""All that reading a damaged file is known to raise."""

_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,mxf,gif,h264,hevc,"
    "jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe"
)
_STILL_BRANDS = ("avif", "mif1", "heic", "heix")  # of ISO files that hold a picture, not a film
_NEARLY_SQUARE = 0.03
_WIDEST_PIXEL = 4.0
_CLOCK_GOES_BACK = 1  # second, or more: less than that is pictures out of order
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)

# PyAV does not know the newest kinds of side data (EXIF is 31) and then refuses to show any.
sidedata.Type._missing_ = classmethod(lambda cls, value: cls.VIDEO_HINT)

logging.getLogger("libav").setLevel(logging.CRITICAL)


class _Nameless:
    """A file's bytes without its name, so that FFmpeg can judge it by nothing but its content."""

    def __init__(self, file: BinaryIO):
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def open_container(file: BinaryIO) -> av.container.InputContainer:
    """Open a file whose format is one of the allowed. Raises one of DECODER_ERRORS if it is not."""
    return av.open(
        _Nameless(file),
        options={
            "format_whitelist": _CONTAINERS,
            "protocol_whitelist": "none",
            **DECODER_LIMITS,
        },
        metadata_errors="replace",
    )


def shown_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The moving pictures that players show: those that are marked so, else the first.

    The cover of an audio file is none.
    """
    disposition = av.stream.Disposition
    videos = [s for s in container.streams.video if not s.disposition & disposition.attached_pic]
    marked = (s for s in videos if s.disposition & disposition.default)
    return next(marked, videos[0] if videos else None)


def stated_seconds(stream: av.VideoStream) -> float | None:
    """How long the pictures alone last, where the file says that."""
    # Matroska's tag first: for a file that breaks off FFmpeg takes the whole's duration for theirs.
    said = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if said:
        return int(said[1]) * 3600 + int(said[2]) * 60 + float(said[3])
    is_said = stream.duration and stream.time_base
    return float(stream.duration * stream.time_base) if is_said else None


def steady(packets: Iterable[av.Packet], stream: av.VideoStream) -> Iterator[av.Packet]:
    """The packets of a stream, their clock made to go on where it starts anew.

    It does in files that were joined end to end (MPEG-TS, VOB).
    """
    back = round(_CLOCK_GOES_BACK / (stream.time_base or 1))
    added, latest, lasts = 0, -math.inf, 0
    for packet in packets:
        if packet.dts is not None:
            if packet.dts + added < latest - back:
                added = latest + lasts - packet.dts
            packet.dts += added
            latest, lasts = max(latest, packet.dts), packet.duration or 0
        if packet.pts is not None:
            packet.pts += added
        yield packet


def is_still(container: av.container.InputContainer) -> bool:
    """Whether a file is a picture by its kind. A GIF may be one, too: see ``Video``."""
    brand = container.metadata.get("major_brand", "").strip()
    return container.format.name.endswith("_pipe") or brand in _STILL_BRANDS


def pixel_shape(stream: av.VideoStream) -> float:
    """How wide a stream's pixels are for their height: 1 is square, as nearly always.

    What nearly is, or is beyond what any camera makes, counts as square.
    """
    shape = float(stream.sample_aspect_ratio or 1)
    is_usual = abs(shape - 1) <= _NEARLY_SQUARE or not 1 / _WIDEST_PIXEL <= shape <= _WIDEST_PIXEL
    return 1.0 if is_usual else shape


def shown_size(width: int, height: int, shape: float) -> tuple[int, int]:
    """The width and height of a picture once its pixels are square; no side gets shorter."""
    return round(width * max(shape, 1)), round(height * max(1 / shape, 1))


def has_end(jpeg: bytes) -> bool:
    """Whether a JPEG's picture is there to its last byte: FFmpeg paints what is missing grey."""
    # Segments are skipped by their length: one may hold a small JPEG of its own. Between them is
    # the picture, in which 0xFF is followed by 0 or by the number of a restart.
    place = 2
    while marker := _JPEG_MARKER.search(jpeg, place):
        if marker[0] == b"\xff\xd9":
            return True
        place = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2])
    return False


def in_words(error: Exception) -> str:
    """What the decoder says is wrong."""
    return getattr(error, "strerror", None) or str(error)


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """How to show a frame: whether to transpose it, then flip it left-right, then upside down."""
    # Not frame.side_data: that ties the frame to itself, and decoded frames pile up, hundreds of
    # megabytes of them, until Python's garbage collector comes by.
    matrix = sidedata.SideDataContainer(frame).get(sidedata.Type.DISPLAYMATRIX)
    if matrix is None:
        return False, False, False
    # x' = a x + c y and y' = b x + d y, in fixed point
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


def upright_rgb(frame: av.VideoFrame, shape: float = 1.0) -> np.ndarray:
    """A frame as it is meant to be seen: RGB ``uint8`` (height, width, 3), of square pixels.

    ``shape`` is what its pixels have: ``pixel_shape``. Raises one of DECODER_ERRORS for the few
    pixel formats that have no way to RGB.
    """
    image = frame.to_ndarray(format="rgb24")
    if shape != 1:
        size = shown_size(frame.width, frame.height, shape)
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    transpose, left_right, upside_down = orientation(frame)
    if transpose:
        image = image.transpose(1, 0, 2)
    if left_right:
        image = image[:, ::-1]
    if upside_down:
        image = image[::-1]
    return np.ascontiguousarray(image)
