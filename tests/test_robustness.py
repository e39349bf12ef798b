"""Damaged copies keep what detection depends on, and the figures on them are compared in pairs."""

import json

import cv2
import numpy as np
import pytest
from clips import jpeg, with_rotation, write_video
from sklearn.metrics import roc_auc_score

from unmask import Analyzer
from unmask.errors import UnreadableError, UsageError
from unmask.robustness import ALTERATIONS, altered_copy, verdicts_after
from unmask.training.altered import change_between
from unmask.training.evaluate import evaluate
from unmask.training.scores import Score
from unmask.video import Video


def frames_of(path) -> list:
    with Video(path) as video:
        return list(video.sample(every=1))


def sharpness(image) -> float:
    return cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var()


@pytest.fixture(scope="module")
def copies(tmp_path_factory, real_clip):
    folder = tmp_path_factory.mktemp("copies")
    for name in ALTERATIONS:
        altered_copy(real_clip, name, folder / f"{name}.mp4")
    return {name: folder / f"{name}.mp4" for name in ALTERATIONS}


def test_every_copy_has_the_same_frames_at_the_same_times(copies, real_clip):
    source = frames_of(real_clip)
    for name, copy in copies.items():
        altered = frames_of(copy)
        assert [f.second for f in altered] == pytest.approx([f.second for f in source], abs=1e-4)
        height, width = (144, 180) if name == "half" else (288, 360)
        for before, after in zip(source[::25], altered[::25], strict=True):
            assert after.image.shape == (height, width, 3), name
            same = cv2.resize(before.image, (width, height), interpolation=cv2.INTER_AREA)
            assert np.abs(after.image.astype(int) - same).mean() < 6, name


def test_each_alteration_does_what_its_name_says(copies, real_frame):
    assert copies["crf35"].stat().st_size < 0.8 * copies["crf28"].stat().st_size
    first = {name: frames_of(copy)[0].image for name, copy in copies.items()}
    # Hardly compressed, the blur is the filter's: that of a picture of 288 lines.
    blurred = cv2.GaussianBlur(real_frame, (0, 0), 1.5 * 288 / 720)
    assert sharpness(first["blur"]) == pytest.approx(sharpness(blurred), rel=0.2)
    assert sharpness(blurred) < 0.5 * sharpness(real_frame)


def test_uneven_times_odd_sides_and_a_limit(tmp_path, real_frames):
    seconds = [0, 0.01, 0.02, 3, 3.001, 9, 20]
    odd = [frame[:287, :359] for frame in real_frames[:7]]
    source = write_video(tmp_path / "odd.mkv", odd, "ffv1", "bgr0", seconds)
    altered_copy(source, "crf28", tmp_path / "copy.mp4")
    frames = frames_of(tmp_path / "copy.mp4")
    assert [f.second for f in frames] == pytest.approx(seconds, abs=1e-4)
    assert frames[0].image.shape == (288, 360, 3)
    altered_copy(source, "half", tmp_path / "copy.mp4", max_seconds=5)
    frames = frames_of(tmp_path / "copy.mp4")
    assert len(frames) == 5
    assert frames[0].image.shape == (144, 180, 3)


def test_a_turned_video_and_a_turned_image_become_upright(tmp_path, real_clip, real_frame):
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(with_rotation(real_clip.read_bytes()))
    picture = tmp_path / "turned.jpg"
    picture.write_bytes(jpeg(real_frame, orientation=6))
    for source in (turned, picture):
        before = frames_of(source)[0].image
        altered_copy(source, "crf28", tmp_path / "copy.mp4")
        after = frames_of(tmp_path / "copy.mp4")
        assert after[0].image.shape == before.shape == (360, 288, 3)
        assert np.abs(after[0].image.astype(int) - before).mean() < 6
        assert len(after) == (1 if source is picture else 75)


