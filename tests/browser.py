"""A browser for tests: Debian's Chromium, in which nothing may go wrong unnoticed."""

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from services import program

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip
DESK, PHONE, SMALLEST = (1280, 900), (390, 844), (320, 640)

_PATIENCE = 180_000  # milliseconds: two busy cores may be shared with much else


@contextmanager
def started() -> Iterator[Browser]:
    """The browser; without one the test is skipped, in CI it fails."""
    path = program("chromium")
    expect.set_options(timeout=_PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class Visitor:
    """Somebody with cookies of their own, at one site. ``end`` tells what went wrong meanwhile."""

    def __init__(self, browser: Browser, site: str, **options: Any):
        self.site = site
        self.expected: list[str] = []  # parts of messages that are no mistake in this test
        self._wrong: list[str] = []
        width, height = DESK
        size = {"width": width, "height": height}
        self.context = browser.new_context(base_url=site, viewport=size, **options)
        self.context.set_default_timeout(_PATIENCE)
        self.context.on("console", lambda said: self._hear(said.type, said.text, said.location))
        self.context.on("weberror", lambda error: self._wrong.append(str(error.error)))
        self.context.on("request", lambda request: self._see(request.url))

    def open(self, path: str = "/") -> Page:
        """A page of the site, in a tab of its own."""
        page = self.context.new_page()
        page.goto(path)
        return page

    def end(self) -> None:
        """Close all pages. Fails on what browsers complain of, such as the content policy's."""
        self.context.close()
        wrong = [text for text in self._wrong if not any(e in text for e in self.expected)]
        assert not wrong, wrong

    def _hear(self, kind: str, text: str, where: Any) -> None:
        if kind in ("error", "warning"):
            self._wrong.append(f"{kind}: {text} ({where['url']})")

    def _see(self, url: str) -> None:
        if not url.startswith((self.site, "data:", "blob:")):
            self._wrong.append(f"asked somebody else: {url}")


def examine(page: Page) -> None:
    """Fails where axe finds a barrier, in light or dark, or a small screen has to scroll aside."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page)
        assert not found.violations_count, f"{page.url}, {scheme}:\n{found.generate_report()}"
    for width, height in (PHONE, SMALLEST, DESK):
        page.set_viewport_size({"width": width, "height": height})
        until(page, "width => document.documentElement.scrollWidth <= width", width)
    page.emulate_media(color_scheme="light")


def until(page: Page, expression: str, argument: Any = None) -> None:
    """Wait until a function is true in the page. Playwright's own would need 'unsafe-eval'."""
    deadline = time.monotonic() + _PATIENCE / 1000
    while not page.evaluate(expression, argument):
        assert time.monotonic() < deadline, f"it is never true that {expression}"
        page.wait_for_timeout(50)


def tab_to(place: Locator) -> None:
    """Go there with the keyboard."""
    for _ in range(80):
        place.page.keyboard.press("Tab")
        if place.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"the keyboard does not reach {place}")


def upload(page: Page, *files: Path | dict[str, Any]) -> None:
    """Choose files on the first page, as with the file picker."""
    page.locator("#files").set_input_files(list(files))


def carrier(page: Page, *files: Path) -> Any:
    """What a drop or a paste of these files carries."""
    content = [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in files]
    return page.evaluate_handle(
        """files => {
            const data = new DataTransfer();
            for (const [name, text] of files) {
                const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
                data.items.add(new File([bytes], name));
            }
            return data;
        }""",
        content,
    )
