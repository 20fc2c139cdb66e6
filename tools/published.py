"""Hold the built pages against the record of what ran.

The rule: start from what a reader sees. Every block on a page was executed or is a listing that
says so, every output was compared, and nothing that ran is missing from the page.
"""

from __future__ import annotations

import doctest
import itertools
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import markdown  # type: ignore[import-untyped]
from bs4 import BeautifulSoup, Tag
from mkdocs.config import load_config

from tools import recording
from tools.clone import with_address
from tools.hooks import mark_outputs
from tools.labs import drawing
from tools.pages import DATA, RUN, Listing, code_in_listing, console_list, read_page
from tools.record import read_record

PARSER = "html.parser"
BLOCKS = "pre, textarea, samp, xmp, listing, plaintext"


@dataclass(frozen=True)
class Shown:
    """A block as a reader sees it.

    `kind` is output, listing, signature, drawing (in a docstring), recorded, or code to be run.
    """

    kind: str
    language: str
    text: str


def rendered(source: str) -> str:
    """Return a Markdown text as the site would show it, without the theme around it."""
    html: str = _renderer().reset().convert(mark_outputs(source))
    return html


@cache
def _renderer() -> markdown.Markdown:
    config = load_config(str(Path(__file__).parents[1] / "mkdocs.yml"))
    return markdown.Markdown(
        extensions=config.markdown_extensions, extension_configs=config.mdx_configs
    )


def shown_blocks(html: str) -> list[Shown]:
    """Return every block of preformatted text on a page, labelled or not."""
    soup = BeautifulSoup(html, PARSER)
    content = soup.select_one(".md-content") or soup
    for cell in content.select(".lab > .cell"):
        cell.decompose()  # looked at by `lab_cells`
    blocks = [_shown(tag) for tag in content.select(BLOCKS)]
    for tag in content.select(BLOCKS):
        tag.decompose()
    # A fence that was not understood stays in the text; code of several lines hides in a sentence.
    blocks += [Shown("code", "", text) for text in content.find_all(string=re.compile("```|~~~"))]
    blocks += [_shown(tag) for tag in content.select("code") if "\n" in tag.get_text()]
    blocks += [_shown(tag) for tag in content.select("code:has(br)")]
    return blocks


def _shown(tag: Tag) -> Shown:
    box = tag.find_parent("div", class_="highlight")
    classes = box.get_attribute_list("class") if box else []
    language = next(
        (name.removeprefix("language-") for name in classes if name.startswith("language-")), ""
    )
    titled = box is not None and box.select_one("span.filename") is not None
    kind = (
        "recorded"
        if "recorded" in tag.get_attribute_list("class")
        else "output"
        if "output" in classes
        else "signature"
        if "doc-signature" in classes
        else "listing"
        if titled and language in DATA
        else "drawing"
        # mkdocstrings wraps what it makes of a docstring in div.doc.
        if language == "text" and tag.find_parent("div", class_="doc")
        else "code"
    )
    return Shown(kind, language, _trimmed(tag.get_text()))


def _trimmed(text: str) -> str:
    # The renderer adds or drops a last line end; nothing else.
    return text.removesuffix("\n")


def problems(name: str, html: str, root: Path, repo_url: str = "") -> list[str]:
    """Hold the built page of the source file `name` against the record of what ran.

    `repo_url` is the address of the repository that the site was built with.
    """
    record = read_record(root)
    page = read_page(root / name, root)
    ran = record["pages"].get(name)
    if page.blocks and ran is None:
        return [f"{name} has not been run: run `make test-docs` first"]
    if page.blocks and ran["sha256"] != page.sha256:
        return [f"{name} has changed since its blocks ran: run `make test-docs` first"]
    listed = [
        with_address(entry["text"], repo_url) for entry in console_list() if entry["page"] == name
    ]
    return compare_page(
        shown_blocks(html), ran or {"blocks": {}}, page.listings, listed, record["doctests"]
    )


def compare_page(
    shown: list[Shown],
    ran: dict[str, Any],
    listings: list[Listing],
    console: list[str],
    doctests: dict[str, list[list[str]]],
) -> list[str]:
    """Say what is shown and did not run, or ran and is not shown; an empty list is a good page.

    `ran` is the page's entry in build/executed.json, `listings` what its source declares as such,
    `console` the texts of its console blocks that are on the list, `doctests` the record's entry.
    """
    found = [
        f"line {line}: the block did not pass"
        for line, block in ran["blocks"].items()
        if block["outcome"] != "passed"
    ]
    passed = [block for block in ran["blocks"].values() if block["outcome"] == "passed"]
    executed = Counter((block["language"], _trimmed(block["code"])) for block in passed)
    compared = Counter(_trimmed(b["output"]) for b in passed if b["output"] is not None)

    code = Counter((s.language, s.text) for s in shown if s.kind == "code" and s.language in RUN)
    outputs = Counter(s.text for s in shown if s.kind == "output")
    found += [f"shown, but did not run: {text!r}" for _, text in code - executed]
    found += [f"ran, but is not shown: {text!r}" for _, text in executed - code]
    found += [f"an output is shown that was not compared: {text!r}" for text in outputs - compared]
    found += [f"an output was compared that is not shown: {text!r}" for text in compared - outputs]

    declared = Counter(_trimmed(listing.text) for listing in listings)
    allowed = Counter(_trimmed(text) for text in console)
    examples = Counter((source, want) for one in doctests.values() for source, want in one)
    for block in shown:
        if block.language == "pycon":
            found += _problems_of_examples(block.text, examples)
        else:
            found += _problems_of_listing(block, declared, allowed)
    return found


