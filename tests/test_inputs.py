"""Which files are judged."""

import errno
import os
from pathlib import Path

import pytest

from unmask.errors import UsageError
from unmask.inputs import find_inputs


def test_inputs_are_found_in_order(tmp_path):
    for name in ("b.mp4", "a.JPG", "sub/c.mkv", "sub/notes.txt", "sub/deep/d.webm"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "folder.mp4").mkdir()
    for ours in ("b.annotated.mp4", "b.annotated-2.mp4", "._b.mp4"):  # or of macOS
        (tmp_path / ours).touch()
    found = [p.relative_to(tmp_path).as_posix() for p in find_inputs([tmp_path])]
    assert found == ["a.JPG", "b.mp4", "sub/c.mkv", "sub/deep/d.webm"]
    text = tmp_path / "sub/notes.txt"
    assert find_inputs([text, tmp_path / "b.mp4"]) == [text, tmp_path / "b.mp4"]
    with pytest.raises(UsageError, match="does not exist"):
        find_inputs([tmp_path / "b.mp4", tmp_path / "missing.mp4"])
    with pytest.raises(UsageError, match="no videos or images"):
        find_inputs([tmp_path / "folder.mp4"])


def test_an_input_that_is_named_twice_is_judged_once(tmp_path, monkeypatch):
    for name in ("b.mp4", "a.mp4", "sub/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "linked").symlink_to(tmp_path / "sub")
    (tmp_path / "a.mp4").rename(tmp_path / "z.mp4")
    (tmp_path / "a.mp4").symlink_to("z.mp4")  # whoever made it looks for its line
    monkeypatch.chdir(tmp_path)
    named = [Path("z.mp4"), Path(), tmp_path / "b.mp4", Path("linked/c.mp4"), Path("sub/../sub")]
    assert [str(p) for p in find_inputs(named)] == ["z.mp4", "a.mp4", "b.mp4", "sub/c.mp4"]


def test_what_cannot_be_looked_at_is_not_left_out(tmp_path, monkeypatch):
    for name in ("closed/a.mp4", "listed/b.mp4", "c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    closed, listed = tmp_path / "closed", tmp_path / "listed"
    refused = PermissionError(errno.EACCES, "Permission denied", str(closed))

    def guarded(real, forbidden):
        def look(path=".", *args, **options):
            if str(path).startswith(str(forbidden)):
                raise refused
            return real(path, *args, **options)

        return look

    monkeypatch.setattr(os, "scandir", guarded(os.scandir, closed))
    monkeypatch.setattr(os, "stat", guarded(os.stat, f"{listed}/"))
    unread = []
    assert find_inputs([tmp_path], unread.append) == [tmp_path / "c.mp4", listed / "b.mp4"]
    assert [str(each) for each in unread] == [
        f"the folder {closed} cannot be read (Permission denied), so nothing in it is judged: get "
        "the right to read it, or leave it out"
    ]
    for paths in ([tmp_path], [closed]):  # 'compare' has nobody to tell
        with pytest.raises(UsageError, match=r"closed cannot be read \(Permission denied\)"):
            find_inputs(paths)
