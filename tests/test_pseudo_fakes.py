"""Each family changes the face inside its mask, and nothing else; degradation treats all alike."""

import numpy as np
import pytest

from unmask.data import degrade, pseudo_fakes
from unmask.faces import FaceDetector, crop_face
from unmask.mesh import FaceMesh
from unmask.video import Video


@pytest.fixture(scope="module")
def people(samples):
    """Crops of sample people with their mesh points."""
    detector, mesh, found = FaceDetector(), FaceMesh(), []
    for path in sorted((samples / "people").glob("*.jpg"))[:6]:
        with Video(path) as video:
            image = next(video.sample()).image
        crop = crop_face(image, detector.detect(image)[0].box)
        found.append((crop, mesh.points(crop)))
    return found


def forge(family, people, seed):
    rng = np.random.default_rng(seed)
    (crop, points), donor = people[seed % 6], people[(seed + 1) % 6]
    extra = donor if family == "cross_swap" else ()
    return crop, *pseudo_fakes.FAMILIES[family](crop, points, rng, *extra)


@pytest.mark.parametrize("family", sorted(pseudo_fakes.FAMILIES))
def test_forges_inside_its_mask(family, people):
    changes = []
    for seed in range(8):
        crop, fake, mask = forge(family, people, seed)
        assert fake.shape == crop.shape
        assert fake.dtype == np.uint8
        assert 0.002 < mask.mean() < 0.9
        assert mask.min() >= 0
        assert mask.max() <= 1
        changes.append(np.abs(fake.astype(int) - crop).mean(2)[mask > 0.3].mean())
        if family not in ("self_blend", "cross_swap"):  # these may recolour or clone around it
            assert np.array_equal(fake[mask == 0], crop[mask == 0])
    assert np.median(changes) > 1  # grey levels, of 255


@pytest.mark.parametrize("family", sorted(pseudo_fakes.FAMILIES))
def test_same_seed_same_fake(family, people):
    _, first, _ = forge(family, people, 3)
    _, again, _ = forge(family, people, 3)
    _, other, _ = forge(family, people, 9)  # same people, another seed
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_synthesise_draws_every_family_but_no_swap_without_a_donor(people, monkeypatch):
    drawn = []

    def spied(name, family):
        def spy(*args):
            drawn.append(name)
            return family(*args)

        return spy

    for name, family in list(pseudo_fakes.FAMILIES.items()):
        monkeypatch.setitem(pseudo_fakes.FAMILIES, name, spied(name, family))
        monkeypatch.setattr(pseudo_fakes, name, spied(name, family))
    (crop, points), other = people[0], people[1]
    for donor, expected in (
        (other, set(pseudo_fakes.SHARES)),
        (None, set(pseudo_fakes.SHARES) - {"cross_swap"}),
    ):
        drawn.clear()
        for seed in range(20):
            fake, _ = pseudo_fakes.synthesise(crop, points, np.random.default_rng(seed), donor)
            assert fake.shape == crop.shape
        assert set(drawn) == expected


def test_warping_to_the_same_points_changes_next_to_nothing(people):
    crop, points = people[0]
    warped = pseudo_fakes.warp_face(crop, points, points, crop.shape[0])
    assert np.abs(warped.astype(int) - crop).mean() < 0.5


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_encoding_is_real_and_harsher_at_higher_crf(codec, people):
    crop, _ = people[0]
    motion = np.array([1.0, -1.0])
    errors = [
        np.abs(degrade.encode(crop, codec, crf, motion, keep=2).astype(int) - crop).mean()
        for crf in (17, 38)
    ]
    assert 0 < errors[0] < errors[1] < 20


def test_degrading_a_pair_keeps_equal_crops_equal(people):
    crop, _ = people[2]
    same = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        first, second = degrade.degrade([crop, crop.copy()], rng, face_size=90)
        assert first.shape == crop.shape
        # libx264 is not repeatable to the bit where a side is no multiple of 16.
        assert np.abs(first.astype(int) - second).mean() < 1
        same += np.array_equal(first, second)
    assert same >= 15


def test_global_statistics_do_not_give_synthesised_fakes_away(people):
    """No shortcut: sharpness, colour and contrast of the whole crop barely tell the classes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score
    from sklearn.preprocessing import StandardScaler

    rows, labels, groups = [], [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        (crop, points), donor = people[seed % 6], people[(seed + 1) % 6]
        fake, _ = pseudo_fakes.synthesise(crop, points, rng, donor)
        for label, image in enumerate(degrade.degrade([crop, fake], rng, face_size=120)):
            grey = image.mean(2)
            rows.append([grey.mean(), grey.std(), np.abs(np.diff(grey, axis=0)).mean(),
                         np.abs(np.diff(grey, 2, axis=1)).mean(), *image.mean((0, 1))])  # fmt: skip
            labels.append(label)
            groups.append(seed % 6)
    features = StandardScaler().fit_transform(np.array(rows))
    accuracy = cross_val_score(
        LogisticRegression(), features, labels, groups=groups, cv=GroupKFold(6)
    ).mean()
    assert accuracy < 0.65
