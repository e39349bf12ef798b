"""How a verdict holds when a clip is damaged: copies as they get passed on, judged again.

Compression, fewer pixels and blur are what detectors are usually tried with: FaceForensics++
(Roessler et al., ICCV 2019) has H.264 at two qualities, DeeperForensics-1.0 (Jiang et al., CVPR
2020) blur and compression among its perturbations.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
from av.error import FFmpegError

from unmask.container import in_words
from unmask.errors import UnreadableError, UsageError
from unmask.video import Video, VideoInfo

if TYPE_CHECKING:
    from unmask.analyzer import Analyzer
    from unmask.report import Report


@dataclass(frozen=True)
class Alteration:
    """One way to damage a clip: scaled, then blurred, then coded as H.264.

    ``crf`` is the constant rate factor (0 lossless to 51), ``scale`` the factor of both sides and
    ``blur`` the Gaussian's sigma in pixels where the shorter side has 720.
    """

    help: str
    crf: int
    scale: float = 1.0
    blur: float = 0.0


ALTERATIONS = {
    "crf28": Alteration("H.264 at CRF 28, moderate compression", crf=28),
    "crf35": Alteration("H.264 at CRF 35, strong compression", crf=35),
    "half": Alteration("half the width and height, H.264 at CRF 23", crf=23, scale=0.5),
    "blur": Alteration(
        "Gaussian blur of 1.5 pixels at 720 lines, H.264 at CRF 18", crf=18, blur=1.5
    ),
}

LONGEST_SECONDS = 60.0
"""Of a longer film no more is altered where somebody waits for one verdict."""

_TICK = Fraction(1, 90_000)  # fine enough for any source's time stamps
_LARGEST_SIDE = 16_384  # of a picture that x264 takes
# A figure must come out the same again. x264 codes otherwise with another number of threads, and
# its macroblock tree, on processors with AVX-512, otherwise in every run.
_X264 = {"preset": "veryfast", "threads": "4", "mbtree": "0"}


@dataclass(frozen=True)
class AlteredVerdict:
    """The verdict on an altered copy; ``probability_fake`` is None where no face is left."""

    alteration: str
    verdict: str
    probability_fake: float | None


def check_sampling(sampling: str) -> None:
    """Raise UsageError for a setting by which a copy would be looked at in other frames."""
    if sampling != "exact":
        raise UsageError(
            f"--robustness cannot go with --sampling {sampling}: copies have their keyframes "
            "elsewhere, so other frames would be compared. Leave one of them away"
        )


def altered_copy(
    path: str | Path, alteration: str, output: Path, max_seconds: float = LONGEST_SECONDS
) -> VideoInfo:
    """Write ``output``, an H.264 copy (MP4, no sound) of a video or image with ``alteration``.

    Every decoded frame has its own in the copy, upright and at the same time from the first one
    on, so that detection looks at the same frames; of a longer film, those of the first
    ``max_seconds``. An image becomes a video of one frame, so that what is done to it is what is
    done to videos. Odd sides, which H.264 lacks here, are one pixel longer. One of ALTERATIONS.
    Returns what the original says of itself; raises UnreadableError when ``path`` cannot be
    decoded, or its pictures cannot be encoded.
    """
    try:
        return _alter_video(Path(path), ALTERATIONS[alteration], output, max_seconds)
    except FFmpegError as error:
        raise UnreadableError(
            f"no altered copy of {Path(path).name} can be encoded: {in_words(error)}"
        ) from None


def _alter_video(path: Path, how: Alteration, output: Path, max_seconds: float) -> VideoInfo:
    with Video(path) as source:
        size = tuple(max(1, round(how.scale * s)) for s in (source.info.width, source.info.height))
        if max(size) > _LARGEST_SIDE:
            raise UnreadableError(
                f"{source.path.name} has a side of {max(size)} pixels: H.264 has no more than "
                f"{_LARGEST_SIDE}, so give a smaller copy"
            )
        with av.open(str(output), "w", format="mp4") as container:
            # The rate is a formality: the time stamps say when each frame is shown.
            options = _X264 | {"crf": str(how.crf)}
            stream = container.add_stream("libx264", rate=25, options=options)
            stream.width, stream.height = (s + s % 2 for s in size)
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = _TICK
            last = -1
            for frame in source.sample(every=1):
                if frame.second > max_seconds:
                    break
                image = _alter(frame.image, size, how.blur)
                coded = av.VideoFrame.from_ndarray(image, format="rgb24")
                # Damaged files repeat or reverse their time stamps, which an encoder refuses.
                last = max(last + 1, round(frame.second / _TICK))
                coded.pts, coded.time_base = last, _TICK
                container.mux(stream.encode(coded))
            container.mux(stream.encode())
        return source.info


def _alter(image: np.ndarray, size: tuple[int, int], blur: float) -> np.ndarray:
    """``image`` at ``size`` (width, height), blurred, its sides made even."""
    width, height = size
    if image.shape[:2] != (height, width):  # to be scaled, or a stream that changes its size
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur * min(size) / 720)
    return cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)


def analyze_altered(
    analyzer: "Analyzer", path: str | Path, alteration: str, folder: Path,
    max_seconds: float = LONGEST_SECONDS,
) -> "Report":  # fmt: skip
    """The report on an altered copy, which is in ``folder`` meanwhile. Raises as altered_copy."""
    copy = folder / "altered_copy.mp4"
    try:
        original = altered_copy(path, alteration, copy, max_seconds)
        return analyzer.analyze(copy, is_photo=original.is_image, is_copy=True)
    finally:
        copy.unlink(missing_ok=True)


def verdicts_after(
    analyzer: "Analyzer",
    path: str | Path,
    on_progress: Callable[[float], None] | None = None,
) -> list[AlteredVerdict]:
    """The verdicts on a video or image after each of ALTERATIONS, by the analyzer's settings.

    ``on_progress`` is called with the share that is done, from 0 to 1. Of a film that is longer
    than LONGEST_SECONDS they speak of its beginning only. Raises as altered_copy.
    """
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="unmask-") as folder:
        for name in ALTERATIONS:
            report = analyze_altered(analyzer, path, name, Path(folder))
            verdicts.append(AlteredVerdict(name, report.verdict, report.probability_fake))
            if on_progress:
                on_progress(len(verdicts) / len(ALTERATIONS))
    return verdicts


def verdicts_when_altered(
    analyzer: "Analyzer", report: "Report", on_progress: Callable[[float], None]
) -> list[AlteredVerdict] | str:
    """``verdicts_after`` for what the report is on, or a sentence why there are none."""
    if report.probability_fake is None:
        return "There is no verdict that could hold or not."
    try:
        return verdicts_after(analyzer, report.path, on_progress)
    except UnreadableError as error:
        return f"No altered copies could be made: {error}."
