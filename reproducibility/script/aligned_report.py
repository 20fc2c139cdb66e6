"""What was found about two records of different commands, in words that fit a screen.

The rule: first what was asked, then the update and the line where they diverge, then what only one
side has.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from reproducibility.script.descent import Beginning
from reproducibility.script.graph import short_line
from reproducibility.script.reading import SourceLine
from reproducibility.script.report import (
    COLUMNS,
    NAMES_SHOWN,
    NOTES_SHOWN,
    SHORTEST,
    in_two_lines,
)
from reproducibility.script.sides import AlignedRecords, CallsOfLine, FirstUpdate
from reproducibility.watch.versions_of_files import digest_of_source

BEGINNINGS_SHOWN = 3  # places where a difference begins; --json has all
ONLY_SHOWN = 3  # functions that only one side calls
KINDS_OF_BEGINNING = {
    "host": "an input from the host",
    "program": "equal inputs, other results",
    "function": "another function",
    "order": "the same arrays in another order",
    "origin": "an input that comes from elsewhere",
    "type": "another type",
    "end": "one run makes no such call",
}


def report_of_aligned(found: AlignedRecords) -> str:
    """Return the report, without the verdict: at most a screen.

    Args:
        found: what `compare_aligned` returned.
    """
    lines = []
    if found.commands:
        lines.append(f"the commands differ: {found.commands}")
    if found.files:
        lines.append(f"the files differ: {found.files}")
    if found.first:
        lines += _first_update(found.first, found)
    elif found.verdict != "cannot be told" or found.equal:
        lines.append(found.what_agrees)
    if found.has_no_effect:
        lines.append("Nothing else differs: what differs there has no effect on what JAX computes.")
    shown = found.beginnings[:BEGINNINGS_SHOWN]
    for number, each in enumerate(shown):
        lines += _beginning(found, each, "and with" if number else "begins with")
    if more := len(found.beginnings) - len(shown):
        lines.append(f"and in {more} more places, which --json has")
    if found.more:
        lines.append(f"updates return more: {', '.join(found.more[:NAMES_SHOWN])}")
    if found.renamed:
        pairs = [f"{one} is {two} in B" for one, two in found.renamed[:NAMES_SHOWN]]
        lines.append(f"renamed: {', '.join(pairs)}")
    for side, only in zip("AB", found.only, strict=True):
        lines += _only(side, only)
    notes = [*found.notes, *found.problems]
    lines += [f"note: {in_two_lines(note)}" for note in notes[:NOTES_SHOWN]]
    if len(notes) > NOTES_SHOWN:
        lines.append(f"and {len(notes) - NOTES_SHOWN} more notes, which --json has")
    return "\n".join(lines)


def _first_update(first: FirstUpdate, found: AlignedRecords) -> list[str]:
    one, two = first.one, first.two
    before = f"{found.equal:,} before it agree" if found.equal else "no update agrees"
    lines = [
        f"the first update that differs is {first.numbers[0]:,} of {found.updates[0]:,}: {before}"
    ]
    names = f"{one.name}" + (f", {two.name} in B" if two.name != one.name else "")
    lines.append(f"    {names}: call {one.call.number + 1:,} in A, {two.call.number + 1:,} in B")
    for pair, mine, theirs in first.inputs[:NAMES_SHOWN]:
        name = one.call.program.argument(pair[0])
        lines.append(f"    other input {name}: A from {mine}")
        lines.append(f"        B from {theirs}")
    if more := len(first.inputs) - NAMES_SHOWN:
        lines += [f"    and {more} more inputs, which --json has"] * (more > 0)
    return lines


def _beginning(found: AlignedRecords, each: Beginning, begins: str) -> list[str]:
    node = each.one or each.two
    assert node is not None
    calls = [f"{n.call.number + 1:,} in {s}" for n, s in ((each.one, "A"), (each.two, "B")) if n]
    names = ", ".join(each.names[:NAMES_SHOWN]) + (", …" if len(each.names) > NAMES_SHOWN else "")
    head = f"{begins} {node.name}, call {', '.join(calls)}: {KINDS_OF_BEGINNING[each.kind]}"
    lines = [head + (f": {names}" if names else "")]
    if each.what:
        lines.append(f"    {each.what}")
    if each.why:
        lines += [
            f"    the program: {line}" for line in dict.fromkeys(map(short_line, each.why.lines))
        ]
    lines += _both_lines(found, [n.line if n else None for n in (each.one, each.two)])
    return lines


def _both_lines(found: AlignedRecords, lines: Sequence[SourceLine | None]) -> list[str]:
    texts = [
        line_with_text(line, digests) if line else ""
        for line, digests in zip(lines, found.digests, strict=True)
    ]
    short = [short_line(line) if line else "" for line in lines]
    if short[0] == short[1] and (texts[0] == texts[1] or short[0] in texts):
        return [f"    {max(texts, key=len)}"] if short[0] else []
    return [f"    {side}: {text}" for side, text in zip("AB", texts, strict=True) if text]


def line_with_text(line: SourceLine, digests: frozenset[str]) -> str:
    """Write a line with its text, if its file is still the one that ran.

    Args:
        line: one of a record.
        digests: those of the files that ran.
    """
    short = short_line(line)
    with contextlib.suppress(OSError, ValueError, IndexError):
        data = Path(line.file).read_bytes()
        if digest_of_source(data) in digests:
            text = data.decode().splitlines()[line.line - 1].strip()
            return f"{short}: {text[: max(SHORTEST, COLUMNS - len(short) - 10)]}"
    return short


def _only(side: str, only: Sequence[CallsOfLine]) -> list[str]:
    if not only:
        return []
    total = sum(each.count for each in only)
    lines = [f"only in {side}: {total:,} call{'s' * (total != 1)}"]
    for each in only[:ONLY_SHOWN]:
        line = f", {short_line(each.line)}" if each.line else ""
        lines.append(f"    {each.count:,} of {each.function}{line}")
    if more := len(only) - ONLY_SHOWN:
        lines += [f"    and of {more} more functions or lines, which --json has"] * (more > 0)
    return lines
