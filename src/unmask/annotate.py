"""The annotated copy of a video or image: every judged face boxed, named and with its verdict.

A second pass over the file that decodes and encodes but detects nothing: the boxes come from the
report. Frame after frame goes through, so memory does not grow with the length of a video.
"""

import os
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace

from unmask.container import DECODER_ERRORS, in_words, open_container, orientation
from unmask.errors import UnmaskError, UnreadableError, UsageError
from unmask.outputs import in_one_step, plan
from unmask.report import Report, TrackReport
from unmask.tracks import is_cut, thumbnail
from unmask.verdict import logit, sigmoid
from unmask.video import Frame, Video, is_image

_VIDEO_ENDS = (".mp4",)
_IMAGE_ENDS = (".png", ".jpg", ".jpeg")
_MARK = ".annotated"  # in the names of what is put into a folder

_KEPT_SOUND = ("aac", "mp3", "opus", "flac")  # what browsers play out of an MP4
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)

# Okabe and Ito (2008): seven colours that nobody mixes up, on dark and on light ground.
_PALETTE = (
    (230, 159, 0), (86, 180, 233), (240, 228, 66), (0, 158, 115),
    (204, 121, 167), (213, 94, 0), (0, 114, 178),
)  # fmt: skip
_INK, _GROUND = (255, 255, 255), (20, 20, 20)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_CAPITAL = 0.026  # height of a capital letter, in shorter sides of the picture ...
_SMALLEST_CAPITAL = 9  # ... but at least so many pixels, or nobody can read it
_RGB = 0  # in place of the matrix, for frames that are no YUV
_JOINED_SECONDS = 3.0  # between faces further apart nobody knows where the face was


def plan_outputs(inputs: Sequence[Path], target: Path) -> list[Path]:
    """Where the annotated copy of each input goes: to ``target``, or into it if it is a folder.

    In a folder a copy is called <stem>.annotated.mp4 (an image's .png or .jpg), with a number
    where that name is taken by another copy or by an input. Raises UsageError for a ``target``
    that cannot be written, that is there already, or that is one file for several inputs.
    """
    outputs = plan(inputs, target, "--annotate", _name)
    if outputs == [target]:
        _check_output(inputs[0], target)
        if target.exists():
            # Whoever takes --annotate for a switch would have a video overwritten.
            raise UsageError(f"{target} exists: delete it, or give --annotate another file")
    return outputs


def _name(path: Path) -> tuple[str, str]:
    """Stem and ending of an input's copy in a folder."""
    if not is_image(path):
        return path.stem + _MARK, _VIDEO_ENDS[0]
    end = path.suffix.lower()
    return path.stem + _MARK, end if end in _IMAGE_ENDS else ".png"


def annotate(
    path: str | os.PathLike[str],
    report: Report,
    output: str | os.PathLike[str],
    on_progress: Callable[[float], None] | None = None,
    threads: int = 0,
) -> None:
    """Write a copy of the file ``path`` that shows what its ``report`` says.

    Videos become .mp4 (H.264, upright, every frame at its time, sound kept), images .png or .jpg.
    A face has a box and a label from the person's first judged frame to the last: between judged
    frames the box moves in a straight line, and there is none where the person was missed, or
    where the picture is another than in the judged frame. The label has the verdict on the person,
    and the probability of fake by the faces up to there. ``on_progress`` is told how much is done,
    from 0 to 1. ``output`` is there when all is done, or not at all.

    Raises UsageError for an ``output`` that makes no sense, UnreadableError where there is no
    picture to show, UnmaskError when the copy cannot be encoded and OSError when it cannot be
    written.
    """
    path, output = Path(path), Path(output)
    _check_output(path, output)
    if report.verdict == "unreadable":
        raise UnreadableError(f"there is no annotated copy of {path.name}: {report.reason}")
    try:
        with in_one_step(output) as partial, Video(path, threads) as video:
            frames = _annotated(video, report, on_progress)
            if is_image(path):
                _write_image(next(frames).image, partial, output.suffix.lower())
            else:
                _write_video(video, frames, partial, threads)
    except FFmpegError as error:
        raise UnmaskError(
            f"cannot write the annotated copy of {path.name} ({in_words(error)}): if there is room "
            f"in {output.parent}, convert the file to an ordinary MP4 first"
        ) from None


