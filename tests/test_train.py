"""Training really learns, goes on after a kill as if nothing had happened, and saves a plain h5."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from unmask.data.index import Crop, read_index, read_split, write_index
from unmask.data.pseudo_fakes import FAMILIES
from unmask.errors import DatasetError, ModelError, SettingError, UsageError
from unmask.faces import FaceDetector, crop_face
from unmask.outputs import exclusive
from unmask.quality import sharpness
from unmask.training import efficientnet, local, model_file, real_distance, xception
from unmask.training.batches import Batches, read_crop
from unmask.training.checkpoint import load_checkpoint
from unmask.training.export import PARITY, export
from unmask.training.fit import fit
from unmask.training.moments import teach_distance
from unmask.training.ridge import solve
from unmask.training.rows import Rows, as_they_are
from unmask.training.run_folder import write_history
from unmask.video import Video

SIZE = 96
QUICK = {
    "size": SIZE, "init": "random", "trainable_layers": "all", "batch": 8, "epochs": 2,
    "steps_per_epoch": 3, "learning_rate": 1e-3, "mixed_precision": "off",
}  # fmt: skip


@pytest.fixture(scope="module")
def split_folder(samples, tmp_path_factory) -> Path:
    """Crops of 24 people; every second one has a fake so crude that any network can see it."""
    folder = tmp_path_factory.mktemp("split")
    detector, crops = FaceDetector(), []
    for number, path in enumerate(sorted((samples / "people").glob("*.jpg"))):
        with Video(path) as video:
            image = next(video.sample()).image
        real = crop_face(image, detector.detect(image)[0], SIZE)
        fake = real.copy()
        fake[SIZE // 3 : 2 * SIZE // 3] = 255 - fake[SIZE // 3 : 2 * SIZE // 3]
        split = "val" if number % 4 == 0 else "train"
        for label, picture in (("real", real), ("fake", fake)):
            name = f"{label}_{path.stem}.png"
            cv2.imwrite(str(folder / name), picture[:, :, ::-1])
            crops.append(
                Crop(name, label, name, group=path.stem, split=split, face_size=SIZE / 1.3)
            )
    write_index(folder, crops)
    return folder


def test_learns_and_saves_what_keras_loads(split_folder, tmp_path):
    import keras

    # Batch statistics need some steps before validation means much, so the training loss is asked.
    fitted = fit(split_folder, tmp_path, **QUICK | {"epochs": 4, "steps_per_epoch": 6})
    losses = [row["loss"] for row in fitted.history]
    assert losses[-1] < 0.7 * losses[0], losses
    model = keras.models.load_model(tmp_path / "xception_best.h5")
    assert model.input_shape == (None, SIZE, SIZE, 3)
    assert model.dtype_policy.name == "float32"
    with (tmp_path / "history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    card = json.loads((tmp_path / "run.json").read_text())
    assert card["settings"]["batch"] == 8
    assert card["train_crops"] == {"real": 18, "fake": 18}
    assert (tmp_path / "learning_curve.png").stat().st_size > 1000
    assert list((tmp_path / "tensorboard").iterdir())


def test_resumes_to_the_same_weights(split_folder, tmp_path):
    quick = QUICK | {"dropout": 0}  # which neurons drop out is drawn anew after a restart
    whole = fit(split_folder, tmp_path / "whole", **quick)
    fit(split_folder, tmp_path / "parts", **quick | {"epochs": 1})
    with pytest.raises(DatasetError, match="--resume"):
        fit(split_folder, tmp_path / "parts", **quick)
    with pytest.raises(DatasetError, match="batch"):
        fit(split_folder, tmp_path / "parts", **quick | {"batch": 4, "resume": True})
    parts = fit(split_folder, tmp_path / "parts", **quick, resume=True)
    assert [r["epoch"] for r in parts.history] == [1, 2]
    (tmp_path / "parts" / "history.csv").unlink()  # as if it was killed before that was written
    assert fit(split_folder, tmp_path / "parts", **quick, resume=True).history == parts.history
    assert len((tmp_path / "parts" / "history.csv").read_text().splitlines()) == 3
    one, other = (model_file.load(run.weights).get_weights() for run in (whole, parts))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_other_pixels_or_another_run_are_not_gone_on_with(split_folder, tmp_path):
    crops, folder = read_index(split_folder), tmp_path / "split"
    shutil.copytree(split_folder, folder)
    quick = QUICK | {"epochs": 1, "steps_per_epoch": 2, "schedule": "cosine"}
    (tmp_path / "run" / "tmpx.unmask.partial").mkdir(parents=True)  # left by a run that was killed
    (tmp_path / "run" / "xception_best.h5.1.unmask.partial").touch()
    others = {"thesis.partial", "disk.2024.partial"}
    for name in others:
        (tmp_path / "run" / name).touch()
    first = fit(folder, tmp_path / "run", **quick)
    assert {path.name for path in (tmp_path / "run").glob("*.partial")} == others
    assert 0 < first.history[0]["learning_rate"] <= quick["learning_rate"]
    write_index(folder, [replace(crop, blur=crop.blur + 1) for crop in crops])
    with pytest.raises(DatasetError, match="the crops changed"):
        fit(folder, tmp_path / "run", **quick, resume=True)
    with exclusive(tmp_path / "run" / ".lock"), pytest.raises(UsageError, match="another folder"):
        fit(folder, tmp_path / "run", **quick, resume=True)


def test_a_damaged_checkpoint_is_told(split_folder, tmp_path):
    (tmp_path / "checkpoint.npz").write_bytes(b"PK\3\4 cut off")
    with pytest.raises(ModelError, match=r"checkpoint\.npz is damaged"):
        fit(split_folder, tmp_path, **QUICK, resume=True)


def test_what_is_not_gone_on_with_starts_where_it_is_told_to(split_folder, tmp_path):
    (tmp_path / "bad.h5").write_text("no model")
    (tmp_path / "checkpoint.npz").write_bytes(b"left by a run whose card is gone")
    with pytest.raises(ModelError, match=r"bad\.h5"):
        fit(split_folder, tmp_path, **QUICK | {"init": str(tmp_path / "bad.h5")})


def test_a_stopped_run_keeps_its_steps(split_folder, tmp_path):
    command = [sys.executable, "-m", "unmask.cli", "train", str(split_folder), str(tmp_path)]
    for key, value in (QUICK | {"steps_per_epoch": 500}).items():
        command += ["--" + key.replace("_", "-"), str(value)]
    # Without a terminal that a bar could be drawn on.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    for line in process.stdout:  # one line every 20 steps
        if "step 20/" in line:
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    state, _ = load_checkpoint(tmp_path / "checkpoint.npz")
    assert state["epoch"] == 0
    assert state["step"] >= 20


def test_pseudo_fakes_train_on_real_people_alone(split_folder, tmp_path, monkeypatch, capsys):
    reals = [c for s in ("train", "val") for c in read_split(split_folder, s) if not c.is_fake]
    write_index(tmp_path, [])
    for crop in reals:
        (tmp_path / crop.path).hardlink_to(split_folder / crop.path)
    write_index(tmp_path, reals)
    used = set()  # in validation, too

    def spy(family, forge, *args):
        used.add(family)
        return forge(*args)

    for family, forge in FAMILIES.items():
        monkeypatch.setitem(FAMILIES, family, partial(spy, family, forge))
    settings = {
        "epochs": 1, "pseudo_fakes": 1.0, "families": "cross_swap=0.5,resynthesis=0.5",
        "degrade": True, "train_crop": 80,
    }  # fmt: skip
    fit(tmp_path, tmp_path / "run", **QUICK | settings)
    assert used == {"cross_swap", "resynthesis"}
    (line,) = capsys.readouterr().out.splitlines()  # the bar is on stderr
    assert line.startswith("epoch 1: loss ")


def test_one_class_says_what_to_do(split_folder, tmp_path):
    reals = [c for s in ("train", "val") for c in read_split(split_folder, s) if not c.is_fake]
    write_index(tmp_path, reals)
    with pytest.raises(DatasetError, match="--pseudo-fakes"):
        fit(tmp_path, tmp_path / "run", **QUICK)


MOMENTS = QUICK | {"head": "moments", "epochs": 1, "steps_per_epoch": 30, "degrade": 0.2}


def test_moments_are_fitted_at_once_and_validated_on_groups_in_turn(split_folder, tmp_path):
    fitted = fit(split_folder, tmp_path / "whole", **MOMENTS)
    row = fitted.history[0]
    assert row["accuracy"] > 0.95
    assert row["val_auc"] > 0.9  # the fakes are crude; groups that the head never saw
    model = model_file.load(fitted.weights)
    assert xception.head_of(model) == "moments"
    with (tmp_path / "whole" / "held_out.csv").open() as file:
        held_out = list(csv.DictReader(file))
    assert len(held_out) == 36
    assert {r["label"] for r in held_out} == {"real", "fake"}
    chunks = tmp_path / "whole" / "features"
    shown, damaged = (np.load(chunks / f"{name}.npz") for name in ("shown", "damaged"))
    assert np.array_equal(shown["paths"], damaged["paths"])
    difference = np.abs(shown["features"] - damaged["features"])
    assert difference.max() > 0.02 * np.abs(shown["features"]).max()
    taught, _ = model.get_layer("real_distance_relative").get_weights()
    assert np.abs(taught).max() > 0
    assert model.layers[-1].get_weights()[0][-1] > 0  # the further from real, the more fake
    # The same with features that are missing, as after a kill.
    (chunks / "shown.npz").unlink()
    again = fit(split_folder, tmp_path / "whole", **MOMENTS, resume=True)
    pairs = zip(model.get_weights(), model_file.load(again.weights).get_weights(), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    with pytest.raises(DatasetError, match="--resume"):
        fit(split_folder, tmp_path / "whole", **MOMENTS)
    with pytest.raises(DatasetError, match="--head moments"):
        fit(split_folder, tmp_path / "whole", **QUICK, resume=True)
    with pytest.raises(DatasetError, match="degrade"):
        fit(split_folder, tmp_path / "whole", **MOMENTS | {"degrade": 0.3, "resume": True})
    scores = tmp_path / "whole" / "held_out.csv"
    assert "\ncalibrated when it was trained\n" in export(fitted.weights, tmp_path)
    before = (tmp_path / "xception_best.json").read_text()
    with pytest.raises(DatasetError, match="too few"):
        export(fitted.weights, tmp_path, calibrate_on=scores)
    assert (tmp_path / "xception_best.json").read_text() == before
    header, *rows = scores.read_text().splitlines()
    scores.write_text("\n".join([header, *rows, *rows]))
    text = export(fitted.weights, tmp_path, calibrate_on=scores)
    assert "calibrated on 36 real and 36 fake videos" in text


def test_photos_among_videos_are_judged_but_not_learned_from(split_folder, tmp_path):
    crops = [c for s in ("train", "val") for c in read_split(split_folder, s)]
    rows, groups = [], sorted({crop.group for crop in crops})
    for crop in crops:
        (tmp_path / crop.path).hardlink_to(split_folder / crop.path)
        crop = replace(crop, split="train")
        if crop.group in groups[:20]:
            crop = replace(crop, video=f"{crop.label}_{crop.group}.mp4")
            rows += [crop, replace(crop, frame=15)]
        elif not crop.is_fake:
            rows.append(replace(crop, video=f"{crop.group}.jpg"))
    write_index(tmp_path, rows)
    fit(tmp_path, tmp_path / "run", **MOMENTS)
    with (tmp_path / "run" / "held_out.csv").open() as file:
        held_out = list(csv.DictReader(file))
    assert {r["group"] for r in held_out if r["kind"] == "photo"} == set(groups[20:])
    assert {r["group"] for r in held_out if r["kind"] == "shown"} == set(groups[:20])
    shown = np.load(tmp_path / "run" / "features" / "shown.npz")["groups"]
    assert set(shown) == set(groups[:20])


def test_moments_of_real_people_alone_are_told_from_synthesised_fakes(
    split_folder, tmp_path, capsys
):
    reals = [c for c in read_split(split_folder, "train") if not c.is_fake]
    for crop in reals:
        (tmp_path / crop.path).hardlink_to(split_folder / crop.path)
    write_index(tmp_path, reals)
    fit(tmp_path, tmp_path / "run", **MOMENTS | {"pseudo_fakes": 1.0, "steps_per_epoch": 10})
    held_out = (tmp_path / "run" / "held_out.csv").read_text()
    assert "synthesised from london" in held_out
    shown = capsys.readouterr()
    assert (shown.out, "features" in shown.err) == ("", True)


def test_videos_of_one_name_in_two_datasets_stay_apart():
    crops = [
        Crop(f"{dataset}{n}.png", "real", "a.mp4", "g", dataset=dataset, frame=n)
        for dataset in "ab" for n in range(8)
    ]  # fmt: skip
    assert as_they_are(crops) == crops


def test_a_branch_is_added_to_fitted_moments(split_folder, tmp_path):
    settings = MOMENTS | {"steps_per_epoch": 10}
    alone = fit(split_folder, tmp_path / "alone", **settings)
    settings |= {"local_steps": 5, "learning_rate": 1e-3, "mixed_precision": "bfloat16"}
    both = fit(split_folder, tmp_path / "both", **settings)
    before, after = model_file.load(alone.weights), model_file.load(both.weights)
    assert (xception.head_of(before), xception.head_of(after)) == ("moments", "local")
    for name in ("block4_sepconv2", "block7_sepconv3"):  # what was there stays as it is
        for one, other in zip(
            *(m.get_layer(name).get_weights() for m in (before, after)), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    one, other = (m.layers[-1].get_weights()[0] for m in (before, after))
    assert np.corrcoef(one[:, 0], other[:-1, 0])[0, 1] > 0.999
    assert other[-1] > 0
    assert np.abs(after.get_layer("local_judge6_1").get_weights()[0]).max() > 1e-4


def test_a_branch_says_nothing_at_first_and_goes_on_where_it_stopped(split_folder, tmp_path):
    network = xception.build(SIZE, head="moments")
    kernel = np.random.default_rng(0).normal(0, 0.01, (5713, 1))
    network.layers[-1].set_weights([kernel, np.array([0.1])])
    crops = read_split(split_folder, "train")
    batches = Batches(split_folder, crops, size=SIZE, batch=4, pseudo_fakes=0.7, degraded=0.2)
    see, images = local.below(network), next(iter(batches.epoch(1))).crops
    whole = xception.add_local(network, SIZE)
    for one, other in zip(
        xception.with_evidence(network).predict_on_batch(images),
        xception.with_evidence(whole).predict_on_batch(images), strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(one, other, atol=1e-4)

    def taught(*stops: int) -> list[np.ndarray]:
        whole, path = xception.add_local(network, SIZE), tmp_path / f"{stops}.npz"

        def go_on(stop: int) -> None:
            steps = iter(range(local.step_of(path) + 1, 9))
            drawn = batches.epoch(0, 5, skip=local.step_of(path))
            local.learn(whole, see, drawn, 5, 1e-3, 0.9, lambda: next(steps) == stop, path)

        for stop in stops:
            with pytest.raises(KeyboardInterrupt):
                go_on(stop)
        go_on(9)
        return whole.get_weights()

    for one, other in zip(taught(), taught(2, 4), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_each_cell_is_compared_with_the_mean_real_cell_of_each_set():
    import keras

    model, rng = xception.build(64, head="moments"), np.random.default_rng(0)
    crops = rng.random((6, 64, 64, 3), dtype=np.float32) ** rng.uniform(0.3, 3, (6, 1, 1, 1))
    features, cells = (
        keras.Model(model.input, model.get_layer(name).output).predict(crops, verbose=0)
        for name in (xception.MOMENTS, efficientnet.LAST)
    )
    sets = np.array([[1, 2, 0, 0, 0, 0], [0, 0, 1, 1, 3, 0]])
    reals = real_distance.real_cells(features, sets)
    found = real_distance.network_of(model, reals).predict(crops, verbose=0)
    for weights, column in zip(sets, found.T, strict=True):
        mean = np.average(cells.mean((1, 2)), 0, weights)
        distance = np.square(cells - mean).sum(-1)
        usual = np.average(distance.mean((1, 2)), weights=weights)
        expected = (distance / (distance + usual)).mean((1, 2))
        np.testing.assert_allclose(column, expected, atol=1e-3)
        assert np.ptp(expected) > 0.05


def test_what_is_real_is_learned_without_fakes_and_without_the_fold_that_is_judged():
    rng, folds = np.random.default_rng(0), np.arange(60) % 20
    reals = (np.arange(60) < 40).astype(float)
    features = rng.normal(size=(60, 2 * efficientnet.CHANNELS))

    def learned() -> np.ndarray:
        return real_distance.real_cells_of_folds(features, reals, folds).mean

    before = learned()
    features[reals == 0] = 9
    assert np.array_equal(learned(), before)
    features[folds == 7] = 9
    changed = (learned() != before).any(axis=1)
    assert list(np.flatnonzero(~changed)) == [7]
    assert len(changed) == 21  # the last leaves nothing out


def test_each_crop_is_as_far_as_it_is_from_the_real_cells_of_other_folds():
    rng, folds = np.random.default_rng(0), np.arange(40) % 20
    features = rng.random((40, 2 * efficientnet.CHANNELS))
    rows = Rows(features, np.arange(40) % 3 // 2, folds, np.ones(40), folds, folds)
    far = rng.random((30, 21))
    network = xception.build(64, head="moments")
    held_out, with_all = teach_distance(
        network, rows, slice(30), folds, lambda see, paths: far[: len(paths)]
    )
    assert held_out[23] == far[23, 3]
    assert np.array_equal(with_all, far[:, 20])
    real = features[rows.labels == 0, : efficientnet.CHANNELS].mean(0)
    kernel, _ = network.get_layer("real_distance_relative").get_weights()
    slopes = kernel[0, 0, : efficientnet.CHANNELS, 0] / kernel[0, 0, -1, 0]
    np.testing.assert_allclose(slopes, -2 * real, rtol=1e-4)


def test_the_held_out_rows_of_a_solution_do_not_know_themselves():
    """Labels are noise: what is fitted looks right, what is held out does not."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 200)), rng.integers(0, 2, 60)
    folds = np.arange(60) // 6
    kernel, bias, held_out = solve(features, labels, np.ones(60), folds, ridge=1e-3)
    signs = np.where(labels, 1, -1)
    assert np.mean((features @ kernel + bias) * signs > 0) > 0.95
    assert 0.25 < np.mean(held_out * signs > 0) < 0.75
    left = folds != 3
    never = np.full(54, -1)
    without, bias, *_ = solve(features[left], labels[left], np.ones(54), never, ridge=1e-3)
    alike = np.corrcoef(features[~left] @ without + bias, held_out[~left])[0, 1]
    assert alike > 0.99  # standardised by all rows there, by the others here


