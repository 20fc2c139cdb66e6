"""The built site in Debian's Chromium, driven by Playwright: `make test-browser`.

Every page that a test opens through the `visit` fixture is watched: an error on the console, a
request that fails, or one to another host fails the test when it ends.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests.browser.serving import chromium, served
from tests.building import built_site


@pytest.fixture(scope="session")
def site() -> Path:
    """The site as it is published, or the one in the folder that BUILT_SITE names."""
    named = os.environ.get("BUILT_SITE")
    return Path(named) if named else built_site()


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served, with a slash at its end."""
    with served(site) as url:
        yield url


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of a worker."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


expect.set_options(timeout=20_000)  # milliseconds; a busy machine is slow, not wrong

LIVE = """() => !document.querySelector("script[src*='explorables.mjs']")
  || ["key-tree", "sum-order", "ulp-ruler"].every(
    (name) => !document.querySelector(name) || customElements.get(name))"""


class Watch:
    """What went wrong on a page while it was open."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.found: list[str] = []

    def over(self, page: Page) -> None:
        """Begin to watch."""
        page.on("console", lambda message: self.note(message.type == "error", message.text))
        page.on("pageerror", lambda error: self.note(True, str(error)))
        page.on("requestfailed", lambda request: self.note(not self.left(request), request.url))
        page.on("response", lambda got: self.note(got.status >= 400, f"{got.status} {got.url}"))
        page.on("request", lambda request: self.note(self.foreign(request), request.url))

    def note(self, wrong: bool, text: str) -> None:
        """Keep what is wrong."""
        if wrong:
            self.found.append(text)

    def foreign(self, request: Request) -> bool:
        """Whether another host is asked."""
        return not request.url.startswith((self.address, "data:", "blob:", "file:"))

    def left(self, request: Request) -> bool:
        """Whether the page was left before the answer came."""
        return request.failure == "net::ERR_ABORTED"


@pytest.fixture
def new_context(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Make a browser context: `new_context(color_scheme="dark", viewport={...})`."""
    contexts = []

    def make(**settings: Any) -> BrowserContext:
        context = browser.new_context(**settings)
        contexts.append(context)
        return context

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def visit(
    new_context: Callable[..., BrowserContext], address: str
) -> Iterator[Callable[..., Page]]:
    """Open a page of the site: `visit("labs/", width=360, color_scheme="dark")`."""
    watches = []

    def open_page(path: str, *, width: int = 1440, height: int = 900, **settings: Any) -> Page:
        page = new_context(viewport={"width": width, "height": height}, **settings).new_page()
        watch = Watch(address)
        watch.over(page)
        watches.append(watch)
        page.goto(address + path, wait_until="load")
        if settings.get("java_script_enabled", True):
            page.wait_for_function(LIVE)  # explorables are loaded after the page
        return page

    yield open_page
    assert [text for watch in watches for text in watch.found] == []
