"""What a page says of itself: how long it takes, what to take away, what its words mean.

The rule: nothing here changes a character of what a page says or shows.
"""

from __future__ import annotations

import re
from functools import lru_cache
from html import unescape
from pathlib import Path

from bs4 import BeautifulSoup, NavigableString, Tag
from mkdocs.exceptions import PluginError
from mkdocs.utils import get_relative_url

WORDS_PER_MINUTE = 200
MINUTES_PER_BLOCK = 0.5  # to look at a block of code and its output
# Pages that are read from top to bottom: at the keyboard, or only read.
CHAPTERS = ("fundamentals/", "components/", "workflow/", "guide/", "scale/")
READ_THROUGH = (*CHAPTERS, "explorables/", "labs/")
EXERCISES = "Try to break it"
# Blocks of code count as such, and no word of them, of an output or of a drawing.
BLOCK = re.compile(r'<div class="(?![^"]*\boutput\b)[^"]*\bhighlight\b[^"]*"')
NOT_READ = re.compile(r"<!--.*?-->|<(pre|svg|style|script)\b.*?</\1>", re.DOTALL)
# On the home page: lists of pages, of which each item begins with its link.
STEP = re.compile(r'(<li>\s*(?:<p>)?<a href="([^"#]+)"[^>]*>.*?</a>)', re.DOTALL)
STEPS = re.compile(r'(<div class="steps">.*?</div>)', re.DOTALL)
SHOWN_TIME = re.compile(r'<span class="reading-time">(\d+ minutes?) to read')
HTML_TAG = re.compile(r"<[^>]*>")

GLOSSARY = Path("docs/reference/glossary.md")
GLOSSARY_URL = "reference/glossary/"
ENTRY = re.compile(r"^\*\*(.+?)\*\* \{ #([\w-]+)( \.hover)? \}\n:   (.+?)(?=\n\n|\Z)", re.M | re.S)
# A word is explained where prose uses it, not in code, titles, links, drawings or what has its own.
# The API, whose headings have the class `doc`, explains itself.
PROSE = {"p", "li", "td", "dd"}
NOT_PROSE = {"a", "abbr", "button", "code", "pre", "figure", "label", "summary", "th"}
NOT_PROSE |= {"h1", "h2", "h3", "h4", "h5", "h6"}


def with_first_line(html: str, name: str, links: dict[str, str]) -> str:
    """Put under the title how long the page takes, and links to its files by what they are.

    `name` is the page's source, named from docs/; `links` maps the text of a link to its
    address.
    """
    parts = []
    if name.startswith(READ_THROUGH):
        parts.append(f'<span class="reading-time">{reading_time(html)}</span>')
    for text, address in links.items():
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
    minutes = f"{_minutes(text)} to read"
    return f"{minutes}, {_minutes(exercises)} for the exercises" if title else minutes


def with_times(html: str, pages: dict[str, str]) -> str:
    """Put the reading time of a page behind the link to it, in each step of a learning path.

    `pages` maps the address of a page, as the links name it, to its HTML: the time is the one that
    stands on the page itself.
    """

    def timed(link: re.Match[str]) -> str:
        time = SHOWN_TIME.search(pages[link[2]])
        if not time:
            raise PluginError(f"A step of the learning path, {link[2]}, has no reading time.")
        return f'{link[1]}<span class="reading-time">{time[1]}</span><br>'

    parts = STEPS.split(html)
    parts[1::2] = [STEP.sub(timed, steps) for steps in parts[1::2]]
    return "".join(parts)


def _minutes(html: str) -> str:
    blocks = BLOCK.findall(html)
    text = unescape(HTML_TAG.sub(" ", NOT_READ.sub(" ", html)))
    minutes = len(text.split()) / WORDS_PER_MINUTE + MINUTES_PER_BLOCK * len(blocks)
    rounded = max(round(minutes), 1)
    return "1 minute" if rounded == 1 else f"{rounded} minutes"


def glossary(source: str) -> dict[str, tuple[str, str, bool]]:
    """Return the entries by their anchor: term, first sentence, whether prose explains the term."""
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
    return _explain(html, url, (root / GLOSSARY).read_text("utf-8"))


@lru_cache(maxsize=64)  # of all pages, most are as they were when one of them was edited
def _explain(html: str, url: str, source: str) -> str:
    entries = glossary(source)
    soup = BeautifulSoup(html, "html.parser")
    linked = set()
    for link in soup.select('a[href*="glossary/#"]'):
        anchor = str(link["href"]).partition("#")[2]
        linked.add(anchor)
        if anchor in entries:
            link["title"] = entries[anchor][1]
            link["class"] = "word"
    prose = [text for text in soup.find_all(string=True) if _is_prose(text)]
    for anchor, (term, meaning, hover) in entries.items():
        if hover and anchor not in linked:
            link = soup.new_tag(
                "a",
                href=get_relative_url(f"{GLOSSARY_URL}#{anchor}", url),
                title=meaning,
                attrs={"class": "word"},
            )
            _link_first(prose, term, link)
    return str(soup)


def _link_first(prose: list[NavigableString], term: str, link: Tag) -> None:
    word = re.compile(rf"\b{re.escape(term)}(?:s|es)?\b", re.IGNORECASE)
    for place, text in enumerate(prose):
        if found := word.search(text):
            link.string = found[0]
            rest = [NavigableString(text[: found.start()]), NavigableString(text[found.end() :])]
            text.replace_with(rest[0], link, rest[1])
            prose[place : place + 1] = rest
            return


def _is_prose(text: NavigableString) -> bool:
    around = {box.name for box in text.parents}
    return bool(
        around & PROSE
        and not around & NOT_PROSE
        and not any("doc" in box.get("class", ()) for box in text.parents)
    )
