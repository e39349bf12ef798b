"""Open, probe and sample one video or image: a path -> Frame after Frame."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from unmask.container import (
    DECODER_ERRORS,
    in_words,
    is_still,
    orientation,
    pixel_shape,
    shown_size,
    stated_seconds,
    upright_rgb,
)
from unmask.decoder import Decoder
from unmask.errors import UnreadableError
from unmask.timetable import TIME_STAMP_ERROR, Timetable, read_timetable

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"))
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts",
     ".wmv", ".asf", ".flv", ".3gp", ".3g2", ".ogv", ".ogg", ".mxf", ".gif", ".vob")
)  # fmt: skip
_NOT_DECODED = {"exact": "DEFAULT", "fast": "NONREF", "keyframes": "NONKEY"}
# Containers that know where their keyframes are; in others a seek may land beyond.
_INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
_WORTH_SEEKING = 24  # frames: a seek empties the decoder's pipeline, which costs about as much
_LOOKED_AT = 0.4  # 'fast' decodes so much of what lies between two keyframes,
_MOST_UNSEEN = 5.0  # seconds: or more, so that what it leaves out is never longer,
_SHORT = 10.0  # seconds: and of videos up to this length all
_SLOW = 7.5  # frames a second: of slower videos as many are taken in a second as of this one


@dataclass(frozen=True)
class Frame:
    """One decoded picture.

    ``index`` counts decoded frames from 0, ``second`` comes from the container's time stamps,
    ``image`` is RGB ``uint8`` (height, width, 3) as it is meant to be seen: already rotated, and
    with square pixels.
    """

    index: int
    second: float
    image: np.ndarray


@dataclass(frozen=True)
class VideoInfo:
    """What the file says of itself; ``duration_seconds`` and ``fps`` are None where it does not.

    ``width`` and ``height`` are those of the picture as shown, rotated and with square pixels.
    """

    width: int
    height: int
    duration_seconds: float | None
    fps: float | None
    codec: str
    is_image: bool


def is_media(path: Path) -> bool:
    """Whether the name looks like a video or an image (used when folders are searched)."""
    if path.name.startswith("._"):  # what macOS puts beside a file on other systems' disks
        return False
    return path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def is_image(path: Path) -> bool:
    """Whether the name looks like a still image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


