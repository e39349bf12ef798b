"""The stages of judging a video, side by side: a reader, people, a jury.

A thread decodes a few frames ahead; faces are found, linked to people and cut out; and their crops
are judged in batches across frames and people, a batch on each processor. No stage runs far ahead
of the next, and crops are dropped once judged, so memory does not grow with the length of a video.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unmask.classifier import Classifier
from unmask.decoder import digest
from unmask.errors import UnreadableError
from unmask.explain import Exhibit, Exhibits
from unmask.faces import FaceDetector, crop_face
from unmask.quality import face_quality
from unmask.tracks import Sighting, Track, Tracker
from unmask.verdict import sigmoid
from unmask.video import Frame, Video

_BATCH = 8  # crops judged at once: larger batches are no faster, and later
_AHEAD = 4  # frames decoded ahead


@dataclass(frozen=True)
class JudgedFace:
    """A person's face in one frame, as soon as it is judged; ``box`` as in FrameReport.

    ``crop`` is what was judged, RGB ``uint8`` (S, S, 3); copy it to keep it.
    """

    person: int
    index: int
    second: float
    box: tuple[float, float, float, float]
    probability_fake: float
    crop: np.ndarray


class People:
    """Finds the faces of frame after frame, links them to people and has them judged."""

    def __init__(self, detector: FaceDetector, crop_size: int, jury: "Jury"):
        self.frames = 0
        self.faces_seconds = 0.0
        self._detector, self._crop_size, self._jury = detector, crop_size, jury
        self._tracker = Tracker()
        self._tracks: dict[int, Track] = {}
        self._size: tuple[int, int] | None = None  # of the first frame

    @property
    def tracks(self) -> list[Track]:
        """Everybody seen so far, in the order of their first appearance."""
        return list(self._tracks.values())

    @property
    def cuts(self) -> list[float]:
        """The seconds of cuts, as in Tracker."""
        return self._tracker.cuts

    def see(self, frame: Frame) -> None:
        """Take in a frame; its faces are judged with the batch they fall into."""
        start = time.perf_counter()
        self.frames += 1
        faces = self._detector.detect(frame.image)
        boxes = [self._in_first_frame(face.box, frame.image) for face in faces]
        ids = self._tracker.update(frame.second, boxes, frame.image)
        seen = []
        for face, box, person in zip(faces, boxes, ids, strict=True):
            crop = crop_face(frame.image, face, self._crop_size)
            quality = face_quality(face, crop)
            sighting = Sighting(
                frame.index, frame.second, box, face.score, quality=quality,
                sample=self.frames - 1,
            )  # fmt: skip
            self._tracks.setdefault(person, Track(person)).sightings.append(sighting)
            seen.append((person, sighting, crop))
        self.faces_seconds += time.perf_counter() - start
        for each in seen:
            self._jury.add(*each)

    def _in_first_frame(self, box: tuple, image: np.ndarray) -> tuple:
        """A box in the first frame's pixels: calls and broadcasts change their size on the way."""
        size = image.shape[1], image.shape[0]
        self._size = self._size or size
        if size == self._size:
            return box
        return tuple(float(c * self._size[i % 2] / size[i % 2]) for i, c in enumerate(box))


