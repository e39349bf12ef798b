"""Frames and the sound of their source -> an MP4 that browsers play, each frame at its own time."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from unmask.container import DECODER_ERRORS, open_container, steady
from unmask.timetable import Timetable, read_timetable
from unmask.video import Frame, Video

_KEPT_SOUND = ("aac", "mp3", "opus", "flac")  # what browsers play out of an MP4
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_MOST_TICKS = 2**31 - 1  # that MP4 has between two frames
_RGB = 0  # in place of the matrix, for frames that are no YUV


def frames_alike(video: Video) -> Iterator[Frame]:
    """Every frame, as large as the first: calls and broadcasts change their size on the way."""
    size = video.info.width, video.info.height
    for frame in video.sample(every=1):
        if frame.image.shape[1::-1] != size:
            image = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
            frame = replace(frame, image=image)
        yield frame


def write_video(video: Video, frames: Iterator[Frame], output: Path, threads: int) -> None:
    """Encode frames as H.264 that browsers play, each at and for its own time, with the sound.

    ``frames`` are those of ``frames_alike``, whatever became of their pictures.
    """
    stream, first = video.source
    timetable = read_timetable(video.path, stream)
    tick = _tick(first.time_base, timetable)
    with (
        video.path.open("rb") as file,
        open_container(file) as source,
        # The full path: FFmpeg takes a name like 'http:a.mp4' for an address.
        av.open(str(output.absolute()), "w", "mp4", options={"movflags": "faststart"}) as out,
    ):
        # Where a file's clock starts late, as a broadcast's does, the copy's starts at 0.
        start = max(Fraction(0), Fraction(source.start_time or 0, av.time_base))
        encoder = _Encoder(video, out, tick, threads)
        sound = _Sound(source, out, start)
        offset = round(((first.pts or 0) * first.time_base - start) / tick)
        distance = round(1 / encoder.rate / tick)
        last = None
        for frame in frames:
            pts = offset + round(frame.second / tick)
            if last is not None:
                pts = max(pts, last + 1)  # a damaged clock goes backwards
                distance = pts - last
            last = pts
            sound.until(last * tick)
            encoder.encode(frame.image, last)
        encoder.close(last + (round(_last_seconds(timetable) / tick) or distance))
        sound.until(None)


def _tick(tick: Fraction, timetable: Timetable) -> Fraction:
    """The time base, made coarser where the longest time between two frames has too many ticks."""
    longest = max(np.diff(timetable.frames).max(initial=0), _last_seconds(timetable))
    while longest / tick > _MOST_TICKS:
        tick *= 2
    return tick


def _last_seconds(timetable: Timetable) -> float:
    """How long the last frame is shown; 0 where the file does not say."""
    return timetable.end - timetable.frames[-1] if len(timetable.frames) else 0.0


class _Encoder:
    """H.264 with the source's colours."""

    def __init__(
        self, video: Video, out: av.container.OutputContainer, tick: Fraction, threads: int
    ):
        _, first = video.source
        self.rate = rate = Fraction(video.info.fps or 25).limit_denominator(1001)
        self._held: av.Packet | None = None  # until it is known how long its picture is shown
        self._out, self._width, self._height = out, video.info.width, video.info.height
        self._coded = out.add_stream("libx264", rate=rate)
        # Without frames that lean on later ones, all are stored in the order and time of showing.
        self._coded.options = {"preset": "veryfast", "crf": "18", "bf": "0"}
        coder = self._coded.codec_context
        coder.width = self._width + self._width % 2
        coder.height = self._height + self._height % 2
        coder.pix_fmt, coder.thread_count = "yuv420p", threads
        coder.time_base = tick
        # The matrix that made RGB of the pictures makes YUV of them again: no colour shifts. What
        # was RGB all along gets the one that players take for granted.
        matrix = Colorspace.ITU709 if first.colorspace == _RGB else first.colorspace
        coder.colorspace, coder.color_range = matrix, ColorRange.MPEG
        coder.color_primaries, coder.color_trc = first.color_primaries, first.color_trc
        known = [int(space) for space in Colorspace]
        self._matrix = matrix if matrix in known else Colorspace.ITU601

    def encode(self, image: np.ndarray, pts: int) -> None:
        """Add an image, RGB ``uint8``, to be shown at ``pts`` ticks."""
        below, right = self._height % 2, self._width % 2
        if below or right:  # H.264 has no odd sides here
            image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=self._matrix)
        frame.pts, frame.time_base = pts, self._coded.codec_context.time_base
        self._write(self._coded.encode(frame))

    def close(self, end: int) -> None:
        """Write what is still held back; the last image is shown until ``end`` ticks."""
        self._write(self._coded.encode())
        self._release(end)

    def _write(self, packets: Iterable[av.Packet]) -> None:
        for packet in packets:
            if self._held:
                self._release(packet.pts)
            self._held = packet

    def _release(self, end: int) -> None:
        self._held.duration = end - self._held.pts
        self._out.mux(self._held)


