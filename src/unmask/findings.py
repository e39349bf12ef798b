"""What a report amounts to, in words: whom the verdict hangs on, advice, and what weakens it.

The page of 'detect --html' and the web application say the same.
"""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from unmask.card import Card
from unmask.quality import COLOURLESS, is_colourless
from unmask.report import Report, TrackReport
from unmask.settings import VIDEO_SETTINGS, changed
from unmask.text import count, span
from unmask.verdict import most_possible

SMALL_FACE = 100.0
"""Pixels: smaller faces are enlarged more than twofold before they are judged."""

BLURRED = 20.0
"""Sharpness (quality.sharpness) under which 'unmask split' drops a face as too blurred."""

TURNED = 0.3
"""Turn (quality.turn) of about 25 degrees."""

COMPRESSED = 0.05
"""Bits per pixel (quality.bits_per_pixel) under which H.264 visibly smooths faces."""

FEW_FRAMES = 8
"""Fewer judged frames than this make a verdict that hangs on single frames."""

ADVICE = {
    "fake": "Look at the faces below, and at where the file comes from, before you publish or act "
    "on this. A model's verdict alone is no proof.",
    "real": "This is no proof of authenticity: the model knows some ways to manipulate faces and "
    "misses part of those, too.",
    "uncertain": "Do not read this as half fake: nothing is decided either way.",
    "no_face": "Nothing was judged, so nothing is known about this file. If it shows a face, try "
    "again with the settings that the reason names.",
    "unreadable": "Nothing was judged, so nothing is known about this file. Get it again from "
    "where it came from, or convert it to an ordinary MP4, or a picture to JPEG.",
}


def deciding(report: Report, settings: SimpleNamespace) -> list[TrackReport]:
    """Those whom the verdict hangs on, by the settings 'aggregate' and 'min_track_frames'.

    With 'person' who was seen for long enough or, if nobody was, all; with 'mean' all.
    """
    if settings.aggregate == "mean":
        return report.tracks
    return [t for t in report.tracks if len(t.frames) >= settings.min_track_frames] or report.tracks


def suspicion(track: TrackReport) -> tuple[bool, float]:
    """Sorts people as ``verdict.judge`` does: who is called fake is more suspicious than others."""
    return track.verdict == "fake", track.probability_fake


def seen(track: TrackReport) -> str:
    """When a person was seen, e.g. 'from 0:00.0 to 0:02.4 in 5 frames'."""
    return span(track.first_second, track.last_second, len(track.frames))


def rate(figure: Sequence[float | None], cases: int = 0) -> str:
    """A measured share and its interval in words; ``cases`` is how many there were, if known."""
    value, low, high = figure
    if cases and not value:  # resampling nothing but successes gives no interval
        return f"none of {cases}; up to {100 * most_possible(cases):.0f} in 100 remain possible"
    between = "" if low is None else f" (95 % interval: {100 * low:.0f} to {100 * high:.0f})"
    return f"{100 * value:.0f} in 100{between}"


def unlike_measured(report: Report, settings: SimpleNamespace, card: Card) -> list[str]:
    """The options by which a report differs from what the card's figures were measured with.

    These are measured with the defaults: 'evaluate --record' takes no others.
    """
    asked = [s.option for s in changed("detect", vars(settings)) if s.name in VIDEO_SETTINGS]
    if report.model.calibration:
        asked.append("--calibration")
    if card.measured and report.threshold != card.measured.threshold:
        asked.append("--threshold")
    return asked


def warnings(report: Report) -> list[str]:
    """What makes the whole verdict less sure, in sentences."""
    found = []
    if report.damage:
        found.append(f"The file is damaged ({report.damage}): only a part of it was judged.")
    video = report.video
    if video and video.sampling != "exact" and not report.is_image:
        found.append(
            f"With --sampling {video.sampling} parts of a video may be left out, and what was "
            "manipulated for a few seconds with them. Without that setting nothing is."
        )
    if video and video.bits_per_pixel is not None and video.bits_per_pixel < COMPRESSED:
        found.append(
            f"The file is strongly compressed: {video.bits_per_pixel:.3f} bits for each pixel "
            f"(strong: under {COMPRESSED:g}; newer codecs than H.264 need about half as many). "
            "Compression wipes out traces of manipulation and leaves its own."
        )
    if report.tracks and report.is_image:
        found.append(
            "The verdict hangs on a single picture, and by a model made for moving ones hardly a "
            "manipulated photo is found: a video of the same person would say more."
        )
    elif 0 < report.frames_judged < FEW_FRAMES:
        frames = count(report.frames_judged, "frame")
        found.append(
            f"The verdict hangs on {frames} (few: under {FEW_FRAMES}), so each weighs much: a "
            "longer piece of video says more."
        )
    return found


def face_warnings(track: TrackReport) -> list[str]:
    """What makes this person's verdict less sure, in sentences."""
    size, sharpness, turn = (
        float(np.median([getattr(frame, field) for frame in track.frames]))
        for field in ("face_size", "sharpness", "turn")
    )
    colours = [frame.colour for frame in track.frames if frame.colour is not None]
    found = []
    if is_colourless(colours):
        found.append(
            f"The face is in black and white or in one tint: colour {np.median(colours):.0f} "
            f"(none: under {COLOURLESS:g}). The model takes that for a trace and about half of "
            "all real people without colour for fakes, so nobody is called fake without it: look "
            "for the recording in colour."
        )
    if size < SMALL_FACE:
        found.append(
            f"The face is small: half of the time under {size:.0f} pixels (small: under "
            f"{SMALL_FACE:.0f}). It had to be enlarged, and fine traces are not in it."
        )
    if sharpness < BLURRED:
        found.append(
            f"The face is blurred or strongly smoothed: sharpness {sharpness:.0f} (blurred: under "
            f"{BLURRED:.0f}). Blur hides traces, and can itself be mistaken for one."
        )
    if turn > TURNED:
        found.append(
            f"The face is mostly turned sideways: turn {turn:.2f} (turned: over {TURNED:g}, about "
            "25 degrees). The model was trained mainly on frontal faces."
        )
    return found