def annotate_all(
    reports: Sequence[Report], outputs: Sequence[Path], threads: int = 0
) -> list[UnmaskError]:
    """Annotate the file of each report; show a bar if standard error is a terminal.

    Returns what was wrong with those files of which there is no copy. Raises OSError when one
    cannot be written.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    failures = []
    with Progress(
        "{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty(),
    ) as bar:  # fmt: skip
        task = bar.add_task("annotating", total=len(reports))
        for done, (report, output) in enumerate(zip(reports, outputs, strict=True)):

            def show(share: float, done: int = done) -> None:
                bar.update(task, completed=done + share)

            try:
                annotate(report.path, report, output, show, threads)
            except UnmaskError as error:
                failures.append(error)
            show(1.0)
    return failures


def _check_output(path: Path, output: Path) -> None:
    """Raise UsageError for a copy of the wrong kind, in no folder, or over its own input."""
    ends = _IMAGE_ENDS if is_image(path) else _VIDEO_ENDS
    if output.suffix.lower() not in ends:
        raise UsageError(
            f"cannot annotate {path.name} as {output}: name a file that ends in {' or '.join(ends)}"
        )
    if not output.parent.is_dir():
        raise UsageError(f"cannot write {output}: there is no folder {output.parent}")
    if output.is_dir():
        raise UsageError(f"cannot write {output}: that is a folder")
    if output.exists() and path.exists() and output.samefile(path):
        raise UsageError(f"{output} is the input itself: name another file to write")


def _annotated(
    video: Video, report: Report, on_progress: Callable[[float], None] | None
) -> Iterator[Frame]:
    """All frames of the video, drawn on."""
    overlay, duration = _Overlay(report), video.info.duration_seconds
    for frame in video.sample(every=1):
        overlay.draw(frame)
        yield frame
        if on_progress and duration:
            on_progress(min(1.0, frame.second / duration))


def _write_image(image: np.ndarray, output: Path, end: str) -> None:
    quality = () if end == ".png" else (cv2.IMWRITE_JPEG_QUALITY, 95)
    _, data = cv2.imencode(end, image[:, :, ::-1], quality)
    output.write_bytes(data)  # unlike OpenCV's own writing it tells when it fails


# --- what is drawn ---


class _Person:
    """Where one person's face is in any frame, and what the faces up to there say."""

    def __init__(self, track: TrackReport):
        self.id, self.verdict = track.id, track.verdict
        self.colour = _PALETTE[(track.id - 1) % len(_PALETTE)]
        self._indexes = [frame.index for frame in track.frames]
        self._samples = [frame.sample for frame in track.frames]
        self.last_index = self._indexes[-1]
        self._seconds = [frame.second for frame in track.frames]
        self._boxes = np.array([frame.box for frame in track.frames])
        logits = logit([frame.probability_fake for frame in track.frames])
        means = np.cumsum(logits) / np.arange(1, len(logits) + 1)
        self._running = [sigmoid(mean) for mean in means]

    def at(self, index: int) -> tuple[np.ndarray, float] | None:
        """The box in the frame and the running probability of fake; None where nobody knows."""
        last = bisect_right(self._indexes, index) - 1
        if last < 0 or (self._indexes[last] != index and not self._joined(last)):
            return None
        box = self._boxes[last]
        if self._indexes[last] != index:
            start, end = self._indexes[last : last + 2]
            box = box + (self._boxes[last + 1] - box) * (index - start) / (end - start)
        return box, self._running[last]

    def _joined(self, last: int) -> bool:
        """Whether the person was also seen in the very next frame that was judged."""
        if last + 1 == len(self._indexes):
            return False
        seconds = self._seconds[last + 1] - self._seconds[last]
        return self._samples[last + 1] == self._samples[last] + 1 and seconds <= _JOINED_SECONDS


