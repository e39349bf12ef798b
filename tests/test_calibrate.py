"""Calibration puts 0.5 where so many real videos are called fake, and keeps the order of scores."""

import hashlib
import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.analyzer import Analyzer, analyze
from unmask.card import SHIPPED
from unmask.classifier import Classifier
from unmask.errors import DatasetError, ModelError, UsageError
from unmask.training.calibrate import calibrate_held_out, fit_calibration
from unmask.training.calibrate_videos import calibrate_on_videos, cross_fitted
from unmask.training.evaluate import evaluate
from unmask.training.metrics import measure, reliability_bins
from unmask.verdict import sigmoid
from unmask.video import Video


def logit(p):
    return np.log(p / (1 - p))


@given(st.integers(0, 10_000), st.integers(20, 90), st.floats(0.3, 5), st.floats(-4, 4),
       st.floats(0, 0.3))  # fmt: skip
def test_no_more_false_alarms_than_allowed(seed, reals, spread, shift, allowed):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], (reals, 60))
    logits = (rng.normal(size=len(labels)) + labels * 2) * spread + shift
    found = fit_calibration(logits, labels, allowed)
    assert found.scale > 0  # so the order of scores, and with it the AUC, stays
    called_fake = logits * found.scale + found.offset >= 0  # as a probability of 0.5 is
    assert called_fake[labels == 0].mean() <= allowed
    assert called_fake[labels == 0].mean() == pytest.approx(found.false_positive_rate)
    assert called_fake[labels == 1].mean() == pytest.approx(found.true_positive_rate)


def test_photos_get_a_threshold_that_serves_each_of_their_datasets(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        ("shown", "", label, rng.normal() + 2 * (label == "fake"))
        for label in ("real", "fake") for _ in range(50)
    ]  # fmt: skip
    photos = {name: rng.normal(size=100) + shift for name, shift in (("a", 1), ("b", 4))}
    rows += [("photo", name, "real", x) for name in photos for x in photos[name]]
    rows += [("photo", "too few", "real", 99.0)] * 5
    path = tmp_path / "held_out.csv"
    path.write_text(
        "kind,dataset,label,logit\n" + "\n".join(",".join(map(str, row)) for row in rows)
    )
    found = calibrate_held_out(path)
    called_fake = {
        name: (logits * found.scale + found.offset + found.photo_offset > 0).mean()
        for name, logits in photos.items()
    }
    assert 0.02 <= called_fake["b"] <= 0.05
    assert called_fake["a"] == 0
    assert found.photo_false_positive_rate == pytest.approx(called_fake["b"] / 2)
    assert found.real_photos == 200


def test_overconfident_logits_are_tamed():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 500)
    honest = rng.normal(size=1000) + (labels * 2 - 1) * 0.5  # its own logit is twice 0.5 times it
    assert fit_calibration(honest * 10, labels).scale == pytest.approx(0.1, rel=0.15)


def test_few_videos_told_apart_without_a_mistake_make_no_certainty():
    found = fit_calibration(np.repeat([-1.0, 1.0], 20), np.repeat([0, 1], 20))
    assert found.scale == pytest.approx(np.log(21), rel=0.01)  # odds of 21 to 1, as Platt has it


def test_too_few_or_upside_down_is_refused():
    with pytest.raises(DatasetError, match="20 of each"):
        fit_calibration(np.arange(30.0), np.arange(30) % 2)
    with pytest.raises(DatasetError, match=r"higher than fakes.* on more or other videos"):
        fit_calibration(np.arange(60.0), (np.arange(60) < 30).astype(int))


