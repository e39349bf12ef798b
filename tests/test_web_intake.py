"""Uploads: what is taken, under which name, and that nothing is lost or left lying about."""

import io
import os
import signal
import socket
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import closing

import cv2
import numpy as np
import pytest
import requests
from clips import write_video
from hypothesis import example, given
from hypothesis import strategies as st
from web_server import TOKEN, Web, hand_in, serving, web

from unmask.web.guard import WRONG_TOKENS
from unmask.web.intake import clean_name, kind_of
from unmask.web.services import connect

MP4 = b"\0\0\0\x18ftypmp42" + bytes(100)
REFUSED = {
    "hls": b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\nfile:///etc/passwd\n",
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "sdp": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
    "mpd": b"<?xml version='1.0'?><MPD/>",
    "edl": b"TITLE: CUT\n001 AX V C 00:00:00:00",
    "html": b"<!doctype html><script>alert(1)</script>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "zip": b"PK\x03\x04\x14\0\0\0",
    "elf": b"\x7fELF\x02\x01\x01\0",
    "exe": b"MZ\x90\0\x03\0\0\0",
    "wav": b"RIFF\x24\0\0\0WAVEfmt ",
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0",
    "empty": b"",
}


@pytest.fixture
def site(tmp_path) -> Web:
    return web(tmp_path, upload_limit=1)


# What a file is.


@pytest.mark.parametrize(
    ("ending", "codec"),
    [("mp4", "libx264"), ("mov", "libx264"), ("mkv", "libx264"), ("webm", "libvpx"),
     ("avi", "mpeg4"), ("mpeg", "mpeg2video"), ("ts", "libx264"), ("m2ts", "libx264"),
     ("flv", "flv"), ("ogg", "libvpx"), ("wmv", "wmv2"), ("mxf", "mpeg2video"),
     ("3gp", "mpeg4")],
)  # fmt: skip
def test_videos_are_known_by_their_first_bytes(tmp_path, ending, codec):
    clip = write_video(tmp_path / f"a.{ending}", [np.zeros((64, 64, 3), np.uint8)] * 9, codec)
    assert kind_of(clip.read_bytes()[:4096]) == {"m2ts": "ts"}.get(ending, ending)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tiff"])
def test_images_are_known_by_their_first_bytes(tmp_path, ending):
    assert cv2.imwrite(str(tmp_path / f"a.{ending}"), np.zeros((8, 8, 3), np.uint8))
    assert kind_of((tmp_path / f"a.{ending}").read_bytes()) == ending


@given(st.sampled_from(sorted(REFUSED)), st.binary(max_size=600))
def test_what_comes_later_in_a_file_does_not_make_it_a_video(name, rest):
    head = REFUSED[name] or b"text"
    assert kind_of(head + rest) is None


@given(st.binary(max_size=4096))
def test_any_bytes_have_a_kind_or_none(head):
    assert kind_of(head) is None or kind_of(head).isalnum()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_video_is_refused_with_a_sentence(site, name):
    answer = hand_in(site.browser(), REFUSED[name], "innocent.mp4")
    assert answer.status_code == 415
    assert answer.json["detail"].endswith((".", "that."))
    assert not site.jobs()
    assert not site.incoming()


# What it is called.


@given(st.text(max_size=600))
@example("../../etc/passwd")
@example("C:\\Users\\me\\clip.mp4")
@example("a\u202e4pm.exe")
@example("x" * 300 + ".mp4")
@example("\0")
@example("..")
@example("\ud800")
def test_names_are_harmless(name):
    clean = clean_name(name)
    assert 1 <= len(clean) <= 255
    assert not set(clean) & set("/\\")
    assert clean.strip(" .") == clean
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in clean)
    assert clean_name(clean) == clean


def test_names_stay_what_people_called_them():
    assert clean_name("Gespräch mit Ärzten (2).MP4") == "Gespräch mit Ärzten (2).MP4"
    assert clean_name("/home/me/日本語.mov") == "日本語.mov"
    assert clean_name("x" * 300 + ".webm").endswith("x.webm")


def test_a_name_cannot_add_headers_or_markup(site):
    browser = site.browser()
    body = (b'--B\r\nContent-Disposition: form-data; name="file"; '
            b'filename="<img src=x onerror=alert(1)>%0d%0aX-Evil: 1\\".mp4"\r\n\r\n'
            + MP4 + b"\r\n--B--\r\n")  # fmt: skip
    answer = browser.post("/api/v1/jobs", data=body, content_type="multipart/form-data; boundary=B")
    assert answer.status_code == 202
    job = answer.json["id"]
    saved = browser.get(f"/api/v1/jobs/{job}/files/source")
    assert "X-Evil" not in saved.headers
    shown = saved.headers["Content-Disposition"]
    assert shown.count('"') == 2
    assert not set(shown) & set("<>\\")
    for page in ("/", "/history", f"/jobs/{job}"):
        assert b"<img src=x" not in browser.get(page).data