class _Overlay:
    """Draws what a report says on the frames of its video, which come in order."""

    def __init__(self, report: Report):
        self._people = [_Person(track) for track in report.tracks]
        self._judged = {frame.index for track in report.tracks for frame in track.frames}
        self._scene: np.ndarray | None = None  # what the last judged frame looked like
        if report.verdict == "no_face":
            self._caption = "Unmask: no face found"
        else:
            p = report.probability_fake
            self._caption = f"Unmask: {report.verdict}, prob. of fake {p:.2f}"

    def draw(self, frame: Frame) -> None:
        """Draw on a frame's image."""
        shown = []
        if self._same_scene(frame):
            shown = [(p, at) for p in self._people if (at := p.at(frame.index))]
        pen = _Pen(frame.image)
        pen.caption(self._caption)
        for person, (box, _) in shown:
            pen.box(box, person.colour)
        for person, (box, probability) in shown:
            figure = f"prob. of fake {probability:.2f}"
            if frame.index < person.last_index:
                figure += " so far"
            pen.label([f"Person {person.id}: {person.verdict}", figure], box, person.colour)

    def _same_scene(self, frame: Frame) -> bool:
        """Whether the frame is judged, or shows the same scene as the judged one before it."""
        if not self._judged:
            return False
        now = thumbnail(frame.image)
        if frame.index in self._judged:
            self._scene = now
        return self._scene is not None and not is_cut(self._scene, now)