class _Sound:
    """The first sound of a file, if it has any, put beside the pictures as they come.

    It is copied as it is where browsers play it out of an MP4, and encoded as AAC otherwise.
    ``start`` is the time in seconds that is to be 0.
    """

    def __init__(
        self,
        source: av.container.InputContainer,
        out: av.container.OutputContainer,
        start: Fraction,
    ):
        self._source, self._out, self._start = source, out, start
        self._packets: Iterator[av.Packet] = iter(())
        stream = next((s for s in source.streams.audio if s.codec_context), None)
        if stream and stream.codec_context.codec.canonical_name in _KEPT_SOUND:
            self._packets = self._copied(stream, out.add_stream_from_template(stream))
        elif stream:
            coder = stream.codec_context
            rate = min(_AAC_RATES, key=lambda rate: (rate < coder.rate, abs(rate - coder.rate)))
            layout = "mono" if coder.channels == 1 else "stereo"
            self._packets = self._encoded(stream, out.add_stream("aac", rate=rate, layout=layout))
        self._next = next(self._packets, None)

    def until(self, second: Fraction | None) -> None:
        """Write what is heard up to then; None: all of it."""
        while self._next and (second is None or self._next.dts * self._next.time_base <= second):
            self._out.mux(self._next)
            self._next = next(self._packets, None)

    def _copied(self, stream: av.AudioStream, copy: av.AudioStream) -> Iterator[av.Packet]:
        last = None
        for packet in self._read(stream):
            if packet.dts is None or packet.pts is None:
                continue
            shift = round(self._start / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            if last is None or packet.dts > last:  # a damaged clock goes backwards
                last = packet.dts
                packet.stream = copy
                yield packet

    def _encoded(self, stream: av.AudioStream, coded: av.AudioStream) -> Iterator[av.Packet]:
        for frame in _alike(self._decoded(stream), coded.codec_context):
            yield from coded.encode(frame)
        yield from coded.encode()

    def _decoded(self, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
        for packet in self._read(stream):
            try:
                frames = packet.decode()
            except DECODER_ERRORS:
                continue  # as with damaged pictures, the rest is kept
            for frame in frames:
                if frame.pts is not None:
                    frame.pts -= round(self._start / frame.time_base)
                yield frame

    def _read(self, stream: av.AudioStream) -> Iterator[av.Packet]:
        """The stream's packets, to the end or to where the file breaks off."""
        try:
            yield from steady(self._source.demux(stream), stream)
        except DECODER_ERRORS:
            return


def _alike(frames: Iterator[av.AudioFrame], coder: av.AudioCodecContext) -> Iterator[av.AudioFrame]:
    """Sound as the encoder takes it: calls and broadcasts change theirs on the way, too."""
    for _, same in groupby(frames, lambda f: (f.format.name, f.layout.name, f.sample_rate)):
        resampler = av.AudioResampler(coder.format, coder.layout, coder.rate)
        for frame in same:
            yield from resampler.resample(frame)
        yield from resampler.resample(None)