def test_batches_say_where_each_synthesised_fake_was_changed(split_folder):
    crops = read_split(split_folder, "train")
    batches = Batches(split_folder, crops, size=SIZE, batch=24, pseudo_fakes=1.0)
    changed = next(iter(batches.epoch(0))).changed.mean((1, 2))
    assert not changed[::2].any()
    assert (changed[1::2] > 0.001).all()


def test_batches_are_the_same_again_and_survive_a_damaged_crop(split_folder, tmp_path):
    crops = read_split(split_folder, "train")
    for crop in crops:
        (tmp_path / crop.path).hardlink_to(split_folder / crop.path)
    (tmp_path / crops[0].path).unlink()
    (tmp_path / crops[0].path).write_bytes(b"\x89PNG no more")
    batches = Batches(tmp_path, crops, size=SIZE, batch=6, seed=1)
    first = list(batches.epoch(0))
    for one, again in zip(first, batches.epoch(0), strict=True):
        assert np.array_equal(one.crops, again.crops)
        assert np.array_equal(one.labels, again.labels)
        assert one.groups == again.groups
    skipped = list(batches.epoch(0, skip=2))
    assert np.array_equal(skipped[0].crops, first[2].crops)
    assert one.crops.min() >= 0
    assert one.crops.max() <= 1
    # Another crop of the same label takes the damaged one's place.
    assert sum(batch.labels.sum() for batch in first) == sum(crop.is_fake for crop in crops)


