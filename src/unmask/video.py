"""Open, probe and sample one video or image: a path -> Frame after Frame."""

import math
import stat
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from unmask.container import (
    DECODER_ERRORS,
    DECODER_LIMITS,
    MAX_PIXELS,
    in_words,
    open_container,
    orientation,
    picture_streams,
    upright_rgb,
)
from unmask.errors import UnreadableError
from unmask.timetable import TIME_STAMP_ERROR, Timetable, read_timetable

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"))
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts",
     ".wmv", ".asf", ".flv", ".3gp", ".3g2", ".ogv", ".ogg", ".mxf", ".gif", ".vob")
)  # fmt: skip
_NOT_DECODED = {"exact": "DEFAULT", "fast": "NONREF", "keyframes": "NONKEY"}
# Containers that know where their keyframes are; in others a seek may land beyond.
_INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
# Here every packet is a picture with a time stamp of its own, and a decoder told to skip pictures
# leaves out only those that no other is built on.
_NUMBERED_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_NUMBERED_CODECS = ("h264",)
_REORDERED = 32  # packets: H.264 shows a picture at most 16 later than it is coded
_WORTH_SEEKING = 24  # frames: a seek empties the decoder's pipeline, which costs about as much
_LOOKED_AT = 0.4  # 'fast' decodes so much of what lies between two keyframes,
_MOST_UNSEEN = 5.0  # seconds: or more, so that what it leaves out is never longer,
_SHORT = 10.0  # seconds: and of videos up to this length all


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
        # Says of a picture, by its time stamp and number, whether it is wanted; None: all are.
        self._is_wanted: Callable[[int, int], bool] | None = None
        self._numbers: dict[int, int] = {}  # of the wanted pictures in the decoder, by time stamp
        self._latest: int | None = None  # time stamp up to which pictures were coded, if known
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
                self._container = open_container(self._file)
            except DECODER_ERRORS:
                raise UnreadableError(
                    f"{name} is no video or image that can be read: it is damaged, cut off at "
                    "the start, or of another kind than its name says"
                ) from None
            streams = picture_streams(self._container)
            if not streams:
                raise UnreadableError(f"no video stream in {name}: is it an audio file?")
            self._stream = streams[0]
            decoder = self._stream.codec_context
            if decoder is None:
                raise UnreadableError(f"{name} is coded in a way that no decoder here knows")
            if decoder.width * decoder.height > MAX_PIXELS:
                raise UnreadableError(
                    f"{name} is {decoder.width}x{decoder.height}: pictures over "
                    f"{MAX_PIXELS / 1e6:.0f} million pixels are not read"
                )
            decoder.options = DECODER_LIMITS
            decoder.thread_type = "AUTO"
            decoder.thread_count = threads
            try:
                self._frames = self._decode()
                self._first = next(self._frames)
            except StopIteration:
                raise UnreadableError(
                    f"not one picture of {name} could be decoded ({self.damage or 'no frames'}): "
                    "the file is damaged, cut off, or its pictures are too large"
                ) from None
            self.info = self._probe(self._first)
        except BaseException:
            self.close()
            raise

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Frames in order, leaving out those that are damaged, until the end or where it breaks.

        Those are left out, too, that are neither wanted nor needed for others.
        """
        failed = 0
        for packet, number in self._numbered_packets():
            if number is not None:
                wanted = self._is_wanted is None or self._is_wanted(packet.pts, number)
                if wanted:
                    self._numbers[packet.pts] = number
                if self._is_wanted:
                    self._stream.codec_context.skip_frame = "DEFAULT" if wanted else "NONREF"
                    self._latest = max(self._latest or 0, packet.pts)
            try:
                frames = packet.decode()
            except DECODER_ERRORS as error:
                failed += 1
                self.damage = f"{failed} of its parts cannot be decoded: {in_words(error)}"
                continue
            yield from frames

    def _numbered_packets(self) -> Iterator[tuple[av.Packet, int | None]]:
        """Packets with their picture's number in the order of showing, None where it is not known.

        It is sure once all packets that may be shown before have been read.
        """
        ahead: deque[tuple[av.Packet, tuple[int, int] | None]] = deque()
        shown: list[tuple[int, int]] = []  # time stamps in order, with their place in the file
        forgotten = 0

        def next_one() -> tuple[av.Packet, int | None]:
            packet, stamp = ahead.popleft()
            return packet, stamp and forgotten + bisect_left(shown, stamp)

        for place, packet in enumerate(self._packets()):
            # What an edit list cuts off is decoded and never shown.
            is_shown = packet.pts is not None and not packet.is_discard
            stamp = (packet.pts, place) if is_shown else None
            ahead.append((packet, stamp))
            if stamp:
                insort(shown, stamp)
            if len(ahead) > _REORDERED:
                yield next_one()
            if len(shown) > 4 * _REORDERED:
                del shown[: 2 * _REORDERED]
                forgotten += 2 * _REORDERED
        while ahead:
            yield next_one()

    def _packets(self) -> Iterator[av.Packet]:
        """The stream's packets; at the last, which has no time, the decoder empties itself."""
        try:
            for packet in self._container.demux(self._stream):
                # An empty packet that has a time, usual in AVI, would make the decoder stop early.
                if packet.size or packet.dts is None:
                    yield packet
        except DECODER_ERRORS as error:
            self.damage = f"it breaks off: {in_words(error)}"

    def _probe(self, first: av.VideoFrame) -> VideoInfo:
        stream, container = self._stream, self._container
        width, height = first.width, first.height
        if orientation(first)[0]:
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

    def sample(
        self, every: int = 15, max_frames: int = 0, sampling: str = "exact"
    ) -> Iterator[Frame]:
        """Yield every ``every``-th frame, or, with ``max_frames``, so many evenly spaced ones.

        Only the frames that are yielded are converted to RGB. With a cap, frames are chosen by
        time stamp over the whole video, and never closer than ``every`` frames; what lies between
        is skipped, from keyframe to keyframe. ``sampling`` 'exact' takes just these frames, and of
        H.264 decodes no others than they are built on; 'fast' decodes only frames that others are
        built on, of what lies between two keyframes the first part alone, and 'keyframes' only
        those that stand alone; both take the first one that comes when a frame is due. Call it
        once.

        Raises UnreadableError when the pictures are of a kind that cannot be shown.
        """
        self._stream.codec_context.skip_frame = _NOT_DECODED[sampling]
        self._sees_end = sampling != "keyframes"
        leave_out = sampling == "exact" and self._can_leave_out
        if max_frames:
            frames = self._spread(every, max_frames, leave_out)
        elif leave_out:
            frames = self._every_nth(every)
        elif sampling == "exact":
            frames = (counted for counted in self._counted() if counted[0] % every == 0)
        else:
            frames = self._due(every, is_skipping=sampling == "fast")
        for index, frame in frames:
            yield Frame(index, self._second(frame, index), self._to_rgb(frame))

    def _counted(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """All decoded frames with their numbers."""
        frame: av.VideoFrame | None = self._first
        while frame is not None:
            self.frames_decoded += 1
            last = self.frames_decoded - 1, frame
            yield last
            self._numbers.pop(frame.pts, None)
            frame = next(self._frames, None)
        end = self._second(*reversed(last))
        if self._latest is not None:  # the last frames may have been left out
            end = max(end, float((self._latest - self._first.pts) * self._stream.time_base))
        self._check_end(end)

    def _every_nth(self, every: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Every ``every``-th frame, leaving out others where they can be done without."""
        if every > 1:
            self._is_wanted = lambda _, number: number % every == 0
        for _, frame in self._counted():
            number = self._numbers.get(frame.pts)
            if number is not None and number % every == 0:
                yield number, frame

    @property
    def _can_leave_out(self) -> bool:
        """Whether it is certain which pictures others are built on, and which number each has."""
        return (
            self._container.format.name in _NUMBERED_CONTAINERS
            and self._stream.codec_context.name in _NUMBERED_CODECS
            and not self._first.interlaced_frame
            and self._first.pts in self._numbers
        )

    def _due(self, every: int, is_skipping: bool) -> Iterator[tuple[int, av.VideoFrame]]:
        """The first decoded frame at or after every ``every``-th.

        ``is_skipping`` leaves out the last part of what lies between two keyframes.
        """
        timetable, due, latest = self._timetable(), 0, -1.0
        if not len(timetable.keyframes) or timetable.seconds <= _SHORT:
            is_skipping = False
        for count, frame in self._counted():
            second = self._second(frame, count)
            index = timetable.index(second)
            if index >= due:
                due = (index // every + 1) * every
                yield index, frame
            if second <= latest:  # a seek went back: the container's index is wrong
                is_skipping = False
            latest = max(latest, second)
            if not is_skipping:
                continue
            keyframe = timetable.keyframe_after(second)
            between = keyframe - timetable.keyframe_before(second)
            is_seen = keyframe - second < min((1 - _LOOKED_AT) * between, _MOST_UNSEEN)
            is_far = timetable.index(keyframe) - index > _WORTH_SEEKING
            if is_seen and is_far:
                if keyframe == timetable.seconds:
                    self._check_end(timetable.second(len(timetable.frames) - 1))
                    return
                self._seek(keyframe)

    def _spread(
        self, every: int, max_frames: int, leave_out: bool
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """At most ``max_frames`` frames, evenly spaced in time and ``every`` frames apart."""
        timetable = self._timetable()
        self._check_end(timetable.second(len(timetable.frames) - 1))
        found, due, latest = 0, 0.0, 0.0
        if leave_out:
            first, unit = self._first.pts, self._stream.time_base
            self._is_wanted = lambda stamp, _: (stamp - first) * unit >= due - TIME_STAMP_ERROR
        for count, frame in self._counted():
            second = self._second(frame, count)
            if second < latest - 1:  # a seek went back: the container's index is wrong
                timetable = timetable.without_keyframes()
            latest = max(latest, second)
            if second < due - TIME_STAMP_ERROR:
                continue
            index = timetable.index(second)
            yield index, frame
            found += 1
            due = max(timetable.seconds * found / max_frames, timetable.second(index + every))
            if found == max_frames or due == math.inf:
                return
            keyframe = timetable.keyframe_before(due)
            if timetable.index(keyframe) - index > _WORTH_SEEKING:
                self._seek(keyframe)

    def _timetable(self) -> Timetable:
        """The video's, with those keyframes that a seek is sure to find."""
        timetable = read_timetable(self.path, self._stream)
        known = self._container.format.name in _INDEXED
        return timetable if known else timetable.without_keyframes()

    def _seek(self, second: float) -> None:
        """Go on at the keyframe that is shown then."""
        stamp = self._first.pts + round(second / self._stream.time_base)
        try:
            self._container.seek(stamp, stream=self._stream)
        except DECODER_ERRORS:
            return  # it goes on where it was
        self._frames = self._decode()

    @property
    def source(self) -> tuple[av.VideoStream, av.VideoFrame]:
        """The stream and its first frame as the decoder has them: clock, colours, pixel shape."""
        return self._stream, self._first

    def _check_end(self, second: float) -> None:
        """Note as damage that the last frame, at ``second``, comes long before the stated end."""
        stated = self.info.duration_seconds
        is_early = stated and second + max(1.0, 0.05 * stated) < stated
        if is_early and self._sees_end and not self.damage:
            self.damage = f"its pictures end at {second:.1f} s, it should last {stated:.1f} s"

    def _second(self, frame: av.VideoFrame, index: int) -> float:
        times = self._first.time, frame.time
        if None in times or not all(map(math.isfinite, times)):
            return index / (self.info.fps or 25.0)
        return max(0.0, times[1] - times[0])

    def _to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        try:
            return upright_rgb(frame)
        except DECODER_ERRORS as error:
            raise UnreadableError(
                f"the pictures of {self.path.name} ({frame.format.name}) have no way to RGB: "
                f"{in_words(error)}"
            ) from None

    def close(self) -> None:
        """Let go of the file."""
        if hasattr(self, "_container"):
            self._container.close()
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
