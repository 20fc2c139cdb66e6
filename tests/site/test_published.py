"""What a reader sees was run; what was run is what a reader sees."""

import base64
import json
import re
from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest

from tools.labs import use_own_settings
from tools.pages import console_list, read_page
from tools.published import (
    lab_cells,
    problems,
    rendered,
    requests_elsewhere,
    requests_of_css,
    requests_of_script,
    shown_blocks,
)

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOT_PAGES = {"docs/abbreviations.md"}
PAGES = sorted(
    name
    for name in (path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md"))
    if name not in NOT_PAGES
)
LABS = sorted(path.relative_to(DOCS).as_posix() for path in (DOCS / "labs").glob("*.py"))


def address(source: str) -> str:
    """Where the page of a source file (named from docs/) stands in the site."""
    stem = Path(source).with_suffix("")
    return "index.html" if source == "index.md" else f"{stem.as_posix()}/index.html"


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_a_page_ran(site: Path, name: str) -> None:
    """Each block on a built page was executed and each output compared, and the reverse."""
    html = (site / address(name.removeprefix("docs/"))).read_text("utf-8")
    assert problems(name, html, ROOT) == []


def test_every_block_of_the_readme_ran() -> None:
    """The README, rendered as the site's pages are, shows no block that did not run."""
    html = rendered((ROOT / "README.md").read_text("utf-8"))
    assert problems("README.md", html, ROOT) == []


def test_every_console_block_on_the_list_is_on_a_page() -> None:
    """The list of commands that do not run holds no entry that nobody sees, and none twice."""
    listed = [(entry["page"], entry["text"]) for entry in console_list()]
    shown = [
        (name, listing.text)
        for name in [*PAGES, "README.md"]
        for listing in read_page(ROOT / name, ROOT).listings
        if listing.language == "console"
    ]
    assert sorted(listed) == sorted(set(shown))
    assert all(entry["reason"].strip() for entry in console_list())


def test_every_page_of_the_site_is_looked_at(site: Path) -> None:
    """No built page escapes these tests: each comes from a source they know."""
    built = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    known = {address(name.removeprefix("docs/")) for name in PAGES}
    assert built == known | {address(name) for name in LABS} | {"404.html"}
    assert shown_blocks((site / "404.html").read_text("utf-8")) == []


@pytest.mark.parametrize("name", LABS)
def test_a_lab_shows_what_running_it_again_prints(site: Path, name: str, tmp_path: Path) -> None:
    """The cells of a lab's page are those of its source; run a second time, they print the same."""
    use_own_settings(tmp_path)
    html = (site / address(name)).read_text("utf-8")
    notebook = jupytext.read(DOCS / name)
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.execute(cwd=str(tmp_path))
    again = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = lab_cells(html)
    # A hidden input still shows what it prints.
    assert [cell.source for cell in shown if cell.source] == [
        cell.source for cell in again if "hide_code" not in cell.metadata.get("tags", [])
    ]
    assert [cell.outputs for cell in shown] == [tuple(printed(cell)) for cell in again]
    assert pictures_of_page(html) == [picture for cell in again for picture in pictures(cell)]


def printed(cell: nbformat.NotebookNode) -> list[str]:
    """The texts that a cell shows, as nbconvert chooses them."""
    texts = []
    for output in cell["outputs"]:
        data = output.get("data", {})
        if output["output_type"] == "stream":
            texts.append(output["text"])
        elif "image/svg+xml" not in data and "text/html" not in data and "text/plain" in data:
            texts.append(data["text/plain"])
    return [text.removesuffix("\n") for text in texts]


def pictures(cell: nbformat.NotebookNode) -> list[str]:
    """The drawings of a cell."""
    data = [output.get("data", {}) for output in cell.outputs]
    return [kinds["image/svg+xml"] for kinds in data if "image/svg+xml" in kinds]


def pictures_of_page(html: str) -> list[str]:
    """The drawings of a lab's page, which nbconvert puts into the address of an image."""
    found = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", html)
    return [base64.b64decode(picture).decode("utf-8") for picture in found]


def test_no_page_asks_another_host(site: Path) -> None:
    """A browser that shows any page of the site asks no other host for anything."""
    found = {
        f"{path.relative_to(site)}: {request}"
        for pattern, requests in {
            "*.html": requests_elsewhere,
            "*.css": requests_of_css,
            "*.js": requests_of_script,
            "*.svg": requests_elsewhere,
        }.items()
        for path in site.rglob(pattern)
        for request in requests(path.read_text("utf-8"))
        if not (path.match("assets/javascripts/bundle.*.js") and expected_in_bundle(request))
    }
    assert found == set()
    for path in site.rglob("*.html"):
        html = path.read_text("utf-8")
        # What wakes the two addresses in the theme's script.
        assert 'data-md-component="source"' not in html
        assert 'class="mermaid"' not in html


def expected_in_bundle(request: str) -> bool:
    """The theme's script asks for stars, for diagrams, and for help in browsers before 2020."""
    return request.strip("\"'`").startswith(
        (
            "https://api.github.com/",
            "https://unpkg.com/mermaid@11/",
            "https://unpkg.com/resize-observer-polyfill",
        )
    )


def test_the_search_index_knows_every_page(site: Path) -> None:
    """A reader finds each page by its title."""
    index = json.loads((site / "search/search_index.json").read_text("utf-8"))
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {
        address(name.removeprefix("docs/")).removesuffix("index.html") for name in PAGES
    } <= found
