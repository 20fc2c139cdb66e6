"""What a reader sees was run; what was run is what a reader sees."""

import base64
import json
from functools import partial
from pathlib import Path

import jupytext
import pytest
from bs4 import BeautifulSoup
from mkdocs.config import load_config
from mkdocs.exceptions import PluginError

from tests import kernels
from tests.building import ADDRESSES
from tools.guard.pages import console_list, read_page
from tools.guard.published import problems, rendered, shown_blocks
from tools.labs.cells import Cell, cells_as_shown, lab_cells
from tools.labs.markup import drawing, simplify
from tools.labs.settings import SOURCES, description, use_own_settings
from tools.look.clone import with_address
from tools.look.hosts import requests_elsewhere, requests_of_css, requests_of_script
from tools.look.reading import CHAPTERS
from tools.session.capture import read_recording
from tools.session.screen import transcript
from tools.story.stages import downloads_of_story
from tools.takeaway.programs import chapter_program

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOT_PAGES = {"docs/abbreviations.md"}
PAGES = sorted(
    name
    for name in (path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md"))
    if name not in NOT_PAGES
)
LABS = sorted(
    path.relative_to(DOCS).as_posix() for pattern in SOURCES for path in DOCS.glob(pattern)
)


def address(source: str) -> str:
    """Where the page of a source file (named from docs/) stands in the site."""
    stem = Path(source).with_suffix("")
    stem = stem.parent if stem.name == "index" else stem
    return (stem / "index.html").as_posix()


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_a_page_ran(site: Path, name: str) -> None:
    """Each block on a built page was executed and each output compared, and the reverse."""
    html = (site / address(name.removeprefix("docs/"))).read_text("utf-8")
    as_built = partial(with_address, repo_url=ADDRESSES["REPO_URL"])
    recorded = {transcript(read_recording()), *downloads_of_story().values()}
    assert problems(name, html, ROOT, as_built, recorded) == []


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
    """No built page escapes these tests: each comes from a source they know, or is made of theirs.

    The page to print is looked at in test_offline.py, redirects in test_addresses.py.
    """
    built = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    known = {address(name.removeprefix("docs/")) for name in PAGES}
    redirects = load_config(str(ROOT / "mkdocs.yml"))["extra"]["redirects"]
    made = {"404.html", "print/index.html", *(f"{old}index.html" for old in redirects)}
    assert built == known | {address(name) for name in LABS} | made
    assert shown_blocks((site / "404.html").read_text("utf-8")) == []


def executed(lab: Path, folder: Path) -> list[Cell]:
    """The code cells of a lab, executed in an empty folder by a kernel of its own."""
    notebook = jupytext.read(lab)
    kernels.execute(notebook, folder, 200)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert "stderr" not in {output.get("name") for output in outputs}
    return cells_as_shown(notebook)


def test_what_a_cell_prints_is_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly a lab prints, its output is not cut where some time has passed."""
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "MATPLOTLIBRC"):
        monkeypatch.setenv(variable, "")
    use_own_settings(tmp_path / "settings")
    lab = tmp_path / "slow.py"
    code = "import time\nfor i in range(3):\n    print(i)\n    time.sleep(0.5)\n"
    lab.write_text(f"# %%\n{code}")
    (cell,) = executed(lab, tmp_path)
    assert cell.texts == ("0\n1\n2",)


@pytest.mark.parametrize("name", LABS)
def test_a_lab_shows_the_same_twice(
    site: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second execution, in another process and directory, gives the page again: its code, every

    character of every output, and every drawing.
    """
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "MATPLOTLIBRC"):
        monkeypatch.setenv(variable, "")  # so that what is set next is undone afterwards
    use_own_settings(tmp_path / "settings")
    page = (site / address(name)).read_text("utf-8")
    again = executed(DOCS / name, tmp_path)
    assert lab_cells(page) == again
    # One other number, and one other line in a drawing, would be seen.
    printed = next(cell.texts[0] for cell in again if cell.texts)
    assert lab_cells(page.replace(printed, printed[:-1] + "?")) != again
    altered = BeautifulSoup(page, "html.parser")
    lines = altered.select(".cell svg path[d]")
    assert bool(lines) == name.startswith("labs/")  # the page of versions draws nothing
    for line in lines[-1:]:
        line["d"] += "z"
        assert lab_cells(str(altered)) != again


SVG = """<?xml version="1.0"?><svg width="36pt" height="18pt" viewBox="0 0 36 18">
<defs><style>*{stroke-linejoin: round}</style><path id="m1" d="M 0 0
L 0 3.4567891"/></defs><g id="axis_1"><use xlink:href="#m1" style="stroke: #808081"/>
<path d="M 0 0" style="fill: none"/></g><g id="title"><text
style="font-size: 11px; font-family: 'DejaVu Sans'" transform="rotate(-0 9 9)" x="9">Two
<!-- comment -->lines</text></g>
<text>
<tspan>1</tspan>
</text></svg>"""


