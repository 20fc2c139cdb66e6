"""The site without a server, on paper, and for readers who come by an old or a wrong address."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin
from zipfile import ZipFile

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import Watch

Visit = Callable[..., Page]


@pytest.fixture(scope="session")
def unpacked(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked into a folder whose name needs care in an address."""
    folder = tmp_path_factory.mktemp("my files #1")
    with ZipFile(site / "reproducibility-site.zip") as archive:
        archive.extractall(folder)
    return folder / "reproducibility-site"


@pytest.fixture
def from_disk(
    new_context: Callable[..., BrowserContext], unpacked: Path
) -> Iterator[Callable[[str], Page]]:
    """Open a file of the unpacked archive; nothing but the archive may be asked for."""
    watch = Watch(unpacked.as_uri())

    def open_file(name: str) -> Page:
        page = new_context().new_page()
        watch.over(page)
        page.goto(f"{unpacked.as_uri()}/{name}")
        return page

    yield open_file
    assert watch.found == []


def test_search_works_from_a_disk(from_disk: Callable[[str], Page], unpacked: Path) -> None:
    """Without a server, a reader finds a page by a word, opens it, and goes on from there."""
    page = from_disk("index.html")
    box = page.locator("[data-md-component=search-query]")
    box.click()  # the search reads its index now; what is typed before that may be lost
    expect(page.locator(".md-search-result__meta")).to_contain_text("Type to start")
    box.fill("flight recorder")
    box.press("End")  # the search listens to keys
    page.locator(".md-search-result__link").first.click()
    expect(page.locator("article h1")).to_contain_text("flight recorder")
    expect(page).to_have_url(re.compile(rf"^{unpacked.as_uri()}/guide/flight_recorder/index.html"))
    following = page.get_by_role("link", name="Next").get_attribute("href") or ""
    page.get_by_role("link", name="Next").click()
    expect(page).to_have_url(urljoin(f"{unpacked.as_uri()}/guide/flight_recorder/", following))
    expect(page.locator("article h1")).to_be_visible()
    page.locator("header a.md-logo").click()
    expect(page).to_have_url(f"{unpacked.as_uri()}/index.html")


def test_a_moved_section_is_looked_for_from_a_disk(from_disk: Callable[[str], Page]) -> None:
    """Where nothing can be fetched, search is offered for what a page no longer has."""
    page = from_disk("guide/flight_recorder/index.html#key_tree")
    page.locator(".moved a").click()
    expect(page.locator("[data-md-component=search-query]")).to_have_value("key tree")


@pytest.mark.parametrize("name", ["key-tree", "sum-order", "ulp-ruler"])
def test_explorables_work_from_a_disk(from_disk: Callable[[str], Page], name: str) -> None:
    """An explorable becomes live though a browser imports no module from a disk."""
    page = from_disk(f"explorables/{name.replace('-', '_')}/index.html")
    expect(page.locator(name).locator("button").first).to_be_visible()


