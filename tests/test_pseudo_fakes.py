"""Each family changes the face inside its mask, and nothing else; degradation treats all alike."""

import cv2
import numpy as np
import pytest

from unmask.data import degrade, pseudo_fakes
from unmask.data.pseudo_fakes import FAMILIES, parse_shares
from unmask.data.warps import Portrait, warp_face
from unmask.errors import SettingError
from unmask.faces import FaceDetector, crop_face
from unmask.mesh import FaceMesh
from unmask.quality import sharpness
from unmask.settings import FAMILY_SHARES
from unmask.video import Video


@pytest.fixture(scope="module")
def people(samples):
    """Portraits of sample people."""
    detector, mesh, found = FaceDetector(), FaceMesh(), []
    for path in sorted((samples / "people").glob("*.jpg"))[:6]:
        with Video(path) as video:
            image = next(video.sample()).image
        crop = crop_face(image, detector.detect(image)[0])
        found.append(Portrait(crop, mesh.points(crop)))
    return found


def forge(family, people, seed):
    """The crop that is forged, the fake and its mask."""
    face, donor = people[seed % 6], people[(seed + 1) % 6]
    return face.crop, *FAMILIES[family](face, donor, np.random.default_rng(seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_forges_inside_its_mask(family, people):
    changes = []
    for seed in range(8):
        crop, fake, mask = forge(family, people, seed)
        assert fake.shape == crop.shape
        assert fake.dtype == np.uint8
        assert 0.002 < mask.mean() < 0.9 or family == "resynthesis"
        assert mask.dtype == np.float32
        assert mask.min() >= 0
        assert mask.max() <= 1
        changes.append(np.abs(fake.astype(int) - crop).mean(2)[mask > 0.3].mean())
        if family not in ("self_blend", "cross_swap"):  # these may recolour or clone around it
            assert np.array_equal(fake[mask == 0], crop[mask == 0])
    assert np.median(changes) > 1  # grey levels, of 255


@pytest.mark.parametrize("family", FAMILIES)
def test_same_seed_same_fake(family, people):
    _, first, _ = forge(family, people, 3)
    _, again, _ = forge(family, people, 3)
    _, other, _ = forge(family, people, 9)  # same people, another seed
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_synthesise_takes_the_families_that_have_a_share(people):
    face, donor = people[:2]
    expected, _ = pseudo_fakes.mouth_edit(face, donor, _after_choosing(np.random.default_rng(5)))
    made, _ = pseudo_fakes.forge(
        face, donor, np.random.default_rng(5), {"resynthesis": 0.0, "mouth_edit": 1.0}
    )
    assert np.array_equal(made, expected)


def _after_choosing(rng):
    rng.choice(2, p=(0.0, 1.0))
    return rng


def test_every_family_has_a_share_in_the_settings():
    assert set(FAMILIES) == set(FAMILY_SHARES)
    assert sum(FAMILY_SHARES.values()) == pytest.approx(1)


def test_resynthesis_is_about_as_sharp_as_its_source(people):
    """Else softness alone would give the whole family away."""
    ratios = []
    for seed in range(12):
        crop, fake, _ = forge("resynthesis", people, seed)
        ratios.append(np.sqrt(sharpness(fake) / sharpness(crop)))
    assert 0.5 < np.median(ratios) < 1.5  # unsharpened it would be 0.44


def test_warping_to_the_same_points_changes_next_to_nothing(people):
    face = people[0]
    warped = warp_face(face.crop, face.points, face.points, face.crop.shape[0])
    assert np.abs(warped.astype(int) - face.crop).mean() < 0.5


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
def test_encoding_is_real_and_harsher_at_higher_crf(codec, people):
    crop = people[0].crop
    motion = np.array([1.0, -1.0])
    errors = [
        np.abs(degrade.encode(crop, codec, crf, motion, keep=2).astype(int) - crop).mean()
        for crf in (17, 38)
    ]
    assert 0 < errors[0] < errors[1] < 20


def test_a_crop_out_of_a_smaller_or_coarser_clip_has_less_detail(people):
    crop = people[0].crop

    def detail(seed: int = 0, **how) -> float:
        out = degrade.as_a_clip(crop, 190, np.random.default_rng(seed), **how)
        assert (out.shape, out.dtype) == (crop.shape, np.uint8)
        return sharpness(out)

    fine = detail(scale=1.0, crf=18)
    assert detail(scale=0.4, crf=18) < 0.5 * fine
    assert detail(scale=1.0, crf=38) < 0.8 * fine
    assert detail(1) == detail(1) != detail(2)  # scale and CRF are drawn


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
def test_equal_pictures_are_encoded_equally(codec, people):
    rng, motion = np.random.default_rng(0), np.array([1.2, -2.0])
    crops = [cv2.resize(people[0].crop, (side, side)) for side in (37, 61, 100, 158, 201)]
    first = [degrade.encode(crop, codec, 30, motion, keep=3) for crop in crops]
    kept = []  # so that memory is not the same again
    for _ in range(20):
        for crop, encoded in zip(crops, first, strict=True):
            kept.append(rng.bytes(rng.integers(1000, 300_000)))
            assert np.array_equal(degrade.encode(crop, codec, 30, motion, keep=3), encoded)


def test_degrading_a_pair_keeps_equal_crops_equal(people, monkeypatch):
    """But for sharpness: what ``mix_sharpness`` left equal, the rest of the chain does too."""
    mix, mixed = degrade.mix_sharpness, []

    def watched(crops, rng):
        mixed[:] = mix(crops, rng)
        return list(mixed)

    monkeypatch.setattr(degrade, "mix_sharpness", watched)
    crop, blurred = people[2].crop, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        first, second = degrade.degrade([crop, crop.copy()], rng, face_size=90)
        assert first.shape == crop.shape
        if np.array_equal(*mixed):
            assert np.array_equal(first, second)
        else:
            blurred += 1
    assert 0 < blurred < 16  # 6 expected: a fifth, but for those where neither is blurred


def drawing(low, high):
    """A generator whose first number lies between these."""
    for seed in range(1000):
        if low <= np.random.default_rng(seed).random() < high:
            return np.random.default_rng(seed)
    raise AssertionError("no such seed")


def test_mixing_makes_a_sharp_and_a_soft_crop_equally_sharp(people):
    for face in people:
        sharp = face.crop
        soft = cv2.GaussianBlur(sharp, (0, 0), 0.8)
        assert np.sqrt(sharpness(sharp) / sharpness(soft)) > 1.5
        softened, still_soft = degrade.mix_sharpness([sharp, soft], drawing(0, 0.3))
        assert np.array_equal(still_soft, soft)
        assert 0.85 < np.sqrt(sharpness(softened) / sharpness(soft)) < 1.15
        still_sharp, sharpened = degrade.mix_sharpness([sharp, soft], drawing(0.3, 0.5))
        assert np.array_equal(still_sharp, sharp)
        assert 0.85 < np.sqrt(sharpness(sharpened) / sharpness(sharp)) < 1.15


def test_mixing_leaves_equally_sharp_crops_alone_unless_it_blurs(people):
    crop = people[2].crop
    for low, high in ((0, 0.3), (0.3, 0.5), (0.7, 1)):
        for mixed in degrade.mix_sharpness([crop, crop.copy()], drawing(low, high)):
            assert np.array_equal(mixed, crop)
    blurred = degrade.mix_sharpness([crop] * 8, drawing(0.5, 0.7))
    assert 0 < sum(np.array_equal(one, crop) for one in blurred) < 8


def test_global_statistics_do_not_give_synthesised_fakes_away(people):
    """No shortcut: sharpness, colour and contrast of the whole crop barely tell the classes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score
    from sklearn.preprocessing import StandardScaler

    rows, labels, groups = [], [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        face, donor = people[seed % 6], people[(seed + 1) % 6]
        fake, _ = pseudo_fakes.forge(face, donor, rng)
        for label, image in enumerate(degrade.degrade([face.crop, fake], rng, face_size=120)):
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


def test_shares_of_families_add_up_to_one():
    assert parse_shares("self_blend=3, resynthesis=1") == {"self_blend": 0.75, "resynthesis": 0.25}


@pytest.mark.parametrize("text", ["", "self_blend", "self_blend=0", "gan=1", "self_blend=-1",
                                  "self_blend=nan", "self_blend=inf",
                                  "self_blend=1,self_blend=2"])  # fmt: skip
def test_senseless_shares_are_refused(text):
    with pytest.raises(SettingError, match="--families"):
        parse_shares(text)