class Video:
    """An open video or image, to be sampled once, front to back. Use it in a ``with``.

    Memory stays flat: one decoded frame is held at a time. After sampling, ``frames_decoded``
    says how many frames were decoded, and ``damage`` what is wrong with the file if not all
    of it could be decoded (None if it could).

    Raises UnreadableError when the file is missing, empty, of no known kind, has no picture, or
    is larger than MAX_PIXELS.
    """

    def __init__(self, path: str | Path, threads: int = 0):
        self.path = Path(path)
        self.frames_decoded = 0
        self._cut_off: str | None = None
        self._stated_end: float | None = None  # seconds after the first frame
        self._decoder = Decoder(self.path, threads)
        try:
            self.info = self._probe()
        except BaseException:
            self.close()
            raise

    @property
    def damage(self) -> str | None:
        """What is wrong with the file, as far as it was sampled."""
        known = self._decoder.damage or self._cut_off
        return known or ("it breaks off within a picture" if self._decoder.breaks_off else None)

    def _probe(self) -> VideoInfo:
        (stream, first), container = self.source, self._decoder.container
        image = is_still(container) or self._is_gif_of_one_picture()
        # What photos say of their pixels' shape is often wrong, and nobody heeds it.
        self._pixel_shape = 1.0 if image else pixel_shape(stream)
        width, height = shown_size(first.width, first.height, self._pixel_shape)
        if orientation(first)[0]:
            width, height = height, width
        duration = fps = None
        if not image:
            whole = container.duration and container.duration / av.time_base
            is_alone = len(container.streams) == 1  # else the whole may be as long as the sound
            duration = whole if is_alone and not stream.duration else stated_seconds(stream)
            if duration:
                self._stated_end = duration - self._decoder.lead_in
            duration = duration or whole
            if stream.average_rate:
                fps = float(stream.average_rate)
        if duration is not None and duration <= 0:
            duration = None
        return VideoInfo(
            width, height, duration, fps, stream.codec_context.codec.canonical_name, image
        )

    def _is_gif_of_one_picture(self) -> bool:
        stream, container = self._decoder.stream, self._decoder.container
        return container.format.name == "gif" and len(read_timetable(self.path, stream).frames) == 1

    def sample(
        self, every: int = 15, max_frames: int = 0, sampling: str = "exact"
    ) -> Iterator[Frame]:
        """Yield every ``every``-th frame, or, with ``max_frames``, so many evenly spaced ones.

        Of a video with few frames a second more are taken: as many in a second as at 7.5 frames.
        Only the frames that are yielded are converted to RGB. With a cap, frames are chosen by
        time stamp over the whole video, and never closer than ``every`` frames; what lies between
        is skipped, from keyframe to keyframe. ``sampling`` 'exact' takes just these frames, and of
        H.264 decodes no others than they are built on; 'fast' decodes only frames that others are
        built on, of what lies between two keyframes the first part alone, and 'keyframes' only
        those that stand alone; both take the first one that comes when a frame is due. Call it
        once.

        Raises UnreadableError when the pictures are of a kind that cannot be shown.
        """
        if self.info.fps and self.info.fps < _SLOW:
            every = max(1, round(every * self.info.fps / _SLOW))
        self._decoder.stream.codec_context.skip_frame = _NOT_DECODED[sampling]
        self._sees_end = sampling != "keyframes"
        leave_out = sampling == "exact" and self._decoder.can_leave_out
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
        for frame in self._decoder.frames():
            self.frames_decoded += 1
            last = self.frames_decoded - 1, frame
            yield last
            if self.info.is_image:  # what may follow is a small copy, or a map of depth or light
                return
        number, frame = last
        end = self._second(frame, number) + float((frame.duration or 0) * frame.time_base)
        until = self._decoder.coded_until
        if until is not None:  # the last frames may have been left out
            end = max(end, float(self._decoder.since_first(until)))
        self._check_end(end)

    def _every_nth(self, every: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Every ``every``-th frame, leaving out others where they can be done without."""
        if every > 1:
            self._decoder.is_wanted = lambda _, number: number % every == 0
        for _, frame in self._counted():
            number = self._decoder.number(frame)
            if number is not None and number % every == 0:
                yield number, frame

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
                    self._check_end(timetable.end)
                    return
                self._decoder.seek(keyframe)

    def _spread(
        self, every: int, max_frames: int, leave_out: bool
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """At most ``max_frames`` frames, evenly spaced in time and ``every`` frames apart."""
        timetable = self._timetable()
        self._check_end(timetable.end)
        found, due, latest = 0, 0.0, 0.0
        if leave_out:
            since = self._decoder.since_first
            self._decoder.is_wanted = lambda stamp, _: since(stamp) >= due - TIME_STAMP_ERROR
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
                self._decoder.seek(keyframe)

    def _timetable(self) -> Timetable:
        """The video's, with those keyframes that a seek is sure to find."""
        timetable = read_timetable(self.path, self._decoder.stream)
        known = self._decoder.container.format.name in _INDEXED
        return timetable if known else timetable.without_keyframes()

    @property
    def source(self) -> tuple[av.VideoStream, av.VideoFrame]:
        """The stream and its first frame as the decoder has them: clock and colours."""
        return self._decoder.stream, self._decoder.first

    def _check_end(self, second: float) -> None:
        """Note as damage that the last frame, until ``second``, ends long before it is to."""
        stated = self._stated_end
        is_early = stated and second + max(1.0, 0.05 * stated) < stated
        if is_early and self._sees_end and not self._decoder.damage:
            self._cut_off = f"its pictures end at {second:.1f} s, it should last {stated:.1f} s"

    def _second(self, frame: av.VideoFrame, index: int) -> float:
        times = self._decoder.first.time, frame.time
        if None in times or not all(map(math.isfinite, times)):
            return index / (self.info.fps or 25.0)
        return max(0.0, times[1] - times[0])

    def _to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        try:
            return upright_rgb(frame, self._pixel_shape)
        except DECODER_ERRORS as error:
            raise UnreadableError(
                f"the pictures of {self.path.name} ({frame.format.name}) have no way to RGB: "
                f"{in_words(error)}"
            ) from None

    def digest(self) -> tuple[str | None, int]:
        """The sha256, in hex, and the size in bytes of the file that was read; when all is done."""
        return self._decoder.digest()

    def close(self) -> None:
        """Let go of the file."""
        self._decoder.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
