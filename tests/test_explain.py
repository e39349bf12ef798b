"""Heat maps: where they lie, what they look like, and whether they are faithful to the model."""

import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from unmask import explain, mesh
from unmask.classifier import Classifier
from unmask.explain import FAINT, FULL, PARTS, heat_map, overlay, regions, where_it_lies
from unmask.training import efficientnet, model_file, real_distance, xception
from unmask.training.efficientnet import LAST
from unmask.training.export import export

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import faithfulness

SIDE = 256
MOMENTS = 2 * (3 * 728 + 672)  # what the heads 'moments' and 'local' judge of textures


@pytest.fixture(scope="module")
def people():
    return faithfulness.portraits(faithfulness.PEOPLE)[:8]


def spot(x: float, y: float) -> np.ndarray:
    """A heat map with 5 logits of evidence about one point."""
    grid_y, grid_x = np.mgrid[:SIDE, :SIDE]
    return np.float32(5 * np.exp(-((grid_x - x) ** 2 + (grid_y - y) ** 2) / (2 * 8**2)))


def exported(head: str, folder: Path) -> tuple:
    """A network with a random head as ``tiny.xml``: it, its kernel and bias, and crops."""
    import keras

    keras.utils.set_random_seed(0)
    model, rng = xception.build(128, head=head), np.random.default_rng(0)
    crops = rng.integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    crops[:, :64] //= 8  # dark above, so that rows differ
    kernel, bias = rng.normal(0, 3, model.layers[-1].kernel.shape), 0.25
    if head != "pool":
        efficientnet.take_imagenet(model)
        below = keras.Model(model.input, model.get_layer(xception.MOMENTS).output)
        textures = below.predict(crops / 255.0, verbose=0)
        real_distance.teach(model, real_distance.real_cells(textures, np.ones((1, 2))))
        kernel[3 * 1456 : MOMENTS] *= 1e-4  # these layers have learned, so their features are large
        kernel[MOMENTS] = 0.05
    kernel[MOMENTS + 1 :] = 0.05  # the branch's judges, below, magnify float32's rounding
    model.layers[-1].set_weights([kernel, np.array([bias])])
    for layer in model.layers:  # so that more stands out than a network without training shows
        if layer.name.startswith("local_judge"):
            layer.set_weights([rng.normal(0, 5000, w.shape) for w in layer.get_weights()])
    model_file.save(model, folder / "tiny.h5", 128)
    export(folder / "tiny.h5", folder)
    return model, kernel, bias, crops


def test_the_network_gives_the_head_applied_to_every_cell(tmp_path):
    """Not only the mean must be right: each cell, and the order of the cells."""
    import keras

    model, kernel, bias, crops = exported("pool", tmp_path)
    features = keras.Model(model.input, model.get_layer("pool").input)
    expected = (features.predict(crops / 255.0, verbose=0) @ kernel)[..., 0] + bias
    found = Classifier(tmp_path / "tiny.xml", precision="f32").evidence(crops)
    assert found.shape == (2, 4, 4)
    np.testing.assert_allclose(found, expected, atol=0.01 * np.ptp(expected))


@pytest.mark.parametrize("head", ["pool", "moments", "local"])
def test_a_model_that_was_saved_by_a_fresh_process_is_exported_by_another(head, tmp_path):
    """Both give their layers the same names, which must not meet in one network."""
    import keras

    keras.utils.clear_session()
    model_file.save(xception.build(96, head=head), tmp_path / "tiny.h5", 96)
    keras.utils.clear_session()
    export(tmp_path / "tiny.h5", tmp_path)


@pytest.mark.parametrize("head", ["moments", "local"])
def test_evidence_of_moments_is_the_head_applied_to_what_it_averages(head, tmp_path):
    import keras

    def seen(name: str) -> np.ndarray:
        below = keras.Model(model.input, model.get_layer(name).output)
        return below.predict(crops / 255.0, verbose=0)

    def coarser(cells: np.ndarray) -> np.ndarray:
        finer = cells.shape[1] // 4
        return cells.reshape(2, 4, finer, 4, finer).mean((2, 4))

    model, kernel, bias, crops = exported(head, tmp_path)
    parts = []
    looked_at = ("block4_sepconv2_bn", "block6_sepconv3_bn", "block7_sepconv3_bn", LAST)
    ends = 1456 * np.arange(1, 4)
    for name, part in zip(looked_at, np.split(kernel[:MOMENTS], ends), strict=True):
        features = seen(name)
        parts.append(coarser((np.concatenate([features, features**2], -1) @ part)[..., 0]))
    parts.append(kernel[MOMENTS] * coarser(seen(real_distance.NAME)[..., 0]))
    if head == "local":
        added = coarser(seen(xception.LOCAL)[..., 0])
        assert added.max() > 2 * np.median(added) > 0
        parts.append(kernel[MOMENTS + 1] * added)
    expected = bias + sum(parts)
    assert min(map(np.ptp, parts[3:5])) > 0.3 * np.ptp(sum(parts[:5]))  # or they would not show
    classifier = Classifier(tmp_path / "tiny.xml", precision="f32")
    found = classifier.evidence(crops)
    np.testing.assert_allclose(found, expected, atol=0.01 * np.ptp(expected))
    np.testing.assert_allclose(found.mean((1, 2)), classifier.logits(crops), rtol=1e-3)