class Jury:
    """Judges crops in batches, some of them side by side, and tells of them in order.

    Use it in a ``with``. ``seconds`` is how long at least one was being judged; ``is_photo`` says
    what all of them are of.
    """

    def __init__(
        self, classifier: Classifier, streams: int, exhibits: Exhibits | None,
        on_face: Callable[[JudgedFace], None] | None,
    ):  # fmt: skip
        self.seconds = self._counted_until = 0.0
        self.is_photo = False
        self._classifier, self._streams = classifier, streams
        self._exhibits, self._on_face = exhibits, on_face
        self._pool = ThreadPoolExecutor(streams, "unmask-judge")
        self._pending: list[_Seen] = []
        self._judging: deque[tuple[list[_Seen], Future]] = deque()

    def add(self, person: int, sighting: Sighting, crop: np.ndarray) -> None:
        """Take in a face; waits when too many are being judged already."""
        self._pending.append((person, sighting, crop))
        if len(self._pending) == _BATCH:
            self._judge(_BATCH)
        while self._judging and (len(self._judging) > self._streams or self._judging[0][1].done()):
            self._tell()

    def finish(self) -> None:
        """Judge what waits for its batch to fill, and wait for all."""
        if self._pending:
            self._judge(-(-len(self._pending) // self._streams))
        while self._judging:
            self._tell()

    def _judge(self, size: int) -> None:
        for first in range(0, len(self._pending), size):
            batch = self._pending[first : first + size]
            self._judging.append((batch, self._pool.submit(self._opinion, batch)))
        self._pending = []

    def _opinion(self, batch: "list[_Seen]") -> tuple[np.ndarray, np.ndarray | None, float, float]:
        """Logits, evidence where it is asked for, and when it was begun and done."""
        start = time.perf_counter()
        crops = np.stack([crop for _, _, crop in batch])
        if self._exhibits:
            evidence = self._classifier.evidence(crops, self.is_photo)
            logits = evidence.mean((1, 2))
        else:
            evidence, logits = None, self._classifier.logits(crops, self.is_photo)
        return logits, evidence, start, time.perf_counter()

    def _tell(self) -> None:
        """Wait for the oldest batch and pass on what came out."""
        batch, opinion = self._judging.popleft()
        logits, evidence, start, end = opinion.result()
        self.seconds += max(0.0, end - max(start, self._counted_until))
        self._counted_until = max(end, self._counted_until)
        for number, (person, sighting, crop) in enumerate(batch):
            sighting.logit = logit = float(logits[number])
            if self._exhibits:
                self._exhibits.offer(
                    person,
                    Exhibit(sighting.index, sighting.second, logit, crop, evidence[number]),
                )
            if self._on_face:
                self._on_face(
                    JudgedFace(
                        person, sighting.index, sighting.second, sighting.box, sigmoid(logit), crop
                    )
                )

    def __enter__(self) -> "Jury":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


_Seen = tuple[int, Sighting, np.ndarray]  # a person's id, where the face was seen, its crop


class Reader:
    """Decodes a file in a thread of its own, a few frames ahead of who iterates over it.

    Use it in a ``with``: leaving it early stops the thread. Afterwards ``video`` has the file's
    facts, ``sha256`` its digest, ``file_bytes`` its size and ``error`` says why it is unreadable,
    if it is.
    """

    def __init__(self, path: Path, settings: Any):
        self.video: Video | None = None
        self.sha256: str | None = None
        self.file_bytes = 0
        self.error: UnreadableError | None = None
        self.busy_seconds = 0.0
        self._path, self._settings = path, settings
        self._queue: queue.Queue[Frame | BaseException | None] = queue.Queue(_AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="unmask-decode", daemon=True)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def __iter__(self) -> Iterator[Frame]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def share(self, second: float) -> float:
        """How much of the video lies before ``second``, from 0 to 1 (0 where it cannot be told)."""
        duration = self.video.info.duration_seconds if self.video else None
        return min(1.0, second / duration) if duration else 0.0

    def _run(self) -> None:
        try:
            self._read()
        except BaseException as error:  # whatever it is, it belongs to the thread that waits
            self._put(error)
        self._put(None)

    def _read(self) -> None:
        start = time.perf_counter()
        try:
            video = Video(self._path, threads=self._settings.threads)
        except UnreadableError as error:
            self.error = error
            self.sha256, self.file_bytes = digest(self._path)
            return
        self.busy_seconds = time.perf_counter() - start
        with video:
            self.video = video
            try:
                self._decode(video)
            except UnreadableError as error:
                self.error = error
            if not self._stopped.is_set():
                self.sha256, self.file_bytes = video.digest()

    def _decode(self, video: Video) -> None:
        s = self._settings
        frames = video.sample(s.every, s.max_frames, s.sampling)
        while not self._stopped.is_set():
            start = time.perf_counter()
            frame = next(frames, None)
            self.busy_seconds += time.perf_counter() - start
            if frame is None:
                return
            self._put(frame)

    def _put(self, item: Frame | BaseException | None) -> None:
        while not self._stopped.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
