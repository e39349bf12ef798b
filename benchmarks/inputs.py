"""Clips for the speed benchmark, made once from the portraits in ``samples/people``."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
FPS = 30
_BITS = {1080: 8_000_000, 720: 5_000_000}  # a second: what YouTube recommends for uploads
_PERIOD = 10  # seconds after which everything is where it was, so that repeats join without a cut


def people() -> list[np.ndarray]:
    """The portraits of the samples, RGB ``uint8`` (400, 400, 3)."""
    paths = sorted((SAMPLES / "people").glob("*.jpg"))
    return [cv2.imread(str(path))[:, :, ::-1] for path in paths]


def clip(folder: Path, height: int, faces: int, seconds: int) -> Path:
    """An H.264 clip, 16:9, 30 frames a second, as x264 codes it by default; made if missing.

    ``faces`` portraits sway before a panning background, all under a sensor's noise. Longer clips
    repeat the packets of the first 10 seconds, so half an hour takes no longer to make.
    """
    path = folder / f"{height}p_{faces}faces_{seconds}s.mp4"
    if not path.exists():
        partial = path.with_suffix(".partial.mp4")
        if seconds > _PERIOD:
            _repeat(clip(folder, height, faces, _PERIOD), partial, seconds // _PERIOD)
        else:
            _encode(partial, height, faces, seconds)
        partial.replace(path)
    return path


def _encode(path: Path, height: int, faces: int, seconds: int) -> None:
    width, rng = height * 16 // 9, np.random.default_rng(0)
    coarse = rng.integers(40, 200, (height // 40, width // 40, 3), np.uint8)
    ground = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    ground = np.concatenate([ground, ground], axis=1)
    noise = [rng.normal(0, 3, (height, width, 1)).astype(np.int8) for _ in range(8)]
    side = height // 2
    mask = np.zeros((side, side), np.uint8)
    cv2.ellipse(
        mask, (side // 2, side // 2), (int(side * 0.36), int(side * 0.46)), 0, 0, 360, 255, -1
    )
    mask = cv2.GaussianBlur(mask, (0, 0), side / 50)[:, :, None] / np.float32(255)
    shown = [cv2.resize(image, (side, side)) for image in people()[:faces]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = _BITS[height]
        for number in range(seconds * FPS):
            turn = 2 * np.pi * number / (_PERIOD * FPS)
            left = round(width * number / (_PERIOD * FPS)) % width
            image = ground[:, left : left + width].copy()
            for place, face in enumerate(shown):
                x = width * (place + 0.5) / faces + 0.06 * width * np.sin(2 * turn + place)
                y = height * (0.5 + 0.08 * np.sin(3 * turn + 2 * place))
                top, left = round(y) - side // 2, round(x) - side // 2
                under = image[top : top + side, left : left + side]
                under[:] = under + mask * (face.astype(np.float32) - under)
            image = np.clip(image + noise[number % 8].astype(np.int16), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _repeat(clip: Path, path: Path, times: int) -> None:
    """The packets of a clip many times over."""
    with av.open(str(path), "w") as output:
        stream, offset = None, 0
        for _ in range(times):
            with av.open(str(clip)) as source:
                video = source.streams.video[0]
                stream = stream or output.add_stream_from_template(video)
                for packet in source.demux(video):
                    if packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                        packet.stream = stream
                        output.mux(packet)
                offset += int(Fraction(video.frames, FPS) / video.time_base)
