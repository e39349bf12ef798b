"""Forging a whole video, and what is refused before anything is lost."""

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import write_video

from unmask.data.synthesize import sheet, synthesize
from unmask.errors import UnmaskError, UsageError
from unmask.video import Video


def pictures(path) -> np.ndarray:
    with Video(path) as video:
        return np.stack([frame.image for frame in video.sample(every=1)]).astype(int)


def test_only_the_face_is_forged_and_no_frame_is_lost(tmp_path, real_frames):
    odd = [frame[:287, :359] for frame in real_frames[:4]]
    seconds = [0.0, 0.04, 0.1, 1.5]
    source = write_video(tmp_path / "real.mkv", odd, "ffv1", "bgr0", seconds=seconds)
    fake = tmp_path / "a:fake.mp4"
    summary = synthesize(source, fake, family="decoder_look", donor=None, seed=1)
    assert summary == f"forged 4 faces in 4 frames by decoder_look: {fake}"
    with Video(fake) as video:
        assert [f.second for f in video.sample(every=1)] == pytest.approx(seconds)
    forged = pictures(fake)
    assert forged.shape == (4, 288, 360, 3)
    change = np.abs(forged[:, :287, :359] - np.stack(odd)).mean((0, 3))
    assert change[80:230, 120:220].mean() > 2 * change[:, 260:].mean()  # the face and a wall
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a:fake.mp4", "real.mkv"]


def test_without_the_extra_it_says_how_to_get_it(tmp_path):
    run = "import sys; sys.modules['scipy'] = None; from unmask.cli import main; "
    run += "sys.exit(main(['synthesize', 'a.mp4', 'b.mp4']))"
    command = [sys.executable, "-c", run]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 1
    assert "needs the package scipy" in done.stderr
    assert "pip install '.[train]' in Unmask's folder" in done.stderr


@pytest.fixture
def wall(tmp_path):
    return write_video(tmp_path / "wall.mov", [np.full((1, 1, 3), 90, np.uint8)], "png", "rgb24")


def test_without_a_face_nothing_is_written(tmp_path, wall, real_clip, samples):
    fake = tmp_path / "fake.mp4"
    fake.write_bytes(b"an earlier one")
    with pytest.raises(UnmaskError, match=r"no face was found in wall\.mov"):
        synthesize(wall, fake, family="self_blend", donor=None, seed=0)
    for donor, why in ((wall, "none in wall"), (None, "--donor")):
        with pytest.raises(UsageError, match=why):
            synthesize(real_clip, fake, family="cross_swap", donor=donor, seed=0)
    assert fake.read_bytes() == b"an earlier one"
    with pytest.raises(UsageError, match="0 found"):
        sheet(tmp_path, tmp_path / "sheet.jpg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fake.mp4", "wall.mov"]


def test_an_output_that_makes_no_sense_is_refused_and_the_source_kept(tmp_path, wall, samples):
    before = wall.read_bytes()
    for output, why in (
        (wall, "is the video to be forged"),
        (tmp_path / "fake.gif", r"ends in \.mp4"),
        (tmp_path / "none" / "fake.mp4", "no folder"),
    ):
        with pytest.raises(UsageError, match=why):
            synthesize(wall, output, family="self_blend", donor=None, seed=0)
    donor = tmp_path / "donor.mp4"
    donor.write_bytes(before)
    with pytest.raises(UsageError, match="is the donor"):
        synthesize(wall, donor, family="cross_swap", donor=donor, seed=0)
    with pytest.raises(UsageError, match=r"ends in \.jpg"):
        sheet(samples / "people", tmp_path / "sheet.mp4")
    portrait = shutil.copy(next((samples / "people").glob("*.jpg")), tmp_path / "portrait.jpg")
    with pytest.raises(UsageError, match="is a portrait"):
        sheet(tmp_path, Path(portrait))
    assert donor.read_bytes() == before
    assert wall.read_bytes() == before


def test_a_sheet_shows_every_family_of_six_people(tmp_path, samples):
    folder = tmp_path / "people"
    shutil.copytree(samples / "people", folder)
    (folder / "0.jpg").write_text("no picture")
    assert "(1 picture could not" in sheet(folder, tmp_path / "sheet.png", seed=4)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (6 * 128, (1 + 5 * 2) * 128, 3)