# What is kept.


def test_an_upload_is_kept_whole_and_queued(site, real_clip):
    answer = hand_in(site.browser(), real_clip.read_bytes(), "/tmp/real.mp4")
    assert answer.status_code == 202
    job = answer.json
    assert (job["state"], job["name"], job["kind"]) == ("queued", "real.mp4", "mp4")
    assert job["size_bytes"] == real_clip.stat().st_size
    assert answer.headers["Location"] == f"/api/v1/jobs/{job['id']}"
    with site.services.files.open(job["id"], "source") as file:
        assert file.read() == real_clip.read_bytes()
    assert site.services.tasks.waiting == 1
    assert not site.incoming()


def test_a_file_that_is_too_large_is_refused(site):
    browser = site.browser()
    just_fits = hand_in(browser, MP4 + bytes(1_000_000 - len(MP4)))
    assert just_fits.status_code == 202
    # One byte too many is only seen while it is read, a lot before.
    for size in (1_000_001, 1_100_000):
        answer = hand_in(browser, MP4 + bytes(size - len(MP4)))
        assert answer.status_code == 413
        assert "1 MB" in answer.json["detail"]
    assert site.jobs() == [just_fits.json["id"]]
    assert not site.incoming()


@pytest.mark.parametrize(
    "data", [{}, {"clip": "x"}, {"file": "no file"}, {"other": (io.BytesIO(MP4), "a.mp4")},
             {"file": (io.BytesIO(MP4), "a.mp4"), "more": (io.BytesIO(MP4), "b.mp4")},
             {"file": [(io.BytesIO(MP4), "a.mp4"), (io.BytesIO(MP4), "b.mp4")]}]
)  # fmt: skip
def test_one_file_is_what_has_to_be_sent(site, data):
    answer = site.browser().post("/api/v1/jobs", data=data, content_type="multipart/form-data")
    assert answer.status_code == 400
    assert not site.jobs()
    assert not site.incoming()


def test_a_full_queue_refuses_and_says_when_to_come_back(tmp_path, monkeypatch):
    site = web(tmp_path, queue_limit=1)
    browser = site.browser()
    assert hand_in(browser, MP4).status_code == 202
    early = hand_in(browser, MP4)
    # As if the queue had filled up while the file was read.
    monkeypatch.setattr("unmask.web.intake._check_queue", lambda: None)
    late = hand_in(browser, MP4)
    for answer in (early, late):
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) > 0
    assert len(site.jobs()) == 1
    assert not site.incoming()


def test_uploads_of_one_address_are_limited(tmp_path):
    site = web(tmp_path, upload_rate=2)
    answers = [hand_in(site.browser(), MP4).status_code for _ in range(3)]
    assert answers == [202, 202, 429]


def test_rates_are_counted_in_redis_for_all_servers(tmp_path, redis_server):
    sites = [web(tmp_path, upload_rate=2, queue=redis_server) for _ in range(2)]
    answers = [hand_in(sites[i % 2].browser(), MP4).status_code for i in range(3)]
    assert answers == [202, 202, 429]


def test_a_database_that_fails_leaves_no_file(site, monkeypatch):
    browser = site.browser()

    def fail(*args, **kwargs):
        raise RuntimeError("the database is away")

    monkeypatch.setattr(site.services.store, "add", fail)
    assert hand_in(browser, MP4).status_code == 500
    assert not site.jobs()
    assert not site.incoming()


def test_a_queue_that_fails_loses_nothing(site, monkeypatch):
    def fail(job):
        raise ConnectionError("Redis is away")

    monkeypatch.setattr(site.services.tasks, "submit", fail)
    job = hand_in(site.browser(), MP4).json
    assert [waiting.id for waiting in site.services.store.abandoned()] == [job["id"]]


def test_web_addresses_are_taken_where_they_are_allowed(site, tmp_path):
    address = {"address": "https://videos.example/a%20clip.mp4?key=1"}
    assert site.browser().post("/api/v1/jobs", json=address).status_code == 403
    open_site = web(tmp_path / "open", web_addresses=True)
    browser = open_site.browser()
    job = browser.post("/api/v1/jobs", json=address).json
    assert (job["name"], job["kind"], job["state"]) == ("a clip.mp4", "", "queued")
    assert open_site.services.store.get(job["id"]).address == address["address"]
    for wrong in ("file:///etc/passwd", "https://", "ftp://a.example/b", "//a/b", "http://[", 5,
                  "https://a.example/\r\nHost: b", "https://a.example/" + "x" * 2048):  # fmt: skip
        assert browser.post("/api/v1/jobs", json={"address": wrong}).status_code == 400, wrong
    assert browser.post("/api/v1/jobs", json=[]).status_code == 400


