"""Content Credentials, tags and hints, on files signed and tagged here."""

import _ctypes
import io
import json
import shutil
import socket
import struct
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import c2pa
import numpy as np
import pytest
from clips import jpeg, write_video
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from unmask import Analyzer, credentials
from unmask.cli import main
from unmask.credentials import CREDENTIAL_STATES, checked_list
from unmask.errors import UsageError
from unmask.provenance import inspect

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
GREY = np.full((64, 64, 3), 127, np.uint8)


class Studio:
    """Signs media with a certificate that an authority of its own has made."""

    def __init__(self, valid: timedelta = timedelta(days=20)):
        self._root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        root = self._certificate("Test Root", "Test Authority", self._root_key, timedelta(days=20))
        leaf = self._certificate("Test Signer", "Test Studio", key, valid)
        self.root = root.public_bytes(serialization.Encoding.PEM)
        self._chain = leaf.public_bytes(serialization.Encoding.PEM) + self.root
        self._key = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def _certificate(self, name, organisation, key, valid):
        def names(common, owner):
            parts = (NameOID.ORGANIZATION_NAME, owner), (NameOID.COMMON_NAME, common)
            return x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])

        is_root = key is self._root_key
        start = datetime.now(UTC) - timedelta(days=1)
        uses = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"),
            False,
        )  # fmt: skip
        key_id = x509.SubjectKeyIdentifier.from_public_key
        authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key
        builder = (
            x509.CertificateBuilder(serial_number=x509.random_serial_number())
            .subject_name(names(name, organisation))
            .issuer_name(names("Test Root", "Test Authority"))
            .public_key(key.public_key())
            .not_valid_before(start)
            .not_valid_after(start + valid)
            .add_extension(x509.BasicConstraints(is_root, None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, **uses
                ),
                critical=True,
            )
            .add_extension(key_id(key.public_key()), critical=False)
            .add_extension(authority_id(self._root_key.public_key()), critical=False)
        )
        if not is_root:
            purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purpose, critical=False)
        return builder.sign(self._root_key, hashes.SHA256())

    def sign(self, data: bytes, mime: str, agent="Sora", remote_url: str | None = None) -> bytes:
        action = {
            "action": "c2pa.created",
            "softwareAgent": {"name": agent},
            "digitalSourceType": GENERATED,
        }
        manifest = {
            "claim_generator_info": [{"name": agent, "version": "2"}],
            "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
        }
        settings = {
            "verify": {"verify_after_sign": False},
            "builder": {"thumbnail": {"enabled": False}},
        }
        context = c2pa.Context(c2pa.Settings.from_dict(settings))
        info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, self._chain, self._key, None)
        signed = io.BytesIO()
        with c2pa.Builder(json.dumps(manifest), context=context) as builder:
            if remote_url:
                builder.set_no_embed()
                builder.set_remote_url(remote_url)
            builder.sign(c2pa.Signer.from_info(info), mime, io.BytesIO(data), signed)
        return signed.getvalue()


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio()


@pytest.fixture(scope="module")
def signed(studio, fake_clip) -> bytes:
    return studio.sign(fake_clip.read_bytes(), "video/mp4")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def tagged(path: Path, **tags: str) -> Path:
    """A Matroska video of one picture with these tags."""
    with av.open(str(path), "w", format="matroska") as container:
        container.metadata.update(tags)
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = GREY.shape[:2]
        container.mux(stream.encode(av.VideoFrame.from_ndarray(GREY, format="rgb24")))
        container.mux(stream.encode())
    return path


def with_texts(data: bytes, make: bytes, software: bytes) -> bytes:
    """A JPEG whose EXIF names a camera and a program."""
    values = make + b"\0", software + b"\0"
    start = 8 + 2 + 12 * 2 + 4
    entries = struct.pack("<HHII", 0x10F, 2, len(values[0]), start)
    entries += struct.pack("<HHII", 0x131, 2, len(values[1]), start + len(values[0]))
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + bytes(4) + b"".join(values)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def test_signed_by_nobody_known(tmp_path, signed):
    found = inspect(write(tmp_path / "signed.mp4", signed))
    credentials = found.credentials
    assert credentials.state == "untrusted"
    assert "no trust list" in credentials.reason
    assert credentials.problems == ()
    assert credentials.tool == "Sora 2"
    assert credentials.actions == ("Sora: created; says that it was made by a generative model",)
    assert credentials.signer.name == "Test Signer, Test Studio"
    assert credentials.signer.issuer == "Test Root, Test Authority"
    assert credentials.signer.time is None
    assert "The Content Credentials name Sora, a generator of synthetic media." in found.hints
    assert json.loads(json.dumps(asdict(found)))["credentials"]["state"] == "untrusted"


