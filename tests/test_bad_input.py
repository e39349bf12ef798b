"""Whatever is in a file, it gets a verdict and a reason, never a traceback."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from clips import jpeg, with_rotation, with_stated_duration, write_sound, write_video
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unmask.faces import overlap
from unmask.report import SCHEMA

VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
FACE = (113, 64, 226, 243)  # where it is in the real clip, by eye
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.fixture(scope="module")
def judge(analyzer):
    def run(path: Path):
        report = analyzer.analyze(path)
        VALIDATOR.validate(json.loads(report.to_json()))
        return report

    return run


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be opened: No such file or directory."),
        (b"", "is empty (0 bytes)"),
        (b"just text, " * 100, "is no video or image that can be read"),
        (PLAYLIST.encode(), "is no video or image that can be read"),
        (bytes(5000), "is no video or image that can be read"),
        (b"\xff\xd8\xff\xe0" + bytes(500), "not one picture"),
    ],
    ids=["missing", "empty", "text", "playlist", "zeros", "jpeg head"],
)
def test_unreadable(judge, tmp_path, content, reason):
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    report = judge(path)
    assert report.verdict == "unreadable"
    assert reason in report.reason
    assert report.reason.startswith(("clip.mp4 ", "not one picture of clip.mp4 "))
    assert report.probability_fake is None
    assert (report.sha256 is None) == (content is None)


def test_sound_only(judge, tmp_path):
    report = judge(write_sound(tmp_path / "clip.mp4"))
    assert report.verdict == "unreadable"
    assert report.reason == "no video stream in clip.mp4: is it an audio file?"


def test_cut_off_before_its_index(judge, tmp_path, real_frames):
    """An MP4 has its index at the end unless it was made for streaming."""
    path = write_video(tmp_path / "clip.mp4", real_frames[:30])
    path.write_bytes(path.read_bytes()[:-600])
    assert judge(path).verdict == "unreadable"


def test_cut_off_in_the_middle_is_judged_by_what_is_there(judge, tmp_path, real_frames):
    path = tmp_path / "clip.mp4"
    data = write_video(path, real_frames, options={"movflags": "faststart"}).read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    report = judge(path)
    assert report.verdict in ("real", "fake", "uncertain")
    assert 30 < report.video.frames_decoded < 60
    assert "The file is damaged (its pictures end at " in report.reason


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 40), (33, 17)])
def test_tiny_and_odd_pictures_without_a_face(judge, tmp_path, width, height):
    images = [np.full((height, width, 3), 99, np.uint8)] * 3
    report = judge(write_video(tmp_path / "clip.mov", images, "png", "rgb24"))
    assert report.verdict == "no_face"
    assert (report.video.width, report.video.height) == (width, height)
    assert "No face of at least 30 pixels was found in 1 frame" in report.reason
    assert report.confidence is None


def test_a_phone_video_is_judged_upright(judge, tmp_path, real_frames):
    path = write_video(tmp_path / "phone.mp4", [np.rot90(f) for f in real_frames[:20]])
    path.write_bytes(with_rotation(path.read_bytes()))
    report = judge(path)
    assert (report.video.width, report.video.height) == (360, 288)
    assert len(report.tracks) == 1
    assert overlap(report.tracks[0].frames[0].box, FACE) > 0.75


@pytest.mark.parametrize("orientation", [2, 4, 6])
def test_a_photo_is_judged_upright(judge, tmp_path, real_frame, orientation):
    stored = {2: real_frame[:, ::-1], 4: real_frame[::-1], 6: np.rot90(real_frame)}[orientation]
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(stored, orientation))
    report = judge(path)
    assert overlap(report.tracks[0].frames[0].box, FACE) > 0.75
    assert (report.video.duration_seconds, report.video.fps) == (None, None)
    assert report.is_image
    assert " seen " not in report.reason


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p10le"),
        ("a.mp4", "libx265", "yuv420p10le"),
        ("a.mov", "prores_ks", "yuv422p10le"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.gif", "gif", "gray"),
    ],
)
def test_codecs_and_ten_bits_still_show_the_face(
    judge, tmp_path, real_frames, name, codec, pix_fmt
):
    report = judge(write_video(tmp_path / name, real_frames[:16], codec, pix_fmt))
    assert [len(t.frames) for t in report.tracks] == [2]


def test_variable_frame_rate(judge, tmp_path, real_frames):
    seconds = [i * 0.01 + (i // 15) * 3 for i in range(31)]
    report = judge(write_video(tmp_path / "a.mkv", real_frames[:31], seconds=seconds))
    (person,) = report.tracks
    assert [f.second for f in person.frames] == pytest.approx([0, 3.15, 6.3], abs=0.002)


def test_a_header_that_lies_about_the_length(tmp_path, real_frames):
    from unmask import analyze

    path = write_video(tmp_path / "a.mkv", real_frames)
    path.write_bytes(with_stated_duration(path.read_bytes(), 500))
    report = analyze(path, max_frames=5)
    assert [f.index for f in report.tracks[0].frames] == [0, 15, 30, 45, 60]


@pytest.fixture(scope="module")
def short_clips(tmp_path_factory, real_frames) -> list[bytes]:
    folder = tmp_path_factory.mktemp("short")
    faststart = {"movflags": "faststart"}
    clips = [
        write_video(folder / "a.mp4", real_frames[:8], options=faststart),
        write_video(folder / "a.mkv", real_frames[:8]),
        write_video(folder / "a.avi", real_frames[:8], "mpeg4"),
        write_video(folder / "a.ts", real_frames[:8]),
    ]
    (folder / "a.jpg").write_bytes(jpeg(real_frames[0], 6))
    return [path.read_bytes() for path in [*clips, folder / "a.jpg"]]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_damage_always_gives_a_report(judge, short_clips, tmp_path, data):
    content = bytearray(data.draw(st.sampled_from(short_clips)))
    # Half of the damage goes where it hurts most: into the headers.
    anywhere = st.one_of(st.integers(0, len(content) - 1), st.integers(0, 700))
    for _ in range(data.draw(st.integers(1, 12))):
        start = data.draw(anywhere)
        content[start : start + 8] = data.draw(st.binary(min_size=1, max_size=8))
    del content[data.draw(st.integers(len(content) // 4, len(content))) :]
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    report = judge(path)
    assert (report.probability_fake is None) == (report.verdict in ("no_face", "unreadable"))
