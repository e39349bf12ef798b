"""Datasets as CSV files and as folders, and the groups that keep fakes with their sources."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.data import records
from unmask.data.manifest import Source, frame_files, join_groups, read_manifest, scan_dataset
from unmask.errors import DatasetError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def groups(*names: str, **stated: str) -> dict[str, str]:
    """Name -> group of sources given as 'real/000' or 'fake/000_003'."""
    sources = [
        Source(Path(f"{name}.mp4"), name, name.split("/")[0], group=stated.get(name, ""))
        for name in names
    ]
    return {source.name: source.group for source in join_groups(sources)}


def test_manifest_takes_what_people_write(tmp_path):
    touch(tmp_path, "a b/Zoë 1.mp4", "f.mp4", "g.mp4", "frames/1.png")
    text = (
        "\ufeffPath, Label ,licence,group,split,method,dataset\r\n"
        "a b/Zoë 1.mp4,REAL,CC BY,person 7,validation,,own\r\n"
        "\r\n"
        'f.mp4,1,"x, y",,test,swap,\n'
        "g.mp4, Fake ,,,,,\n"
        "frames,0,,,,,\n"
    )
    (tmp_path / "list.csv").write_bytes(text.encode())
    first, second, third, fourth = read_manifest(tmp_path / "list.csv")
    assert first == Source(
        tmp_path / "a b/Zoë 1.mp4", "a b/Zoë 1.mp4", "real", "person 7", "val", "", "own"
    )
    assert (second.label, second.group, second.split, second.method) == (
        "fake", "f", "test", "swap",
    )  # fmt: skip
    assert (third.label, third.split, fourth.label, fourth.group) == ("fake", "", "real", "frames")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column path"),
        ("path;label\na.mp4;real\n", "line 1: no column path"),
        ("path,kind\na.mp4,real\n", "line 1: no column label"),
        ("path,label\n", "no rows"),
        ("path,label,label\na.mp4,real,fake\n", "two columns label"),
        ("path,label\na.mp4,real\na.mp4,maybe\n", "line 3: label 'maybe'"),
        ("path,label\n\na.mp4\n", "line 3: label ''"),
        ("path,label\na.mp4,real\n./a.mp4,real\n", "line 3: .*already in line 2"),
        ("path,label\nnone.mp4,fake\n", "line 2: none.mp4 does not exist"),
        ("path,label\n,fake\n", "line 2: no path"),
        ("path,label,split\na.mp4,fake,later\n", "line 2: split 'later'"),
        ("path,label\n" + "no.mp4,real\n" * 9, "and 4 more"),
        ("path,label,method,group\na.mp4,fake,Swap, v2,p1\n", "line 2: more values .*quote"),
        (b"path,label\n\xff.mp4,real\n", "UTF-8"),
    ],
)
def test_manifest_says_which_line_is_wrong(tmp_path, text, message):
    touch(tmp_path, "a.mp4")
    file = tmp_path / "list.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DatasetError, match=message):
        read_manifest(file)


def test_missing_manifest(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        read_manifest(tmp_path / "none.csv")


def test_folder_of_videos_images_and_frames(tmp_path):
    touch(
        tmp_path,
        "real/a.mp4", "real/still.jpg", "real/notes.txt", "real/.hidden.mp4",
        "real/person/clip.MOV", "real/person/portrait.png",
        "real/walk/f2.png", "real/walk/f10.png",
        "fake/b.mp4", "fake/swap/a.mp4", "fake/swap/c23/d.mp4", "fake/sync/take1/1.jpg",
        "fake/made/ann.png", "fake/made/bob 2.png",
        "other/e.mp4",
    )  # fmt: skip
    found = {source.name: source for source in scan_dataset(tmp_path)}
    assert {name: source.method for name, source in found.items()} == {
        "real/a.mp4": "", "real/still.jpg": "", "real/person/clip.MOV": "",
        "real/person/portrait.png": "", "real/walk": "",
        "fake/b.mp4": "", "fake/swap/a.mp4": "swap", "fake/swap/c23/d.mp4": "swap",
        "fake/sync/take1": "sync", "fake/made/ann.png": "made", "fake/made/bob 2.png": "made",
    }  # fmt: skip
    assert {source.label for name, source in found.items() if name[:4] == "fake"} == {"fake"}
    assert found["real/a.mp4"].group == found["fake/swap/a.mp4"].group
    assert [path.name for path in frame_files(tmp_path / "real/walk")] == ["f2.png", "f10.png"]


def test_frames_beside_a_picture_of_another_name_are_not_torn_apart(tmp_path):
    touch(tmp_path, *(f"real/walk/f{n}.png" for n in range(9)), "real/walk/thumb.png")
    with pytest.raises(DatasetError, match=r"walk looks like a video's frames, but thumb\.png"):
        scan_dataset(tmp_path)


def test_folder_without_media_says_what_was_found(tmp_path):
    with pytest.raises(DatasetError, match="no folder"):
        scan_dataset(tmp_path / "none")
    touch(tmp_path, "videos/a.mp4", "real/readme.txt")
    with pytest.raises(DatasetError, match=r"found: real, videos.*--manifest"):
        scan_dataset(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are no text")
def test_file_name_that_is_no_text_can_still_be_written_down(tmp_path):
    (tmp_path / "real").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "real") + b"/\xff1.mp4")).touch()
    (source,) = scan_dataset(tmp_path)
    assert source.path.exists()
    assert "\\xff1" in source.name.encode("utf-8").decode()
    assert "\\xff1" in source.group


def test_fake_named_after_two_videos_joins_both():
    found = groups("real/a", "real/b", "real/c", "fake/a_b", "fake/c_nobody")
    assert found["real/a"] == found["real/b"] == found["fake/a_b"]
    assert len({found["real/a"], found["real/c"], found["fake/c_nobody"]}) == 3


def test_names_of_face_forensics_tell_who_is_seen_without_all_reals():
    found = groups("real/000", "real/010", "fake/000_003", "fake/003_000", "fake/010_999")
    assert found["real/000"] == found["fake/000_003"] == found["fake/003_000"]
    assert found["real/010"] == found["fake/010_999"] != found["real/000"]


def test_chains_of_fakes_make_one_group():
    found = groups("real/a_1", "real/b", "real/c", "fake/a_1_b", "fake/b_c")
    assert len(set(found.values())) == 1


def test_a_stated_group_is_kept():
    found = groups("real/000", "real/003", "fake/000_003", **{"fake/000_003": "mine"})
    assert found == {"real/000": "000", "real/003": "003", "fake/000_003": "mine"}
    found = groups("real/000", "fake/000", **{"real/000": "person"})
    assert found["fake/000"] == found["real/000"]


@pytest.mark.parametrize("stated", ["a", "a.mp4"])
def test_a_fake_whose_group_names_its_original_joins_it(stated):
    names = ("real/a", "real/b", "fake/x")
    for dataset in ("", "DFDC"):
        sources = [
            Source(
                Path(f"{name}.mp4"), name, name.split("/")[0], dataset=dataset,
                group=stated if name == "fake/x" else "",
            )
            for name in names
        ]  # fmt: skip
        found = {source.name: source.group for source in join_groups(sources)}
        assert found["fake/x"] == found["real/a"] != found["real/b"]


def test_a_fake_joins_the_real_video_that_its_group_names_whatever_that_ones_own_group():
    stated = {
        "real/o1": "anna",
        "real/o2": "bert",
        "fake/x": "o1",
        "fake/y": "bert",
        "real/bert": "",
    }
    found = groups(*stated, **stated)
    assert found["fake/x"] == found["real/o1"] != found["real/o2"]
    # Where it is a real one's group, it is no name.
    assert found["fake/y"] == found["real/o2"] == "bert"


def test_crops_that_were_written_into_the_dataset_are_no_photos(tmp_path):
    touch(tmp_path, "real/1.jpg", "real/out/fake/2.png", "fake/3.jpg")
    records.write_plan(tmp_path / "real" / "out", records.Plan({}, {}))
    assert [source.name for source in scan_dataset(tmp_path)] == ["fake/3.jpg", "real/1.jpg"]


def test_same_names_in_two_datasets_are_not_joined():
    sources = [
        Source(Path("x/1.mp4"), "x/1.mp4", "real", dataset="x"),
        Source(Path("y/1.mp4"), "y/1.mp4", "fake", dataset="y"),
    ]
    first, second = join_groups(sources)
    assert first.group != second.group


STEMS = st.sampled_from(["a", "b", "c", "a_b", "b_c", "a_b_c", "d", "d_a"])
ROWS = st.tuples(st.sampled_from(["real", "fake"]), STEMS, st.sampled_from(["", "", "g", "a"]))
SOURCES = st.lists(ROWS, min_size=1, max_size=12, unique=True).map(
    lambda rows: [Source(Path(stem), f"{label}/{stem}{g}", label, g) for label, stem, g in rows]
)


@given(SOURCES, st.randoms(use_true_random=False))
def test_groups_do_not_depend_on_order_and_never_part_a_pair(sources, random):
    joined = {source.name: source for source in join_groups(sources)}
    shuffled = random.sample(sources, len(sources))
    assert {source.name: source for source in join_groups(shuffled)} == joined
    reals = [source for source in sources if source.label == "real"]
    stems = {real.path.stem for real in reals}
    for fake in (s for s in sources if s.label == "fake" and not s.group):
        stem, made_from = fake.path.stem, {fake.path.stem}
        for cut in (i for i, letter in enumerate(stem) if letter == "_"):
            if {stem[:cut], stem[cut + 1 :]} <= stems:
                made_from |= {stem[:cut], stem[cut + 1 :]}
        for real in reals:
            if real.path.stem in made_from:
                assert joined[fake.name].group == joined[real.name].group


@given(SOURCES)
def test_stated_groups_alone_are_left_as_they_are(sources):
    stated = [source for source in sources if source.group]
    assert join_groups(stated) == stated