def test_crops_of_unknown_origin_keep_their_pixels(split_folder):
    crops = [replace(crop, face_size=0.0) for crop in read_split(split_folder, "train")]
    batches = Batches(split_folder, crops, size=SIZE, pseudo_fakes=0.5)
    for draw in (batches._synthesised_pair, batches._filmed_pair):
        assert draw(np.random.default_rng(0)).face_size == SIZE


def test_a_crop_is_enlarged_without_doubled_pixels(split_folder):
    path = split_folder / read_split(split_folder, "train")[0].path
    small, large = read_crop(path, SIZE), read_crop(path, 2 * SIZE)
    doubled = small.repeat(2, axis=0).repeat(2, axis=1)
    assert large.shape == doubled.shape
    assert sharpness(large) < 0.5 * sharpness(doubled)
    assert np.abs(large.astype(float) - doubled).mean() < 10  # the same picture


def test_a_filmed_fake_stands_beside_its_original_frame_moved_alike(tmp_path, monkeypatch):
    """The fake is a copy of frame 10, so a pair moved alike is equal; the stranger is flat grey."""
    noise = np.random.default_rng(0)
    frame_0, frame_10 = noise.integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    stranger = Crop("stranger.png", "real", "stranger.mp4", group="b", frame=10)
    crops = [
        Crop("0.png", "real", "a.mp4", group="a", frame=0),
        Crop("10.png", "real", "a.mp4", group="a", frame=10),
        Crop("swap.png", "fake", "swap.mp4", group="a", frame=10),
        stranger,
    ]
    pictures = (frame_0, frame_10, frame_10, np.full_like(frame_0, 128))
    for crop, picture in zip(crops, pictures, strict=True):
        cv2.imwrite(str(tmp_path / crop.path), picture)
    batches = Batches(tmp_path, crops, size=SIZE, degraded=0.5)
    monkeypatch.setattr(batches, "_draw_real", lambda rng, moving: stranger)
    own = 0
    for seed in range(30):
        real, fake, *_ = batches._filmed_pair(np.random.default_rng(seed))
        assert not np.array_equal(fake[:, :, ::-1], frame_10)  # it did move
        if real.std() > 0:
            assert np.array_equal(real, fake)
            own += 1
    assert 12 < own < 30  # 21 expected


