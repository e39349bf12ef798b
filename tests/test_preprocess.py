"""From videos to crops, whole, interrupted, and with things that go wrong."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.data import records
from unmask.data.augment import affine
from unmask.data.index import Crop, read_index
from unmask.data.manifest import Source, read_manifest, scan_dataset
from unmask.data.preprocess import Summary, balanced, preprocess, video_id
from unmask.errors import DatasetError, UsageError
from unmask.video import Video

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and limits")


def noise_video(path: Path) -> None:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 96
        for _ in range(20):
            image = rng.integers(0, 255, (96, 96, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, real_clip, fake_clip) -> Path:
    """Every kind of input that a folder may hold, good and bad."""
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "real/frames").mkdir(parents=True)
    (folder / "fake/swap").mkdir(parents=True)
    shutil.copy(real_clip, folder / "real/000.mp4")
    shutil.copy(real_clip, folder / "real/ünï 003.mp4")
    shutil.copy(fake_clip, folder / "fake/swap/000.mp4")
    shutil.copy(fake_clip, folder / "fake/000_cut.mp4")
    whole = fake_clip.read_bytes()
    (folder / "fake/torn.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "real/text.mp4").write_text("this is no video")
    (folder / "real/zero.mp4").touch()
    noise_video(folder / "real/nobody.mp4")
    with Video(real_clip) as video:
        for number, frame in enumerate(video.sample(5)):
            image = np.ascontiguousarray(frame.image[:, :, ::-1])
            cv2.imwrite(str(folder / f"real/frames/f{number}.png"), image)
            if not number:
                cv2.imwrite(str(folder / "real/still.jpg"), image)
                cv2.imwrite(str(folder / "fake/large.png"), cv2.resize(image, None, fx=2, fy=2))
    rows = [(source.name, source.label, source.method) for source in scan_dataset(folder)]
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "method"), *rows])
    return folder


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory) -> Path:
    """The crops of an uninterrupted run with one worker and an altered copy each."""
    output = tmp_path_factory.mktemp("whole") / "crops"
    output.with_name("summary").write_text(str(run(dataset, output, workers=1)))
    return output


def run(dataset: Path, output: Path, **more) -> Summary:
    manifest = str(dataset / "list.csv")
    given = {"manifest": manifest, "augment": 1, "balance": "none"} | more
    return preprocess("", output, **given)


def start(dataset: Path, output: Path, *more: str, **how) -> subprocess.Popen:
    """The same as a process of its own, so that it can be interrupted."""
    command = [sys.executable, "-m", "unmask.cli", "preprocess", "unused", str(output),
               "--manifest", str(dataset / "list.csv"), "--augment", "1", "--balance", "none",
               *more]  # fmt: skip
    return subprocess.Popen(command, start_new_session=True, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **how)  # fmt: skip


@contextmanager
def long(dataset: Path, copy: Path, count: int) -> Iterator[Path]:
    """A copy of the dataset that, for the time being, lists so many videos more.

    So a run is sure to be still at it when it is interrupted.
    """
    shutil.copytree(dataset, copy)
    listed = (copy / "list.csv").read_bytes()
    for number in range(count):
        os.link(copy / "real/000.mp4", copy / f"extra{number}.mp4")
    more = "".join(f"extra{number}.mp4,real,\n" for number in range(count))
    (copy / "list.csv").write_bytes(listed + more.encode())
    yield copy
    (copy / "list.csv").write_bytes(listed)


def wait_for_records(output: Path, count: int) -> None:
    end = time.monotonic() + 60
    while not (output / records.FOLDER).is_dir() or len(records.finished_ids(output)) < count:
        assert time.monotonic() < end
        time.sleep(0.01)


def record_times(output: Path) -> dict[str, int]:
    folder = output / records.FOLDER
    return {id: (folder / f"{id}.json").stat().st_mtime_ns for id in records.finished_ids(output)}


def test_every_input_leaves_crops_or_a_reason(whole, dataset):
    crops = read_index(whole)
    seen = Counter(crop.video for crop in crops if not crop.augmented)
    assert seen["real/000.mp4"] == seen["real/ünï 003.mp4"] == seen["fake/swap/000.mp4"] == 5
    assert seen["real/still.jpg"] == seen["fake/large.png"] == seen["real/frames"] == 1
    with (whole / "failures.csv").open(encoding="utf-8") as file:
        failures = {row["video"]: row["reason"] for row in csv.DictReader(file)}
    assert failures["real/nobody.mp4"] == "no face found"
    assert "0 bytes" in failures["real/zero.mp4"]
    assert "no video or image" in failures["real/text.mp4"]
    assert failures.keys() | seen.keys() == {
        path.relative_to(dataset).as_posix()
        for path in dataset.rglob("*.*")
        if path.parent.name in ("real", "fake", "swap")
    } | {"real/frames"}
    summary = whole.with_name("summary").read_text()
    assert f"real: {2 * 12} crops from 4 videos" in summary
    assert "taken as one video each: 1" in summary
    assert "unmask split" in summary


def test_crops_are_what_the_index_says(whole):
    crops = read_index(whole)
    files = {path.relative_to(whole).as_posix() for path in whole.glob("*/*.png")}
    assert files == {crop.path for crop in crops}
    for crop in crops:
        image = cv2.imread(str(whole / crop.path))
        assert image.shape == (256, 256, 3)
        assert crop.path.startswith(f"{crop.label}/")
        assert min(crop.x2 - crop.x1, crop.y2 - crop.y1) == pytest.approx(crop.face_size, abs=0.05)
        assert crop.blur > 0
        assert 0.7 <= crop.score <= 1
    by_video = {crop.video: crop for crop in crops}
    # The size is that in the source, not in the crop.
    assert by_video["fake/large.png"].face_size == pytest.approx(
        2 * by_video["real/still.jpg"].face_size, rel=0.1
    )
    times = [c.second for c in crops if c.video == "real/000.mp4" and not c.augmented]
    assert times == pytest.approx([n * 15 / 25 for n in range(5)], abs=0.05)
    assert by_video["real/000.mp4"].group == by_video["fake/swap/000.mp4"].group
    assert by_video["fake/swap/000.mp4"].method == "swap"


def test_two_workers_write_the_same(whole, dataset, tmp_path):
    run(dataset, tmp_path / "crops", workers=2)
    assert (tmp_path / "crops/index.csv").read_bytes() == (whole / "index.csv").read_bytes()
    for crop in read_index(whole):
        assert (tmp_path / "crops" / crop.path).read_bytes() == (whole / crop.path).read_bytes()


@POSIX
def test_a_killed_run_goes_on_where_it_stopped(whole, dataset, tmp_path):
    output = tmp_path / "crops"
    with long(dataset, tmp_path / "data", 200) as data:
        process = start(data, output, "--workers", "2")
        wait_for_records(output, 2)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    before = record_times(output)
    assert not (output / "index.csv").exists()
    assert run(data, output).kept_from_before >= 2
    assert (output / "index.csv").read_bytes() == (whole / "index.csv").read_bytes()
    assert before.items() <= record_times(output).items()
    files = {path.relative_to(output).as_posix() for path in output.glob("*/*.png")}
    assert files >= {crop.path for crop in read_index(output)}


@POSIX
def test_ctrl_c_stops_promptly_and_keeps_what_is_finished(whole, dataset, tmp_path):
    output = tmp_path / "crops"
    with long(dataset, tmp_path / "data", 200) as data:
        process = start(data, output, "--workers", "2")
        wait_for_records(output, 1)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert run(data, output).kept_from_before >= 1
    assert (output / "index.csv").read_bytes() == (whole / "index.csv").read_bytes()


@POSIX
def test_a_worker_that_dies_takes_nothing_with_it(whole, dataset, tmp_path):
    output = tmp_path / "crops"
    with long(dataset, tmp_path / "data", 15) as data:
        process = start(data, output, "--workers", "1")  # which is surely busy
        wait_for_records(output, 1)
        listed = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True,
                                text=True, check=True).stdout.splitlines()  # fmt: skip
        (worker,) = [int(line.split()[0]) for line in listed
                     if int(line.split()[1]) == process.pid and "spawn_main" in line]  # fmt: skip
        os.kill(worker, signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == 0
        with (output / "failures.csv").open(encoding="utf-8") as file:
            failures = {row["video"]: row["reason"] for row in csv.DictReader(file)}
        assert sum("exit code -9" in reason for reason in failures.values()) == 1
        videos = {source.name for source in read_manifest(data / "list.csv")}
        assert {crop.video for crop in read_index(output)} == videos - failures.keys()
    run(data, output)
    assert (output / "index.csv").read_bytes() == (whole / "index.csv").read_bytes()


@POSIX
def test_a_full_disk_stops_cleanly(whole, dataset, tmp_path):
    import resource

    def no_room() -> None:
        # Stands for a full disk: the system refuses to write more than this to one file.
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))

    output = tmp_path / "crops"
    process = start(dataset, output, preexec_fn=no_room)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot write to" in errors
    assert "all finished videos are kept" in errors
    assert "Traceback" not in errors
    assert not (output / "index.csv").exists()
    run(dataset, output)
    assert (output / "index.csv").read_bytes() == (whole / "index.csv").read_bytes()


def test_a_folder_is_not_mixed(whole, dataset, tmp_path):
    with pytest.raises(DatasetError, match=r"margin 1.3 -> 1.5.*new folder"):
        run(dataset, whole, margin=1.5)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(DatasetError, match="not empty"):
        run(dataset, tmp_path)


def test_a_finished_folder_is_not_done_again(whole, dataset):
    before, times = (whole / "index.csv").read_bytes(), record_times(whole)
    assert run(dataset, whole).kept_from_before == len(times)
    assert record_times(whole) == times
    assert (whole / "index.csv").read_bytes() == before


def test_a_folder_is_filled_by_one_run_at_a_time(whole, dataset, monkeypatch):
    with records.held(whole), pytest.raises(UsageError, match=r"another run.*choose a new folder"):
        run(dataset, whole)

    def refuse(_):
        raise OSError("this file system has no locks")

    monkeypatch.setattr("unmask.outputs._lock", refuse)
    run(dataset, whole)


def test_a_run_that_was_killed_before_it_had_a_plan_is_no_obstacle(dataset, tmp_path):
    with records.held(tmp_path / "out"):
        pass
    (tmp_path / "data/real").mkdir(parents=True)
    shutil.copy(dataset / "real/still.jpg", tmp_path / "data/real")
    assert preprocess(tmp_path / "data", tmp_path / "out").crops == Counter(real=1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are no text")
def test_a_file_may_have_any_name(dataset, tmp_path):
    frames = tmp_path / "data/real/walk"
    frames.mkdir(parents=True)
    shutil.copy(dataset / "real/frames/f0.png", frames / os.fsdecode(b"f\xff0.png"))
    (frames / os.fsdecode(b"f\xff1.png")).touch()
    (tmp_path / "data/real" / os.fsdecode(b"bad\xff\x1b[2J.mp4")).write_text("no video")
    output = tmp_path / "out"
    summary = str(preprocess(tmp_path / "data", output, every=1))
    assert "bad\\xff\\x1b[2J.mp4: bad\\xff" in summary
    assert "\x1b" not in summary
    listed = (output / "failures.csv").read_bytes()
    assert b"bad\\xff" in listed
    found = [records.read_record(output, id) for id in records.finished_ids(output)]
    assert all("\\xff" in record.reason + record.damage for record in found)
    (bad,) = (record for record in found if record.reason)
    # As an earlier version left it:
    records.write_record(output, replace(bad, reason=bad.reason.replace("\\xff", "\udcff")))
    preprocess(tmp_path / "data", output, every=1)
    assert (output / "failures.csv").read_bytes() == listed


def test_a_replaced_or_added_video_is_read(dataset, real_clip, tmp_path):
    (tmp_path / "data/real").mkdir(parents=True)
    shutil.copy(dataset / "real/text.mp4", tmp_path / "data/real/a.mp4")
    shutil.copy(real_clip, tmp_path / "data/real/b.mp4")
    first = preprocess(tmp_path / "data", tmp_path / "out", every=60)
    assert [name for name, _ in first.failures] == ["real/a.mp4"]
    assert "warning: no fake crops" in str(first)
    shutil.copy(real_clip, tmp_path / "data/real/a.mp4")
    shutil.copy(real_clip, tmp_path / "data/real/c.mp4")
    lost = next((tmp_path / "out/real").glob("real_b*.png"))
    lost.unlink()
    second = preprocess(tmp_path / "data", tmp_path / "out", every=60)
    assert second.failures == []
    assert second.videos == Counter(real=3)
    assert lost.exists()
    size = real_clip.stat().st_size
    (tmp_path / "data/real/a.mp4").write_bytes(b"no video".ljust(size))  # of the same size
    third = preprocess(tmp_path / "data", tmp_path / "out", every=60)
    assert [name for name, _ in third.failures] == ["real/a.mp4"]


def test_nothing_to_see_is_an_error(dataset, tmp_path):
    (tmp_path / "data/fake").mkdir(parents=True)
    shutil.copy(dataset / "real/nobody.mp4", tmp_path / "data/fake")
    with pytest.raises(DatasetError, match=r"not one face.*no face found"):
        preprocess(tmp_path / "data", tmp_path / "out")


def fakes_and_reals(reals: int, fakes: dict[str, int]) -> list[Source]:
    found = [Source(Path(f"r{n}"), f"real/r{n}", "real") for n in range(reals)]
    for method, count in fakes.items():
        names = [f"fake/{method}/f{n}" for n in range(count)]
        found += [Source(Path(name), name, "fake", method=method) for name in names]
    return found


@given(
    st.integers(0, 30), st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 30)),
    st.integers(0, 5),
)  # fmt: skip
def test_balance_keeps_all_reals_and_each_method_in_proportion(reals, fakes, seed):
    sources = fakes_and_reals(reals, fakes)
    kept = balanced(sources, seed)
    assert kept == balanced(sources, seed)
    counts = Counter(source.method for source in kept if source.label == "fake")
    total = sum(fakes.values())
    assert sum(source.label == "real" for source in kept) == reals
    assert counts.total() == (min(reals, total) if reals else total)
    for method, count in fakes.items():
        assert abs(counts[method] - count * counts.total() / max(total, 1)) < 1


def test_ids_of_videos_never_collide():
    names = ["a/b.mp4", "a_b.mp4", "a/b.avi", "ä.mp4", "ö.mp4", "x" * 300 + "1", "x" * 300 + "2"]
    ids = {video_id(Source(Path(n), n, label)) for n in names for label in ("real", "fake")}
    assert len(ids) == 2 * len(names)
    assert max(map(len, ids)) < 120
    assert all(id.isascii() and "/" not in id for id in ids)


@given(st.integers(0, 2**32), st.sampled_from([(64, 64), (256, 256), (100, 140)]))
def test_affine_stays_within_its_bounds(seed, shape):
    height, width = shape
    flat = np.full((*shape, 3), 200, np.uint8)
    # Nearest fill: no edge of another colour comes into view.
    assert (affine(flat, np.random.default_rng(seed)) == flat).all()
    image = np.zeros((*shape, 3), np.uint8)
    cv2.circle(image, (width // 2, height // 2), 6, (255, 255, 255), -1)
    moved = affine(image, np.random.default_rng(seed))
    assert moved.shape == image.shape
    assert moved.dtype == np.uint8
    moments = cv2.moments(moved[:, :, 0])
    assert abs(moments["m10"] / moments["m00"] - width / 2) <= 0.1 * width + 2
    assert abs(moments["m01"] / moments["m00"] - height / 2) <= 0.1 * height + 2
    area = moments["m00"] / cv2.moments(image[:, :, 0])["m00"]
    assert 0.8**2 - 0.1 <= area <= 1.2**2 + 0.1


def test_affine_varies_and_repeats():
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    first, again, other = (affine(image, np.random.default_rng(s)) for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert (first != image).any()


def test_altered_copies_differ_from_their_crop(whole):
    crops: dict[bool, dict[tuple, Crop]] = {True: {}, False: {}}
    for crop in read_index(whole):
        crops[bool(crop.augmented)][crop.video, crop.frame, crop.x1] = crop
    assert crops[True].keys() == crops[False].keys()
    for key, copy in crops[True].items():
        assert copy.blur == crops[False][key].blur
        assert (whole / copy.path).read_bytes() != (whole / crops[False][key].path).read_bytes()
