"""Where the files go that are made of the inputs."""

import os
from pathlib import Path

import pytest

from unmask.errors import UsageError
from unmask.outputs import exclusive, is_page, plan, write_whole


def test_many_inputs_of_one_name_are_planned_in_no_time(tmp_path, monkeypatch):
    asked = []
    realpath = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: asked.append(path) or realpath(path))
    inputs = [Path(f"u{n}", "video.mp4" if n % 2 else "Video.mp4") for n in range(300)]
    planned = plan(inputs, tmp_path, "--html", lambda path: (path.name, ".html"))
    assert [page.name for page in planned[:3]] == [
        "Video.mp4.html", "video.mp4-2.html", "Video.mp4-3.html",
    ]  # fmt: skip
    assert planned[-1].name == "video.mp4-300.html"
    assert len(asked) < 4 * len(inputs)


def test_a_file_has_one_holder_and_keeps_what_is_in_it(tmp_path):
    path = tmp_path / "a.run"
    path.write_text("earlier")
    with exclusive(path) as held:
        assert held.read() == "earlier"
        with pytest.raises(UsageError, match=r"another run holds .*a\.run"), exclusive(path):
            pass
    with exclusive(path):
        pass
    with pytest.raises(UsageError, match="give --json another file"), exclusive(tmp_path):
        pass


def test_a_page_is_told_from_others(tmp_path):
    page = tmp_path / "a.html"
    assert not is_page(page)
    page.write_text("<title>Notes</title>")
    assert not is_page(page)
    page.write_text(f"<title>Looks manipulated: a (Unmask report)</title>{'x' * 20000}abc1")
    assert is_page(page)
    assert is_page(page, "abc1")
    assert not is_page(page, "abc2")


def test_a_text_is_there_whole_or_as_it_was(tmp_path):
    target = tmp_path / "page.html"
    write_whole(target, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(target, "new \udce9")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
