"""What the search box loads and looks through: what explains, and the words that readers type.

The rule: a page says in its front matter by which other words its sections are looked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

# Entries of which the first paragraph is enough.
SHORT = re.compile(r"reference/api/\w*/?#")
# Sections that say once more, or ask about, what another section of the page says first.
SAID_BEFORE = re.compile(r"#(?:try-to-break-it|check-yourself|what-to-take-away|summary)\b")
# Marks within a text, which each first visit would load; what is found is shown as plain words.
MARKS = re.compile(r"</?(?:code|strong|em|ul|ol)>")
# How often a word counts: in a title, and among those that a page or section is looked for by.
BOOSTS = {"title": 20.0, "tags": 40.0}


def write_search(site: Path, pages: Sequence[Page]) -> None:
    """Leave code, exercises and summaries out, and add the words under `search_words`.

    Raises:
        PluginError: a page has words for a section that it does not have.
    """
    path = site / "search" / "search_index.json"
    index = json.loads(path.read_text("utf-8"))
    index["docs"] = [each for each in index["docs"] if not SAID_BEFORE.search(each["location"])]
    for field, boost in BOOSTS.items():
        index["config"]["fields"][field]["boost"] = boost
    words = {
        f"{page.url}#{name}": text
        for page in pages
        for name, text in page.meta.get("search_words", {}).items()
    }
    for entry in index["docs"]:
        text = re.sub(r"<pre.*?</pre>", "", entry["text"], flags=re.DOTALL)
        entry["text"] = MARKS.sub("", text)
        if SHORT.match(entry["location"]):
            entry["text"] = (re.findall(r"<p>.*?</p>", entry["text"], re.DOTALL) or [""])[0]
        if entry["location"] in words:
            entry["tags"] = [words.pop(entry["location"])]
    if words:
        raise PluginError(f"search_words: no such section: {', '.join(sorted(words))}")
    path.write_text(json.dumps(index, ensure_ascii=False, separators=(",", ":")), "utf-8")
