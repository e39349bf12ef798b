"""Open one video or image and decode its pictures in order, as far as they can be decoded."""

import hashlib
import stat
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av

from unmask.container import (
    DECODER_ERRORS,
    DECODER_LIMITS,
    MAX_PIXELS,
    has_end,
    in_words,
    open_container,
    shown_stream,
    steady,
)
from unmask.errors import UnreadableError

# Here every packet is a picture with a time stamp of its own, and a decoder told to skip pictures
# leaves out only those that no other is built on.
_NUMBERED_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_NUMBERED_CODECS = ("h264",)
_REORDERED = 32  # packets: H.264 shows a picture at most 16 later than it is coded


class Decoder:
    """An open file and the decoder of the picture stream that players show.

    ``stream`` and ``first``, its first frame, are as the decoder has them: clock and colours.
    ``is_wanted`` says of a picture, by its time stamp and number, whether it is
    wanted: others are left out where no wanted one is built on them (None: all are wanted).
    ``coded_until`` is until when the pictures last that were read since one was given, by time
    stamp, shown or not.
    ``breaks_off`` is whether the file ended within a picture.

    Raises UnreadableError when the file is missing, empty, of no known kind, has no picture, or
    is larger than MAX_PIXELS.
    """

    def __init__(self, path: Path, threads: int):
        self._failed = self._broken = 0  # packets, pictures
        self._problems: dict[str, str] = {}  # what is wrong with the file, by kind
        self.breaks_off = False
        self.is_wanted: Callable[[int, int], bool] | None = None
        self.coded_until: int | None = None
        self._numbers: dict[int, int] = {}  # of the wanted pictures in the decoder, by time stamp
        name = path.name
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise UnreadableError(f"{name} is no file (a folder, device or pipe)")
            self._file = path.open("rb")
        except (OSError, ValueError) as error:
            raise UnreadableError(f"{name} cannot be opened: {in_words(error)}") from None
        try:
            if not self._file.read(1):
                raise UnreadableError(f"{name} is empty (0 bytes): was it copied to the end?")
            self._file.seek(0)
            try:
                self.container = open_container(self._file)
            except DECODER_ERRORS:
                raise UnreadableError(
                    f"{name} is no video or image that can be read: it is damaged, cut off at "
                    "the start, or of a kind that is not known here, as an animated PNG is"
                ) from None
            self.stream = shown_stream(self.container)
            if self.stream is None:
                raise UnreadableError(f"no video stream in {name}: is it an audio file?")
            decoder = self.stream.codec_context
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
                self.first = next(self._frames)
            except StopIteration:
                raise UnreadableError(
                    f"not one picture of {name} could be decoded ({self.damage or 'no frames'}): "
                    "the file is damaged, cut off, an animated WebP, or its pictures are over "
                    f"{MAX_PIXELS / 1e6:.0f} million pixels"
                ) from None
        except BaseException:
            self.close()
            raise

    @property
    def damage(self) -> str | None:
        """What is wrong with the file, if not all of it could be decoded so far."""
        return "; ".join(self._problems.values()) or None

    @property
    def lead_in(self) -> float:
        """How many seconds of the file, all sound, come before the first frame."""
        start = self.container.start_time
        if start is None or self.first.time is None:
            return 0.0
        return max(0.0, self.first.time - start / av.time_base)

    def since_first(self, stamp: int) -> Fraction:
        """A time stamp in seconds after the first frame."""
        return (stamp - self.first.pts) * self.stream.time_base

    def frames(self) -> Iterator[av.VideoFrame]:
        """The first frame and those after it, also after a seek in between. Call it once."""
        frame: av.VideoFrame | None = self.first
        while frame is not None:
            yield frame
            self._forget_until(frame.pts)
            frame = next(self._frames, None)

    def _forget_until(self, stamp: int | None) -> None:
        """Forget the number of what was shown then and, now and again, of all that was skipped."""
        self._numbers.pop(stamp, None)
        if len(self._numbers) > 2 * _REORDERED and stamp is not None:
            self._numbers = {s: number for s, number in self._numbers.items() if s > stamp}

    def number(self, frame: av.VideoFrame) -> int | None:
        """The number of the latest frame among all pictures, where it was wanted and is known."""
        return self._numbers.get(frame.pts)

    @property
    def can_leave_out(self) -> bool:
        """Whether it is certain which pictures others are built on, and which number each has."""
        return (
            self.container.format.name in _NUMBERED_CONTAINERS
            and self.stream.codec_context.name in _NUMBERED_CODECS
            and not self.first.interlaced_frame
            and self.first.pts in self._numbers
        )

    def seek(self, second: float) -> None:
        """Go on at the keyframe that is shown then, counted from the first frame."""
        stamp = self.first.pts + round(second / self.stream.time_base)
        try:
            self.container.seek(stamp, stream=self.stream)
        except DECODER_ERRORS:
            return  # it goes on where it was
        self._frames = self._decode()

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Frames in order, leaving out those that are damaged, until the end or where it breaks.

        Those are left out, too, that are neither wanted nor needed for others.
        """
        for packet, number in self._numbered_packets():
            if number is not None:
                wanted = self.is_wanted is None or self.is_wanted(packet.pts, number)
                if wanted:
                    self._numbers[packet.pts] = number
                if self.is_wanted:
                    self.stream.codec_context.skip_frame = "DEFAULT" if wanted else "NONREF"
                    self.coded_until = max(
                        self.coded_until or 0, packet.pts + (packet.duration or 0)
                    )
            try:
                frames = packet.decode()
            except DECODER_ERRORS as error:
                self._failed += 1
                self._problems["packets"] = (
                    f"{self._failed} of its parts cannot be decoded: {in_words(error)}"
                )
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._broken += 1
                    self._problems["pictures"] = (
                        f"{self._broken} of its pictures are decoded only in part"
                    )
                yield frame

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
            for count, packet in enumerate(steady(self.container.demux(self.stream), self.stream)):
                if count == 0 and self._is_cut_off_jpeg(packet):
                    self._problems["end"] = "its last part is missing"
                if packet.size:  # FFmpeg says so of the last one where the file's end cuts it
                    self.breaks_off = packet.is_corrupt
                # An empty packet that has a time, usual in AVI, would make the decoder stop early.
                if packet.size or packet.dts is None:
                    yield packet
        except DECODER_ERRORS as error:
            self._problems["end"] = f"it breaks off: {in_words(error)}"

    def _is_cut_off_jpeg(self, packet: av.Packet) -> bool:
        return self.container.format.name == "jpeg_pipe" and not has_end(bytes(packet))

    def digest(self) -> tuple[str | None, int]:
        """As ``digest``, of the very file that was decoded, whatever has its name by now.

        Nothing can be decoded afterwards.
        """
        self._file.seek(0)
        return _digest(self._file)

    def close(self) -> None:
        """Let go of the file."""
        if hasattr(self, "container"):
            self.container.close()
        self._file.close()


def digest(path: Path) -> tuple[str | None, int]:
    """A file's sha256 in hex and its size in bytes; None and 0 where it cannot be read."""
    try:
        if stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, a device has no end
            with path.open("rb") as file:
                return _digest(file)
    except (OSError, ValueError):
        pass
    return None, 0


def _digest(file: BinaryIO) -> tuple[str | None, int]:
    try:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except (OSError, ValueError):
        return None, 0