def test_the_page_to_print_fits_a_phone(visit: Visit) -> None:
    """It can be read on a narrow screen without scrolling sideways."""
    page = visit("print/", width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_page_to_print_needs_no_script(visit: Visit) -> None:
    """All chapters stand on it, open, in one table of contents whose links stay on the page."""
    page = visit("print/", java_script_enabled=False)
    links = page.locator("nav a")
    assert links.count() > 15
    for link in links.all():
        assert page.locator(link.get_attribute("href") or "").locator("h2").count() == 1
    links.nth(3).click()
    assert page.url.endswith(links.nth(3).get_attribute("href") or "")
    assert page.locator("details:not([open]), script, button").count() == 0


def test_paper_is_white_and_shows_what_is_folded(visit: Visit) -> None:
    """Printed from a dark screen, a page has the light colours, and its solutions can be read."""
    colours = []
    for scheme in ("light", "dark"):
        page = visit("fundamentals/prng_pattern/", color_scheme=scheme, reduced_motion="reduce")
        solution = page.locator("article details .highlight").first
        expect(solution).to_be_hidden()
        page.emulate_media(media="print", color_scheme=scheme)
        expect(solution).to_be_visible()
        expect(page.locator(".md-header")).to_be_hidden()
        expect(page.locator(".md-code__nav").first).to_be_hidden()
        colours.append(
            page.evaluate(
                """() => ["article", "article a[href]", "article pre code", "article .output"]
                  .map((selector) => getComputedStyle(document.querySelector(selector)))
                  .map((style) => [style.color, style.backgroundColor, style.borderLeftColor])"""
            )
        )
    assert colours[0] == colours[1]


def test_a_lost_reader_finds_a_way(
    new_context: Callable[..., BrowserContext], address: str
) -> None:
    """An address that never was leads to a page that lists all others, and opens search."""
    lost = new_context().new_page()
    answer = lost.goto(f"{address}fundamentals/no_such/page/")
    assert answer
    assert answer.status == 404
    expect(lost.locator("article h1")).to_have_text("There is no page at this address")
    lost.get_by_role("link", name="Search", exact=True).click()
    expect(lost.locator("[data-md-component=search-query]")).to_be_focused()
    lost.keyboard.press("Escape")
    lost.locator("article").get_by_role("link", name="My run does not repeat").first.click()
    expect(lost).to_have_url(f"{address}reference/my_run_does_not_repeat/")


@pytest.mark.parametrize("scripts", [True, False])
def test_a_redirect_leads_on(visit: Visit, address: str, scripts: bool) -> None:
    """A trimmed address leads to the first page of its part, with and without scripts."""
    page = visit("fundamentals/#a-program-that-goes-wrong", java_script_enabled=scripts)
    page.wait_for_url(f"{address}fundamentals/reproducibility_basics/**")
    if scripts:
        assert page.url.endswith("#a-program-that-goes-wrong")


def test_a_section_that_moved_is_named(visit: Visit, address: str) -> None:
    """A link to a section that its page no longer has leads to where the section is now."""
    page = visit("guide/flight_recorder/#count-globally-use-the-process-only-for-what-stays-there")
    line = page.locator("article > .moved")
    expect(line).to_contain_text("has no section “count-globally")
    expect(line.get_by_role("link")).to_have_text("A key pattern that lasts")
    line.get_by_role("link").click()
    expect(page).to_have_url(
        f"{address}fundamentals/prng_pattern/"
        "#count-globally-use-the-process-only-for-what-stays-there"
    )
    expect(page.locator(".moved")).to_have_count(0)


def test_a_section_that_nobody_knows_is_searched_for(visit: Visit) -> None:
    """A section that is nowhere can be searched for; one that exists needs no word."""
    page = visit("guide/flight_recorder/#key_tree")
    expect(page.locator(".moved")).to_have_text(
        "This page has no section “key_tree”. Search for it."
    )
    page.locator(".moved a").click()
    expect(page.locator("[data-md-component=search-query]")).to_have_value("key tree")
    page.evaluate("location.hash = '#the-rule'")
    page.evaluate("location.hash = '#%E0%A4%A'")  # no text at all
    expect(page.locator(".moved")).to_have_count(0)


def test_a_moved_section_is_named_under_instant_navigation(
    visit: Visit, site: Path, address: str
) -> None:
    """A link inside the site is checked when the page is swapped, not only when it is loaded."""
    page = visit("guide/flight_recorder/")
    # The theme swaps pages that the sitemap names, and this server is not where it says.
    pages = [file.parent.relative_to(site).as_posix() for file in site.rglob("index.html")]
    urls = "".join(f"<url><loc>{address}{name}/</loc></url>" for name in pages)
    page.route("**/sitemap.xml", lambda route: route.fulfill(body=f"<urlset>{urls}</urlset>"))
    page.reload()
    page.evaluate("window.kept = true")
    link = page.locator(".md-nav--primary").get_by_role("link", name="Hidden inputs")
    link.evaluate("link => link.hash = 'gone'")
    link.click()
    expect(page.locator(".moved")).to_contain_text("“gone”")
    assert page.evaluate("window.kept"), "the page was loaded, not swapped"


def test_an_old_link_opens_its_page_without_scripts(visit: Visit) -> None:
    """Where scripts are blocked, nothing is said of the section, and the page is there."""
    page = visit("guide/flight_recorder/#gone", java_script_enabled=False)
    expect(page.locator("article h1")).to_be_visible()
    expect(page.locator(".moved")).to_have_count(0)


def test_an_old_link_is_explained_without_storage(
    new_context: Callable[..., BrowserContext], address: str
) -> None:
    """Where the browser refuses to keep anything, the line is there all the same."""
    page = new_context().new_page()
    page.add_init_script(
        """for (const name of ["localStorage", "sessionStorage"])
             Object.defineProperty(window, name, { get() { throw new Error("blocked"); } });"""
    )
    page.goto(f"{address}guide/flight_recorder/#gone")
    expect(page.locator("article h1")).to_be_visible()
    expect(page.locator(".moved")).to_contain_text("Search for it")
