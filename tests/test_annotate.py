"""The annotated copy: the same frames and sound at the same times, with what the report says."""

import dataclasses
import gc
import os
import shutil
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from clips import jpeg, tile, with_rotation, write_video

from unmask.annotate import annotate, plan_outputs
from unmask.cli import main
from unmask.errors import UnmaskError, UnreadableError, UsageError
from unmask.video import Video


def packets(path, kind: str) -> list[tuple]:
    """Time in seconds and bytes of every packet of the first stream of a kind, by time."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        found = [(p.pts * p.time_base, bytes(p)) for p in container.demux(stream) if p.size]
    return sorted(found)


def times(path, kind: str = "video") -> list[Fraction]:
    return [time for time, _ in packets(path, kind)]


def pictures(path) -> np.ndarray:
    with Video(path) as video:
        return np.stack([frame.image for frame in video.sample(every=1)]).astype(int)


def add_sound(video, path, codec: str, layout: str):
    """A copy of a video with three seconds of a tone."""
    rate = 48000
    with av.open(str(video)) as source, av.open(str(path), "w") as container:
        old = source.streams.video[0]
        copy = container.add_stream_from_template(old)
        sound = container.add_stream(codec, rate=rate, layout=layout)
        wave = 0.3 * np.sin(np.arange(3 * rate) * 2 * np.pi * 440 / rate, dtype=np.float32)
        channels = np.stack([wave] * sound.codec_context.channels)
        tone = av.AudioFrame.from_ndarray(channels, "fltp", layout)
        tone.rate, tone.pts = rate, 0
        container.mux(sound.encode(tone))
        container.mux(sound.encode())
        for packet in source.demux(old):
            if packet.size:
                packet.stream = copy
                container.mux(packet)
    return path


@pytest.fixture(scope="module")
def real_report(analyzer, real_clip):
    """Of 75 frames 0, 15, 30, 45 and 60 are judged; one person is in all of them.

    It has no sha256, to be drawn on other files, too.
    """
    report = analyzer.analyze(real_clip)
    assert [frame.index for frame in report.tracks[0].frames] == [0, 15, 30, 45, 60]
    return dataclasses.replace(report, sha256=None)


def with_boxes(report, boxes: dict[int, tuple]):
    """The report with one person who is seen in these frames, there; every 15th is looked at."""
    track = report.tracks[0]
    frames = [
        dataclasses.replace(
            track.frames[0], index=index, second=index / 25, box=box, sample=index // 15
        )
        for index, box in boxes.items()
    ]
    return dataclasses.replace(report, tracks=[dataclasses.replace(track, frames=frames)])


def drawn(image: np.ndarray, original: np.ndarray, box: tuple) -> float:
    """How far the lower edge of the box differs from the original, 0 to 255."""
    x1, _, x2, y2 = (round(v) for v in box)
    return np.abs(image - original)[y2 - 1 : y2 + 1, x1:x2].mean()


def test_frames_keep_their_times_and_sound_is_copied(tmp_path, real_clip, real_report):
    source = add_sound(real_clip, tmp_path / "a.mp4", "aac", "mono")
    shares = []
    annotate(source, real_report, tmp_path / "out.mp4", shares.append)
    assert times(tmp_path / "out.mp4") == times(source)
    assert len(times(source)) == 75
    assert packets(tmp_path / "out.mp4", "audio") == packets(source, "audio")
    assert shares == sorted(shares)
    assert 0.9 < shares[-1] <= 1
    with av.open(str(tmp_path / "out.mp4")) as out:
        assert [stream.type for stream in out.streams] == ["video", "audio"]
        assert out.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert out.duration == pytest.approx(3e6, rel=0.01)
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # a browser starts before it has all


@pytest.mark.parametrize(("name", "codec", "layout"), [
    ("a.mov", "pcm_s16le", "mono"), ("a.mkv", "ac3", "5.1"),
])  # fmt: skip
def test_sound_that_browsers_cannot_play_becomes_aac(
    tmp_path, real_clip, real_report, name, codec, layout
):
    source = add_sound(real_clip, tmp_path / name, codec, layout)
    annotate(source, real_report, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as out:
        stream = out.streams.audio[0]
        assert stream.codec_context.name == "aac"
        assert float(stream.duration * stream.time_base) == pytest.approx(3, abs=0.05)
        heard = np.concatenate([f.to_ndarray()[0] for f in out.decode(stream)])[4800:-4800]
    tone = np.abs(np.fft.rfft(heard))
    assert tone.argmax() * 48000 / len(heard) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("kinds", [
    [("aac", "stereo")] * 2, [("mp2", "stereo")] * 2, [("mp2", "stereo"), ("mp2", "mono")],
])  # fmt: skip
def test_the_sound_of_files_that_were_joined_is_kept(tmp_path, real_clip, real_report, kinds):
    parts = [
        add_sound(real_clip, tmp_path / f"{number}.ts", *kind).read_bytes()
        for number, kind in enumerate(kinds)
    ]
    source = tmp_path / "joined.ts"
    source.write_bytes(b"".join(parts))
    annotate(source, real_report, tmp_path / "out.mp4")
    heard = np.array(times(tmp_path / "out.mp4", "audio"), float)
    assert heard[-1] == pytest.approx(6, abs=0.2)  # three seconds each
    assert np.diff(heard).max() < 0.2
    assert len(times(tmp_path / "out.mp4")) == 150


def test_the_box_is_where_the_report_has_it(tmp_path, real_clip, real_report, real_frames):
    annotate(real_clip, real_report, tmp_path / "out.mp4")
    shown = pictures(tmp_path / "out.mp4")
    for frame in real_report.tracks[0].frames:
        original = real_frames[frame.index]
        assert drawn(shown[frame.index], original, frame.box) > 40
        x1, y1, x2, y2 = (round(v) for v in frame.box)
        inside = np.s_[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8]
        assert np.abs(shown[frame.index] - original)[inside].mean() < 6
    assert drawn(shown[61], real_frames[61], frame.box) < 6  # never seen again


def test_between_judged_frames_the_box_moves_and_where_a_person_is_missed_it_is_gone(
    tmp_path, real_clip, real_report, real_frames
):
    low, high = (20.0, 100.0, 80.0, 160.0), (20.0, 160.0, 80.0, 220.0)
    middle = (20.0, 130.0, 80.0, 190.0)
    report = with_boxes(real_report, {0: low, 16: high, 45: low, 60: low})
    annotate(real_clip, report, tmp_path / "out.mp4")
    shown = pictures(tmp_path / "out.mp4")
    assert drawn(shown[8], real_frames[8], middle) > 40
    for index in (17, 30, 44, 61):
        assert all(drawn(shown[index], real_frames[index], b) < 6 for b in (low, high, middle))
    assert drawn(shown[52], real_frames[52], low) > 40


def test_a_box_is_not_carried_into_another_scene(tmp_path, real_frames, real_report):
    box = (20.0, 100.0, 80.0, 160.0)
    frames = [frame.copy() for frame in real_frames[:16]]
    frames[5:9] = [np.full_like(frames[0], 200)] * 4
    source = write_video(tmp_path / "a.mp4", frames)
    annotate(source, with_boxes(real_report, {0: box, 15: box}), tmp_path / "out.mp4")
    shown = pictures(tmp_path / "out.mp4")
    there = [drawn(image, frame, box) > 40 for image, frame in zip(shown, frames, strict=True)]
    assert there == [True] * 5 + [False] * 4 + [True] * 7


def test_the_label_has_the_probability_up_to_there(monkeypatch, tmp_path, real_clip, real_report):
    track = real_report.tracks[0]
    faces = [
        dataclasses.replace(frame, probability_fake=p)
        for frame, p in zip(track.frames, (0.5, 0.9, 0.5, 0.1, 1.0), strict=True)
    ]
    track = dataclasses.replace(track, id=4, verdict="uncertain", frames=faces)
    texts, write = [], cv2.putText

    def note(image, text, *how):
        texts.append(text)
        return write(image, text, *how)

    monkeypatch.setattr(cv2, "putText", note)
    annotate(real_clip, dataclasses.replace(real_report, tracks=[track]), tmp_path / "out.mp4")
    figures = [text for text in texts if text.startswith("prob.")]
    assert [figures[i] for i in (0, 14, 15, 30, 45, 60)] == [
        *["prob. of fake 0.50 so far"] * 2, "prob. of fake 0.75 so far",
        "prob. of fake 0.68 so far", "prob. of fake 0.50 so far", "prob. of fake 0.94",
    ]  # fmt: skip
    assert len(figures) == 61
    assert texts.count("Person 4: uncertain") == 61
    assert texts.count(f"Unmask: real, prob. of fake {real_report.probability_fake:.2f}") == 75


def test_variable_frame_rate_and_odd_sides(tmp_path, real_frames, analyzer):
    seconds = [0.0, 0.04, 0.1, 1.5, 1.52, 4.0]
    odd = [frame[:287, :359] for frame in real_frames[:6]]
    source = write_video(tmp_path / "a.mkv", odd, "ffv1", "bgr0", seconds=seconds)
    annotate(source, analyzer.analyze(source), tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == pytest.approx(seconds)
    with Video(tmp_path / "out.mp4") as video:
        assert (video.info.width, video.info.height) == (360, 288)


def test_a_stream_that_changes_its_size_has_one_person_in_pixels_of_the_first(
    tmp_path, real_frames, analyzer
):
    larger = [cv2.resize(f, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for f in real_frames]
    parts = [
        write_video(tmp_path / f"{number}.ts", frames).read_bytes()
        for number, frames in enumerate((real_frames[:30], larger[:30]))
    ]
    source = tmp_path / "call.ts"
    source.write_bytes(b"".join(parts))
    report = analyzer.analyze(source)
    assert (report.video.width, report.video.height) == (360, 288)
    (person,) = report.tracks
    before, after = (next(f for f in person.frames if f.index == index) for index in (0, 30))
    assert after.box == pytest.approx(before.box, abs=3)
    annotate(source, report, tmp_path / "out.mp4")
    assert drawn(pictures(tmp_path / "out.mp4")[30], real_frames[0], after.box) > 40


def test_a_phone_video_is_upright_and_keeps_its_colours(tmp_path, real_frames, real_report):
    source = write_video(tmp_path / "a.mp4", [np.rot90(frame) for frame in real_frames[:3]])
    source.write_bytes(with_rotation(source.read_bytes()))
    annotate(source, with_boxes(real_report, {0: (9, 9, 40, 40)}), tmp_path / "out.mp4")
    first, *rest = pictures(tmp_path / "out.mp4")
    assert drawn(first, real_frames[0], (9, 9, 40, 40)) > 40
    assert np.abs(rest[0] - real_frames[1])[:260].mean() < 5
    # Where the caption is not; decoding to RGB and encoding again takes 1 of 255 by rounding.
    difference = rest[0][:260] - pictures(source)[1][:260]
    assert np.abs(difference.mean((0, 1))).max() < 1.5


def test_frames_are_let_go_of_at_once(tmp_path, real_clip, real_report):
    # Python's garbage collector counts objects, not bytes: frames must not wait for it.
    gc.collect()
    gc.disable()
    try:
        annotate(real_clip, real_report, tmp_path / "out.mp4")
        assert gc.collect() < 75
    finally:
        gc.enable()


def test_without_a_face_only_the_caption_is_drawn(tmp_path, analyzer):
    wall = np.full((120, 160, 3), 200, np.uint8)
    source = write_video(tmp_path / "wall.mp4", [wall] * 3)
    report = analyzer.analyze(source)
    assert report.verdict == "no_face"
    annotate(source, report, tmp_path / "out.mp4")
    shown = pictures(tmp_path / "out.mp4")
    assert (np.abs(shown[:, :90] - 200) < 6).all()
    assert shown[:, 105:118, 4:60].min() < 40


@pytest.mark.parametrize("name", ["out.png", "out.jpg"])
def test_an_image_becomes_an_image(tmp_path, samples, analyzer, name):
    source = samples / "people" / "london_001.jpg"
    report = analyzer.analyze(source)
    annotate(source, report, tmp_path / name)
    shown = cv2.imread(str(tmp_path / name))[:, :, ::-1].astype(int)
    with Video(source) as image:
        original = next(image.sample()).image
    assert shown.shape == original.shape
    assert drawn(shown, original, report.tracks[0].frames[0].box) > 40


def test_outputs_that_make_no_sense_are_refused(tmp_path, real_clip, real_report):
    source = tmp_path / "a.mp4"
    shutil.copy(real_clip, source)
    photo = tmp_path / "a.jpg"
    photo.write_bytes(jpeg(np.zeros((8, 8, 3), np.uint8)))
    (tmp_path / "link.mp4").symlink_to(source)
    (tmp_path / "folder.mp4").mkdir()
    for path, output, why in (
        (source, source, "is the input itself"),
        (source, tmp_path / "link.mp4", "is the input itself"),
        (source, tmp_path / "out.mkv", r"ends in \.mp4"),
        (source, tmp_path / "out.png", r"ends in \.mp4"),
        (photo, tmp_path / "out.mp4", r"ends in \.png or \.jpg"),
        (source, tmp_path / "none" / "out.mp4", "there is no folder"),
        (source, tmp_path / "folder.mp4", "that is a folder"),
    ):
        with pytest.raises(UsageError, match=why):
            annotate(path, real_report, output)
    assert source.read_bytes() == real_clip.read_bytes()


def test_a_file_that_was_replaced_since_is_refused(tmp_path, samples, analyzer):
    photo = tmp_path / "a.jpg"
    shutil.copy(samples / "people" / "london_001.jpg", photo)
    report = analyzer.analyze(photo)
    shutil.copy(samples / "people" / "london_005.jpg", photo)
    with pytest.raises(UnmaskError, match=r"a\.jpg: the file has changed since it was judged"):
        annotate(photo, report, tmp_path / "out.jpg")
    assert not (tmp_path / "out.jpg").exists()


def test_when_it_fails_nothing_is_left_and_an_earlier_copy_stays(tmp_path, real_report, analyzer):
    # The encoder takes no side longer than 16384.
    wide = [np.zeros((16, 16400, 3), np.uint8)]
    source = write_video(tmp_path / "wide.mkv", wide, "ffv1", "bgr0")
    (tmp_path / "out.mp4").write_bytes(b"an earlier one")
    with pytest.raises(UnmaskError, match=r"cannot write the annotated copy of wide\.mkv"):
        annotate(source, real_report, tmp_path / "out.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UnreadableError, match=r"text\.mp4 is no video or image"):
        annotate(
            tmp_path / "text.mp4", analyzer.analyze(tmp_path / "text.mp4"), tmp_path / "out.mp4"
        )
    assert (tmp_path / "out.mp4").read_bytes() == b"an earlier one"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["out.mp4", "text.mp4", "wide.mkv"]


def test_names_in_a_folder_never_clash(tmp_path):
    (tmp_path / "b").mkdir()
    inputs = [tmp_path / n for n in ("a.mp4", "b/A.mov", "c.JPG", "c.webp", "a.annotated.mp4")]
    names = [path.name for path in plan_outputs(inputs, tmp_path)]
    assert names == [
        "a.annotated-2.mp4", "A.annotated-3.mp4", "c.annotated.jpg", "c.annotated.png",
        "a.annotated.annotated.mp4",
    ]  # fmt: skip


def test_the_command(capsys, tmp_path, samples, real_clip):
    photo = samples / "people" / "london_001.jpg"
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    out = tmp_path / "out"  # is made
    several = ["detect", str(real_clip), str(broken), str(photo), "--annotate"]
    assert main([*several, str(tmp_path / "one.mp4")]) == 2
    assert "there are 3 inputs: give --annotate a folder" in capsys.readouterr().err
    assert main([*several, str(out)]) == 1
    done = capsys.readouterr()
    assert "unmask detect: there is no annotated copy of broken.mp4: broken.mp4 is no" in done.err
    assert "unreadable" in done.out
    assert sorted(os.listdir(out)) == ["london_001.annotated.jpg", "real.annotated.mp4"]
    assert main(["detect", str(photo), "--annotate", str(out / "real.annotated.mp4")]) == 2
    assert main(["detect", str(real_clip), "--annotate", str(out / "real.annotated.mp4")]) == 2
    assert "real.annotated.mp4 exists: delete it" in capsys.readouterr().err


def test_two_people_have_labels_that_do_not_cover_each_other(tmp_path, real_frame, analyzer):
    source = tmp_path / "two.png"
    cv2.imwrite(str(source), tile(real_frame, 1, 2)[:, :, ::-1])
    report = analyzer.analyze(source)
    assert len(report.tracks) == 2
    first = report.tracks[0].frames[0]
    twin = dataclasses.replace(report.tracks[1], frames=[first])  # both in one place
    one = dataclasses.replace(report, tracks=[report.tracks[0]])
    both = dataclasses.replace(report, tracks=[report.tracks[0], twin])
    annotate(source, one, tmp_path / "one.png")
    annotate(source, both, tmp_path / "both.png")
    x1, y1 = (round(v) for v in first.box[:2])
    label = np.s_[y1 - 30 : y1 - 8, x1 : x1 + 80]
    shown = [pictures(tmp_path / name)[0][label] for name in ("one.png", "both.png")]
    assert (shown[0] == shown[1]).all()
    assert shown[0].std() > 50  # there is text
