"""Forge the faces of a whole video: for samples, for tests, and to see what training sees."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from av.error import FFmpegError

from unmask.container import in_words
from unmask.data.pseudo_fakes import FAMILIES
from unmask.data.warps import Portrait
from unmask.errors import UnmaskError, UnreadableError, UsageError
from unmask.faces import FaceDetector, crop_box, crop_face, crop_square
from unmask.mesh import FaceMesh
from unmask.outputs import in_one_step
from unmask.text import count
from unmask.video import Frame, Video, is_image
from unmask.video_writer import frames_alike, write_video

_SHEET_ROWS = 6
_VIDEO_ENDS = (".mp4",)
_SHEET_ENDS = (".jpg", ".png")


def synthesize(video: Path, output: Path, *, family: str, donor: Path | None, seed: int) -> str:
    """Write ``output``, an H.264 copy of ``video``, with its sound, in which faces are forged.

    ``family`` is one of FAMILIES; ``cross_swap`` takes the face of the image or video ``donor``.
    The same random choices are made again in every frame, so that the fake does not flicker.
    Sides of an odd length, which H.264 lacks here, are one pixel longer. Returns a summary. Raises
    UsageError without a donor, when that shows no face, or for a senseless ``output``, and
    UnmaskError when the video shows none or the copy cannot be encoded.
    """
    for read, what in ((video, "video to be forged"), (donor, "donor")):
        if read and output.exists() and read.exists() and output.samefile(read):
            raise UsageError(f"{output} is the {what}: name another file to write")
    _check_output(output, _VIDEO_ENDS)
    forger = _Forger(family, donor, seed)
    try:
        with in_one_step(output) as partial, Video(video) as source:
            write_video(source, map(forger.forge, frames_alike(source)), partial, threads=0)
            if not forger.faces:
                raise UnmaskError(f"no face was found in {video.name}: give a video that shows one")
    except FFmpegError as error:
        raise UnmaskError(f"cannot forge {video.name}: {in_words(error)}") from None
    return f"forged {forger.faces} faces in {forger.frames} frames by {family}: {output}"


def _check_output(output: Path, ends: tuple[str, ...]) -> None:
    """Raise UsageError for a file of a kind that is not written here, or in no folder."""
    if output.suffix.lower() not in ends:
        raise UsageError(f"cannot write {output}: name a file that ends in {' or '.join(ends)}")
    if not output.parent.is_dir():
        raise UsageError(f"cannot write {output}: there is no folder {output.parent}")


def sheet(folder: Path, output: Path, *, seed: int = 0) -> str:
    """Write a picture of what each family makes of up to six portraits in ``folder``.

    Rows are people; columns are the real crop and, for each family, a forged crop and its mask.
    Returns a summary. Raises UsageError when the folder holds fewer than two faces, or for a
    senseless ``output``.
    """
    _check_output(output, _SHEET_ENDS)
    detector, mesh, people = FaceDetector(), FaceMesh(), []
    skipped = 0
    portraits = sorted(p for p in folder.iterdir() if is_image(p))
    if output.exists() and any(map(output.samefile, portraits)):
        raise UsageError(f"{output} is a portrait to be read: name another file to write")
    for path in portraits:
        try:
            if found := _largest_face(path, detector, mesh):
                people.append(found)
        except UnreadableError:
            skipped += 1
        if len(people) == _SHEET_ROWS:
            break
    if len(people) < 2:
        raise UsageError(
            f"a sheet needs portraits of two people or more: {len(people)} found in {folder}"
        )
    rows = []
    for number, face in enumerate(people):
        row = [face.crop]
        for forge in FAMILIES.values():
            rng = np.random.default_rng((seed, number))
            forged, mask = forge(face, people[(number + 1) % len(people)], rng)
            row += [forged, np.repeat(np.uint8(mask * 255)[..., None], 3, 2)]
        rows.append(np.concatenate(row, 1))
    picture = cv2.resize(np.concatenate(rows), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    quality = (cv2.IMWRITE_JPEG_QUALITY, 88) if output.suffix.lower() == ".jpg" else ()
    _, data = cv2.imencode(output.suffix, picture[:, :, ::-1], quality)
    with in_one_step(output) as partial:
        partial.write_bytes(data)  # unlike OpenCV's own writing it tells when it fails
    unread = f" ({count(skipped, 'picture')} could not be read)" if skipped else ""
    return f"{len(people)} people by {', '.join(FAMILIES)}, each beside its mask: {output}{unread}"


def _largest_face(path: Path, detector: FaceDetector, mesh: FaceMesh) -> Portrait | None:
    """The largest face in a picture's or video's first frame."""
    with Video(path) as source:
        image = next(source.sample()).image
    for face in sorted(detector.detect(image), key=lambda face: -face.side):
        crop = crop_face(image, face)
        points = mesh.points(crop)
        if points is not None:
            return Portrait(crop, points)
    return None


class _Forger:
    def __init__(self, family: str, donor: Path | None, seed: int):
        self.family, self.seed = family, seed
        self.frames = self.faces = 0  # forged so far
        self._detector, self._mesh = FaceDetector(), FaceMesh()
        self._donor = _largest_face(donor, self._detector, self._mesh) if donor else None
        if family == "cross_swap" and self._donor is None:
            why = f"there is none in {donor.name}" if donor else "give --donor IMAGE"
            raise UsageError(f"cross_swap needs another person's face: {why}")

    def forge(self, frame: Frame) -> Frame:
        """The frame with all faces forged."""
        image = frame.image.copy()
        self.frames += 1
        for face in self._detector.detect(image):
            left, top, side = crop_square(face.box)
            crop = crop_box(image, face.box, side)  # as large as in the image
            points = self._mesh.points(crop)
            if points is None:
                continue
            rng = np.random.default_rng(self.seed)
            face = Portrait(crop, points)
            forged, mask = FAMILIES[self.family](face, self._donor or face, rng)
            _paste(image, forged, mask, left, top)
            self.faces += 1
        return replace(frame, image=image)


def _paste(image: np.ndarray, forged: np.ndarray, mask: np.ndarray, left: int, top: int) -> None:
    """Put back what was changed and nothing else, even where the crop reaches over the edge."""
    changed = cv2.dilate((mask > 0).astype(np.uint8), np.ones((3, 3))) > 0
    height, width = image.shape[:2]
    side = forged.shape[0]
    y1, y2, x1, x2 = max(0, top), min(height, top + side), max(0, left), min(width, left + side)
    inside = np.s_[y1 - top : y2 - top, x1 - left : x2 - left]
    image[y1:y2, x1:x2][changed[inside]] = forged[inside][changed[inside]]
