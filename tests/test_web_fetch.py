"""Fetching a file from a web address: what is asked, what never is, and what is put up with."""

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from requests_hardened.ip_filter import InvalidIPAddress

from unmask.errors import UnreadableError
from unmask.web import fetch as room
from unmask.web.fetch import fetch


@pytest.fixture
def server(monkeypatch):
    """A web server on loopback, where fetching is let in: ``pages`` are what it does."""
    asked, pages = [], {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            asked.append((self.path, self.headers))
            self.close_connection = True
            pages[self.path](self)

        def say(self, status=200, body=b"", **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_):  # the other side may hang up
            pass

    web = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True).start()
    port = web.server_address[1]
    monkeypatch.setattr(room, "_ALLOW_LOOPBACK", True)
    monkeypatch.setattr(room, "_PORTS", (80, 443, port))
    yield SimpleNamespace(url=f"http://127.0.0.1:{port}", port=port, asked=asked, pages=pages)
    web.shutdown()
    web.server_close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "fetched"


def refused(address, target, words, limit_bytes=1000, seconds=20) -> UnreadableError:
    with pytest.raises(UnreadableError, match=words) as caught:
        fetch(address, target, limit_bytes, seconds)
    assert not target.exists()
    return caught.value


def leads_to(place):
    return lambda page: page.say(302, Location=place, Set_Cookie="a=b", Content_Length="0")


def test_a_file_is_fetched(server, target):
    content = bytes(range(256)) * 1000
    server.pages["/v.mp4?a=b"] = lambda page: page.say(
        body=content, Content_Length=str(len(content))
    )
    fetch(server.url + "/v.mp4?a=b#part", target, len(content), 20)
    assert target.read_bytes() == content


def test_redirects_are_followed_with_nothing_of_ours(server, target, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody is there
    server.pages["/a"] = leads_to("/b")
    server.pages["/b"] = leads_to(server.url + "/c")
    server.pages["/c"] = lambda page: page.say(
        body=b"4\r\nfour\r\n0\r\n\r\n", Transfer_Encoding="chunked"
    )
    fetch(server.url + "/a", target, 4, 20)
    assert target.read_bytes() == b"four"
    assert [path for path, _ in server.asked] == ["/a", "/b", "/c"]
    for _, headers in server.asked:
        assert not {"cookie", "authorization", "referer"} & {name.lower() for name in headers}


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "[::1]", "[::ffff:127.0.0.1]",
        "0.0.0.0", "[::]", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "[fd00::1]",
        "169.254.169.254", "[fe80::1]", "224.0.0.1", "[ff02::1]", "255.255.255.255",
        "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fec0::1]", "168.63.129.16",
        "[::ffff:168.63.129.16]", "[::168.63.129.16]", "[::ffff:0:168.63.129.16]",
    ],
)  # fmt: skip
def test_own_networks_are_not_asked(server, target, monkeypatch, host):
    monkeypatch.setattr(room, "_ALLOW_LOOPBACK", False)
    error = refused(f"http://{host}:{server.port}/", target, "on the open internet")
    assert isinstance(error.__cause__, InvalidIPAddress)
    assert not server.asked


def test_a_redirect_into_own_networks_is_not_followed(server, target, monkeypatch):
    def page(page):
        room._ALLOW_LOOPBACK = False  # as it is for who does not test
        leads_to(f"http://localhost:{server.port}/secret")(page)

    server.pages["/"] = page
    error = refused(server.url, target, "on the open internet")
    assert isinstance(error.__cause__, InvalidIPAddress)
    assert len(server.asked) == 1


def test_a_name_is_looked_up_once_and_what_was_checked_is_asked(server, target, monkeypatch):
    looked_up = []
    real = socket.getaddrinfo

    def rebinding(host, *rest, **options):
        if host != "video.example":
            return real(host, *rest, **options)
        looked_up.append(host)
        return real("127.0.0.1" if len(looked_up) == 1 else "203.0.113.1", *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    server.pages["/"] = lambda page: page.say(body=b"video", Content_Length="5")
    fetch(f"http://video.example:{server.port}/", target, 5, 20)
    assert looked_up == ["video.example"]
    assert server.asked[0][1]["Host"] == f"video.example:{server.port}"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("", "no web address"),
        ("video.mp4", "no web address"),
        ("http://", "no web address"),
        ("http://[::1", "no web address"),
        ("file:///etc/passwd", "Only http and https"),
        ("ftp://example.org/v.mp4", "Only http and https"),
        ("javascript:alert(1)", "Only http and https"),
        ("http://me:secret@example.org/v.mp4", "password"),
        ("http://example.org:22/", "usual ports"),
        ("http://example.org:99999/", "no web address"),
        ("http://nowhere.invalid/", "on the open internet"),
    ],
)
def test_addresses_that_are_not_asked(target, address, words):
    refused(address, target, words)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("file:///etc/passwd", "Only http and https"),
        ("http://me:secret@127.0.0.1/", "password"),
        ("http://127.0.0.1:22/", "usual ports"),
        ("/", "only leads on to others"),
        ("http://[bad/x", "no web address"),
        ("http://example.org/\xe9", "no web address"),  # a byte that is no UTF-8
    ],
)
def test_places_where_no_redirect_may_lead(server, target, place, words):
    server.pages["/"] = leads_to(place)
    refused(server.url, target, words)
    assert len(server.asked) <= 6


def test_answers_that_are_no_file(server, target):
    server.pages |= {
        "/page": lambda page: page.say(body=b"<html>", Content_Type="Text/HTML; charset=utf-8"),
        "/gone": lambda page: page.say(404, Content_Length="0"),
        "/empty": lambda page: page.say(Content_Length="0"),
        "/short": lambda page: page.say(body=b"abc", Content_Length="1000"),
    }
    refused(server.url + "/page", target, "a web page, not of a video: download the video")
    refused(server.url + "/gone", target, r"answers 404 \(Not Found\)")
    refused(server.url + "/empty", target, "empty file")
    refused(server.url + "/short", target, "broke off")


def test_no_more_is_taken_than_allowed(server, target):
    sent = []

    def endless(page):
        page.say()
        while len(sent) < 100_000:
            page.wfile.write(bytes(10_000))
            sent.append(10_000)

    server.pages["/endless"] = endless
    server.pages["/large"] = lambda page: page.say(Content_Length="1001")
    refused(server.url + "/endless", target, "larger than 1 MB", limit_bytes=1_000_000)
    assert sum(sent) < 50_000_000
    refused(server.url + "/large", target, "larger than", limit_bytes=1000)


def test_no_more_time_is_taken_than_allowed(server, target):
    done = threading.Event()

    def drip(page, line):
        while not done.wait(0.1):
            page.wfile.write(line)
            page.wfile.flush()

    def slow_body(page):
        page.say()
        drip(page, b"x")

    server.pages["/body"] = slow_body
    server.pages["/headers"] = lambda page: drip(page, b"H")
    for path in ("/body", "/headers"):
        start = time.monotonic()
        refused(server.url + path, target, "too long", seconds=0.5)
        assert time.monotonic() - start < 5
    done.set()
