"""The files of jobs, in a local folder and in S3-compatible storage."""

import multiprocessing
import os
import socket
import stat
import threading

import pytest

from unmask.web.files import RESULT, SOURCE, Files


@pytest.fixture(params=["folder", "s3"])
def url(request, tmp_path) -> str:
    if request.param == "folder":
        return str(tmp_path / "a folder?#::" / "jobs")
    return request.getfixturevalue("s3")


@pytest.fixture
def files(url) -> Files:
    return Files(url)


@pytest.fixture
def put(files, tmp_path):
    def put(job, name, content=b"content", into=files):
        file = tmp_path / "to be put"
        file.write_bytes(content)
        into.put(job, name, file)
        assert not file.exists()

    return put


def size(files, job, name):
    """How many bytes a file has."""
    with files.open(job, name) as file:
        return file.seek(0, os.SEEK_END)


def test_a_file_comes_back_as_it_was(files, put, tmp_path):
    put("job", SOURCE, b"0123456789")
    assert size(files, "job", SOURCE) == 10
    with files.open("job", SOURCE) as file:
        file.seek(4)
        assert file.read(3) == b"456"
    assert files.fetch("job", SOURCE, tmp_path / "copy").read_bytes() == b"0123456789"
    put("job", SOURCE, b"again")
    assert files.fetch("job", SOURCE, tmp_path / "copy").read_bytes() == b"again"


def test_a_large_file(files, put, tmp_path):
    # Larger than the parts in which S3 takes and gives files.
    content = os.urandom(1 << 20) * 101
    put("job", SOURCE, content)
    assert size(files, "job", SOURCE) == len(content)
    with files.open("job", SOURCE) as file:
        file.seek(-5, os.SEEK_END)
        assert file.read() == content[-5:]
    assert files.fetch("job", SOURCE, tmp_path / "copy").read_bytes() == content


def test_deleting_a_job(files, put, tmp_path):
    assert files.jobs() == []
    for job in ("one", "two"):
        put(job, SOURCE)
        put(job, RESULT)
    assert sorted(files.jobs()) == ["one", "two"]
    files.delete("one")
    files.delete("one")  # nothing is left to be deleted
    assert files.jobs() == ["two"]
    assert size(files, "two", RESULT) == 7
    for ask in (
        lambda: files.open("one", SOURCE),
        lambda: files.fetch("one", SOURCE, tmp_path / "copy"),
    ):
        with pytest.raises(FileNotFoundError):
            ask()


def in_a_process(do, *arguments):
    """What ``do`` does in a forked process, as workers are."""
    process = multiprocessing.get_context("fork").Process(target=do, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_what_other_processes_do_is_seen(files, put):
    put("old", SOURCE)
    assert files.jobs() == ["old"]
    in_a_process(put, "new", SOURCE)
    assert sorted(files.jobs()) == ["new", "old"]
    assert size(files, "new", SOURCE) == 7
    in_a_process(files.delete, "old")
    assert files.jobs() == ["new"]
    with pytest.raises(FileNotFoundError):
        files.open("old", SOURCE)
    in_a_process(put, "new", RESULT)
    files.delete("new")  # all of it, also what others added
    assert files.jobs() == []
    with pytest.raises(FileNotFoundError):
        size(files, "new", RESULT)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\0", "ä", "a\n"])
def test_names_that_lead_elsewhere_are_not_there(files, put, name, tmp_path):
    put("job", SOURCE)
    for job, file in ((name, SOURCE), ("job", name)):
        with pytest.raises(FileNotFoundError):
            files.open(job, file)
        with pytest.raises(FileNotFoundError):
            files.fetch(job, file, tmp_path / "copy")
        with pytest.raises(FileNotFoundError):
            put(job, file)
    files.delete(name)
    assert size(files, "job", SOURCE) == 7


def test_an_s3_that_hangs_is_told_soon(s3, tmp_path, monkeypatch):
    system = pytest.importorskip("s3fs").S3FileSystem
    monkeypatch.setattr(system, "read_timeout", 0.5)
    (tmp_path / "file").write_bytes(b"content")
    told = []

    def put():
        try:
            Files(s3).put("job", SOURCE, tmp_path / "file")
        except Exception as error:
            told.append(str(error))

    with socket.create_server(("127.0.0.1", 0)) as hangs:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{hangs.getsockname()[1]}")
        system.clear_instance_cache()  # other tests' has another address
        thread = threading.Thread(target=put, daemon=True)
        thread.start()
        thread.join(10)
        system.clear_instance_cache()
    assert "Read timeout" in told[0]


def test_others_on_this_machine_cannot_read_them(tmp_path):
    file = tmp_path / "file"
    file.touch()
    Files(str(tmp_path / "jobs")).put("job", SOURCE, file)
    assert stat.S_IMODE((tmp_path / "jobs").stat().st_mode) == 0o700