class _Pen:
    """Draws boxes and text on one image, as large as suits it, no text over another."""

    def __init__(self, image: np.ndarray):
        self._image = image
        self._taken: list[tuple[int, int, int, int]] = []  # where there is text: x1, y1, x2, y2
        side = min(image.shape[:2])
        self._capital = max(_SMALLEST_CAPITAL, round(side * _CAPITAL))
        self._line = max(2, round(side / 300))  # thinner ones lose their colour in 4:2:0

    def box(self, box: np.ndarray, colour: tuple[int, int, int]) -> None:
        """A frame around a face, in the colour between two dark lines."""
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        for ink, thickness in ((_GROUND, 2 * self._line + 2), (colour, self._line)):
            cv2.rectangle(self._image, (x1, y1), (x2, y2), ink, thickness)

    def label(self, lines: Sequence[str], box: np.ndarray, colour: tuple[int, int, int]) -> None:
        """Text at a box: above it, or else below it, or else inside, at the top."""
        x1, y1, _, y2 = (round(float(v)) for v in box)
        plate, gap = self._plate(lines, colour), 2 * self._line
        above, below, inside = y1 - gap - plate.shape[0], y2 + gap, y1 + gap
        self._put(plate, x1 - self._line, (above, below, inside))

    def caption(self, line: str) -> None:
        """Text at the lower left."""
        plate = self._plate([line], _GROUND)
        self._put(plate, 0, (self._image.shape[0] - plate.shape[0],))

    def _plate(self, lines: Sequence[str], colour: tuple[int, int, int]) -> np.ndarray:
        """Bright text on dark ground, edged in the colour; no larger than the image."""
        stroke = max(1, round(self._capital / 9))
        scale = cv2.getFontScaleFromHeight(_FONT, self._capital, stroke)
        pad = self._line + self._capital // 2
        pitch = round(1.7 * self._capital)
        width = max(cv2.getTextSize(line, _FONT, scale, stroke)[0][0] for line in lines) + 2 * pad
        height = (len(lines) - 1) * pitch + self._capital + 2 * pad
        plate = np.full((height, width, 3), _GROUND, np.uint8)
        edge = (width - 1 - self._line // 2, height - 1 - self._line // 2)
        cv2.rectangle(plate, (self._line // 2,) * 2, edge, colour, self._line)
        for number, line in enumerate(lines):
            start = (pad, pad + self._capital + number * pitch)
            cv2.putText(plate, line, start, _FONT, scale, _INK, stroke, cv2.LINE_AA)
        shrunk = min(1.0, self._image.shape[1] / width, self._image.shape[0] / height)
        if shrunk < 1:
            size = (max(1, int(width * shrunk)), max(1, int(height * shrunk)))
            plate = cv2.resize(plate, size, interpolation=cv2.INTER_AREA)
        return plate

    def _put(self, plate: np.ndarray, left: int, tops: Sequence[int]) -> None:
        """Put a plate at the first of the places where it is neither cut off nor over another."""
        height, width = plate.shape[:2]
        lowest = self._image.shape[0] - height
        left = min(max(left, 0), self._image.shape[1] - width)
        places = [(left, top, left + width, top + height) for top in tops if 0 <= top <= lowest]
        free = [p for p in places if not any(_overlap(p, taken) for taken in self._taken)]
        if not places:
            top = min(max(tops[0], 0), lowest)
            places = [(left, top, left + width, top + height)]
        x1, y1, x2, y2 = place = (free or places)[0]
        self._image[y1:y2, x1:x2] = plate
        self._taken.append(place)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# --- the video that is written ---


def _write_video(video: Video, frames: Iterator[Frame], output: Path, threads: int) -> None:
    """Encode frames as H.264 that browsers play, each at its own time, with the sound."""
    _, first = video.source
    with (
        video.path.open("rb") as file,
        open_container(file) as source,
        # The full path: FFmpeg takes a name like 'http:a.mp4' for an address.
        av.open(str(output.absolute()), "w", "mp4", options={"movflags": "faststart"}) as out,
    ):
        # Where a file's clock starts late, as a broadcast's does, the copy's starts at 0.
        start = max(Fraction(0), Fraction(source.start_time or 0, av.time_base))
        encoder = _Encoder(video, out, threads)
        sound = _Sound(source, out, start)
        tick = first.time_base
        offset = round((first.pts or 0) - start / tick)
        last = None
        for frame in frames:
            pts = offset + round(frame.second / tick)
            last = pts if last is None else max(pts, last + 1)  # a damaged clock goes backwards
            sound.until(last * tick)
            encoder.encode(frame.image, last, tick)
        encoder.close()
        sound.until(None)


class _Encoder:
    """H.264 with the source's colours and pixel shape."""

    def __init__(self, video: Video, out: av.container.OutputContainer, threads: int):
        stream, first = video.source
        rate = Fraction(video.info.fps or 25).limit_denominator(1001)
        self._out, self._width, self._height = out, video.info.width, video.info.height
        self._coded = out.add_stream("libx264", rate=rate)
        # Without frames that lean on later ones, all are stored in the order and time of showing.
        self._coded.options = {"preset": "veryfast", "crf": "18", "bf": "0"}
        coder = self._coded.codec_context
        coder.width = self._width + self._width % 2
        coder.height = self._height + self._height % 2
        coder.pix_fmt, coder.thread_count = "yuv420p", threads
        coder.time_base = first.time_base
        shape = stream.codec_context.sample_aspect_ratio
        if shape:
            coder.sample_aspect_ratio = 1 / shape if orientation(first)[0] else shape
        # The matrix that made RGB of the pictures makes YUV of them again: no colour shifts. What
        # was RGB all along gets the one that players take for granted.
        matrix = Colorspace.ITU709 if first.colorspace == _RGB else first.colorspace
        coder.colorspace, coder.color_range = matrix, ColorRange.MPEG
        coder.color_primaries, coder.color_trc = first.color_primaries, first.color_trc
        known = [int(space) for space in Colorspace]
        self._matrix = matrix if matrix in known else Colorspace.ITU601

    def encode(self, image: np.ndarray, pts: int, time_base: Fraction) -> None:
        """Add an image, RGB ``uint8``, to be shown at ``pts`` ticks of the time base."""
        if image.shape[:2] != (self._height, self._width):  # broadcasts change it on the way
            image = cv2.resize(image, (self._width, self._height), interpolation=cv2.INTER_AREA)
        below, right = self._height % 2, self._width % 2
        if below or right:  # H.264 has no odd sides here
            image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=self._matrix)
        frame.pts, frame.time_base = pts, time_base
        self._out.mux(self._coded.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds back."""
        self._out.mux(self._coded.encode())


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
        for packet in self._read(stream):
            try:
                frames = packet.decode()
            except DECODER_ERRORS:
                continue  # as with damaged pictures, the rest is kept
            for frame in frames:
                if frame.pts is not None:
                    frame.pts -= round(self._start / frame.time_base)
                yield from coded.encode(frame)
        yield from coded.encode()

    def _read(self, stream: av.AudioStream) -> Iterator[av.Packet]:
        """The stream's packets, to the end or to where the file breaks off."""
        try:
            yield from self._source.demux(stream)
        except DECODER_ERRORS:
            return