def test_the_network_for_training_computes_what_the_saved_one_does():
    plain = xception.build(SIZE)
    fused = xception.for_training(plain)
    crops = np.random.default_rng(0).random((8, SIZE, SIZE, 3), dtype=np.float32)
    for training in (False, True):
        outputs = [np.asarray(model(crops, training=training)) for model in (plain, fused)]
        if not training:  # in training dropout is drawn anew
            assert np.allclose(*outputs, atol=1e-5)
    for weight, same in zip(plain.weights, fused.weights, strict=True):  # moving averages too
        assert np.allclose(weight, same, rtol=1e-3, atol=1e-3), weight.path


def test_starts_from_keras_own_xception_with_and_without_its_description(tmp_path):
    import h5py
    import keras

    own = keras.applications.Xception(include_top=False, weights=None)
    own.save(tmp_path / "whole.h5")
    with h5py.File(tmp_path / "whole.h5") as whole, h5py.File(tmp_path / "notop.h5", "w") as bare:
        weights = whole["model_weights"]  # what Keras publishes holds just this
        bare.attrs.update(weights.attrs)
        for name in weights:
            weights.copy(name, bare)
    layer = "block6_sepconv3"
    for name, head in (("whole.h5", "moments"), ("notop.h5", "pool")):
        model = xception.build(head=head)
        model_file.initialise(model, str(tmp_path / name))
        kernels = own.get_layer(layer).get_weights()
        np.testing.assert_array_equal(model.get_layer(layer).get_weights()[1], kernels[1])
    (tmp_path / "notop.h5").write_bytes(b"no such thing")
    with pytest.raises(ModelError, match=r"notop\.h5 is no Keras model"):
        model_file.initialise(model, str(tmp_path / "notop.h5"))