def cell(name: str, output: str) -> str:
    """A page with one cell, as mkdocs-jupyter renders it."""
    return (
        f'<style>p {{}}</style><script></script><div class="jp-Cell" id="cell-id={name}">'
        '<div class="highlight-ipynb"><pre>draw()</pre></div>'
        f'<div class="jp-OutputArea-output">{output}</div></div>'
    )


def image(svg: str) -> str:
    """A drawing, as nbconvert embeds it."""
    return f'<img src="data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}">'


def test_the_page_of_a_lab_does_not_depend_on_its_build() -> None:
    """Of a page, what its cells say and show remains: no random name, no style, no script."""
    first, second = (simplify(cell(name, image(SVG))) for name in ("a1", "b2"))
    assert first == second
    assert not BeautifulSoup(first, "html.parser").select("style, script, [id^=cell-id], img")
    assert lab_cells(first) == [Cell("draw()", (), (str(drawing(SVG, 1)),))]
    assert lab_cells(simplify(cell("a1", "<pre>42\n</pre>"))) == [Cell("draw()", ("42",), ())]


def test_a_drawing_belongs_to_its_page() -> None:
    """A drawing has a name, takes the page's ink and fonts, and shares no id with another."""
    one, two = drawing(SVG, 1), drawing(SVG, 2)
    assert (one["role"], one["aria-label"]) == ("img", "Two lines")
    assert one.use["style"] == "stroke:currentColor"
    assert one.find("text").attrs == {"style": "font-size:11px;", "x": "9"}
    assert one.get_text() == "Two\nlines1"
    assert [path["d"] for path in one.select("path")] == ["M 0 0 L 0 3.457"]
    ids = [tag["id"] for root in (one, two) for tag in root.select("[id]")]
    assert ids == ["drawing-1-1", "drawing-2-1"]
    assert [root.use["xlink:href"] for root in (one, two)] == [f"#{name}" for name in ids]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (image(SVG.replace('id="title"', "")), "has no name for those who do not see it"),
        ('<img src="data:image/png;base64,AAAA">', "neither text nor a drawing"),
    ],
)
def test_a_lab_that_not_everyone_can_read_is_not_built(output: str, message: str) -> None:
    """A drawing without a title, or a picture that is no drawing, ends the build."""
    with pytest.raises(PluginError, match=message):
        simplify(cell("a1", output))


@pytest.mark.parametrize("name", LABS)
def test_a_lab_says_what_it_answers(name: str) -> None:
    """Each lab describes itself in a sentence that a search engine can show."""
    assert 60 <= len(description(DOCS / name)) <= 155


def chapters(root: Path) -> dict[str, str]:
    """The programs that the site offers, by the name of the page (from docs/)."""
    pages = [name.removeprefix("docs/") for name in PAGES]
    programs = {
        name: chapter_program(DOCS / name, root) for name in pages if name.startswith(CHAPTERS)
    }
    return {name: program for name, program in programs.items() if program}


def test_each_chapter_links_its_download(site: Path, root: Path) -> None:
    """The link under the title leads to the program, under the chapter's own name."""
    assert chapters(root)
    for name, program in chapters(root).items():
        page = site / address(name)
        link = BeautifulSoup(page.read_text("utf-8"), "html.parser").select_one("a.download")
        assert link
        assert link["download"] == f"{Path(name).stem}.py"
        assert (page.parent / str(link["href"])).read_text("utf-8") == program


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
    """A reader finds each page by its title, but for tables of tests, decisions, and changes."""
    index = json.loads((site / "search/search_index.json").read_text("utf-8"))
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    pages = {address(name.removeprefix("docs/")).removesuffix("index.html") for name in PAGES}
    tables = "planted_faults", "kinds_of_state", "checkpoint_store", "measurements"
    names = "changelog", "decisions", "decisions_kept", *tables
    left_out = {f"reference/{name}/" for name in names}
    assert pages - left_out <= found  # each first visit loads the index


def test_search_leads_to_what_explains(site: Path) -> None:
    """An exercise, a question or a summary is no result: what it is about is one."""
    index = json.loads((site / "search/search_index.json").read_text("utf-8"))
    found = {entry["location"].partition("#")[2] for entry in index["docs"]}
    repeats = {"try-to-break-it", "check-yourself", "what-to-take-away", "summary"}
    chapter = (site / "fundamentals/jax_prng_tutorial/index.html").read_text("utf-8")
    assert all(f'id="{name}"' in chapter for name in sorted(repeats - {"summary"}))
    assert not repeats & found
