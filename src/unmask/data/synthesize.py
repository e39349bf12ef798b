"""Forge the faces of a whole video: for samples, for tests, and to see what training sees."""

from pathlib import Path

import av
import cv2
import numpy as np

from unmask.data.pseudo_fakes import FAMILIES
from unmask.errors import UnreadableError, UsageError
from unmask.faces import FaceDetector, crop_face
from unmask.mesh import FaceMesh
from unmask.video import Video

_MARGIN = 1.3


def synthesize(video: Path, output: Path, *, family: str, donor: Path | None, seed: int) -> str:
    """Write ``output``, an H.264 copy of ``video`` without sound in which every face is forged.

    ``family`` is one of FAMILIES; ``cross_swap`` takes the face of the image or video ``donor``.
    The same random choices are made again in every frame, so that the fake does not flicker.
    Returns a summary. Raises UsageError without a donor, UnreadableError where there is no face.
    """
    forger = _Forger(family, donor, seed)
    forged = frames = 0
    with Video(video) as source:
        rate = round(source.info.fps or 25)
        width, height = (side - side % 2 for side in (source.info.width, source.info.height))
        with av.open(str(output), "w") as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for frame in source.sample(every=1):
                image, faces = forger.forge(frame.image)
                frames, forged = frames + 1, forged + faces
                picture = np.ascontiguousarray(image[:height, :width])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    return f"forged {forged} faces in {frames} frames by {family}: {output}"


class _Forger:
    def __init__(self, family: str, donor: Path | None, seed: int):
        self.family, self.seed = family, seed
        self._detector, self._mesh = FaceDetector(), FaceMesh()
        self._donor = self._face_of(donor) if donor else None
        if family == "cross_swap" and self._donor is None:
            raise UsageError("cross_swap needs another person's face: give --donor IMAGE")

    def _face_of(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        with Video(path) as source:
            image = next(source.sample()).image
        for face in sorted(self._detector.detect(image), key=lambda face: -face.side):
            crop = crop_face(image, face.box, margin=_MARGIN)
            points = self._mesh.points(crop)
            if points is not None:
                return crop, points
        raise UnreadableError(f"no face in {path.name}: give --donor a portrait")

    def forge(self, image: np.ndarray) -> tuple[np.ndarray, int]:
        """The image with all faces forged, and how many there were."""
        image, count = image.copy(), 0
        for face in self._detector.detect(image):
            x1, y1, x2, y2 = face.box
            side = round(_MARGIN * max(x2 - x1, y2 - y1))
            crop = crop_face(image, face.box, side, _MARGIN)  # as large as in the image
            points = self._mesh.points(crop)
            if points is None:
                continue
            rng = np.random.default_rng(self.seed)
            extra = self._donor if self.family == "cross_swap" else ()
            forged, mask = FAMILIES[self.family](crop, points, rng, *extra)
            _paste(image, forged, mask, round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2))
            count += 1
        return image, count


def _paste(image: np.ndarray, forged: np.ndarray, mask: np.ndarray, left: int, top: int) -> None:
    """Put back what was changed and nothing else, even where the crop reaches over the edge."""
    changed = cv2.dilate((mask > 0).astype(np.uint8), np.ones((3, 3))) > 0
    height, width = image.shape[:2]
    side = forged.shape[0]
    y1, y2, x1, x2 = max(0, top), min(height, top + side), max(0, left), min(width, left + side)
    inside = np.s_[y1 - top : y2 - top, x1 - left : x2 - left]
    image[y1:y2, x1:x2][changed[inside]] = forged[inside][changed[inside]]