def _problems_of_listing(block: Shown, declared: Counter[str], console: Counter[str]) -> list[str]:
    if block.kind in ("output", "signature") or (block.kind == "code" and block.language in RUN):
        return []
    if block.kind == "recorded":
        same = block.text + "\n" == recording.transcript(recording.read())
        return [] if same else [f"this was not recorded: {block.text!r}"]
    if block.language == "console":
        return (
            [] if console[block.text] else [f"a console block that is not listed: {block.text!r}"]
        )
    if block.kind == "drawing" or (block.kind == "listing" and declared[block.text]):
        problem = code_in_listing(block.language, block.text + "\n")
        return [f"{problem}: {block.text!r}"] if problem else []
    name = block.language or "no language"
    return [f"a block of {name} that is neither run, nor an output, nor a listing: {block.text!r}"]


def _problems_of_examples(text: str, doctests: Counter[tuple[str, str]]) -> list[str]:
    return [
        f"a docstring example that did not run: {example.source!r}"
        for example in doctest.DocTestParser().get_examples(text + "\n")
        if not doctests[example.source, example.want]
    ]


@dataclass(frozen=True)
class Cell:
    """A code cell of a lab: its source, the texts it prints, and its drawings."""

    source: str
    texts: tuple[str, ...]
    drawings: tuple[str, ...]


def lab_cells(html: str) -> list[Cell]:
    """Return the code cells of the page of a lab."""
    return [
        Cell(
            "".join(_trimmed(tag.get_text()) for tag in cell.select(".language-python pre")),
            tuple(_trimmed(tag.get_text()) for tag in cell.select(".output pre")),
            tuple(str(tag) for tag in cell.select("svg")),
        )
        for cell in BeautifulSoup(html, PARSER).select(".lab > .cell")
    ]


def cells_as_shown(notebook: Any) -> list[Cell]:
    """Return the code cells of an executed notebook, as `lab_cells` finds them on its page."""
    numbers = itertools.count(1)
    return [
        Cell(
            "" if "hide_code" in cell.metadata.get("tags", []) else cell.source,
            tuple(_trimmed(out.text) for out in cell.outputs if out.output_type == "stream"),
            tuple(
                str(BeautifulSoup(str(drawing(out.data["image/svg+xml"], next(numbers))), PARSER))
                for out in cell.outputs
                if out.output_type == "display_data"
            ),
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


RESOURCES = {
    "script": ["src"],
    "img": ["src", "srcset"],
    "source": ["src", "srcset"],
    "video": ["src", "poster"],
    "audio": ["src"],
    "iframe": ["src"],
    "embed": ["src"],
    "object": ["data"],
    "image": ["href", "xlink:href"],
    "use": ["href", "xlink:href"],
    "form": ["action"],
    "input": ["src"],
    "track": ["src"],
}
# Links that a browser only reads; it loads what all the others name.
PASSIVE_LINKS = {"canonical", "prev", "next", "alternate", "license", "author", "edit"}
ELSEWHERE = re.compile(r"^\s*(?:[a-z]+:)?//", re.IGNORECASE)
URL_IN_CSS = re.compile(r"(?:url\(\s*|@import\s+)[\"']?([^\"')\s]+)")
# In scripts any address counts, whatever is done with it, but for comments and XML namespaces.
URL_IN_SCRIPT = re.compile(r"[\"'`](?:https?:)?//[\w.-]+\.[a-z]{2,}[^\"'`]*[\"'`]")


def requests_elsewhere(html: str) -> list[str]:
    """Return the addresses on other hosts that a browser would ask for when it shows a page."""
    soup = BeautifulSoup(html, PARSER)
    found = [
        str(tag[name])
        for kind, names in RESOURCES.items()
        for tag in soup.find_all(kind)
        for name in names
        if tag.get(name)
    ]
    found += [
        str(tag["href"])
        for tag in soup.find_all("link", href=True)
        if not set(tag.get_attribute_list("rel")) <= PASSIVE_LINKS
    ]
    styles = [tag.get_text() for tag in soup.find_all("style")]
    styles += [str(tag["style"]) for tag in soup.find_all(style=True)]
    elsewhere = [address for address in found if ELSEWHERE.match(address)]
    elsewhere += [address for style in styles for address in requests_of_css(style)]
    for script in soup.find_all("script"):
        elsewhere += requests_of_script(script.get_text())
    return elsewhere


def requests_of_css(text: str) -> list[str]:
    """Return the addresses on other hosts that a style sheet loads."""
    return [address for address in URL_IN_CSS.findall(text) if ELSEWHERE.match(address)]


def requests_of_script(text: str) -> list[str]:
    """Return the addresses on other hosts that a script names."""
    return [address for address in URL_IN_SCRIPT.findall(text) if "//www.w3.org/" not in address]