def test_trust_list(tmp_path, signed, studio):
    path = write(tmp_path / "signed.mp4", signed)
    own = write(tmp_path / "own.pem", b"# a comment\n\n" + studio.root)
    assert inspect(path, own).credentials.state == "valid"
    other = write(tmp_path / "other.pem", Studio().root)
    credentials = inspect(path, other).credentials
    assert credentials.state == "untrusted"
    assert credentials.problems == ("the signer's certificate is not on the trust list",)
    with pytest.raises(UsageError, match="no list of PEM"):
        checked_list(path)
    with pytest.raises(UsageError, match="No such file"):
        checked_list(tmp_path / "missing.pem")


def test_altered(tmp_path, signed, studio):
    trusted = write(tmp_path / "own.pem", studio.root)
    picture = signed.index(b"mdat") + 1000
    damaged = bytearray(signed)
    damaged[picture] ^= 1
    credentials = inspect(write(tmp_path / "a.mp4", damaged), trusted).credentials
    assert credentials.state == "altered"
    assert credentials.problems == ("the file is not the one that was signed",)

    lie = signed.replace(b"trainedAlgorithmicMedia", b"digitalCapture" + b" " * 9)
    credentials = inspect(write(tmp_path / "b.mp4", lie), trusted).credentials
    assert credentials.state == "altered"
    assert "a part of the credentials is not the one that was signed" in credentials.problems

    cut = signed[: len(signed) * 3 // 4]
    assert inspect(write(tmp_path / "c.mp4", cut), trusted).credentials.state == "altered"


def test_expired_certificate_is_invalid_but_not_altered(tmp_path):
    studio = Studio(valid=timedelta(days=1, seconds=2))  # of which the first day is over
    path = write(tmp_path / "old.jpg", studio.sign(jpeg(GREY), "image/jpeg"))
    time.sleep(3)
    credentials = inspect(path, write(tmp_path / "own.pem", studio.root)).credentials
    assert credentials.state == "invalid"
    assert any("not valid at the time" in problem for problem in credentials.problems)


def test_unsigned(real_clip, samples):
    for path in (real_clip, samples / "people" / "london_001.jpg"):
        assert inspect(path).credentials.state == "none"


def test_extra_missing(monkeypatch, real_clip):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    found = inspect(real_clip)
    assert found.credentials.state == "not_checked"
    assert "pip install '.[provenance]'" in found.credentials.reason
    assert found.metadata


def test_checker_that_hangs_or_dies(monkeypatch, tmp_path, signed):
    path = write(tmp_path / "signed.mp4", signed)
    monkeypatch.setattr(credentials, "_MAX_SECONDS", 0.001)
    assert inspect(path).credentials.state == "not_checked"
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    assert inspect(path).credentials.state == "not_checked"


def test_nothing_is_fetched(tmp_path, studio):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/manifest.c2pa"
        data = studio.sign(jpeg(GREY), "image/jpeg", remote_url=url)
        credentials = inspect(write(tmp_path / "remote.jpg", data)).credentials
        with pytest.raises(TimeoutError):
            server.accept()
    assert credentials.state == "not_checked"
    assert url in credentials.problems[0]


def test_no_library_from_the_working_folder(tmp_path, monkeypatch, signed):
    path = write(tmp_path / "signed.mp4", signed)
    for name in ("libc2pa_c.so", "libc2pa_c.dylib", "c2pa_c.dll"):
        shutil.copy(_ctypes.__file__, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert inspect(path.name).credentials.state == "untrusted"


def test_nothing_in_a_file_raises(tmp_path, signed):
    rng = np.random.default_rng(0)
    store = signed.index(b"jumb")
    files = [b"", b"text", rng.bytes(5000), signed[:store], signed[: store + 500]]
    for _ in range(8):
        damaged = bytearray(signed)
        for place in rng.integers(store - 4, store + 3000, 3):
            damaged[place] ^= int(rng.integers(1, 256))
        files.append(damaged)
    for number, data in enumerate(files):
        found = inspect(write(tmp_path / f"{number}.mp4", data))
        assert found.credentials.state in CREDENTIAL_STATES
        assert found.credentials.state != "valid"
    for path in (tmp_path, tmp_path / "missing", "nul\0byte"):
        assert inspect(path).credentials.state == "none"
        assert inspect(path).metadata_problem


def test_text_in_credentials_cannot_steer_a_terminal(tmp_path, studio):
    data = studio.sign(jpeg(GREY), "image/jpeg", agent="\x1b[2J\u202eSora " + "x" * 5000)
    credentials = inspect(write(tmp_path / "signed.jpg", data)).credentials
    assert credentials.state == "untrusted"
    for text in (credentials.tool, *credentials.actions):
        assert text.isprintable()
        assert len(text) <= 300


def test_tags(tmp_path, real_clip):
    found = inspect(real_clip)
    assert found.metadata["container encoder"].startswith("Lavf")
    assert found.metadata["stream 0 handler_name"] == "VideoHandler"
    assert found.metadata_problem is None
    tags = {"title": "\x1b[31mred\n" + "x" * 5000, **{f"note{i}": "y" for i in range(500)}}
    found = inspect(tagged(tmp_path / "tags.mkv", **tags))
    assert len(found.metadata) == 64
    assert "64 of 50" in found.metadata_problem
    title = found.metadata["container title"]
    assert title.isprintable()
    assert len(title) == 300


def test_tags_of_a_photo(tmp_path):
    path = write(tmp_path / "photo.jpg", with_texts(jpeg(GREY), b"Nikon", b"CapCut 3"))
    found = inspect(path)
    assert found.metadata["picture Make"] == "Nikon"
    assert found.hints == (
        "The tag 'picture Software' names CapCut, a video editor: editing is no forgery.",
    )


def test_hints_name_what_made_the_file(tmp_path):
    tags = {"title": "Runway at night", "comment": "a Midjourney portrait", "software": "HeyGen 4"}
    hints = inspect(tagged(tmp_path / "tags.mkv", **tags)).hints
    assert any("HeyGen, a generator of talking avatars" in hint for hint in hints)
    assert any("Midjourney, a generator" in hint for hint in hints)
    assert any("FFmpeg ('Lavf')" in hint and "ordinary" in hint for hint in hints)
    assert not any("Runway" in hint for hint in hints)  # a word of everyday language in a title


def test_no_hint_inside_a_longer_word(tmp_path):
    path = write(tmp_path / "photo.jpg", with_texts(jpeg(GREY), b"Soranova", b"Veolia 1"))
    assert inspect(path).hints == ()


def test_untagged_file_has_no_hints(tmp_path):
    path = write_video(tmp_path / "plain.avi", [GREY], codec="mjpeg", pix_fmt="yuvj420p",
                       options={"fflags": "+bitexact"})  # fmt: skip
    assert inspect(path).hints == ()


def test_detect_tells_where_a_file_says_it_comes_from(real_clip, capsys, monkeypatch):
    assert main(["detect", str(real_clip), "--provenance", "--max-frames", "1"]) == 0
    assert "names FFmpeg ('Lavf')" in capsys.readouterr().out
    monkeypatch.setattr(Analyzer, "analyze", None)  # it is told before anything is judged
    assert main(["detect", str(real_clip), "--trust-list", str(real_clip)]) == 2
    assert "trust list" in capsys.readouterr().err


def test_detect_names_the_signer_and_what_does_not_hold(tmp_path, signed, studio, capsys):
    trusted = write(tmp_path / "own.pem", studio.root)
    path = write(tmp_path / "signed.mp4", signed)
    options = ["--trust-list", str(trusted), "--max-frames", "1"]
    assert main(["detect", str(path), *options]) == 0
    out = capsys.readouterr().out
    assert "Signed by Test Signer, Test Studio." in out
    damaged = bytearray(signed)
    damaged[signed.index(b"mdat") + 1000] ^= 1
    assert main(["detect", str(write(tmp_path / "a.mp4", damaged)), *options]) == 0
    assert "Problem: the file is not the one that was signed." in capsys.readouterr().out