# A real server.


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[tuple[str, int]]:
    """A server with an access token and a limit of 1 MB: its address and port."""
    folder = tmp_path_factory.mktemp("guarded")
    with serving(folder, access_token=TOKEN, upload_limit=1) as (address, _):
        yield address, int(address.rpartition(":")[2])


def say(port: int, head: str, sender: str = "127.0.0.1") -> tuple[socket.socket, bytes]:
    """Send the head of a request and wait for the first of the answer, two seconds at most."""
    line = socket.create_connection(("127.0.0.1", port), 2, (sender, 0))
    line.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    try:
        return line, line.recv(65536)
    except TimeoutError:
        return line, b""


@pytest.mark.parametrize(
    ("path", "authorization", "length", "status"),
    [("/api/v1/jobs", f"Bearer {TOKEN}", 2 << 40, 413),
     ("/api/v1/jobs", "Bearer wrong", 500_000, 401),
     ("/login", f"Bearer {TOKEN}", 500_000, 413)],
)  # fmt: skip
def test_what_is_too_long_is_refused_before_it_is_sent(
    guarded, path, authorization, length, status
):
    line, answer = say(guarded[1], f"POST {path} HTTP/1.1\nHost: localhost\n"
                       f"Authorization: {authorization}\nContent-Length: {length}")  # fmt: skip
    with closing(line):
        assert answer.startswith(f"HTTP/1.1 {status}".encode())
        assert b"application/problem+json" in answer
        assert (b"Www-Authenticate: Bearer" in answer) == (status == 401)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a second loopback address")
@pytest.mark.parametrize("proxy", ["", "127.0.0.1"])
def test_wrong_tokens_of_uploads_shut_out_their_address_alone(tmp_path, proxy):
    with serving(tmp_path, access_token=TOKEN, trusted_proxy=proxy) as (address, _):
        port = int(address.rpartition(":")[2])

        def upload(token: str, sender: str) -> bytes:
            head = (f"POST /api/v1/jobs HTTP/1.1\nHost: localhost\n"
                    f"X-Forwarded-For: {sender}\nAuthorization: Bearer {token}\n"
                    "Content-Length: 500000")  # fmt: skip
            line, answer = say(port, head, "127.0.0.1" if proxy else sender)
            line.close()
            return answer[:12]

        for _ in range(WRONG_TOKENS):
            assert upload("wrong", "127.0.0.2") == b"HTTP/1.1 401"
        assert upload(TOKEN, "127.0.0.2") == b"HTTP/1.1 429"
        assert upload(TOKEN, "127.0.0.3") == b""  # it waits for the file


def test_an_upload_may_take_its_time_and_delays_nobody(guarded):
    address, port = guarded
    body = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    body += MP4 + b"\r\n--B--\r\n"
    line, _ = say(port, "POST /api/v1/jobs HTTP/1.1\nHost: localhost\nExpect: 100-continue\n"
                  f"Authorization: Bearer {TOKEN}\nContent-Length: {len(body)}\n"
                  "Content-Type: multipart/form-data; boundary=B")  # fmt: skip
    with closing(line):
        line.settimeout(20)
        for start in range(0, len(body), 40):
            line.sendall(body[start : start + 40])
            assert requests.get(f"{address}/healthz", timeout=5).status_code == 200
        assert line.recv(65536).startswith(b"HTTP/1.1 202")


def test_a_server_that_is_killed_while_it_receives_accepted_nothing(tmp_path):
    class Endless(io.RawIOBase):
        """A form that never ends."""

        def __iter__(self):
            yield b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + MP4
            while True:
                yield bytes(65536)
                time.sleep(0.01)

    def upload():
        with pytest.raises(requests.RequestException):
            requests.post(
                f"{address}/api/v1/jobs", data=iter(Endless()), timeout=20,
                headers={"Content-Type": "multipart/form-data; boundary=B"},
            )  # fmt: skip

    folder = tmp_path / "data" / "incoming"
    with serving(tmp_path) as (address, process):
        sender = threading.Thread(target=upload)
        sender.start()
        spooled = f"/proc/{process.pid}/fd"
        for _ in range(200):
            names = [os.readlink(f"{spooled}/{fd}") for fd in os.listdir(spooled)]
            if any(name.startswith(str(folder)) for name in names):
                break  # the body goes to disk, and there is where
            time.sleep(0.05)
        else:
            pytest.fail("nothing was written to the folder of incoming files")
        process.send_signal(signal.SIGKILL)
        sender.join()
    for name, age in (("left", 3600), ("of another server", 0)):
        (folder / name).write_bytes(b"what is in a file that has a name")
        os.utime(folder / name, (time.time() - age,) * 2)
    with serving(tmp_path) as (address, _):
        assert requests.get(f"{address}/api/v1/jobs", timeout=5).json()["jobs"] == []
        assert [file.name for file in folder.iterdir()] == ["of another server"]
        assert connect(web(tmp_path).settings).files.jobs() == []
