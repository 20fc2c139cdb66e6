"""Every page of the site, as a reader sees it: both colour schemes, a phone and a wide screen."""

import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.addresses import PAGES
from tests.browser.serving import COMPRESSED

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
FAULTS = (Path(__file__).parent / "faults.js").read_text("utf-8").partition("\n")[2]
WIDTHS = (360, 1440)
HEAVY = {"print/", "reference/api/reference/"}  # all of the site, and a room of 22 names
SCHEMES = {"light": "default", "dark": "slate"}
# axe looks at a page in these settings: a commit draws one of them, and each night has all four.
SETTINGS = (("light", 360), ("dark", 1440), ("light", 1440), ("dark", 360))

# What a page is wider than: elements that stick out beyond the window and cannot be scrolled to.
WIDER = """() => {
  const width = document.documentElement.clientWidth;
  const wide = document.documentElement.scrollWidth;
  return wide <= width ? [] : [...document.querySelectorAll("body *")]
    .filter((it) => it.getBoundingClientRect().right > width + 1)
    .slice(0, 5).map((it) => it.outerHTML.slice(0, 120));
}"""

# A page hears of its new size with the next frame, and has answered with the one after.
DRAWN = "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"


def serious(page: Page) -> list[str]:
    """What axe-core finds serious or critical."""
    if not page.evaluate("() => 'axe' in window"):
        page.add_script_tag(content=AXE.read_text("utf-8"))
    found: list[dict[str, Any]] = page.evaluate(
        "() => axe.run(document, {resultTypes: ['violations']}).then((all) => all.violations)"
    )
    return [
        f"{rule['id']}: {node['html'][:160]}: {node['failureSummary'][:300]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def settings_for_axe(path: str, pair: str) -> set[tuple[str, int]]:
    """Return the schemes and widths in which axe looks at a page; `pair` is 0 to 3, or "both"."""
    if pair == "both" and path not in HEAVY:
        return set(SETTINGS)
    return {SETTINGS[0] if path in HEAVY else SETTINGS[int(pair)]}


# How much a first visit may load, in bytes as they are sent, and how long its HTML may be.
FIRST_LOAD, HTML = 350_000, 100_000


# A commit looks at a quarter of the pages, and each night at all.
PAIR = os.environ.get("PAIR", "both")
LOOKED_AT = PAGES if PAIR == "both" else PAGES[int(PAIR) :: 4]


@pytest.mark.parametrize("path", LOOKED_AT)
def test_a_page_in_both_schemes_on_phone_and_screen(
    visit: Callable[..., Page], site: Path, path: str
) -> None:
    """No page has an error, asks another host, scrolls sideways, or has what axe calls serious.

    None has what faults.js looks for: long lines, faint headings, a button over text, and so on.

    A first visit loads at most 350 kB, compressed, of which at most 100 kB (raw) are HTML.
    """
    page = visit(path, reduced_motion="reduce")
    if path not in HEAVY:
        sent = loaded(page, site, path)
        html = f"{path}index.html" if path.endswith("/") or not path else path
        assert {html, "stylesheets/all.css"} <= set(sent)
        assert sum(sent.values()) <= FIRST_LOAD, sent
        assert len((site / html).read_bytes()) <= HTML
    schemes = {"light": "default"} if path == "print/" else SCHEMES  # white as paper is
    for scheme, name in schemes.items():
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.wait_for_selector(f"body[data-md-color-scheme='{name}']")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.evaluate(DRAWN)
            assert page.evaluate(WIDER) == [], f"scrolls sideways: {scheme}, {width}"
            if scheme == "light" and path != "print/":
                assert page.evaluate(FAULTS) == [], width
            if (scheme, width) in settings_for_axe(path, PAIR):
                assert serious(page) == [], f"{scheme}, {width}"


def test_what_these_tests_look_for_is_found(visit: Callable[..., Page]) -> None:
    """A wide element, faint text and a button without a name are seen: the checks can fail."""
    page = visit("reference/glossary/", width=360)
    page.evaluate(
        """() => document.querySelector("article").insertAdjacentHTML("afterbegin",
        `<p style="width: 900px; color: #ccc; background: #fff">faint</p><button></button>`)"""
    )
    assert page.evaluate(WIDER)
    assert {line.partition(":")[0] for line in serious(page)} >= {"color-contrast", "button-name"}


UGLY = """
    .md-typeset :is(p, ul) { max-width: none !important }
    .md-typeset h2 { font-weight: 300 !important }
    .md-typeset :not(pre) > code { word-break: break-all !important }
    .md-typeset .highlight pre { padding-right: 0 !important; background: #eee !important }
    article [data-cards] { min-width: 40rem }
"""


def test_faults_for_the_eye_are_found(visit: Callable[..., Page]) -> None:
    """Each kind of fault that faults.js looks for is seen where it is made."""
    page = visit("fundamentals/jax_prng_tutorial/")
    assert page.evaluate(FAULTS) == []
    page.add_style_tag(content=UGLY)
    wide = page.evaluate(FAULTS)
    page.set_viewport_size({"width": 360, "height": 900})
    page.evaluate(DRAWN)
    kinds = {sentence.partition(":")[0] for sentence in [*wide, *page.evaluate(FAULTS)]}
    assert kinds == {
        "a line of more than 75 characters",
        "a heading that bold text outranks",
        "a table that scrolls sideways",
        "a name broken in its middle",
        "a button over text",
        "an output that looks like code",
    }


def loaded(page: Page, site: Path, path: str) -> dict[str, int]:
    """What a first visit has loaded, once nothing more comes: files, and their bytes as sent."""
    page.wait_for_load_state("networkidle")
    names: list[str] = page.evaluate(
        "() => performance.getEntriesByType('resource').map((each) => each.name)"
    )
    root = page.url.removesuffix(path)
    urls = {name.partition("#")[0] for name in names if name.startswith(root)} | {page.url}
    files = [site / url.removeprefix(root) for url in urls]
    files = [file / "index.html" if file.is_dir() else file for file in files]
    return {file.relative_to(site).as_posix(): sent_bytes(file) for file in files}


def sent_bytes(file: Path) -> int:
    """How many bytes a host sends for a file."""
    content = file.read_bytes()
    return len(gzip.compress(content) if file.suffix in COMPRESSED else content)


def test_colours_can_be_chosen(visit: Callable[..., Page]) -> None:
    """The switch in the header goes from the system's scheme to light to dark and back."""
    page = visit("", color_scheme="dark")
    seen = [page.get_attribute("body", "data-md-color-scheme")]
    for _ in range(3):
        page.locator("form[data-md-component=palette] label:visible").click()
        seen.append(page.get_attribute("body", "data-md-color-scheme"))
    assert seen == ["slate", "default", "slate", "slate"]


@pytest.mark.parametrize("blocked", ["scripts", "storage"])
def test_a_reader_without(new_context: Any, address: str, blocked: str) -> None:
    """Without scripts, or without storage, a page shows its text, code and way onwards."""
    chapter = f"{address}fundamentals/jax_prng_tutorial/"
    page = new_context(java_script_enabled=blocked != "scripts").new_page()
    page.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage'])"
        " Object.defineProperty(window, name, {get() { throw new DOMException('blocked') }})"
    )
    page.goto(chapter)
    assert page.locator("h1").inner_text().strip("¶")
    assert page.locator("pre code").first.is_visible()
    assert page.locator(".md-footer__link--next").is_visible()
    assert re.search("Program", page.locator(".first-line").inner_text())
