"""The stages of the story's script: as a chapter finds it, as it leaves it, and what changes.

The rule: a line of the script belongs to every stage, but for those between the marks `#: from A`,
`#: before B` (or both) and `#: end`: they come with the cure of chapter A and go with that of B.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parent.parent.parent / "docs" / "story" / "train.marked"
MARK = re.compile(r"#: (?:end|(?:from (\w+))?(?: ?before (\w+))?)")
# In the order of the learning path: what a chapter cures, and the page that does.
CURES = {
    "seed": "fundamentals/reproducibility_basics.md",
    "keys": "fundamentals/jax_prng_tutorial.md",
    "pattern": "fundamentals/prng_pattern.md",
    "model": "components/model_explained.md",
    "data": "components/data_explained.md",
    "checkpoint": "components/checkpoint_explained.md",
    "digest": "components/hashing_explained.md",
}
ORDER = list(CURES)
LAST = "story/train.py"  # the script with every cure
LINES = re.compile(r"^@@ -(\d+).*")
CONTEXT = 1  # lines around a change


@cache
def script(cured: int) -> str:
    """Return the script after the first `cured` cures."""
    kept, keep = [], True
    for line in SOURCE.read_text("utf-8").splitlines(keepends=True):
        if mark := MARK.fullmatch(line.rstrip("\n")):
            first = ORDER.index(mark[1]) if mark[1] else -1
            last = ORDER.index(mark[2]) if mark[2] else len(ORDER)
            keep = first < cured <= last
        elif keep:
            kept.append(line)
    return "".join(kept)


def downloads_of_story() -> dict[str, str]:
    """Return the address of each stage on the site, with its text."""
    found = {LAST: script(len(ORDER))}
    for number, name in enumerate(ORDER):
        found[f"story/{name}/train.py"] = script(number)
        found[f"story/{name}/cured/train.py"] = script(number + 1)
    return found


def story(address: str) -> str:
    """Return the stage that the site offers at an address."""
    return downloads_of_story()[address]


def changes(name: str) -> str:
    """Return what the cure of a chapter changes, as a diff without its two header lines."""
    number = ORDER.index(name)
    before, after = (script(count).splitlines() for count in (number, number + 1))
    lines = list(difflib.unified_diff(before, after, n=CONTEXT, lineterm=""))[2:]
    text = "".join(f"{LINES.sub(r'@@ line \1 @@', line).rstrip()}\n" for line in lines)
    return text.rstrip("\n") + "\n"  # as the built page has it: no space at the end of a line


def is_change(text: str) -> bool:
    """Return whether a text is what a cure changes, in the script that was run."""
    return any(text == changes(name) for name in ORDER)
