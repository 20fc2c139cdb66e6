"""What a resumed run prints and writes, beside the run that was never stopped.

The rule: it decides nothing, unless that is asked for. What a kill lost in a buffer, and what a
start says of itself, is no difference.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from reproducibility.script.printed import PART_OF_A_LINE, masked_lines
from reproducibility.script.written import TEXTS, Contents, contents_of, written_remark
from reproducibility.storage.found import ORBAX

MOST_LINES = 20_000  # of what a run prints, from its end; more is not compared
NEAR = 10  # lines before a difference in which the resumed run may still be at the same place
_ANY_NUMBER = re.compile(r"[-+]?\d[\d.,_]*(?:e[-+]?\d+)?")
_PART_OF_A_SAVE = re.compile(r"tmp|partial")  # what a kill left of a checkpoint


def reprinted_remark(
    ones: Sequence[Path | None], others: Sequence[Path | None], own: Sequence[str]
) -> str:
    """Say where what a resumed run prints differs from the whole run; nothing if it does not.

    Args:
        ones: the files with what the whole run printed, stdout first.
        others: those of the last start.
        own: the directories of the runs.
    """
    for one, other, name in zip(ones, others, ("", " on stderr"), strict=True):
        lines = [list(masked_lines(path, own))[-MOST_LINES:] for path in (one, other)]
        if found := difference_of_ends(*lines, last=not name):
            shown = " and ".join(repr(text[:PART_OF_A_LINE]) for text in found)
            return f"what they print{name} differs after the resume: {shown}"
    return ""


def difference_of_ends(
    whole: Sequence[str], resumed: Sequence[str], *, last: bool = True
) -> tuple[str, str] | None:
    """Return the last line that differs and is no line with which a start begins; None if none.

    Args:
        whole: the lines of the whole run.
        resumed: those of the last start.
        last: whether the last lines of both have to agree.
    """
    same = 0
    for a, b in zip(whole[::-1], resumed[::-1], strict=False):
        if a != b:
            break
        same += 1
    ones, others = whole[: len(whole) - same], resumed[: len(resumed) - same]
    if not ones or not others:
        return None
    pair = ones[-1], others[-1]
    if not same and last:
        return pair
    shapes = Counter(map(_without_numbers, whole))
    near = set(ones[-NEAR:])
    again = [each for each in others[-3:] if each in near and shapes[_without_numbers(each)] > 1]
    alike = (
        _without_numbers(pair[0]) == _without_numbers(pair[1])
        and shapes[_without_numbers(pair[0])] > 1
    )
    return pair if again or alike else None


def _without_numbers(line: str) -> str:
    """Return a line without its numbers; what has none repeats by chance."""
    shape = _ANY_NUMBER.sub("#", line)
    return shape if shape != line else f"{line}\n"


def rewritten_remark(folders: Sequence[str]) -> str:
    """Say which files in the directories of a whole and of a resumed run differ.

    Args:
        folders: both directories.
    """
    one, other = (contents_of(_newest(Path(each)), folders) for each in folders)
    kept = [_without_parts(each) for each in (one, other)]
    for text in (False, True):  # a log has some lines twice; what else differs comes first
        sides = [{n: c for n, c in each.items() if n.endswith(TEXTS) == text} for each in kept]
        if remark := written_remark(*sides):
            return remark.replace("first run", "whole run").replace("second run", "resumed run")
    return ""


def _without_parts(files: dict[str, Contents]) -> dict[str, Contents]:
    return {name: each for name, each in files.items() if not _PART_OF_A_SAVE.search(name)}


def _newest(folder: Path) -> list[Path]:
    """Return what is in a folder; of checkpoints in numbered folders only the newest of each."""
    found: list[Path] = []
    numbered: dict[str, tuple[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        number = re.fullmatch(r"(\D*)(\d+)", path.name)
        if path.is_symlink():
            continue
        if not path.is_dir() or (path / ORBAX).is_file():
            found.append(path)
        elif number is None:
            found += _newest(path)
        elif (int(number[2]), path) > numbered.get(number[1], (-1, path)):
            numbered[number[1]] = int(number[2]), path
    return [*found, *(each for _, path in numbered.values() for each in _newest(path))]