def test_what_cannot_be_read_or_coded_is_said(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    wide = np.zeros((2, 16_386, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "wide.png"), wide)
    for name, why in (("text.mp4", "no video"), ("wide.png", "16386 pixels")):
        with pytest.raises(UnreadableError, match=why):
            altered_copy(tmp_path / name, "crf28", tmp_path / "copy.mp4")
    assert not (tmp_path / "copy.mp4").exists()


def test_verdicts_are_those_of_the_copies(copies, real_clip, tmp_path):
    analyzer, told = Analyzer(max_frames=2, threads=1), []
    verdicts = verdicts_after(analyzer, real_clip, told.append)
    assert told == [0.25, 0.5, 0.75, 1]
    assert [v.alteration for v in verdicts] == list(ALTERATIONS)
    for found in verdicts:
        report = analyzer.analyze(copies[found.alteration])
        assert found.probability_fake == report.probability_fake  # a copy is made the same again
        assert found.verdict == report.verdict


def test_copies_of_a_photo_are_judged_as_photos_whatever_its_name(tmp_path, real_frame):
    analyzer, photo = Analyzer(threads=1), tmp_path / "photo"
    photo.write_bytes(cv2.imencode(".png", real_frame[:, :, ::-1])[1].tobytes())
    (found, *_) = verdicts_after(analyzer, photo)
    altered_copy(photo, found.alteration, tmp_path / "copy.mp4")
    as_photo, as_video = (
        analyzer.analyze(tmp_path / "copy.mp4", is_photo=is_photo).probability_fake
        for is_photo in (True, False)
    )
    assert found.probability_fake == as_photo < as_video


def score(number, probability, verdict="real", label=None):
    label = label or ("real", "fake")[number % 2]
    about = f"{number}.mp4", f"{number}.mp4", label, f"g{number // 2}", "", ""
    return Score("video", *about, None, None, probability, verdict)


def test_pairs_are_compared_and_lost_videos_are_counted():
    rng = np.random.default_rng(0)
    p = np.clip(rng.uniform(0, 0.7, 40) + 0.3 * (np.arange(40) % 2), 0, 1)
    before = [score(i, x) for i, x in enumerate(p)]
    same = change_between(before, before[::-1], 0.5, seed=0)
    assert (same.auc_change.value, same.auc_change.low, same.auc_change.high) == (0, 0, 0)
    assert same.whole.metrics["roc_auc"].high > same.whole.metrics["roc_auc"].low
    assert (same.changed, same.judged) == (0, 40)

    worse = np.clip(p + rng.normal(0, 0.2, 40), 0, 1)
    after = [score(i, x, "uncertain" if i < 8 else "real") for i, x in enumerate(worse)]
    after[:4] = [score(i, None, "no_face") for i in range(4)]
    found = change_between(before, after, 0.5, seed=0)
    labels = np.arange(4, 40) % 2
    change = roc_auc_score(labels, worse[4:]) - roc_auc_score(labels, p[4:])
    assert found.auc_change.value == pytest.approx(change)
    assert found.auc_change.low < change < found.auc_change.high
    assert (found.videos, found.judged) == (40, 36)
    assert found.changed == pytest.approx(8 / 40)
    assert found.uncertain == pytest.approx(4 / 36)

    nothing = change_between(before, [score(i, None, "no_face") for i in range(40)], 0.5, seed=0)
    assert nothing.as_dict()["roc_auc"]["value"] is nothing.as_dict()["uncertain"] is None
    assert nothing.changed == 1


def test_evaluate_tells_how_verdicts_hold_and_goes_on_where_it_stopped(
    tmp_path, real_clip, fake_clip, monkeypatch
):
    (tmp_path / "text.mp4").write_text("no video")
    manifest, output = tmp_path / "manifest.csv", tmp_path / "results"
    manifest.write_text(f"path,label\n{real_clip},real\n{fake_clip},fake\ntext.mp4,fake\n")
    made, copy = [], altered_copy

    def spy(path, alteration, *args):
        made.append((path.name, alteration))
        return copy(path, alteration, *args)

    monkeypatch.setattr("unmask.robustness.altered_copy", spy)
    options = {"videos": manifest, "output": output, "max_frames": 2, "threads": 1}
    evaluate("shipped", robustness=True, **options)
    # What has no score as it is has none to hold.
    assert made == [(name, a) for a in ALTERATIONS for name in ("real.mp4", "fake.mp4")]
    assert not list(output.rglob("*.mp4"))
    figures = json.loads((output / "metrics.json").read_text())["robustness"]
    assert list(figures) == list(ALTERATIONS)
    for name, entry in figures.items():
        assert (entry["videos"], entry["judged"]) == (2, 2), name
        assert entry["roc_auc"]["value"] in (0, 1)
        assert entry["roc_auc_change"]["interval"] is None
        assert "too few groups" in entry["roc_auc_change"]["reason"]
    report = (output / "metrics_report.txt").read_text()
    table = report[report.index("How verdicts hold") :].splitlines()
    assert [line.split()[:2] for line in table[3:8]] == [
        [name, "2"] for name in ("none", *ALTERATIONS)
    ]

    scores = output / "scores_blur.csv"
    text = scores.read_text()
    scores.write_text(text[: text.index(f"video,{fake_clip}")])
    made.clear()
    evaluate("shipped", robustness=True, **options)
    assert made == [("fake.mp4", "blur")]
    assert scores.read_text() == text


def test_robustness_without_videos_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="--videos"):
        evaluate("shipped", output=tmp_path / "results", robustness=True)
    assert not (tmp_path / "results").exists()
