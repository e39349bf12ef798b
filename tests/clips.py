"""Write small real videos and images for the tests."""

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

TICK = Fraction(1, 1000)
# For a child process, Linux only. Not getrusage: what that says, a child inherits from its parent.
PEAK_BYTES = """
def peak_bytes():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
"""
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def write_video(
    path: Path,
    images: Iterable[np.ndarray],
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    seconds: Sequence[float] | None = None,
    options: dict[str, str] | None = None,
    encoder: dict[str, str] | None = None,
) -> Path:
    """Encode RGB images, 25 a second or shown at the given ``seconds``.

    ``options`` are the container's, ``encoder`` the codec's.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        stream = None
        for number, image in enumerate(images):
            if stream is None:
                stream = container.add_stream(codec, rate=25)
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = pix_fmt
                if codec in ("libx264", "libx265"):
                    stream.options = {"preset": "ultrafast", "crf": "12"} | (encoder or {})
                if seconds is not None:
                    stream.codec_context.time_base = TICK
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if seconds is None:
                frame.pts, frame.time_base = number, Fraction(1, 25)
            else:
                frame.pts, frame.time_base = round(seconds[number] / TICK), TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """A second of silence, and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def add_long_sound(video: Path, path: Path, late: int = 0) -> Path:
    """A copy with 8 s of silence, its pictures ``late`` seconds into that."""
    with av.open(str(video)) as source, av.open(str(path), "w") as container:
        pictures = container.add_stream_from_template(source.streams.video[0])
        sound = container.add_stream("pcm_s16le", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8 * 16000), np.int16), "s16", "mono")
        silence.rate, silence.pts = 16000, 0
        container.mux(sound.encode(silence))
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts += round(late / packet.time_base)
                packet.dts += round(late / packet.time_base)
                packet.stream = pictures
                container.mux(packet)
        container.mux(sound.encode())
    return path


def patch_box(data: bytes, kind: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite bytes in every MP4 box of a kind, ``offset`` bytes after its type."""
    data, start = bytearray(data), 0
    while (found := data.find(kind, start)) >= 0:
        start = found + 4
        data[start + offset : start + offset + len(value)] = value
    return bytes(data)


def with_rotation(data: bytes) -> bytes:
    """An MP4 that is to be shown turned clockwise by a quarter, as phones record."""
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    return patch_box(data, b"tkhd", 40, matrix)


def with_stated_duration(data: bytes, seconds: float) -> bytes:
    """A Matroska video whose header claims to last so long."""
    found = data.index(b"\x44\x89\x88") + 3  # the element Duration, of 8 bytes
    return data[:found] + struct.pack(">d", seconds * 1000) + data[found + 8 :]


def jpeg(image: np.ndarray, orientation: int = 1) -> bytes:
    """A JPEG of an RGB image with an EXIF orientation, 1 to 8."""
    done, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    tag = struct.pack("<HHIHH", 0x112, 3, 1, orientation, 0)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + tag + bytes(4)
    data = data.tobytes()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def tile(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The same picture many times over."""
    return np.tile(image, (rows, columns, 1))
