"""The prose of the site is plain English: what reads foreign is counted, and each find is named."""

from collections import Counter
from pathlib import Path

import pytest

from tools.look.english import LIMITS, LONGEST_MEDIAN, finds, prose_pages, sentence_median

FOUND = """---
description: another
---
# A page

It is another one; they part, go on, begin anew, and the rest stands here.

```python
another = "they part"
```

`another` [a](../another.md) stands for itself.
"""


def test_house_words_are_as_rare_as_they_shall_be(root: Path) -> None:
    """On the whole site together; a find has its file and line."""
    texts = {
        path.relative_to(root).as_posix(): path.read_text("utf-8") for path in prose_pages(root)
    }
    found = [find for file, text in texts.items() for find in finds(file, text)]
    counts = Counter(find.name for find in found)
    too_many = {name for name, (most, _, _) in LIMITS.items() if counts[name] > most}
    assert not too_many, "\n".join(str(find) for find in found if find.name in too_many)


def test_sentences_are_short(root: Path) -> None:
    """The sentence in the middle of each page has at most 18 words."""
    medians = {path.name: sentence_median(path.read_text("utf-8")) for path in prose_pages(root)}
    assert {name: words for name, words in medians.items() if words > LONGEST_MEDIAN} == {}


def test_prose_is_counted_and_code_is_not() -> None:
    """Each word of the list is found once, with its line; code and addresses are no prose."""
    found = finds("a.md", FOUND)
    assert sorted(find.name for find in found) == sorted(LIMITS)
    assert {find.line for find in found} == {6}
    assert str(found[0]).startswith("a.md:6: another: It is another one")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("One two three. One two three four five! One two?\n", 3),
        ("* One two.\n* One two three four.\n\nOne two three four five six\n", 4),
        ("| one two three | four five |\n\nOne two.\n\n```sh\none two three four\n```\n", 2),
        ("One two `three four five` six.\n", 4),
    ],
)
def test_sentences_are_measured(text: str, words: int) -> None:
    """Items and paragraphs end a sentence; tables and code are none; code in a line is a word."""
    assert sentence_median(text) == words