def test_crops_of_which_none_can_be_read_are_told(split_folder, tmp_path):
    write_index(tmp_path, read_index(split_folder))  # the pictures are gone
    with pytest.raises(DatasetError, match="cannot be read: run 'unmask split' again"):
        fit(tmp_path, tmp_path / "run", **MOMENTS)


def test_a_start_that_fails_does_not_block_the_folder(split_folder, tmp_path):
    (tmp_path / "bad.h5").write_text("no model")
    with pytest.raises(ModelError, match=r"bad\.h5"):
        fit(split_folder, tmp_path / "run", **MOMENTS | {"init": str(tmp_path / "bad.h5")})
    assert not (tmp_path / "run" / "run.json").exists()  # or another start would be refused


def test_a_history_is_written_whole_or_stays_as_it_was(tmp_path):
    write_history([{"epoch": 1}], tmp_path)
    with pytest.raises(ValueError, match="loss"):
        write_history([{"epoch": 2}, {"loss": 0.5}], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]
    assert (tmp_path / "history.csv").read_text().split() == ["epoch", "1"]


def test_frozen_layers_stay_as_they_were(split_folder, tmp_path):
    fitted = fit(split_folder, tmp_path, **QUICK | {"epochs": 1, "trainable_layers": "6"})
    model = model_file.load(fitted.weights)
    xception.set_trainable(model, "6")
    assert {layer.name for layer in model.layers if layer.trainable and layer.weights} == {
        "block14_sepconv1", "block14_sepconv1_bn", "block14_sepconv2", "block14_sepconv2_bn",
        "fake",
    }  # fmt: skip
    with pytest.raises(SettingError, match="all"):
        xception.set_trainable(model, "most")