def test_a_video_has_no_say_in_its_own_cross_fitted_probability():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 30)
    logits = rng.normal(size=60) + 2 * labels
    groups = [str(i // 4) for i in range(60)]
    p = cross_fitted(logits, labels, groups)
    found = fit_calibration(logits[4:], labels[4:])
    assert p[:4] == pytest.approx([sigmoid(x * found.scale + found.offset) for x in logits[:4]])
    with pytest.raises(DatasetError, match="one group, 'lone'"):
        cross_fitted(logits, labels, ["lone" if y else str(i) for i, y in enumerate(labels)])


def test_the_calibration_error_is_that_of_ten_equally_full_bins():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 200), rng.random(200)
    bins = np.array_split(np.argsort(-p), 10)
    mean, share = reliability_bins(y, p)
    assert mean == pytest.approx([p[b].mean() for b in bins])
    assert share == pytest.approx([y[b].mean() for b in bins])
    error = measure(y, p, np.arange(200)).metrics["calibration_error"]
    assert error.value == pytest.approx(np.abs(mean - share).mean())
    # Equal scores are shared out: neither the order of rows nor the bins' edges matter.
    mean, share = reliability_bins(np.repeat([0, 1], 7), np.full(14, 0.25))
    assert mean == pytest.approx(0.25)
    assert share == pytest.approx(0.5)


@pytest.fixture(scope="module")
def forty(tmp_path_factory, real_clip, fake_clip):
    """A manifest of twenty frames of either clip, each an image of its own."""
    folder = tmp_path_factory.mktemp("forty")
    rows = ["path,label"]
    for label, clip in (("real", real_clip), ("fake", fake_clip)):
        with Video(clip) as video:
            frames = [frame.image for frame in video.sample(every=1, max_frames=20)]
        for number, image in enumerate(frames):
            name = f"{label}{number}.png"
            assert cv2.imwrite(str(folder / name), image[:, :, ::-1])
            rows.append(f"{name},{label}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder / "manifest.csv"


def test_from_videos_to_detect(forty, tmp_path, monkeypatch):
    options, output = {"threads": 1, "every": 5}, tmp_path / "my results"
    summary = calibrate_on_videos("shipped", forty, output, false_positives=0.1, **options)
    path = output / "calibration.json"
    made = json.loads(path.read_text())
    assert f"next: unmask detect --every 5 --calibration '{path}' PATH" in summary
    assert (made["real_videos"], made["fake_videos"], made["groups"]) == (20, 20, 40)
    assert made["model"]["sha256"] == json.loads(SHIPPED.with_suffix(".json").read_text())["sha256"]
    assert made["false_positive_rate"]["measured"] <= made["false_positive_rate"]["asked"] == 0.1
    assert set(made["before"]) == set(made["after_cross_fitted"])
    assert all(m["interval"] for m in made["after_cross_fitted"].values())
    assert not list(output.glob("*.partial"))
    picture = cv2.imread(str(output / "reliability_diagram.png"))
    assert 0.02 < (picture.min(axis=2) < 250).mean() < 0.9

    # The probabilities are those that a run with the calibration gives.
    image = forty.parent / "fake3.png"
    before, after = (analyze(image, threads=1, calibration=c) for c in ("", str(path)))
    expected = sigmoid(logit(before.probability_fake) * made["scale"] + made["offset"])
    assert after.probability_fake == pytest.approx(expected, abs=1e-3)

    def judge_again(*_):
        raise AssertionError("judged twice")

    monkeypatch.setattr(Analyzer, "analyze", judge_again)
    other = calibrate_on_videos("shipped", forty, output, false_positives=0.5, **options)
    assert other != summary
    with pytest.raises(AssertionError, match="judged twice"):
        evaluate("shipped", videos=forty, output=output, threads=1, calibration=str(path))


def test_too_few_videos_are_told_before_any_is_judged(forty, tmp_path):
    rows = forty.read_text().splitlines()
    few = forty.with_name("few.csv")
    few.write_text("\n".join(rows[:-1]))
    with pytest.raises(DatasetError, match="20 real and 19 fake videos are too few"):
        calibrate_on_videos("shipped", few, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_for_evaluating_is_not_fitted_to(forty, tmp_path):
    header, *rows = forty.read_text().splitlines()
    split = forty.with_name("split.csv")
    parts = ("val", "test")
    split.write_text(
        "\n".join([f"{header},split", *(f"{r},{parts[n % 2]}" for n, r in enumerate(rows))])
    )
    with pytest.raises(UsageError, match="--part val"):
        calibrate_on_videos("shipped", split, tmp_path / "out")
    with pytest.raises(DatasetError, match="10 real and 10 fake videos are too few"):
        calibrate_on_videos("shipped", split, tmp_path / "out", part="val")


@pytest.fixture
def written(tmp_path):
    """Writes a calibration of the shipped model, with other content where that is given."""
    card = Classifier(SHIPPED).card
    model = {"name": card.name, "sha256": card.sha256, "scale": card.scale, "offset": card.offset}

    def write(model=model, **other):
        path = tmp_path / "calibration.json"
        fields = {"schema_version": 1, "model": model, "scale": 2.0, "offset": -0.5}
        path.write_text(json.dumps(fields | other))
        return path

    return write


def test_a_calibration_moves_every_frame_and_is_named(written, real_clip):
    path = written()
    before = analyze(real_clip, every=30, threads=1)
    after = analyze(real_clip, every=30, threads=1, calibration=str(path))
    assert before.model.calibration is None
    assert after.model.calibration == hashlib.sha256(path.read_bytes()).hexdigest()
    assert after.model.sha256 == before.model.sha256
    for one, other in zip(before.tracks[0].frames, after.tracks[0].frames, strict=True):
        expected = sigmoid(2 * logit(one.probability_fake) - 0.5)
        assert other.probability_fake == pytest.approx(expected, abs=1e-4)
    expected = sigmoid(2 * logit(before.probability_fake) - 0.5)
    assert after.probability_fake == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"scale": float("nan")}, "impossible"),
        ({"scale": -1.0}, "impossible"),
        ({"offset": "0"}, "no calibration"),
        ({"offset": 10**400}, "no calibration"),
        ({"schema_version": 2}, "another version"),
        ({"model": None}, "no calibration"),
        ({"model": {"name": "a", "sha256": "ab", "scale": 1, "offset": 0}}, "another model"),
    ],
)
def test_what_does_not_fit_is_refused(written, other, message):
    with pytest.raises(ModelError, match=message):
        Classifier(calibration=written(**other))


@pytest.mark.parametrize("number", ["scale", "offset", "photo_offset"])
def test_a_calibration_of_earlier_probabilities_is_refused(written, number):
    card = vars(Classifier(SHIPPED).card)
    model = {name: card[name] for name in ("name", "sha256", "scale", "offset", "photo_offset")}
    Classifier(calibration=written(model=model))
    model[number] += 0.1
    with pytest.raises(ModelError, match="calibrated anew"):
        Classifier(calibration=written(model=model))


def test_a_missing_or_broken_file_is_refused(tmp_path):
    for content in (None, b"", b"[1]", b"\xff\xfe", b'{"schema_version": 1'):
        path = tmp_path / "calibration.json"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelError, match="unmask calibrate"):
            Classifier(calibration=path)