def test_a_cells_evidence_lies_on_the_cell_and_nowhere_is_more():
    evidence = np.full((8, 8), -2.0)
    evidence[2, 5] = 6.0
    heat = heat_map(evidence, SIDE)
    assert heat.shape == (SIDE, SIDE)
    assert heat.dtype == np.float32
    y, x = np.nonzero(heat > 5)
    assert (y.mean(), x.mean()) == pytest.approx((2.5 * 32 - 0.5, 5.5 * 32 - 0.5))
    assert heat.min() == -2
    assert heat.max() <= 6


def test_colours_mean_the_same_in_every_picture(people):
    crop = people[0].crop
    heat = heat_map(np.repeat(np.linspace(-FULL, 2 * FULL, 8)[None], 8, 0), SIDE)
    picture = overlay(crop, heat)
    assert picture.shape == crop.shape
    assert picture.dtype == np.uint8
    grey = np.repeat(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    assert np.array_equal(picture[heat <= 0], grey[heat <= 0])  # what speaks for real is not seen
    stronger = overlay(crop, np.where(heat > FULL, 50, heat))  # no crop is scaled by its maximum
    assert np.array_equal(picture, stronger)


def test_stronger_evidence_is_brighter_even_without_colour():
    """For print and for the colour-blind."""
    dark = np.full((SIDE, SIDE, 3), 60, np.uint8)
    heat = np.repeat(np.linspace(FULL / 2, FULL, SIDE, dtype=np.float32)[None], SIDE, 0)
    brightness = cv2.cvtColor(overlay(dark, heat), cv2.COLOR_RGB2GRAY)[0].astype(int)
    assert (np.diff(brightness) >= -1).all()  # as far as whole grey levels can tell
    assert brightness[-1] - brightness[0] > 60


@pytest.mark.parametrize(
    ("part", "near"),
    [("eyes", mesh.LEFT_EYE), ("eyes", mesh.RIGHT_EYE), ("nose", (1, 4)), ("mouth", mesh.LIPS),
     ("jaw_and_boundary", (152,)), ("jaw_and_boundary", (454,)), ("forehead", (151,))],
)  # fmt: skip
def test_evidence_is_put_down_to_the_part_it_lies_on(part, near, people):
    for person in people:
        shares = regions(spot(*person.points[list(near)].mean(0)), person.points)
        assert max(shares, key=shares.get) == part
        assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        assert where_it_lies(shares).startswith(f"strongest {PARTS[part][0]} (")


def test_evidence_beside_the_face_is_called_that(people):
    shares = regions(spot(10, 10), people[0].points)
    assert shares["background"] > 0.9
    assert where_it_lies(shares).startswith("mostly outside the face")


def test_nothing_stands_out_of_even_evidence(people):
    outline = people[0].points[list(mesh.OUTLINE)].astype(np.int32)
    even = cv2.fillConvexPoly(np.zeros((SIDE, SIDE), np.float32), outline, 3.0)
    words = where_it_lies(regions(even, people[0].points))
    assert words == "spread over the face: no part stands out"


def test_faint_evidence_is_put_down_to_nothing(people):
    shares = regions(np.full((SIDE, SIDE), 0.9 * FAINT, np.float32), people[0].points)
    assert set(shares.values()) == {0.0}
    assert where_it_lies(shares) == "no part of the picture speaks for manipulation"


def test_usual_areas_are_those_of_people(people):
    masks = [explain._part_masks(person.points, SIDE) for person in people]
    for part, (_, usual) in PARTS.items():
        area = np.mean([m[part].sum() / (~m[explain.BACKGROUND]).sum() for m in masks])
        assert area == pytest.approx(usual, abs=0.02), part


def test_a_face_beyond_the_crops_edge_has_parts_too(people):
    shares = regions(spot(128, 128), people[0].points * 3 - 400)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-4)


def test_an_unreadable_portrait_is_left_out_of_the_benchmark(tmp_path, capsys):
    shutil.copy(sorted(faithfulness.PEOPLE.glob("*.jpg"))[0], tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    assert len(faithfulness.portraits(tmp_path)) == 1
    assert "left out: broken.jpg" in capsys.readouterr().err


def test_maps_are_faithful(people):
    """On fakes whose changed area is known; benchmarks/faithfulness.py is the large form.

    The margins are about half of what the model has here, which is well above none.
    """
    classifier = Classifier()
    found = faithfulness.joined(
        [
            faithfulness.measure(classifier, faithfulness.fakes(people, family, seeds=1))
            for family in faithfulness.FAMILY_NAMES
        ]
    )
    assert len(found.people) >= 12  # of 32: in the others' maps nothing shows
    place, restored, _ = found.tests.values()
    assert (place["own"] - place["area"]).mean() > 0.25
    assert (restored["hottest"] - restored["random"]).mean() > 0.4
