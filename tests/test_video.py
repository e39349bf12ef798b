"""Opening and sampling: every frame is the right one, at the right time, the right way up."""

import os
import subprocess
import sys
import zlib
from struct import pack

import av
import cv2
import numpy as np
import pytest
from clips import (
    PEAK_BYTES,
    add_long_sound,
    jpeg,
    needs_proc,
    with_rotation,
    with_stated_duration,
    write_sound,
    write_video,
)
from hypothesis import given
from hypothesis import strategies as st

from unmask.decoder import Decoder
from unmask.errors import UnreadableError
from unmask.video import Video


def numbered(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Pictures that show their number: eight upright bars, white for 1 and black for 0."""
    bars = [[int(bit) for bit in f"{i:08b}"] for i in range(count)]
    rows = [np.array(bits, np.uint8)[np.arange(width) * 8 // width] * 200 + 20 for bits in bars]
    return [np.broadcast_to(row[None, :, None], (height, width, 3)).copy() for row in rows]


def number_of(image: np.ndarray) -> int:
    width = image.shape[1]
    bars = [image[:, width * (2 * i + 1) // 16].mean() > 120 for i in range(8)]
    return int("".join(str(int(bar)) for bar in bars), 2)


def sample(path, **how):
    with Video(path) as video:
        return video, list(video.sample(**how))


def test_every_nth_frame_at_its_own_time(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered(75))
    video, frames = sample(path, every=15)
    assert [f.index for f in frames] == [0, 15, 30, 45, 60]
    assert [number_of(f.image) for f in frames] == [0, 15, 30, 45, 60]
    assert [f.second for f in frames] == pytest.approx([0, 0.6, 1.2, 1.8, 2.4])
    assert video.frames_decoded == 75  # written without any that could be left out
    assert video.damage is None
    info = video.info
    assert (info.width, info.height, info.codec, info.fps) == (64, 48, "h264", 25)
    assert info.duration_seconds == pytest.approx(3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
@pytest.mark.parametrize("coding", ["bf=3", "bf=8:b-pyramid=strict", "bf=5:open-gop=1:keyint=12"])
def test_frames_nobody_needs_are_left_out_and_the_others_are_the_same(tmp_path, name, coding):
    seconds = np.cumsum([0, *np.random.default_rng(0).integers(20, 60, 119)]) / 1000
    path = write_video(
        tmp_path / name, noise(120), seconds=seconds.tolist(),
        encoder={"preset": "veryfast", "x264-params": f"{coding}:scenecut=0:b-adapt=0"},
    )  # fmt: skip
    _, everything = sample(path, every=1)
    video, some = sample(path, every=7)
    assert video.frames_decoded < 100
    assert [f.index for f in some] == list(range(0, 120, 7))
    for frame, plain in zip(some, everything[::7], strict=True):
        assert frame.second == plain.second
        assert (frame.image == plain.image).all()
    assert video.damage is None
    video, some = sample(path, every=1, max_frames=3)
    assert video.frames_decoded < 100
    assert [f.index for f in some] == pytest.approx([0, 40, 80], abs=3)  # spread by time
    at = {frame.second: frame.image for frame in everything}
    assert all((frame.image == at[frame.second]).all() for frame in some)


def test_cap_spreads_frames_over_the_whole_video(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered(100))
    _, frames = sample(path, every=1, max_frames=4)
    assert [f.index for f in frames] == [0, 25, 50, 75]
    _, frames = sample(path, every=40, max_frames=4)
    assert [f.index for f in frames] == [0, 40, 80]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_cap_of_all_frames_leaves_none_out(tmp_path, name):
    path = write_video(tmp_path / name, numbered(50), seconds=[i / 30 for i in range(50)])
    _, frames = sample(path, every=1, max_frames=50)
    assert [f.index for f in frames] == list(range(50))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_cap_skips_what_lies_between(tmp_path, name):
    gop = {"g": "20", "bf": "0" if name == "a.avi" else "3"}
    path = write_video(tmp_path / name, numbered(250), encoder=gop)
    video, frames = sample(path, every=5, max_frames=5)
    assert [f.index for f in frames] == [0, 50, 100, 150, 200]
    assert [number_of(f.image) for f in frames] == [0, 50, 100, 150, 200]
    assert video.frames_decoded < (60 if name != "a.ts" else 250)
    assert video.damage is None


@given(
    count=st.integers(2, 120), gop=st.integers(1, 130), every=st.integers(1, 30),
    most=st.integers(1, 12), steps=st.lists(st.integers(5, 400), min_size=120, max_size=120),
)  # fmt: skip
def test_skipping_finds_the_frames_that_reading_all_finds(
    tmp_path_factory, count, gop, every, most, steps
):
    path = tmp_path_factory.mktemp("skip") / "a.mkv"
    seconds = [sum(steps[:i]) / 1000 for i in range(count)]
    write_video(path, numbered(count), seconds=seconds, encoder={"g": str(gop)})
    _, skipping = sample(path, every=every, max_frames=most)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unmask.video._WORTH_SEEKING", 10**9)
        _, reading = sample(path, every=every, max_frames=most)
    seen = [(f.index, number_of(f.image)) for f in skipping]
    assert seen == [(f.index, number_of(f.image)) for f in reading]
    assert all(index == number for index, number in seen)


@pytest.mark.parametrize("sampling", ["fast", "keyframes"])
def test_faster_sampling_decodes_less_and_stays_near(tmp_path, sampling):
    path = write_video(tmp_path / "a.mp4", numbered(200), encoder={"g": "20", "bf": "2"})
    video, frames = sample(path, every=20, sampling=sampling)
    assert video.frames_decoded < (150 if sampling == "fast" else 40)
    assert len(frames) == 10
    assert len(video._decoder._numbers) < 100  # what was skipped is not kept in mind for ever
    for place, frame in enumerate(frames):
        assert 20 * place <= frame.index < 20 * place + 3
        assert number_of(frame.image) == frame.index
    assert video.damage is None


@pytest.mark.parametrize(
    ("name", "gop", "is_seen"),
    [
        ("a.mp4", 70, lambda index: index % 70 <= 30),
        ("a.mkv", 70, lambda index: index % 70 <= 30),
        ("a.mp4", 240, lambda index: index < 178),
        ("a.ts", 70, lambda index: True),
    ],
)  # fmt: skip
def test_fast_sampling_looks_at_the_first_part_between_keyframes(tmp_path, name, gop, is_seen):
    encoder, seconds = {"g": str(gop), "bf": "2"}, [i / 12.5 for i in range(240)]
    path = write_video(tmp_path / name, numbered(240), seconds=seconds, encoder=encoder)
    video, frames = sample(path, every=10, sampling="fast")
    due = [index for index in range(0, 240, 10) if is_seen(index)]
    assert [frame.index // 10 * 10 for frame in frames] == due
    assert all(number_of(frame.image) == frame.index for frame in frames)
    assert (video.frames_decoded < 110) == (gop == 70 and name != "a.ts")
    assert video.damage is None


def test_fast_sampling_looks_at_all_where_seeks_go_back(tmp_path, monkeypatch):
    seconds = [i / 12.5 for i in range(240)]
    path = write_video(tmp_path / "a.mp4", numbered(240), seconds=seconds, encoder={"g": "70"})
    seek = Decoder.seek
    monkeypatch.setattr(Decoder, "seek", lambda decoder, second: seek(decoder, 0.0))
    video, frames = sample(path, every=10, sampling="fast")
    assert [frame.index for frame in frames] == list(range(0, 240, 10))
    assert video.frames_decoded < 2 * 240


@pytest.mark.parametrize("stated", [0.2, 160.0])
def test_cap_does_not_believe_the_header(tmp_path, stated):
    path = tmp_path / "liar.mkv"
    data = write_video(path, numbered(100)).read_bytes()
    path.write_bytes(with_stated_duration(data, stated))
    video, frames = sample(path, every=1, max_frames=4)
    assert video.info.duration_seconds == pytest.approx(stated)
    assert [f.index for f in frames] == [0, 25, 50, 75]


def test_variable_frame_rate_uses_the_time_stamps(tmp_path):
    seconds = [0.5, 0.54, 0.6, 1.5, 1.52, 4.0]
    _, frames = sample(write_video(tmp_path / "a.mkv", numbered(6), seconds=seconds), every=1)
    assert [f.second for f in frames] == pytest.approx([s - 0.5 for s in seconds], abs=0.002)
    assert [number_of(f.image) for f in frames] == list(range(6))
    _, frames = sample(tmp_path / "a.mkv", every=1, max_frames=2)
    assert [f.index for f in frames] == [0, 5]


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.webm", "a.mkv", "a.ts", "a.mov", "a.gif"])
def test_containers(tmp_path, name):
    codec, pix_fmt = {
        "a.avi": ("mpeg4", "yuv420p"), "a.webm": ("libvpx", "yuv420p"), "a.gif": ("gif", "gray"),
    }.get(name, ("libx264", "yuv420p"))  # fmt: skip
    video, frames = sample(write_video(tmp_path / name, numbered(40), codec, pix_fmt), every=10)
    assert [number_of(f.image) for f in frames] == [0, 10, 20, 30]
    assert video.frames_decoded == 40
    assert video.damage is None


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "size"),
    [
        ("libx264", "yuv420p10le", (64, 48)),
        ("libx265", "yuv420p10le", (64, 48)),
        ("libx264", "yuv444p", (63, 47)),
        ("ffv1", "bgr0", (1, 1)),
    ],
)
def test_ten_bit_and_odd_sizes(tmp_path, codec, pix_fmt, size):
    path = write_video(tmp_path / "a.mkv", numbered(5, *size), codec, pix_fmt)
    video, frames = sample(path, every=2)
    assert (video.info.width, video.info.height) == size
    if size != (1, 1):
        assert [number_of(f.image) for f in frames] == [0, 2, 4]
    assert all(f.image.shape == (size[1], size[0], 3) for f in frames)
    assert all(f.image.dtype == np.uint8 for f in frames)


def corners(width: int = 96, height: int = 64) -> np.ndarray:
    """A picture that is different whichever way it is turned or flipped."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (255, 0, 0)
    image[: height // 2, width // 2 :] = (0, 255, 0)
    image[height // 2 :, : width // 2] = (0, 0, 255)
    return image


def test_rotation_of_a_phone_video(tmp_path):
    upright = corners(64, 96)
    path = write_video(tmp_path / "phone.mp4", [np.rot90(upright)] * 3)
    path.write_bytes(with_rotation(path.read_bytes()))
    video, frames = sample(path, every=1)
    assert (video.info.width, video.info.height) == (64, 96)
    assert np.abs(frames[0].image.astype(int) - upright).mean() < 10


@pytest.mark.parametrize(
    ("shape", "size"), [("4/3", (128, 64)), ("8/9", (96, 72)), ("1.01", (96, 64))]
)
def test_pixels_that_are_not_square_are_shown_so(tmp_path, shape, size):
    path = write_video(tmp_path / "a.mp4", [corners()] * 3, encoder={"sar": shape})
    video, frames = sample(path, every=1)
    assert (video.info.width, video.info.height) == size
    expected = cv2.resize(corners(), size)
    assert np.abs(frames[2].image.astype(int) - expected).mean() < 10


@pytest.mark.parametrize("name", ["a.avif", "a.gif"])
def test_a_picture_in_a_container_for_films_is_an_image(tmp_path, name):
    path = tmp_path / name
    assert cv2.imwrite(str(path), corners())
    video, frames = sample(path)
    assert len(frames) == 1
    assert (video.info.is_image, video.info.fps, video.info.duration_seconds) == (True, None, None)
    assert not Video(write_video(tmp_path / "b.gif", numbered(2), "gif", "rgb8")).info.is_image


def test_a_second_picture_behind_a_jpeg_is_not_looked_at(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    (tmp_path / "a.jpg").write_bytes(jpeg(picture) + jpeg(picture[:50, :50]))
    video, frames = sample(tmp_path / "a.jpg")
    assert (len(frames), video.frames_decoded, video.damage) == (1, 1, None)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_also_mirrored(tmp_path, orientation):
    data = jpeg(corners(), orientation)
    (tmp_path / "a.jpg").write_bytes(data)
    video, frames = sample(tmp_path / "a.jpg")
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert frames[0].image.shape == shown.shape == (video.info.height, video.info.width, 3)
    assert np.abs(frames[0].image.astype(int) - shown).mean() < 6
    assert video.info.is_image
    assert video.info.duration_seconds is None


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_file_that_breaks_off_gives_what_it_has(tmp_path, name):
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = write_video(tmp_path / name, noise(75), options=options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    video, frames = sample(path, every=5)
    assert 25 <= video.frames_decoded <= 45
    assert len(frames) == -(-video.frames_decoded // 5)
    if name != "a.ts":  # which states no duration
        assert "it should last 3.0 s" in video.damage


def test_a_fragmented_file_that_breaks_off_is_damaged(tmp_path):
    options = {"movflags": "frag_keyframe+empty_moov"}
    path = write_video(tmp_path / "a.mp4", noise(75), options=options, encoder={"g": "25"})
    assert sample(path)[0].damage is None
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "breaks off within a picture" in sample(path)[0].damage


def noise(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(count)]


@pytest.mark.parametrize("late", [0, 5])
@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mov"])
def test_pictures_shorter_than_the_sound_are_no_damage(tmp_path, name, late):
    pictures = write_video(tmp_path / f"silent_{name}", noise(40))
    path = add_long_sound(pictures, tmp_path / name, late)
    for how in ({}, {"sampling": "fast"}, {"max_frames": 8}):
        with Video(path) as video:
            assert len(list(video.sample(every=5, **how))) == 8
            assert video.damage is None


@pytest.mark.parametrize("how", [{}, {"sampling": "fast"}, {"max_frames": 8}])
def test_a_last_picture_that_stays_is_no_damage(tmp_path, how):
    path = write_video(
        tmp_path / "a.gif", numbered(20), "gif", "rgb8", options={"final_delay": "500"}
    )
    video, frames = sample(path, every=5, **how)
    assert video.info.duration_seconds > 5
    assert frames[-1].second < 1
    assert video.damage is None


@pytest.mark.parametrize("how", [{}, {"sampling": "fast"}, {"max_frames": 8}])
@pytest.mark.parametrize("name", ["a.ts", "a.vob"])
def test_a_clock_that_starts_anew_in_the_middle_goes_on(tmp_path, name, how):
    codec = "libx264" if name == "a.ts" else "mpeg2video"
    parts = [numbered(150)[:100], numbered(150)[100:]]
    files = [
        write_video(tmp_path / f"{number}_{name}", part, codec) for number, part in enumerate(parts)
    ]
    path = tmp_path / name
    path.write_bytes(b"".join(file.read_bytes() for file in files))
    video, frames = sample(path, every=15, **how)
    assert len(frames) >= 8
    assert max(number_of(frame.image) for frame in frames) >= 130
    assert [f.second for f in frames] == sorted(f.second for f in frames)
    for frame in frames:
        assert frame.second == pytest.approx(number_of(frame.image) / 25, abs=0.1)
    assert video.damage is None


@pytest.mark.parametrize("how", [{}, {"sampling": "fast"}, {"max_frames": 30}])
def test_of_a_slow_video_more_frames_are_taken(tmp_path, how):
    path = write_video(tmp_path / "a.mp4", numbered(30), seconds=list(range(30)))
    _, frames = sample(path, every=15, **how)
    assert len(frames) == 15
    assert [number_of(frame.image) for frame in frames] == [frame.index for frame in frames]


def test_of_several_streams_the_one_that_players_show_is_read(tmp_path):
    path, disposition = tmp_path / "a.mkv", av.stream.Disposition
    with av.open(str(path), "w") as container:
        for is_shown in (False, True):
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.disposition = disposition.default if is_shown else disposition(0)
        for number, stream in enumerate(container.streams):
            picture = av.VideoFrame.from_ndarray(numbered(8)[5 + number], format="rgb24")
            container.mux(stream.encode(picture) + stream.encode())
    for how in ({}, {"max_frames": 4}):
        assert [number_of(frame.image) for frame in sample(path, **how)[1]] == [6]


def test_matroska_with_sound_that_breaks_off_is_damaged(tmp_path):
    path = add_long_sound(write_video(tmp_path / "b.mkv", noise(75)), tmp_path / "a.mkv")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    video, _ = sample(path, every=5)
    assert "it should last 3.0 s" in video.damage


def test_damage_in_the_middle_does_not_hide_the_rest(tmp_path):
    path = write_video(tmp_path / "a.mkv", noise(60), "ffv1", "bgr0")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(data)
    _, frames = sample(path, every=1)
    assert len(frames) > 40
    assert frames[-1].second > 2.2


@pytest.mark.parametrize("how", [{}, {"max_frames": 20}, {"sampling": "fast"}])
def test_pictures_that_are_decoded_only_in_part_are_damage(tmp_path, real_clip, how):
    data = bytearray(real_clip.read_bytes())
    start = data.find(b"mdat") + 5000
    for place in np.random.default_rng(1).integers(start, start + len(data) // 2, 60):
        data[place] ^= 0xFF
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with Video(real_clip) as video:
        assert list(video.sample(every=5, **how))
        assert video.damage is None
    with Video(path) as video:
        assert list(video.sample(every=5, **how))
        assert "of its p" in video.damage


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_that_breaks_off_is_damaged(tmp_path, progressive):
    coding = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    thumbnail, photo = (
        cv2.imencode(".jpg", noise(1)[0][:size, :size], coding)[1].tobytes() for size in (16, 64)
    )
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2) + thumbnail
    photo = photo[:2] + segment + photo[2:]
    for data, damage in (
        (photo, None),
        (photo + b"\xff\xda" + bytes(999), None),  # as some phones append a film
        (photo[: (len(segment) + len(photo)) // 2], "its last part is missing"),
    ):
        (tmp_path / "a.jpg").write_bytes(data)
        video, frames = sample(tmp_path / "a.jpg")
        assert (len(frames), video.damage) == (1, damage)


def refused(path) -> str:
    with pytest.raises(UnreadableError) as caught:
        Video(path)
    return str(caught.value)


def test_sound_alone_is_refused_even_with_a_cover(tmp_path):
    assert "audio file" in refused(write_sound(tmp_path / "song.mp4"))
    with (
        av.open(str(tmp_path / "song.mp4")) as sound,
        av.open(str(tmp_path / "cover.mp4"), "w") as covered,
    ):
        copy = covered.add_stream_from_template(sound.streams.audio[0])
        cover = covered.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        covered.start_encoding()
        for packet in sound.demux():
            if packet.dts is not None:
                packet.stream = copy
                covered.mux(packet)
        frame = av.VideoFrame.from_ndarray(corners(64, 48), format="rgb24")
        covered.mux(cover.encode(frame))
        covered.mux(cover.encode())
    assert "audio file" in refused(tmp_path / "cover.mp4")


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile /etc/passwd\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_playlists_and_scripts_are_refused(tmp_path, text):
    # Each names a real video, so that only the refusal keeps it from being opened.
    inner = write_video(tmp_path / "inner.mp4", numbered(3))
    path = tmp_path / "list.mp4"
    path.write_text(text.replace("/etc/passwd", str(inner)))
    assert "no video or image" in refused(path)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "device or pipe" in refused(tmp_path / "pipe.mp4")
    assert "folder" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "missing.mp4")
    assert "cannot be opened" in refused("nul\0.mp4")


@needs_proc
def test_a_giant_picture_is_refused_before_it_takes_memory(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    side = 12000
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(3 * side + 1)) for _ in range(side)) + packer.flush()
    header = chunk(b"IHDR", pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path = tmp_path / "giant.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    code = (
        f"{PEAK_BYTES}\nimport sys; from unmask.video import Video\n"
        "try: Video(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print(peak_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    kind, peak = done.stdout.split()
    assert kind == "UnreadableError"
    assert int(peak) < side * side * 3
