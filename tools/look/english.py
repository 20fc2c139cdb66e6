"""Count what reads foreign on the site: house words that plain English does without.

The rule: prose is counted, and code, addresses and outputs are not; each find has file and line.
Run: python -m tools.look.english [FILE ...]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

# What may be said how often on the whole site, and what to write instead.
LIMITS = {
    "another": (40, r"\banother\b", "a different, or a second"),
    "part": (
        0,
        r"\b(?:they|runs?|ledgers?|records?|both) part\b|\bparted\b|\bparting\b",
        "diverge",
    ),
    "go on": (10, r"\b(?:go|goes|going|went|gone) on\b", "continue, or resume"),
    "anew": (0, r"\banew\b", "again, or from scratch"),
    "stand": (0, r"\b(?:stands?|stood|standing)\b(?! (?:for|alone)\b)", "is"),
}
LONGEST_MEDIAN = 18  # words of a sentence, in the middle of a page

_FENCE = re.compile(r"^\s*(?:```|~~~)")
_CODE = re.compile(r"`[^`]*`")
_ADDRESS = re.compile(r"\]\([^)]*\)|<[^>]*>|\{[^}]*\}|https?://\S+")
_END = re.compile(r"(?<=[.!?])[\"”*_)]*\s+|\n\s*\n|\n(?=\s*(?:[*|-]|\d+\.) )|:\n")


@dataclass(frozen=True)
class Find:
    """One place with a word of `LIMITS`."""

    name: str
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.name}: {self.text.strip()[:100]}"


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Give each line of prose with its number; lines of code and front matter are empty."""
    inside = front = False
    for number, line in enumerate(text.splitlines(), 1):
        if number == 1 and line == "---":
            front = True
        elif front:
            front = line != "---"
        elif _FENCE.match(line):
            inside = not inside
        elif not inside:
            yield number, _ADDRESS.sub(" ", _CODE.sub("x", line))
            continue
        yield number, ""


def finds(file: str, text: str) -> list[Find]:
    """Return every place of a page with a word of `LIMITS`."""
    return [
        Find(name, file, number, line)
        for number, line in prose(text)
        for name, (_, pattern, _) in LIMITS.items()
        for _ in re.finditer(pattern, line, re.IGNORECASE)
    ]


def sentence_median(text: str) -> float:
    """Return the number of words of the sentence in the middle of a page; tables do not count."""
    lines = [line for _, line in prose(text) if not re.match(r"\s*(?:\||#|!!!|\?\?\?)", line)]
    counts = [len(re.findall(r"\b[\w'\u2019-]+\b", each)) for each in _END.split("\n".join(lines))]
    return median([count for count in counts if count > 1] or [0])


def prose_pages(root: Path) -> list[Path]:
    """Return the sources of the pages whose prose is counted."""
    names = ("README.md", "CONTRIBUTING.md")
    found = [path for path in (root / "docs").rglob("*.md") if path.name != "abbreviations.md"]
    return [*(root / name for name in names), *sorted(found)]


def main(arguments: Sequence[str]) -> None:
    """Print every find, the sums, and the pages with long sentences."""
    root = Path(__file__).parents[2]
    chosen = [Path(each).resolve() for each in arguments] or prose_pages(root)
    texts = {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in chosen}
    found = [find for file, text in texts.items() for find in finds(file, text)]
    for find in found:
        print(find)
    for name, (most, _, instead) in LIMITS.items():
        print(f"{name}: {sum(find.name == name for find in found)}, at most {most}: {instead}")
    for file, text in texts.items():
        if (words := sentence_median(text)) > LONGEST_MEDIAN:
            print(f"{file}: {words:g} words in the middle sentence, at most {LONGEST_MEDIAN}")


if __name__ == "__main__":
    main(sys.argv[1:])
