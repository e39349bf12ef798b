import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from unmask.analyzer import Analyzer
from unmask.card import SHIPPED
from unmask.classifier import Classifier
from unmask.data.index import Crop, write_index
from unmask.errors import DatasetError, ModelError, SettingError, UsageError
from unmask.training.evaluate import evaluate
from unmask.training.plots import learning_curve
from unmask.training.scores import append_scores, read_finished, score_key, write_scores
from unmask.verdict import sigmoid

SAMPLES = Path(__file__).parent.parent / "samples"
PICTURES = ("confusion_matrix_counts", "confusion_matrix_percent", "roc_curve", "score_histogram")


def make_crop(path, seed):
    """Noise of another coarseness and brightness for every seed, so that scores differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 80 + 20 * (seed % 8), (2 + seed % 7, 2 + seed % 5, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.resize(coarse, (256, 256)))


def make_split(folder, labels=("real", "fake"), groups=5):
    """Two crops a video; one real and two fakes, by two methods under one name, a group."""
    crops = []
    for group in range(groups):
        for label, method in (("real", ""), ("fake", "swap"), ("fake", "lips")):
            for frame in range(2) if label in labels else ():
                path = f"test/{label}/{method}{group}_{frame}.png"
                make_crop(folder / path, seed=len(crops))
                crops.append(Crop(path, label, video=f"v{group}.mp4", group=f"g{group}",
                                  method=method, dataset="noise", split="test", frame=15 * frame,
                                  second=frame / 2))  # fmt: skip
    write_index(folder, crops)
    return crops


def read_rows(output):
    with (output / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A split with a corrupt crop, a missing one and an augmented copy, and its evaluation."""
    folder, output = tmp_path_factory.mktemp("split"), tmp_path_factory.mktemp("results")
    crops = make_split(folder)
    (folder / crops[0].path).write_bytes(b"no picture")
    (folder / crops[3].path).unlink()
    copy = Crop("test/real/copy.png", "real", "v0.mp4", "g0", split="test", augmented=1)
    other = Crop("train/real/x.png", "real", "x.mp4", "gx", split="train")
    write_index(folder, [*crops, copy, other])
    return folder, crops, output, evaluate("shipped", folder, None, output)


def test_crops_are_scored_as_the_shipped_classifier_does(judged):
    folder, crops, output, _ = judged
    rows = {r["path"]: r for r in read_rows(output) if r["level"] == "frame"}
    assert set(rows) == {crop.path for crop in crops}  # no copy, no other part
    video = [c for c in crops if c.method == "swap" and c.group == "g2"]
    images = [cv2.imread(str(folder / crop.path))[:, :, ::-1] for crop in video]
    logits = Classifier(SHIPPED).logits(np.stack(images))
    for crop, logit in zip(video, logits, strict=True):
        assert float(rows[crop.path]["probability_fake"]) == pytest.approx(sigmoid(logit), abs=0.01)
    (row,) = [r for r in read_rows(output) if r["level"] == "video"
              and r["group"] == "g2" and r["method"] == "swap"]  # fmt: skip
    assert float(row["probability_fake"]) == pytest.approx(sigmoid(logits.mean()), abs=0.01)


def test_a_still_among_enough_videos_is_left_out(tmp_path):
    crops = make_split(tmp_path, groups=20)
    make_crop(tmp_path / "test/real/still.png", seed=1)
    still = Crop("test/real/still.png", "real", "still.jpg", "gs", split="test")
    short = replace(still, video="short.mp4")  # of which there is but one crop
    write_index(tmp_path, [*crops, still, replace(still, frame=1), short])
    found = evaluate("shipped", tmp_path, None, tmp_path / "results")
    assert found.videos.whole.real == 21
    assert "2 stills, which flatter, are left out" in found.protocol


def test_videos_of_one_name_but_other_methods_stay_apart(judged):
    videos = [r for r in read_rows(judged[2]) if r["level"] == "video"]
    assert len(videos) == len({(r["video"], r["method"]) for r in videos}) == 15


def test_unreadable_crops_are_counted_named_and_not_scored(judged):
    _, crops, output, found = judged
    reasons = {s.path: s.reason for s in found.frames.unscored}
    assert reasons == {
        crops[0].path: "the picture cannot be decoded",
        crops[3].path: "the file is missing",
    }
    report = (output / "metrics_report.txt").read_text()
    assert f"unreadable  real  {crops[0].path}: the picture cannot be decoded" in report
    assert found.frames.whole.real + found.frames.whole.fake == len(crops) - 2
    assert not found.videos.unscored  # each still has its other crop


