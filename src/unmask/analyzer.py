"""The main job: a path -> a Report. It alone knows every stage in between."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import report as reports
from unmask.classifier import Classifier
from unmask.errors import UnreadableError
from unmask.explain import Exhibits
from unmask.faces import FaceDetector
from unmask.processors import processors
from unmask.quality import bits_per_pixel
from unmask.report import Report
from unmask.settings import resolve
from unmask.stages import JudgedFace, Jury, People, Reader
from unmask.tracks import Track
from unmask.verdict import (
    Rule,
    Verdict,
    judge,
    no_face,
    sigmoid,
    track_probability,
    track_verdict,
)
from unmask.video import Video

if TYPE_CHECKING:
    from unmask.provenance import Provenance

_MOST_STREAMS = 4  # batches judged side by side: each takes memory

Progress = Callable[[float], None]
"""Called with how much of the input is done, from 0 to 1."""


def analyze(path: str | os.PathLike[str], **settings: Any) -> Report:
    """Judge one video or image. For several, make one ``Analyzer`` and keep it.

    ``settings`` are those of 'unmask detect', e.g. ``max_frames=32``. What the file is like never
    raises anything: that is what the verdicts 'no_face' and 'unreadable' are for. Raises
    SettingError for settings that do not fit, ModelError for a model that cannot be run and
    UsageError for a trust list that cannot be read.
    """
    return Analyzer(**settings).analyze(path)


class Analyzer:
    """Judges videos and images, one after the other, with models that are loaded once.

    ``settings`` are those of 'unmask detect'; raises as ``analyze`` does.
    """

    def __init__(self, **settings: Any):
        self.settings = s = resolve("detect", settings)
        s.provenance |= bool(s.trust_list)
        self._trust_list = None
        if s.trust_list:
            from unmask.credentials import checked_list

            self._trust_list = checked_list(Path(s.trust_list))  # not after the first film
        # A thread to a batch and none for two: threads that wait for each other waste processors.
        self._streams = min(processors(s.threads), _MOST_STREAMS)
        with ThreadPoolExecutor(2) as pool:  # each of them takes a fifth of a second
            detector = pool.submit(
                FaceDetector,
                s.detection_size, s.detection_score, s.min_face, s.threads, s.precision,
            )  # fmt: skip
            classifier = pool.submit(
                Classifier, s.model or None, s.threads, s.precision, s.calibration or None,
                self._streams, s.device,
            )  # fmt: skip
        self.detector, self.classifier = detector.result(), classifier.result()
        self.rule = Rule.of(s)

    def analyze(
        self, path: str | os.PathLike[str], on_progress: Progress | None = None,
        exhibits: Exhibits | None = None, on_face: Callable[[JudgedFace], None] | None = None,
        is_photo: bool = False, is_copy: bool = False,
    ) -> Report:  # fmt: skip
        """The report on one file.

        ``exhibits``, if given, are filled with the worst pictures of each person on the way; raises
        ModelError when the model cannot tell where it looks. ``on_face`` is told of every face when
        it is judged, in order. ``is_photo`` says of a video that it is made of a photo; images are
        photos anyway. ``is_copy`` says that the file was made here, so that where it comes from
        is not asked.
        """
        start = time.perf_counter()
        with (
            ThreadPoolExecutor(1) as aside,
            Jury(self.classifier, self._streams, exhibits, on_face) as jury,
            Reader(Path(path), self.settings) as reader,
        ):
            asked = self.settings.provenance and not is_copy
            provenance = aside.submit(self._provenance, path) if asked else None
            people = People(self.detector, self.classifier.card.input_size, jury)
            if exhibits:
                exhibits.cuts = people.cuts
            for frame in reader:
                jury.is_photo = is_photo or reader.video.info.is_image
                people.see(frame)
                if on_progress:
                    on_progress(reader.share(frame.second))
            jury.finish()
        tracks, video = people.tracks, reader.video
        if reader.error:
            tracks, video, verdict = [], None, Verdict("unreadable", _sentence(reader.error))
        elif not tracks:
            s, is_image = self.settings, video.info.is_image
            verdict = no_face(people.frames, s.min_face, s.detection_score, is_image)
        else:
            verdict = judge(tracks, self.rule, video.info.is_image)
        reason, damage = verdict.reason, video and video.damage
        if damage:
            reason += f" The file is damaged ({damage}): only what could be decoded was judged."
        return Report(
            path=os.fspath(path),
            sha256=reader.sha256,
            verdict=verdict.name,
            reason=reason,
            probability_fake=verdict.probability,
            confidence=verdict.confidence,
            threshold=self.rule.threshold,
            model=reports.ModelReport(
                self.classifier.card.name,
                self.classifier.card.version,
                self.classifier.card.sha256,
                self.classifier.card.calibration,
            ),
            video=video
            and _video_report(video, reader.file_bytes, people.frames, self.settings.sampling),
            tracks=[_track_report(track, self.rule) for track in tracks],
            timings_seconds=reports.Timings(
                decode=reader.busy_seconds,
                faces=people.faces_seconds,
                classify=jury.seconds,
                total=time.perf_counter() - start,
            ),
            damage=damage,
            provenance=provenance and provenance.result(),
        )

    def _provenance(self, path: str | os.PathLike[str]) -> "Provenance":
        from unmask.provenance import inspect

        return inspect(path, self._trust_list)


def _sentence(error: UnreadableError) -> str:
    text = str(error)
    return text if text.endswith("?") else text + "."


def _video_report(
    video: Video, file_bytes: int, frames_sampled: int, sampling: str
) -> reports.VideoReport:
    info = video.info
    # What is left of a damaged file is no longer what its stated duration took.
    bits = None if video.damage else bits_per_pixel(file_bytes, info)
    return reports.VideoReport(
        info.width, info.height, info.duration_seconds, info.fps, info.codec, bits,
        frames_decoded=video.frames_decoded, frames_sampled=frames_sampled, sampling=sampling,
    )  # fmt: skip


def _track_report(track: Track, rule: Rule) -> reports.TrackReport:
    probability = track_probability(track)
    frames = [
        reports.FrameReport(
            s.index, s.second, s.box, s.detection_score, sigmoid(s.logit), s.quality.size,
            s.quality.sharpness, s.quality.turn, s.sample, s.quality.colour,
        )
        for s in track.sightings
    ]  # fmt: skip
    return reports.TrackReport(
        track.id, track_verdict(track, rule), probability, track.first_second, track.last_second,
        frames,
    )  # fmt: skip
