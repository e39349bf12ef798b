"""Make the pictures in docs/web: the web application with the sample clips, as it is now.

    python docs/make_screenshots.py

Needs the extra 'dev' and Chromium. It starts a server of its own on a temporary folder.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
from playwright.sync_api import Browser, Locator, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
SAMPLES, PICTURES = ROOT / "samples", ROOT / "docs" / "web"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
DESK, TALL = {"width": 1280, "height": 800}, {"width": 1280, "height": 1600}
PHONE = {"width": 390, "height": 844}
PATIENCE = 180_000  # milliseconds
QUALITY = 78


def main() -> None:
    """Write all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as site, browser() as chrome:
        context = chrome.new_context(base_url=site, viewport=DESK, bypass_csp=True)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        shots(page, Path(folder))
        phone = chrome.new_context(
            base_url=site, viewport=PHONE, device_scale_factor=2, is_mobile=True, has_touch=True,
            bypass_csp=True, storage_state=context.storage_state(),
        )  # fmt: skip
        small = phone.new_page()
        small.goto(page.url)
        ready(small)
        save(small, "result-phone")
    total = sum(path.stat().st_size for path in PICTURES.glob("*.jpg"))
    print(f"{total / 1000:.0f} kB in {PICTURES}")


def shots(page: Page, folder: Path) -> None:
    """All that a large screen shows; ends on the result of the fake sample."""
    portrait = sorted((SAMPLES / "people").glob("*.jpg"))[0]
    page.goto("/")
    save(page, "upload")
    hand_in(page, repeated(SAMPLES / "fake.mp4", folder / "fake_long.mp4", times=40))
    page.locator("#faces li").nth(11).wait_for()
    save(page, "live")
    page.get_by_role("button", name="Cancel").click()
    page.locator(".verdict.cancelled").wait_for()
    for file in (portrait, SAMPLES / "real.mp4", SAMPLES / "fake.mp4"):
        hand_in(page, file)
        ready(page)
    page.set_viewport_size(TALL)
    ready(page)
    save(page, "result")
    page.emulate_media(color_scheme="dark")
    save(page, "result-dark")
    page.emulate_media(color_scheme="light")
    save(page.locator("section", has=page.locator("#people")), "people")
    page.set_viewport_size(DESK)
    address = page.url
    page.goto("/history")
    save(page, "history")
    page.goto(address)


def hand_in(page: Page, file: Path) -> None:
    """Upload a file; its page follows."""
    page.goto("/")
    page.locator("#files").set_input_files(file)
    page.wait_for_url("**/jobs/*")


def ready(page: Page) -> None:
    """Wait until the result is there, with its pictures and boxes."""
    page.locator("#boxes g.face[display=inline]").first.wait_for(state="attached")
    for picture in page.locator(".exhibits img").all():
        picture.scroll_into_view_if_needed()
        picture.evaluate("image => image.decode()")
    if page.locator("#video").count():
        page.wait_for_function("video.readyState === 4 && video.networkState === 1")
        page.wait_for_timeout(1500)  # the player's wheel fades
    page.evaluate("scrollTo(0, 0)")


def save(what: Page | Locator, name: str) -> None:
    """Write one picture."""
    what.screenshot(path=PICTURES / f"{name}.jpg", type="jpeg", quality=QUALITY)


def repeated(clip: Path, path: Path, times: int) -> Path:
    """A clip one after the other many times, without encoding it again."""
    with av.open(str(path), "w") as output:
        stream, offset = None, 0
        for _ in range(times):
            with av.open(str(clip)) as source:
                video = source.streams.video[0]
                stream = stream or output.add_stream_from_template(video)
                for packet in source.demux(video):
                    if packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                        packet.stream = stream
                        output.mux(packet)
                offset += video.duration
    return path


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """A server on a data folder: its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "unmask.cli", "serve", "--workers", "1"]
    command += ["--port", str(port), "--data-folder", str(folder / "data")]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("UNMASK_")}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=clean, **quiet) as process:
        try:
            while process.poll() is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.1)
            yield f"http://localhost:{port}"
        finally:
            process.terminate()


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Chromium, as Playwright drives it."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                  "--disable-background-networking", "--disable-component-update",
                  "--disable-sync"],
        )  # fmt: skip
        yield chrome
        chrome.close()


if __name__ == "__main__":
    main()
