"""Open, probe and sample one video or image: a path -> Frame after Frame.

PyAV alone decodes. Files are opened by content, never by name, and only as one of a list of
plain containers: playlists and scripts (HLS, concat, SDP, ...) that could make the decoder read
other files or the network are refused.
"""

import logging
import math
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.error import FFmpegError
from av.sidedata import sidedata

from unmask.errors import UnreadableError

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"))
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts",
     ".wmv", ".asf", ".flv", ".3gp", ".3g2", ".ogv", ".ogg", ".mxf", ".gif", ".vob")
)  # fmt: skip
MAX_PIXELS = 8192 * 8192
"""Larger pictures are refused: nothing that records faces makes them."""

_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,mxf,gif,h264,hevc,"
    "jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe"
)

_DECODER_ERRORS = (FFmpegError, OSError, ValueError)

# PyAV does not know the newest kinds of side data (EXIF is 31) and then refuses to show any.
sidedata.Type._missing_ = classmethod(lambda cls, value: cls.VIDEO_HINT)

logging.getLogger("libav").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Frame:
    """One decoded picture.

    ``index`` counts decoded frames from 0, ``second`` comes from the container's time stamps,
    ``image`` is RGB ``uint8`` (height, width, 3), already rotated as it is meant to be seen.
    """

    index: int
    second: float
    image: np.ndarray


@dataclass(frozen=True)
class VideoInfo:
    """What the file says of itself; ``duration_seconds`` and ``fps`` are None where it does not.

    ``width`` and ``height`` are those of the displayed (rotated) picture, in pixels.
    """

    width: int
    height: int
    duration_seconds: float | None
    fps: float | None
    codec: str
    is_image: bool


def is_media(path: Path) -> bool:
    """Whether the name looks like a video or an image (used when folders are searched)."""
    return path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def is_image(path: Path) -> bool:
    """Whether the name looks like a still image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


class _Nameless:
    """A file's bytes without its name, so that FFmpeg can judge it by nothing but its content."""

    def __init__(self, file: BinaryIO):
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


