"""Search loads what explains, and knows the words of its readers."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mkdocs.exceptions import PluginError

from tools.look.searching import BOOSTS, write_search


def found(site: Path, words: dict[str, str]) -> dict[str, Any]:
    """What is left of a small index, by location, when one page has words for its sections."""
    entries = [
        {"location": "a/", "title": "A", "text": "<p>One.</p>"},
        {"location": "a/#one", "title": "One", "text": "<p>x</p><pre>code</pre><p>y</p>"},
        {"location": "a/#check-yourself", "title": "Check yourself", "text": ""},
        {"location": "reference/api/same/#x", "title": "x", "text": "<p>first</p><p>second</p>"},
    ]
    fields = {name: {"boost": 1000.0} for name in ("title", "text", "tags")}
    (site / "search").mkdir(exist_ok=True)
    path = site / "search" / "search_index.json"
    path.write_text(json.dumps({"config": {"fields": fields}, "docs": entries}), "utf-8")
    page: Any = SimpleNamespace(url="a/", meta={"search_words": words})
    plain: Any = SimpleNamespace(url="b/", meta={})
    write_search(site, [page, plain])
    index = json.loads(path.read_text("utf-8"))
    boosts = {name: index["config"]["fields"][name]["boost"] for name in BOOSTS}
    assert boosts == BOOSTS
    return {entry["location"]: entry for entry in index["docs"]}


def test_code_and_exercises_are_left_out(tmp_path: Path) -> None:
    """Of a section the prose stays, of an entry of the API the first paragraph."""
    entries = found(tmp_path, {})
    assert list(entries) == ["a/", "a/#one", "reference/api/same/#x"]
    assert entries["a/#one"]["text"] == "<p>x</p><p>y</p>"
    assert entries["reference/api/same/#x"]["text"] == "<p>first</p>"


def test_a_section_is_looked_for_by_other_words(tmp_path: Path) -> None:
    """They belong to that section alone; a section that is not there is an error."""
    entries = found(tmp_path, {"one": "torch.manual_seed"})
    assert entries["a/#one"]["tags"] == ["torch.manual_seed"]
    assert "tags" not in entries["a/"]
    with pytest.raises(PluginError, match="a/#two"):
        found(tmp_path, {"two": "words"})