def test_export_agrees_with_the_h5(samples, split_folder, tmp_path):
    model_file.save(xception.build(SIZE), tmp_path / "tiny.v2.h5", SIZE)
    summary = export(tmp_path / "tiny.v2.h5", tmp_path / "out", crops=samples / "people")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"tiny.v2.{end}" for end in ("bin", "json", "onnx", "xml")
    }
    card = json.loads((tmp_path / "out" / "tiny.v2.json").read_text())
    assert card["input_size"] == SIZE
    assert float(summary.split("differ by ")[1].split(",")[0]) < PARITY
    assert "\nnot calibrated: see --calibrate\n" in summary
    (tmp_path / "held_out.csv").write_text("kind,label,logit\nshown,real,-1\nshown,fake,1\n")
    (tmp_path / "table.csv").write_text("path,label\n")
    for few, why in (
        (split_folder, "6 real and 6 fake videos are too few"),
        (tmp_path, "no val"),
        (tmp_path / "held_out.csv", "1 real and 1 fake videos are too few"),
        (tmp_path / "table.csv", "0 real"),
    ):
        with pytest.raises(DatasetError, match=why):
            export(tmp_path / "tiny.v2.h5", tmp_path / "none", calibrate_on=few)
    assert not (tmp_path / "none").exists()
    (tmp_path / "broken.h5").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"broken\.h5"):
        export(tmp_path / "broken.h5", tmp_path / "out")