def test_the_figures_are_those_of_the_scores(judged):
    output = judged[2]
    figures = json.loads((output / "metrics.json").read_text())
    rows = [r for r in read_rows(output) if r["probability_fake"]]
    for level in ("video", "frame"):
        own = [r for r in rows if r["level"] == level]
        for part, of in ((figures[f"{level}s"], {"", "swap", "lips"}),
                         (figures[f"{level}s"]["by_method"]["swap"], {"", "swap"})):  # fmt: skip
            some = [r for r in own if r["method"] in of]
            labels = [r["label"] == "fake" for r in some]
            scores = [float(r["probability_fake"]) for r in some]
            auc = part["metrics"]["roc_auc"]
            assert auc["value"] == pytest.approx(roc_auc_score(labels, scores))
            assert auc["interval"][0] < auc["value"] < auc["interval"][1]
            assert sum(part["confusion"].values()) == len(some)
            assert part["groups"] == 5
    assert set(figures["videos"]["by_dataset"]) == {"noise"}


def test_the_report_says_what_was_judged_how_and_by_what(judged):
    folder, _, output, found = judged
    report = (output / "metrics_report.txt").read_text()
    card = json.loads(SHIPPED.with_suffix(".json").read_text())
    for words in (card["sha256"], f"{card['name']} {card['version']}", "test crops", "mean of",
                  "1 augmented", "1000 draws", "By method: videos", "precision    recall",
                  "Worst mistakes: videos", "threshold 0.5"):  # fmt: skip
        assert words in report, words
    auc = found.videos.whole.metrics["roc_auc"]
    assert f"{auc.value:.3f}  [{auc.low:.3f} to {auc.high:.3f}]" in str(found)
    assert str(folder) in str(found)


def test_the_quality_of_crops_is_that_of_their_index(tmp_path):
    crops = make_split(tmp_path / "split")
    crops = [replace(c, x2=60 + 9 * i, y2=50, blur=5 + i) for i, c in enumerate(crops)]
    write_index(tmp_path / "split", [*crops[:-1], replace(crops[-1], x2=0, y2=0, blur=0)])
    found = evaluate("shipped", tmp_path / "split", None, tmp_path / "out")
    rows = [r for r in read_rows(tmp_path / "out") if r["level"] == "frame"]
    assert [r["face_size"] for r in rows] == [*(str(float(c.x2)) for c in crops[:-1]), ""]
    assert [r["sharpness"] for r in rows] == [*(str(float(c.blur)) for c in crops[:-1]), ""]
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    sizes, ways = figures["by_quality"]["face_size"], figures["aggregations"]
    assert [b["real"] + b["fake"] for b in sizes] == [10, 9, 10]
    assert figures["by_quality"]["turn"] == figures["by_quality"]["bits_per_pixel"] == []
    # On crops the videos' own score is the mean of logits.
    assert ways["mean of logits"] == figures["videos"]["metrics"]["roc_auc"]
    assert ways["mean of logits by face size"]["value"] is None  # one crop has no box
    report = (tmp_path / "out" / "metrics_report.txt").read_text()
    assert f"{found.quality['face_size'][0].low:.3g} to" in report
    assert "mean of logits by face size" in report


def test_every_picture_is_drawn(judged):
    for name in PICTURES:
        picture = cv2.imread(str(judged[2] / f"{name}.png"))
        assert min(picture.shape[:2]) > 500, name
        drawn = (picture.min(axis=2) < 250).mean()
        assert 0.02 < drawn < 0.9, name


def test_one_class_has_no_auc_anywhere(tmp_path):
    make_split(tmp_path / "split", labels=("real",))
    output = tmp_path / "results"
    found = evaluate(SHIPPED, tmp_path / "split", None, output, threshold=0.6)
    figures = json.loads((output / "metrics.json").read_text())
    for level in ("videos", "frames"):
        auc = figures[level]["metrics"]["roc_auc"]
        assert auc == {"value": None, "interval": None, "reason": "there are no fakes"}
        assert figures[level]["metrics"]["false_positive_rate"]["value"] is not None
    assert "- (there are no fakes)" in str(found)
    assert "nan" not in (output / "metrics_report.txt").read_text().lower()
    assert all((output / f"{name}.png").stat().st_size > 5000 for name in PICTURES)


