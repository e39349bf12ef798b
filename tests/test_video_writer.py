"""The copy's clock: each frame comes when it did, and is shown as long."""

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import write_video as write_clip

from unmask.video import Video
from unmask.video_writer import write_video

SECOND = 90000  # ticks


def held(path, frames: int, last: int, gap: int = 0):
    """A video of 25 frames a second, the last one shown for ``last`` ticks.

    Before its second half there is a gap of so many ticks.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, SECOND)
        packets = []
        for number in range(frames):
            image = np.full((48, 64, 3), 40 + number, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number * SECOND // 25 + gap * (number >= frames // 2)
            frame.time_base = Fraction(1, SECOND)
            packets += stream.encode(frame)
        packets += stream.encode()
        for packet in packets:
            packet.duration = last if packet is packets[-1] else SECOND // 25
            container.mux(packet)
    return path


def copied(source, tmp_path) -> tuple[list[float], float]:
    """The seconds of the copy's frames, and how long it says it lasts."""
    with Video(source) as video:
        write_video(video, video.sample(every=1), tmp_path / "copy.mp4", threads=1)
    with Video(tmp_path / "copy.mp4") as copy:
        return [frame.second for frame in copy.sample(every=1)], copy.info.duration_seconds


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_the_last_frame_is_shown_as_long_as_in_the_source(tmp_path, name):
    seconds, duration = copied(held(tmp_path / name, 10, 6 * SECOND), tmp_path)
    assert seconds == pytest.approx([number / 25 for number in range(10)])
    assert duration == pytest.approx(6.36)


def test_where_the_file_does_not_say_the_last_frame_is_shown_as_long_as_the_one_before(tmp_path):
    source = held(tmp_path / "a.ts", 10, 0, gap=10 * SECOND)
    assert copied(source, tmp_path)[1] == pytest.approx(10.4)


def test_a_video_that_breaks_off_ends_there(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (50, 48, 64, 3), np.uint8)
    source = write_clip(tmp_path / "a.mp4", frames, options={"movflags": "faststart"})
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 2 // 3])
    seconds, duration = copied(source, tmp_path)
    assert 0.5 < seconds[-1] < 1.8
    assert duration == pytest.approx(seconds[-1] + 0.04)


def test_a_gap_of_hours_is_kept(tmp_path):
    source = held(tmp_path / "a.ts", 10, SECOND // 25, gap=7 * 3600 * SECOND)
    seconds, duration = copied(source, tmp_path)
    expected = [number / 25 + 7 * 3600 * (number >= 5) for number in range(10)]
    assert seconds == pytest.approx(expected, abs=1e-4)
    assert duration == pytest.approx(7 * 3600 + 0.4, abs=1e-3)
