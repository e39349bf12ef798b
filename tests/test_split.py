"""The split: nothing leaks, nothing is lost, bad crops are named."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.data import records
from unmask.data.deal import assign, parse_ratios
from unmask.data.index import (
    ENOUGH_VIDEOS,
    Crop,
    read_index,
    read_split,
    without_stills,
    write_index,
)
from unmask.data.png import is_whole_png
from unmask.data.split import check_no_leak, split
from unmask.errors import DatasetError, SettingError


def crop(video: str, label: str, group: str, number: int = 0, **more) -> Crop:
    path = f"{label}/{video}__f{number:06d}_0.png"
    return Crop(**({"path": path, "label": label, "video": video, "group": group, "frame": number,
                    "face_size": 80, "blur": 100} | more))  # fmt: skip


def write_crops(folder: Path, crops: list[Crop]) -> Path:
    rng = np.random.default_rng(0)
    for each in crops:
        (folder / each.path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / each.path), rng.integers(0, 255, (8, 8, 3), np.uint8))
    write_index(folder, crops)
    return folder


def people(count: int = 20, frames: int = 3) -> list[Crop]:
    """``count`` persons with a real and a fake video each."""
    return [
        crop(f"{label[0]}{person}", label, f"p{person}", frame)
        for person in range(count)
        for label in ("real", "fake")
        for frame in range(frames)
    ]


def video(number: int, group: int, method: int, count: int) -> list[Crop]:
    """A video has one group, label and method, as in a real index."""
    name, label = f"v{number}g{group}m{method}", "fake" if method else "real"
    return [crop(name, label, f"g{group}", n, method=f"m{method}") for n in range(count)]


VIDEOS = st.builds(
    video, st.integers(0, 40), st.integers(0, 25), st.integers(0, 4), st.integers(1, 30)
)
WILD_CROPS = st.lists(VIDEOS, min_size=1, max_size=60, unique_by=lambda crops: crops[0].video).map(
    lambda videos: [each for crops in videos for each in crops]
)
SHARES = st.integers(1, 100).flatmap(
    lambda train: st.integers(0, 100 - train).map(
        lambda val: parse_ratios(f"{train}/{val}/{100 - train - val}")
    )
)


@given(WILD_CROPS, SHARES, st.integers(0, 9))
def test_every_group_goes_to_one_part_that_has_a_share(crops, shares, seed):
    parts = assign(crops, shares, seed)
    assert parts.keys() == {each.group for each in crops}
    assert all(shares[part] > 0 for part in parts.values())
    assert parts == assign(list(reversed(crops)), shares, seed)


@given(st.integers(40, 120), st.integers(40, 120), st.integers(1, 5), SHARES, st.integers(0, 9))
@settings(max_examples=40)
def test_shares_are_near_what_was_asked_when_groups_are_small(reals, fakes, methods, shares, seed):
    rng = np.random.default_rng(seed)
    crops = []
    for label, count in (("real", reals), ("fake", fakes)):
        for video in range(count):
            method = f"m{video % methods}" if label == "fake" else ""
            crops += [crop(f"{label}{video}", label, f"{label}{video}", n, method=method)
                      for n in range(rng.integers(1, 12))]  # fmt: skip
    parts = assign(crops, shares, seed)
    for label, count in (("real", reals), ("fake", fakes)):
        got = Counter(part for group, part in parts.items() if group.startswith(label))
        for part, share in shares.items():
            assert abs(got[part] - share * count) <= 2 + 0.03 * count
        for part, share in shares.items():
            ours = [c for c in crops if c.label == label]
            inside = sum(parts[c.group] == part for c in ours) / len(ours)
            assert abs(inside - share) < 0.1


def test_methods_are_dealt_in_proportion():
    crops = [crop(f"{m}{v}", "fake", f"{m}{v}", method=m) for m in "abcd" for v in range(20)]
    parts = assign(crops, parse_ratios("60/20/20"), 3)
    got = Counter((group[0], part) for group, part in parts.items())
    for method in "abcd":
        assert abs(got[method, "train"] - 12) <= 1
        assert abs(got[method, "val"] - 4) <= 1


def test_three_people_are_enough_for_three_parts():
    parts = assign(people(3), parse_ratios("70/15/15"), 0)
    assert sorted(parts.values()) == ["test", "train", "val"]


def test_the_seed_decides():
    first, again, other = (assign(people(), parse_ratios("70/15/15"), seed) for seed in (1, 1, 2))
    assert first == again != other


def test_a_split_folder_links_every_crop_once(tmp_path):
    crops = people()
    folder = write_crops(tmp_path / "crops", crops)
    summary = split(folder, tmp_path / "out")
    check_no_leak(tmp_path / "out")
    placed = read_index(tmp_path / "out")
    assert {Path(each.path).name for each in placed} == {Path(c.path).name for c in crops}
    assert summary.groups == Counter(train=14, val=3, test=3)
    for each in placed:
        original = folder / each.label / Path(each.path).name
        assert os.path.samefile(tmp_path / "out" / each.path, original)
    assert len(read_split(tmp_path / "out", "val")) == 3 * 2 * 3
    assert "train: 42 real crops of 14 videos" in str(summary)
    assert "unmask train" in str(summary)


def test_without_links_the_crops_are_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("this file system has no links")

    folder = write_crops(tmp_path / "crops", people(4))
    monkeypatch.setattr(os, "link", refuse)
    split(folder, tmp_path / "soft")
    monkeypatch.setattr(os, "symlink", refuse)
    split(folder, tmp_path / "copied")
    for each in read_index(tmp_path / "soft"):
        assert (tmp_path / "soft" / each.path).is_symlink()
        copy = tmp_path / "copied" / each.path
        assert not copy.is_symlink()
        assert copy.read_bytes() == (tmp_path / "soft" / each.path).read_bytes()


def test_bad_crops_are_dropped_and_counted(tmp_path):
    crops = people(6)
    crops[0] = replace(crops[0], face_size=29.9)
    crops[4] = replace(crops[4], blur=19.9)
    folder = write_crops(tmp_path / "crops", crops)
    whole = (folder / crops[8].path).read_bytes()
    (folder / crops[8].path).write_bytes(whole[:-20])
    (folder / crops[9].path).unlink()
    summary = split(folder, tmp_path / "out")
    assert summary.dropped == {
        ("real", "face under 30 pixels"): 1,
        ("fake", "blurred (under 20)"): 1,
        ("real", "the file is damaged"): 1,
        ("fake", "the file is missing"): 1,
    }
    assert "dropped 1 real crops: face under 30 pixels" in str(summary)
    left = {Path(each.path).name for each in read_index(tmp_path / "out")}
    assert left == {Path(c.path).name for c in crops} - {
        Path(crops[n].path).name for n in (0, 4, 8, 9)
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe\0", "is damaged"), (b"path,label\na.png,real\n", "line 2, is damaged"),
     (b"path,label,video,group\na.png,maybe,a,a\n", "line 2: label 'maybe'")],
)  # fmt: skip
def test_a_damaged_index_is_told(tmp_path, content, message):
    (tmp_path / "index.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_index(tmp_path)


def test_nothing_left_is_an_error(tmp_path):
    folder = write_crops(tmp_path / "crops", people(3))
    with pytest.raises(DatasetError, match=r"\(9 real: blurred"):
        split(folder, tmp_path / "out", min_blur=1000)
    assert not (tmp_path / "out").exists()


def test_crops_that_are_not_all_there_yet_are_not_split(tmp_path):
    folder = write_crops(tmp_path / "crops", people(4))
    records.write_plan(folder, records.Plan({}, {"a": "real", "b": "fake"}))
    records.write_record(folder, records.Record("a", "real", "a.mp4"))
    with pytest.raises(DatasetError, match="not finished"):
        split(folder, tmp_path / "out")
    crops = [{"path": crop.path} for crop in read_index(folder)]
    records.write_record(folder, records.Record("b", "fake", "b.mp4", crops=crops))
    split(folder, tmp_path / "out")
    index = folder / "index.csv"
    index.write_text("\ufeff" + "".join(index.open()), encoding="utf-8")  # a spreadsheet's mark
    split(folder, tmp_path / "out")
    index.write_text("".join(index.open().readlines()[:-1]))
    with pytest.raises(DatasetError, match=r"index\.csv that does not list all crops"):
        split(folder, tmp_path / "out")


def test_altered_copies_only_go_to_train(tmp_path):
    crops = people(10)
    copies = [replace(c, path=c.path.replace(".png", "_a1.png"), augmented=1) for c in crops]
    folder = write_crops(tmp_path / "crops", crops + copies)
    summary = split(folder, tmp_path / "out")
    placed = read_index(tmp_path / "out")
    assert {c.split for c in placed if c.augmented} == {"train"}
    lost = sum(n for (_, why), n in summary.dropped.items() if why.startswith("altered"))
    assert lost + len(placed) == len(crops) + len(copies)
    assert len([c for c in placed if not c.augmented]) == len(crops)


def test_the_datasets_own_split_is_kept(tmp_path):
    crops = [replace(c, split="test" if c.group == "p3" else "") for c in people(8)]
    folder = write_crops(tmp_path / "crops", crops)
    split(folder, tmp_path / "out", ratios="85/15/0")
    assert {c.group for c in read_split(tmp_path / "out", "test")} == {"p3"}
    torn = [replace(c, split="train") if c.video == "r3" else c for c in crops]
    folder = write_crops(tmp_path / "torn", torn)
    with pytest.raises(DatasetError, match="'p3' into test and train"):
        split(folder, tmp_path / "out")


def test_two_datasets_may_have_videos_of_the_same_names(tmp_path):
    crops = [
        replace(c, dataset=name, group=f"{name}/{c.group}", path=f"{name}/{name}_{c.path[5:]}")
        for name in "ab"
        for c in people(ENOUGH_VIDEOS // 2)
    ]
    summary = split(write_crops(tmp_path / "crops", crops), tmp_path / "out")
    assert summary.videos.total() == 2 * ENOUGH_VIDEOS
    still = replace(crops[0], video="still.jpg")
    assert without_stills([*crops, still]) == crops
    # A group of three videos is dealt before those of two, and so to the largest part.
    alike = [crop("v", "real", "many", dataset=name) for name in "abc"]
    assert assign([*alike, *people(2)], parse_ratios("70/15/15"), 0)["many"] == "train"


def test_a_new_split_replaces_the_old_one_and_nothing_else(tmp_path):
    folder = write_crops(tmp_path / "crops", people())
    split(folder, tmp_path / "out", seed=1)
    split(folder, tmp_path / "out", ratios="50/50/0")
    check_no_leak(tmp_path / "out")
    assert {each.split for each in read_index(tmp_path / "out")} == {"train", "val"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops", "out"]
    for precious in (folder, tmp_path):
        with pytest.raises(DatasetError, match="something else"):
            split(folder, precious)
    assert len(read_index(folder)) == len(people())


def test_a_linked_folder_is_written_where_it_leads(tmp_path):
    folder = write_crops(tmp_path / "crops", people())
    (tmp_path / "disk" / "out").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "out")
    (tmp_path / "disk" / "out.former").mkdir()  # somebody else's
    for _ in range(2):
        split(folder, tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        check_no_leak(tmp_path / "disk" / "out")
    assert sorted(p.name for p in (tmp_path / "disk").iterdir()) == ["out", "out.former"]


def test_a_mounted_folder_is_refused_before_the_work():
    mount = next(p for p in map(Path, ("/dev/shm", "/proc", "/")) if p.is_mount())
    with pytest.raises(DatasetError, match="name a folder in it"):
        split("nothing", mount)


def test_an_old_split_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    folder = write_crops(tmp_path / "crops", people())
    split(folder, tmp_path / "out", seed=1)
    before, rename = (tmp_path / "out" / "index.csv").read_bytes(), Path.rename

    def fail(path, target):
        if path.name == ".out.partial":
            raise OSError("the disk went away")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="went away"):
        split(folder, tmp_path / "out", seed=2)
    assert (tmp_path / "out" / "index.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops", "out"]


def test_a_failed_split_leaves_the_old_one(tmp_path, monkeypatch):
    folder = write_crops(tmp_path / "crops", people())
    split(folder, tmp_path / "out", seed=1)
    before = (tmp_path / "out" / "index.csv").read_bytes()
    monkeypatch.setattr(
        "unmask.data.split.assign", lambda crops, *_: {c.group: "val" for c in crops}
    )
    monkeypatch.setattr("unmask.data.split.write_index", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        split(folder, tmp_path / "out")
    assert (tmp_path / "out" / "index.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops", "out"]


@pytest.mark.parametrize("field", ["group", "video"])
def test_the_check_finds_a_leak(tmp_path, field):
    split(write_crops(tmp_path / "crops", people()), tmp_path / "out")
    crops = read_index(tmp_path / "out")
    train = next(c for c in crops if c.split == "train")
    n, val = next((n, c) for n, c in enumerate(crops) if c.split == "val")
    crops[n] = replace(val, **{field: getattr(train, field)})
    write_index(tmp_path / "out", crops)
    with pytest.raises(DatasetError, match=f"{field} .* is in train and val"):
        check_no_leak(tmp_path / "out")


def test_the_check_finds_a_stray_picture(tmp_path):
    folder = write_crops(tmp_path / "crops", people())
    split(folder, tmp_path / "out")
    (tmp_path / "out/test/real/stray.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="do not agree"):
        check_no_leak(tmp_path / "out")


@pytest.mark.parametrize("text", ["70/30", "70/20/20", "a/b/c", "0/50/50", "110/-5/-5", "nan/1/2"])
def test_senseless_ratios(text):
    with pytest.raises(SettingError, match="70/15/15"):
        parse_ratios(text)


def test_one_class_is_warned_about(tmp_path):
    only = [each for each in people() if each.label == "real"]
    summary = split(write_crops(tmp_path / "crops", only), tmp_path / "out")
    assert "warning: train has no fake crops" in str(summary)


def test_fakes_that_share_no_group_with_a_real_video_are_warned_about(tmp_path):
    whole = people()
    assert "warning" not in str(split(write_crops(tmp_path / "a", whole), tmp_path / "out"))
    apart = [replace(c, group=f"{c.group} {c.label}") for c in whole]
    summary = split(write_crops(tmp_path / "b", apart), tmp_path / "out")
    assert "warning: no fake shares a group with a real video" in str(summary)


@given(st.data())
def test_any_changed_byte_of_a_crop_is_noticed(data):
    image = np.random.default_rng(1).integers(0, 255, (12, 12, 3), np.uint8)
    whole = cv2.imencode(".png", image)[1].tobytes()
    assert is_whole_png(whole)
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = data.draw(st.integers(1, 255))
    assert not is_whole_png(whole[:at] + bytes([whole[at] ^ flipped]) + whole[at + 1 :])
    assert not is_whole_png(whole[:at])
