"""When the frames of a video are shown and which of them are keyframes, without decoding any."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np

from unmask.container import DECODER_ERRORS, open_container, shown_stream, steady

TIME_STAMP_ERROR = 0.002
"""Seconds by which a time stamp may be off: Matroska rounds them to milliseconds."""


@dataclass(frozen=True)
class Timetable:
    """Seconds, from the first frame on, of every frame in order and of the keyframes.

    ``stated_end`` is when the last frame ceases to be shown, as far as the file says so.
    """

    frames: np.ndarray
    keyframes: np.ndarray
    stated_end: float = 0.0

    @property
    def end(self) -> float:
        """When the last frame ceases to be shown, or, where that is not known, begins to be."""
        return max(self.stated_end, self.second(len(self.frames) - 1))

    @property
    def seconds(self) -> float:
        """How long the frames are shown, the last one as long as the others on average."""
        count = len(self.frames)
        return float(self.frames[-1]) * count / (count - 1) if count > 1 else 0.0

    def index(self, second: float) -> int:
        """Which frame is shown from ``second`` on, counted from 0."""
        return int(np.searchsorted(self.frames, second - TIME_STAMP_ERROR))

    def second(self, index: int) -> float:
        """When frame ``index`` is shown: never, if there is no such frame."""
        return float(self.frames[index]) if 0 <= index < len(self.frames) else math.inf

    def without_keyframes(self) -> "Timetable":
        """The same, with no keyframe to go to."""
        return replace(self, keyframes=np.empty(0))

    def keyframe_before(self, second: float) -> float:
        """When the last keyframe is shown that comes at ``second`` or earlier; 0 without one."""
        last = np.searchsorted(self.keyframes, second + TIME_STAMP_ERROR, "right") - 1
        return float(self.keyframes[last]) if last >= 0 else 0.0

    def keyframe_after(self, second: float) -> float:
        """When the next keyframe is shown; the end of the video after the last one."""
        following = np.searchsorted(self.keyframes, second + TIME_STAMP_ERROR, "right")
        is_last = following == len(self.keyframes)
        return self.seconds if is_last else float(self.keyframes[following])


def read_timetable(path: Path, stream: av.VideoStream) -> Timetable:
    """The timetable of an open video's stream, for the part of the file that is there.

    It comes from the container's index where that has every frame (MP4, MOV, AVI), which costs
    next to nothing, else from all packets. The length in the header is not trusted: it is wrong
    where a file was cut off, and in some others.
    """
    entries = stream.index_entries
    if len(entries) > 1 and len(entries) == stream.frames:
        end = path.stat().st_size
        whole = [e for e in entries if e.pos + e.size <= end]
        # The index has the order of decoding, whose time stamps are those of showing, moved.
        stamps = [e.timestamp for e in whole]
        keyframes = [e.timestamp for e in whole if e.is_keyframe]
        length = stream.duration if len(whole) == len(entries) else 0
        return _timetable(stamps, keyframes, min(stamps, default=0) + (length or 0), stream)
    count, stamps, keyframes, end = 0, [], [], 0
    with path.open("rb") as file:
        try:
            with open_container(file) as container:
                shown = shown_stream(container)
                for packet in steady(container.demux(shown), shown):
                    count += packet.size > 0
                    if packet.size and packet.pts is not None:
                        stamps.append(packet.pts)
                        end = max(end, packet.pts + (packet.duration or 0))
                        if packet.is_keyframe:
                            keyframes.append(packet.pts)
        except DECODER_ERRORS:
            pass  # what comes after the break will not be decoded either
    if len(stamps) < count:  # a bare stream without a clock
        return Timetable(np.arange(count) / float(stream.average_rate or 25), np.empty(0))
    return _timetable(stamps, keyframes, end, stream)


def _timetable(
    stamps: list[int], keyframes: list[int], end: int, stream: av.VideoStream
) -> Timetable:
    first = min(stamps, default=0)
    unit = float(stream.time_base or 1)
    frames, keys = ((np.sort(np.array(each, float)) - first) * unit for each in (stamps, keyframes))
    return Timetable(frames, keys, (end - first) * unit)
