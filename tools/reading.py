"""What a page says of itself: how long it takes, what to take away, what its words mean.

The rule: nothing here changes a character of what a page says or shows.
"""

from __future__ import annotations

import re
from pathlib import Path

from bs4 import BeautifulSoup, NavigableString, Tag
from mkdocs.utils import get_relative_url

from tools import downloads

WORDS_PER_MINUTE = 200
MINUTES_PER_BLOCK = 0.5  # to look at a block of code and its output
# Pages whose reader goes from top to bottom; a reference is looked things up in.
READ_THROUGH = (*downloads.CHAPTERS, "explorables/", "labs/")
EXERCISES = "Try to break it"

GLOSSARY = Path("docs/reference/glossary.md")
GLOSSARY_URL = "reference/glossary/"
ENTRY = re.compile(r"^\*\*(.+?)\*\* \{ #([\w-]+)( \.hover)? \}\n:   (.+?)(?=\n\n|\Z)", re.M | re.S)
# A word is explained where prose uses it, not in code, titles, links, drawings or what has its own.
NOT_PROSE = "a, abbr, button, code, pre, h1, h2, h3, h4, h5, h6, figure, label, summary, th, .doc"


def first_line(html: str, name: str, take_away: dict[str, str]) -> str:
    """Put under the title how long the page takes, and links to its files by what they are.

    `name` is the page's source, named from docs/; `take_away` maps the text of a link to its
    address.
    """
    parts = []
    if name.startswith(READ_THROUGH):
        parts.append(f'<span class="reading-time">{reading_time(html)}</span>')
    for text, address in take_away.items():
        file = address.rpartition("/")[2]
        download = "" if address.startswith("https:") else f' download="{file}"'
        parts.append(f'<a class="download" href="{address}"{download}>{text}</a>')
    if not parts:
        return html
    line = f'<p class="first-line" data-search-exclude>{" ".join(parts)}</p>'
    return html.replace("</h1>", f"</h1>\n{line}", 1)


def reading_time(html: str) -> str:
    """Say how long a page takes, its exercises apart."""
    text, title, exercises = html.partition(f">{EXERCISES}<")
    said = f"{_minutes(text)} to read"
    return f"{said}, {_minutes(exercises)} for the exercises" if title else said


def _minutes(html: str) -> str:
    soup = BeautifulSoup(html, "html.parser")
    blocks = soup.select("div.highlight:not(.output)")
    for block in soup.select("pre, svg"):
        block.decompose()
    minutes = len(soup.get_text(" ").split()) / WORDS_PER_MINUTE + MINUTES_PER_BLOCK * len(blocks)
    rounded = max(round(minutes), 1)
    return "1 minute" if rounded == 1 else f"{rounded} minutes"


def glossary(root: Path) -> dict[str, tuple[str, str, bool]]:
    """Return the entries by their anchor: term, first sentence, whether prose explains the term."""
    source = (root / GLOSSARY).read_text("utf-8")
    return {
        anchor: (term, _first_sentence(text), bool(hover))
        for term, anchor, hover, text in ENTRY.findall(source)
    }


def _first_sentence(markdown: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(markdown.split()))
    text = re.sub(r"[*`]", "", text)
    return re.split(r"(?<=[.?!]) (?=[A-Z])", text, maxsplit=1)[0]


def explain_words(html: str, url: str, root: Path) -> str:
    """Give links to the glossary its words as their tooltip, and link each of its rarer terms once.

    A term is linked where the prose of a page first uses it, if its entry has the class `hover`.
    """
    if url.startswith("reference/"):
        return html
    entries = glossary(root)
    soup = BeautifulSoup(html, "html.parser")
    for link in soup.select('a[href*="glossary/#"]'):
        anchor = str(link["href"]).partition("#")[2]
        if anchor in entries:
            link["title"] = entries[anchor][1]
            link["class"] = "word"
    for anchor, (term, meaning, hover) in entries.items():
        if hover and not soup.select_one(f'a[href$="glossary/#{anchor}"]'):
            _link_first(soup, term, get_relative_url(f"{GLOSSARY_URL}#{anchor}", url), meaning)
    return str(soup)


def _link_first(soup: BeautifulSoup, term: str, address: str, meaning: str) -> None:
    word = re.compile(rf"\b{re.escape(term)}(?:s|es)?\b", re.IGNORECASE)
    for text in soup.find_all(string=word):
        if text.find_parent(["p", "li", "td", "dd"]) and not _in_any(text, NOT_PROSE):
            found = word.search(text)
            assert found
            link = soup.new_tag("a", href=address, title=meaning, attrs={"class": "word"})
            link.string = found[0]
            text.replace_with(text[: found.start()], link, text[found.end() :])
            return


def _in_any(text: NavigableString, selector: str) -> bool:
    return any(isinstance(box, Tag) and box.css.match(selector) for box in text.parents)