class Video:
    """An open video or image, to be sampled once, front to back. Use it in a ``with``.

    Memory stays flat: one decoded frame is held at a time. After sampling, ``frames_decoded``
    says how many frames there really were, and ``damage`` what is wrong with the file if not all
    of it could be decoded (None if it could).

    Raises UnreadableError when the file is missing, empty, of no known kind, has no picture, or
    is larger than MAX_PIXELS.
    """

    def __init__(self, path: str | Path, threads: int = 0):
        self.path = Path(path)
        self.frames_decoded = 0
        self.damage: str | None = None
        self._open(threads)

    def _open(self, threads: int) -> None:
        name = self.path.name
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise UnreadableError(f"{name} is no file (a folder, device or pipe)")
            self._file = self.path.open("rb")
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or error
            raise UnreadableError(f"{name} cannot be opened: {problem}") from None
        try:
            if not self._file.read(1):
                raise UnreadableError(f"{name} is empty (0 bytes): was it copied to the end?")
            self._file.seek(0)
            try:
                self._container = _open_container(self._file)
            except _DECODER_ERRORS:
                raise UnreadableError(
                    f"{name} is no video or image that can be read: it is damaged, cut off at "
                    "the start, or of another kind than its name says"
                ) from None
            streams = _pictures(self._container)
            if not streams:
                raise UnreadableError(f"no video stream in {name}: is it an audio file?")
            self._stream = streams[0]
            self._check_pixels(self._stream.codec_context)
            self._stream.thread_type = "AUTO"
            self._stream.codec_context.thread_count = threads
            try:
                self._frames = self._decode()
                self._first = next(self._frames)
            except StopIteration:
                raise UnreadableError(
                    f"not one picture of {name} could be decoded ({self.damage or 'no frames'}): "
                    "the file is damaged or cut off"
                ) from None
            self.info = self._probe(self._first)
        except BaseException:
            self.close()
            raise

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Frames in order, leaving out those that are damaged, until the end or where it breaks."""
        failed = 0
        for packet in self._packets():
            try:
                frames = packet.decode()
            except _DECODER_ERRORS as error:
                failed += 1
                self.damage = f"{failed} of its parts cannot be decoded: {_words(error)}"
                continue
            for frame in frames:
                self._check_pixels(frame)
                yield frame

    def _check_pixels(self, picture: av.VideoFrame | av.VideoCodecContext) -> None:
        if picture.width * picture.height > MAX_PIXELS:
            raise UnreadableError(
                f"{self.path.name} is {picture.width}x{picture.height}: pictures over "
                f"{MAX_PIXELS / 1e6:.0f} million pixels are not read"
            )

    def _packets(self) -> Iterator[av.Packet]:
        """The stream's packets; at the last, which has no time, the decoder empties itself."""
        try:
            for packet in self._container.demux(self._stream):
                # An empty packet that has a time, usual in AVI, would make the decoder stop early.
                if packet.size or packet.dts is None:
                    yield packet
        except _DECODER_ERRORS as error:
            self.damage = f"it breaks off: {_words(error)}"

    def _probe(self, first: av.VideoFrame) -> VideoInfo:
        stream, container = self._stream, self._container
        width, height = first.width, first.height
        if _orientation(first)[0]:
            width, height = height, width
        image = container.format.name.endswith("_pipe")
        duration = fps = None
        if not image:
            if stream.duration and stream.time_base:
                duration = float(stream.duration * stream.time_base)
            elif container.duration:
                duration = container.duration / av.time_base
            if stream.average_rate:
                fps = float(stream.average_rate)
        if duration is not None and duration <= 0:
            duration = None
        return VideoInfo(width, height, duration, fps, stream.codec_context.name, image)

    def sample(self, every: int = 15, max_frames: int = 0) -> Iterator[Frame]:
        """Yield every ``every``-th frame, or, with ``max_frames``, so many evenly spaced ones.

        Only the frames that are yielded are converted to RGB. With a cap, frames are chosen by
        time stamp over the whole video, and never closer than ``every`` frames. Call it once.
        """
        step = self._cap_step(every, max_frames) if max_frames else None
        next_second, yielded, last = 0.0, 0, None
        for index, frame in enumerate(self._all_frames()):
            self.frames_decoded = index + 1
            second = self._second(frame, index)
            if step is None:
                wanted = index % every == 0
            else:
                wanted = second >= next_second and (last is None or index - last >= every)
            if wanted:
                if step is not None:
                    next_second = (yielded + 1) * step
                yielded, last = yielded + 1, index
                yield Frame(index, second, _to_rgb(frame))
                if max_frames and yielded == max_frames:
                    return
        self._check_end(second)

    def _all_frames(self) -> Iterator[av.VideoFrame]:
        yield self._first
        yield from self._frames

    def _check_end(self, second: float) -> None:
        """Note as damage that the last frame, at ``second``, comes long before the stated end."""
        stated = self.info.duration_seconds
        if not self.damage and stated and second + max(1.0, 0.05 * stated) < stated:
            self.damage = f"its pictures end at {second:.1f} s, it should last {stated:.1f} s"

    def _cap_step(self, every: int, max_frames: int) -> float:
        """Seconds between sampled frames so that ``max_frames`` of them span the video.

        The length comes from the time stamps of all packets, which takes no decoding: the one in
        the header is wrong where a file was cut off, and in some others.
        """
        count, low, high = 0, math.inf, -math.inf
        with self.path.open("rb") as file:
            try:
                with _open_container(file) as container:
                    for packet in container.demux(_pictures(container)[0]):
                        count += packet.size > 0
                        if packet.pts is not None and packet.time_base:
                            time = float(packet.pts * packet.time_base)
                            low, high = min(low, time), max(high, time)
            except _DECODER_ERRORS:
                pass  # what comes after the break will not be decoded either
        if count > 1 and high > low:
            return (high - low) * count / (count - 1) / max_frames
        return count / (self.info.fps or 25.0) / max_frames

    def _second(self, frame: av.VideoFrame, index: int) -> float:
        times = self._first.time, frame.time
        if None in times or not all(map(math.isfinite, times)):
            return index / (self.info.fps or 25.0)
        return max(0.0, times[1] - times[0])

    def close(self) -> None:
        """Let go of the file."""
        if hasattr(self, "_container"):
            self._container.close()
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _open_container(file: BinaryIO) -> av.container.InputContainer:
    return av.open(
        _Nameless(file),
        options={
            "format_whitelist": _CONTAINERS,
            "protocol_whitelist": "none",
            "max_pixels": str(MAX_PIXELS),  # so that probing does not decode a giant
        },
        metadata_errors="replace",
    )


def _pictures(container: av.container.InputContainer) -> list[av.VideoStream]:
    """The moving pictures in a container: the cover of an audio file is none."""
    cover = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """How to show a frame: whether to transpose it, then flip it left-right, then upside down."""
    matrix = frame.side_data.get(sidedata.Type.DISPLAYMATRIX)
    if matrix is None:
        return False, False, False
    # x' = a x + c y and y' = b x + d y, in fixed point
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


def _to_rgb(frame: av.VideoFrame) -> np.ndarray:
    image = frame.to_ndarray(format="rgb24")
    transpose, left_right, upside_down = _orientation(frame)
    if transpose:
        image = image.transpose(1, 0, 2)
    if left_right:
        image = image[:, ::-1]
    if upside_down:
        image = image[::-1]
    return np.ascontiguousarray(image)
