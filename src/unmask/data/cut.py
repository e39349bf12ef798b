"""One video -> its face crops on disk, then the record that says so."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from unmask.data import records
from unmask.data.augment import Augmentation, affine
from unmask.data.manifest import Source, frame_files
from unmask.data.png import write_png
from unmask.data.records import NO_FACE, Record
from unmask.errors import DatasetError, UnreadableError
from unmask.faces import Face, FaceDetector, crop_face
from unmask.quality import sharpness
from unmask.text import in_unicode
from unmask.video import Frame, Video


@dataclass(frozen=True)
class Job:
    """One video to be cut, where the crops go, and the settings to do it with."""

    id: str
    source: Source
    output: Path
    settings: dict[str, Any]


def stamp(path: Path) -> str:
    """What changes when a file, or one of a folder's frames, is replaced."""
    files = [file.stat() for file in (frame_files(path) if path.is_dir() else [path])]
    changed = max((file.st_mtime_ns for file in files), default=0)
    return f"{len(files)} files, {sum(file.st_size for file in files)} bytes, {changed} ns"


def cut_video(job: Job, detector: FaceDetector, threads: int) -> Record:
    """Write the crops of one video, then its record.

    What cannot be read gives a record with a reason. Raises DatasetError when the disk cannot be
    written to; the video then leaves nothing behind.
    """
    source, crops, faces, seen = job.source, [], 0, ""
    reason, damage, is_final = "", "", True
    try:
        seen = stamp(source.path)
        reader = _Reader(source.path, threads)
        how = (job.settings[name] for name in ("every", "max_frames", "sampling"))
        for frame in reader.sample(*how):
            for number, face in enumerate(detector.detect(frame.image)):
                faces += 1
                crops += _save(job, frame, number, face)
        damage = reader.damage
        reason = "" if crops else NO_FACE
    except UnreadableError as error:
        reason = str(error)
    except DatasetError:
        _remove(job.output, crops)
        raise
    except Exception as error:
        # One odd video must not end a run of hours; the next run tries it again.
        reason, is_final = f"{type(error).__name__}: {error}", False
    if reason:
        _remove(job.output, crops)
        crops, faces = [], 0
    record = Record(
        id=job.id, label=source.label, video=source.name, stamp=seen, faces=faces,
        reason=in_unicode(reason), damage=in_unicode(damage), is_final=is_final, crops=crops,
    )  # fmt: skip
    try:
        records.write_record(job.output, record)
    except OSError as error:
        _remove(job.output, crops)
        raise _cannot_write(job.output, error) from None
    return record


class _Reader:
    """Samples a video, an image or a folder of frames alike; ``damage`` as in Video."""

    def __init__(self, path: Path, threads: int):
        self.path, self.threads, self.damage = path, threads, ""

    def sample(self, every: int, max_frames: int, sampling: str) -> Iterator[Frame]:
        if self.path.is_dir():
            yield from self._sample_folder(every, max_frames)
            return
        with Video(self.path, self.threads) as video:
            yield from video.sample(every, max_frames, sampling)
            self.damage = video.damage or ""

    def _sample_folder(self, every: int, max_frames: int) -> Iterator[Frame]:
        """Every ``every``-th image; its place in time is not known and given as 0."""
        files = frame_files(self.path)
        if max_frames:
            every = max(every, -(-len(files) // max_frames))
        error = UnreadableError(f"no images in {self.path.name}: is it a folder of frames?")
        read = 0
        for index in range(0, len(files), every):
            try:
                with Video(files[index], self.threads) as image:
                    frame = next(image.sample(1))
            except UnreadableError as failed:
                error, self.damage = failed, str(failed)
                continue
            read += 1
            yield Frame(index, 0.0, frame.image)
        if not read:
            raise error


def _save(job: Job, frame: Frame, number: int, face: Face) -> list[dict]:
    """Write one face and its altered copies; their index fields."""
    s = job.settings
    crop = crop_face(frame.image, face, s["size"], s["margin"])
    x1, y1, x2, y2 = (round(v, 2) for v in face.box)
    fields = {
        "frame": frame.index, "second": round(frame.second, 3), "x1": x1, "y1": y1, "x2": x2,
        "y2": y2, "face_size": round(face.side, 2), "blur": round(sharpness(crop), 2),
        "score": round(face.score, 4),
    }  # fmt: skip
    written = []
    for copy in range(s["augment"] + 1):
        name = f"{job.id}__f{frame.index:06d}_{number}" + (f"_a{copy}" if copy else "")
        path = f"{job.source.label}/{name}.png"
        pixels = crop
        if copy:
            # Seeded by what the copy is of, so it is the same whichever process makes it.
            rng = np.random.default_rng([s["seed"], zlib.crc32(name.encode())])
            altered = Augmentation.of(SimpleNamespace(**s))
            pixels = affine(crop, rng, altered)
        try:
            write_png(job.output / path, pixels)
        except OSError as error:
            _remove(job.output, [*written, {"path": path}])
            raise _cannot_write(job.output, error) from None
        written.append({"path": path, "augmented": copy} | fields)
    return written


def _remove(output: Path, crops: list[dict]) -> None:
    for crop in crops:
        (output / crop["path"]).unlink(missing_ok=True)


def _cannot_write(output: Path, error: OSError) -> DatasetError:
    return DatasetError(
        f"cannot write to {output}: {error.strerror}. Make room and run the same command again: "
        "all finished videos are kept"
    )