@pytest.fixture
def manifest(tmp_path):
    """The sample clips, a file that is no video and a picture without a face."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("real.mp4", "fake.mp4"):
        (folder / name).symlink_to(SAMPLES / name)
    (folder / "text.mp4").write_text("no video")
    make_crop(folder / "noise.png", seed=3)
    path = folder / "manifest.csv"
    path.write_text(
        "path,label,group,method\nreal.mp4,real,a,\nfake.mp4,fake,b,swap\n"
        "text.mp4,fake,c,swap\nnoise.png,real,d,\n"
    )
    return path


def test_videos_go_through_detect_and_an_interrupted_run_goes_on(manifest, tmp_path, monkeypatch):
    output = tmp_path / "results"
    seen, analyze = [], Analyzer.analyze

    def spy(self, path, *args, **kwargs):
        seen.append(path.name)
        return analyze(self, path, *args, **kwargs)

    monkeypatch.setattr(Analyzer, "analyze", spy)
    found = evaluate("shipped", videos=manifest, output=output, every=30)
    assert seen == ["real.mp4", "fake.mp4", "text.mp4", "noise.png"]
    rows = read_rows(output)
    scored = {r["path"]: r for r in rows if r["level"] == "video"}
    report = analyze(Analyzer(every=30), SAMPLES / "fake.mp4")
    assert float(scored["fake.mp4"]["probability_fake"]) == pytest.approx(report.probability_fake)
    assert scored["fake.mp4"]["verdict"] == report.verdict
    faces = sum(len(track.frames) for track in report.tracks)
    first = report.tracks[0].frames[0]
    row = next(r for r in rows if r["level"] == "frame" and r["path"] == "fake.mp4")
    for measure in ("face_size", "sharpness", "turn"):
        assert float(row[measure]) == pytest.approx(getattr(first, measure)), measure
    assert float(scored["fake.mp4"]["bits_per_pixel"]) == report.video.bits_per_pixel
    assert scored["noise.png"]["bits_per_pixel"] == ""
    assert faces == sum(r["level"] == "frame" and r["path"] == "fake.mp4" for r in rows) > 0
    # Neither is 0.5: they are listed with their reason and stay out of the figures.
    assert {s.path: s.verdict for s in found.videos.unscored} == {
        "text.mp4": "unreadable", "noise.png": "no_face",
    }  # fmt: skip
    assert all(s.reason for s in found.videos.unscored)
    assert (found.videos.whole.real, found.videos.whole.fake) == (1, 1)

    # Cut off while the rows of fake.mp4 were written: it is judged again, real.mp4 is not. The
    # labels and the threshold of now make new verdicts of the same scores.
    text = (output / "scores.csv").read_text()
    (output / "scores.csv").write_text(text[: text.index("video,fake.mp4") - 20])
    manifest.write_text(manifest.read_text().replace("real.mp4,real", "real.mp4,fake"))
    seen.clear()
    found = evaluate("shipped", videos=manifest, output=output, every=30, threshold=0, uncertain=0)
    assert seen == ["fake.mp4", "text.mp4", "noise.png"]
    again = read_rows(output)
    for column in ("probability_fake", "sharpness", "turn", "bits_per_pixel"):
        assert [r[column] for r in again] == [r[column] for r in rows], column
    assert (found.videos.whole.real, found.videos.whole.fake) == (0, 2)
    assert {s.verdict for s in found.videos.scored} == {"fake"}

    # Another setting that the probability depends on: everything is judged anew.
    seen.clear()
    evaluate("shipped", videos=manifest, output=output, max_frames=1)
    assert len(seen) == 4


def test_a_part_of_a_manifest_is_judged_alone(manifest, tmp_path):
    header, real, fake, text, noise = manifest.read_text().splitlines()
    rows = f"{header},split", f"{real},test", f"{fake},test", f"{text},train", f"{noise},"
    manifest.write_text("\n".join(rows))
    found = evaluate("shipped", videos=manifest, output=tmp_path / "a", every=30, part="test")
    assert {r["path"] for r in read_rows(tmp_path / "a")} == {"real.mp4", "fake.mp4"}
    assert found.judged.startswith("the test videos of ")
    found = evaluate("shipped", videos=manifest, output=tmp_path / "b", every=30)
    assert "taken together: 1 no split, 2 test, 1 train" in found.protocol
    with pytest.raises(UsageError, match="has no val"):
        evaluate("shipped", videos=manifest, output=tmp_path / "c", part="val")


@pytest.mark.parametrize("own", [{"every": 60}, {"uncertain": 0.2}, {"aggregate": "mean"}])
def test_figures_for_reports_are_those_of_the_default_settings(manifest, tmp_path, own):
    option = f"--{next(iter(own))} away"
    with pytest.raises(UsageError, match=option):
        evaluate(tmp_path / "m.xml", videos=manifest, output=tmp_path / "out", record="x", **own)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_frames_is_listed_with_what_to_do(manifest, tmp_path):
    (manifest.parent / "frames").mkdir()
    make_crop(manifest.parent / "frames" / "1.png", seed=1)
    manifest.write_text("path,label\nfake.mp4,fake\nframes,real\n")
    found = evaluate("shipped", videos=manifest, output=tmp_path / "results", max_frames=1)
    (row,) = found.videos.unscored
    assert (row.path, row.verdict) == ("frames", "unreadable")
    assert "preprocess and split it" in row.reason
    assert (found.videos.whole.real, found.videos.whole.fake) == (0, 1)


def test_a_replaced_file_or_model_has_another_key(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    keys = {score_key(path, "model", {"every": 15})}
    keys |= {score_key(path, "other", {"every": 15}), score_key(path, "model", {"every": 1})}
    path.write_bytes(b"other")
    keys.add(score_key(path, "model", {"every": 15}))
    assert len(keys) == 4


def test_however_a_table_is_cut_off_only_whole_videos_are_taken(judged, tmp_path):
    scores = [s for s in judged[3].frames.scored if s.method == "swap"][:2]
    video = next(s for s in judged[3].videos.scored if s.method == "swap")
    blocks = {key: [vars(s) | {"key": key} for s in (*scores, video)] for key in ("first", "last")}
    blocks = {key: [type(video)(**row) for row in rows] for key, rows in blocks.items()}
    path = tmp_path / "scores.csv"
    write_scores(path, [])
    append_scores(path, blocks["first"])
    begins = path.stat().st_size
    append_scores(path, blocks["last"])
    whole = path.read_bytes()
    assert read_finished(path, blocks) == blocks
    append_scores(path, blocks["first"])  # by another run at the same time
    assert read_finished(path, blocks) == blocks
    for end in range(begins, len(whole) - 2):  # without its line end the last row is whole, too
        path.write_bytes(whole[:end])
        assert read_finished(path, blocks) == {"first": blocks["first"]}, whole[:end][-40:]


def test_wrong_input_is_told_what_to_do(tmp_path):
    make_split(tmp_path / "split", groups=1)
    with pytest.raises(ModelError, match="unmask train"):
        evaluate(tmp_path / "none.h5", tmp_path / "split", None, tmp_path / "out")
    with pytest.raises(DatasetError, match="unmask split"):
        evaluate("shipped", tmp_path / "split", None, tmp_path / "out", part="val")
    with pytest.raises(SettingError, match="batch"):
        evaluate("shipped", tmp_path / "split", None, tmp_path / "out", batch=3)
    for path in (tmp_path / "split" / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="none of 3 could be judged"):
        evaluate("shipped", tmp_path / "split", None, tmp_path / "out")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("history", [
    [],
    [{"epoch": "0", "loss": "0.7", "val_loss": "", "val_auc": float("nan")}],
    [{"epoch": e, "loss": 1 / (e + 1), "val_loss": 1.1 / (e + 1), "accuracy": 0.5 + e / 20,
      "val_accuracy": 0.5 + e / 25, "val_auc": 0.6 + e / 30, "learning_rate": 1e-4}
     for e in range(8)],
])  # fmt: skip
def test_a_learning_curve_is_drawn_from_whatever_was_logged(history, tmp_path):
    learning_curve(history, tmp_path / "curve.png")
    picture = cv2.imread(str(tmp_path / "curve.png"))
    blue = (np.abs(picture.astype(int) - (0xB2, 0x72, 0x00)).sum(axis=2) < 20).sum()
    assert (blue > 20) == bool(history)  # the training loss
