"""Hold the built pages against the record of what ran.

The rule: start from what a reader sees. Every block on a page was executed or is a listing that
says so, every output was compared, and nothing that ran is missing from the page.
"""

from __future__ import annotations

import doctest
import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import markdown  # type: ignore[import-untyped]
from bs4 import BeautifulSoup, Tag
from mkdocs.config import load_config

from tools.guard.executed import read_record
from tools.guard.pages import (
    DATA,
    RUN,
    Listing,
    code_in_listing,
    console_list,
    mark_outputs,
    read_page,
)

BLOCKS = "pre, textarea, samp, xmp, listing, plaintext"


@dataclass(frozen=True)
class ShownBlock:
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
    config = load_config(str(Path(__file__).parents[2] / "mkdocs.yml"))
    return markdown.Markdown(
        extensions=config.markdown_extensions, extension_configs=config.mdx_configs
    )


def shown_blocks(html: str) -> list[ShownBlock]:
    """Return every block of preformatted text on a page, labelled or not."""
    soup = BeautifulSoup(html, "html.parser")
    content = soup.select_one(".md-content") or soup
    for cell in content.select(".lab > .cell"):
        cell.decompose()  # looked at by `tools/labs/cells.py`
    blocks = [_shown(tag) for tag in content.select(BLOCKS)]
    for tag in content.select(BLOCKS):
        tag.decompose()
    # A fence that was not understood stays in the text; code of several lines hides in a sentence.
    blocks += [
        ShownBlock("code", "", text) for text in content.find_all(string=re.compile("```|~~~"))
    ]
    blocks += [_shown(tag) for tag in content.select("code") if "\n" in tag.get_text()]
    blocks += [_shown(tag) for tag in content.select("code:has(br)")]
    return blocks


def _shown(tag: Tag) -> ShownBlock:
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
    return ShownBlock(kind, language, without_line_end(tag.get_text()))


def without_line_end(text: str) -> str:
    """Return a text without its last line end, which the renderer adds or drops."""
    return text.removesuffix("\n")


def problems(
    name: str,
    html: str,
    root: Path,
    as_built: Callable[[str], str] = str,
    recorded: Collection[str] = (),
) -> list[str]:
    """Hold the built page of the source file `name` against the record of what ran.

    `as_built` says what the build makes of the text of a console block, and `recorded` are the
    texts that were recorded in a terminal.
    """
    record = read_record(root)
    page = read_page(root / name, root)
    ran = record["pages"].get(name)
    if page.blocks and ran is None:
        return [f"{name} has not been run: run `make test-docs` first"]
    if page.blocks and ran["sha256"] != page.sha256:
        return [f"{name} has changed since its blocks ran: run `make test-docs` first"]
    listed = [as_built(entry["text"]) for entry in console_list() if entry["page"] == name]
    return compare_page(
        shown_blocks(html),
        ran or {"blocks": {}},
        page.listings,
        listed,
        record["doctests"],
        recorded,
    )


def compare_page(
    shown: list[ShownBlock],
    ran: dict[str, Any],
    listings: list[Listing],
    console: list[str],
    doctests: dict[str, list[list[str]]],
    recorded: Collection[str] = (),
) -> list[str]:
    """Say what is shown and did not run, or ran and is not shown; an empty list is a good page.

    `ran` is the page's entry in build/executed.json, `listings` what its source declares as such,
    `console` the texts of its console blocks that are on the list, `doctests` the record's entry,
    `recorded` the texts of terminal sessions.
    """
    found = _problems_of_what_ran(shown, ran["blocks"])
    found += [
        f"this was not recorded: {block.text!r}"
        for block in shown
        if block.kind == "recorded" and f"{block.text}\n" not in recorded
    ]
    declared = Counter(without_line_end(listing.text) for listing in listings)
    allowed = Counter(without_line_end(text) for text in console)
    examples = Counter((source, want) for one in doctests.values() for source, want in one)
    for block in shown:
        if block.language == "pycon":
            found += _problems_of_examples(block.text, examples)
        else:
            found += _problems_of_listing(block, declared, allowed)
    return found


def _problems_of_what_ran(shown: list[ShownBlock], blocks: dict[str, Any]) -> list[str]:
    found = [
        f"line {line}: the block did not pass"
        for line, block in blocks.items()
        if block["outcome"] != "passed"
    ]
    passed = [block for block in blocks.values() if block["outcome"] == "passed"]
    executed = Counter((block["language"], without_line_end(block["code"])) for block in passed)
    compared = Counter(without_line_end(b["output"]) for b in passed if b["output"] is not None)

    code = Counter((s.language, s.text) for s in shown if s.kind == "code" and s.language in RUN)
    outputs = Counter(s.text for s in shown if s.kind == "output")
    found += [f"shown, but did not run: {text!r}" for _, text in code - executed]
    found += [f"ran, but is not shown: {text!r}" for _, text in executed - code]
    found += [f"an output is shown that was not compared: {text!r}" for text in outputs - compared]
    found += [f"an output was compared that is not shown: {text!r}" for text in compared - outputs]
    return found


def _problems_of_listing(
    block: ShownBlock, declared: Counter[str], console: Counter[str]
) -> list[str]:
    compared = block.kind in ("output", "signature", "recorded")
    if compared or (block.kind == "code" and block.language in RUN):
        return []
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
