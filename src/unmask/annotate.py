"""The annotated copy of a video or image: every judged face boxed, named and with its verdict.

A second pass over the file that decodes and encodes but detects nothing: the boxes come from the
report. Frame after frame goes through, so memory does not grow with the length of a video.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from av.error import FFmpegError

from unmask.container import in_words
from unmask.decoder import digest
from unmask.drawing import Overlay
from unmask.errors import UnmaskError, UnreadableError, UsageError
from unmask.outputs import ANNOTATED, in_one_step, plan
from unmask.report import Report
from unmask.video import Frame, Video, is_image
from unmask.video_writer import frames_alike, write_video

_VIDEO_ENDS = (".mp4",)
_IMAGE_ENDS = (".png", ".jpg", ".jpeg")


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
        return path.stem + ANNOTATED, _VIDEO_ENDS[0]
    end = path.suffix.lower()
    return path.stem + ANNOTATED, end if end in _IMAGE_ENDS else ".png"


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
    and the probability of fake by the faces up to there; in a crowd, where there is no room for
    that, the person's number and the probability. ``on_progress`` is told how much is done, from 0
    to 1. ``output`` is there when all is done, or not at all.

    Raises UsageError for an ``output`` that makes no sense, UnreadableError where there is no
    picture to show, UnmaskError when the file is another than was judged or the copy cannot be
    encoded, and OSError when it cannot be written.
    """
    path, output = Path(path), Path(output)
    _check_output(path, output)
    if report.verdict == "unreadable":
        raise UnreadableError(f"there is no annotated copy of {path.name}: {report.reason}")
    _check_same(path, report)
    try:
        with in_one_step(output) as partial, Video(path, threads) as video:
            frames = _annotated(video, report, on_progress)
            if is_image(path):
                _write_image(next(frames).image, partial, output.suffix.lower())
            else:
                write_video(video, frames, partial, threads)
    except FFmpegError as error:
        raise UnmaskError(
            f"cannot write the annotated copy of {path.name} ({in_words(error)}): if there is room "
            f"in {output.parent}, convert the file to an ordinary MP4 first"
        ) from None


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


def _check_same(path: Path, report: Report) -> None:
    """Raise UnmaskError when the file has changed since it was judged."""
    now, _ = digest(path)
    if now and report.sha256 and now != report.sha256:
        raise UnmaskError(
            f"there is no annotated copy of {path.name}: the file has changed since it was judged; "
            "run Unmask on it again"
        )


def _annotated(
    video: Video, report: Report, on_progress: Callable[[float], None] | None
) -> Iterator[Frame]:
    """All frames of the video, drawn on."""
    overlay, duration = Overlay(report), video.info.duration_seconds
    for frame in frames_alike(video):
        overlay.draw(frame)
        yield frame
        if on_progress and duration:
            on_progress(min(1.0, frame.second / duration))


def _write_image(image: np.ndarray, output: Path, end: str) -> None:
    quality = () if end == ".png" else (cv2.IMWRITE_JPEG_QUALITY, 95)
    _, data = cv2.imencode(end, image[:, :, ::-1], quality)
    output.write_bytes(data)  # unlike OpenCV's own writing it tells when it fails
