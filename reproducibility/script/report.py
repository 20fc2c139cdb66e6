"""What was found about two runs of a script, in words that fit a screen.

The rule: the line where the difference begins, then why, then what could not be seen.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import linecache
from collections.abc import Sequence

from reproducibility.script.cause import cure_of, held_by
from reproducibility.script.diverging import RUNS, Alignment, Root
from reproducibility.script.reading import Event, SourceLine
from reproducibility.script.repeat import CallAgain
from reproducibility.script.sites import near_file, near_place, own_first
from reproducibility.script.twice import Twice

ROOTS_SHOWN = 4  # places where a difference begins; --json has all
NOTES_SHOWN = 3
NAMES_SHOWN = 3  # arguments or results of a call
COLUMNS = 100
SHORTEST = 20  # characters that are shown of a line of source, however long its file's name is
KINDS_OF_ROOT = {
    "host": "an input that no earlier call made",
    "program": "equal inputs, other results",
    "path": "another call",
    "end": "one run makes no such call",
    "error": "a call that fails in one run",
}
# How the second run is no start of its own.
_FOUND = {
    "reads": "the second run reads what the first one wrote",
    "misses": "the second run asks for a file that the first one deleted",
    "lists": "the second run lists a folder into which the first one wrote",
}
# What two runs on one machine cannot vary, so that "same" says nothing about it.
NOT_VARIED = "devices, threads, folders, flags, or what else this machine always has"

NEXT = "reproducibility sweep"


def report_of(found: Twice | Alignment) -> str:
    """Return the report of a comparison, without the verdict and its reason: at most a screen.

    Args:
        found: what `twice` or `compare_records` returned.
    """
    of_twice = found if isinstance(found, Twice) else None
    compared = of_twice.compared if of_twice else found
    assert isinstance(compared, Alignment)
    lines = _inherited(of_twice) if of_twice else []
    lines += _begins(compared)
    if of_twice:
        if of_twice.stopped:
            until = f"the second run was ended after {compared.calls:,} calls"
            lines.append(f"{until}; what both printed is not compared (--to-the-end)")
        lines += cause_in_words(of_twice)
        lines += _again(of_twice.again)
    notes = [*(_notes(of_twice) if of_twice else ()), *compared.notes, *compared.problems]
    lines += [f"note: {in_two_lines(note)}" for note in notes[:NOTES_SHOWN]]
    if len(notes) > NOTES_SHOWN:
        lines.append(f"and {len(notes) - NOTES_SHOWN} more notes, which --json has")
    if found.verdict == "same":
        lines.append(found.reason)
        if of_twice:
            lines.append(f"Two runs here cannot tell about {NOT_VARIED}: see {NEXT}.")
        else:
            lines.append("Nothing is told about what both runs had: devices, versions, flags.")
    return "\n".join(lines)


def _inherited(found: Twice) -> list[str]:
    """Say first of all why the second run is no start of its own."""
    if not found.inherited:
        return []
    head = f"{_FOUND[found.inherited.how]}; give each its own {{dir}}:"
    return [head, f"    {_event(found.inherited.event)}"]


def _begins(compared: Alignment) -> list[str]:
    """Say where the difference begins, line by line, and how many calls only pass it on."""
    groups, lines = roots_by_line(compared.roots), list[str]()
    for number, group in enumerate(groups[:ROOTS_SHOWN]):
        lines += _root(group, "begins with", 3) if not number else _root(group, "and with", 1)
    if len(groups) > ROOTS_SHOWN:
        lines.append(f"and on {len(groups) - ROOTS_SHOWN} more lines, which --json has")
    if (passed := compared.differing - len(compared.roots)) > 0:
        lines.append(_passed_on(passed))
    return lines


def _notes(found: Twice) -> list[str]:
    notes = [found.remark] if found.remark and found.verdict == "same" else []
    if found.left and not found.confirmed and not found.inherited:
        more = f" and {len(found.left) - 1:,} more" * (len(found.left) > 1)
        notes.append(
            f"the second run may find what the first one left: {near_file(found.left[0])}{more}"
        )
    return notes


def in_two_lines(text: str) -> str:
    """Return a text that fits two lines.

    Args:
        text: any.
    """
    text = " ".join(text.split())
    return text if len(text) <= 2 * COLUMNS - 10 else f"{text[: 2 * COLUMNS - 11]}…"


def _passed_on(calls: int) -> str:
    return (
        "1 more call only passes it on" if calls == 1 else f"{calls:,} more calls only pass it on"
    )


def roots_by_line(roots: Sequence[Root]) -> list[list[Root]]:
    """Put the roots of one line together, in the order in which each first came.

    Args:
        roots: those of a comparison.
    """
    groups: dict[object, list[Root]] = {}
    for root in roots:
        groups.setdefault((root.kind, root.program, root.site[:1]), []).append(root)
    return list(groups.values())


def _root(group: Sequence[Root], begins: str, deep: int) -> list[str]:
    root = group[0]
    names = ", ".join(root.names[:NAMES_SHOWN]) + (", …" if len(root.names) > NAMES_SHOWN else "")
    head = f"{begins} call {root.call + 1:,}, {root.program}: {KINDS_OF_ROOT[root.kind]}"
    head += f": {names}" if names else ""
    if len(group) > 1 and deep == 1:
        head += f" (and {len(group) - 1:,} more there)"
    lines = [head]
    if root.what:
        lines.append(f"    {root.what}")
    lines += [f"    {text}" for text in _lines_of_program(root)]
    lines += [f"    {line_and_text(line)}" for line in own_first(root.site)[:deep]]
    if root.kind == "path":
        lines += [
            f"    in the other run: {line_and_text(line)}"
            for line in own_first(root.other_site)[:1]
        ]
    if len(group) > 1 and deep > 1:
        lines.append(f"    {len(group) - 1:,} more begin on that line")
    return lines


def _lines_of_program(root: Root) -> list[str]:
    """Return the lines of source of what differs in a program; those of a call follow."""
    found = root.program_differs
    texts = [line_and_text(line) for line in found.lines] if found else []
    if found and found.kind == "memory":
        return [f"shared with NumPy at {text}" for text in texts[:1]]
    if len(texts) == 1 or len(set(texts)) == 1:
        return [f"at {texts[0]}, called in"]
    return [f"in the {run} run: {text}" for run, text in zip(RUNS, texts, strict=False)]


def cause_in_words(found: Twice) -> list[str]:
    """Say what was held fixed, what came of it, and which line it was.

    Args:
        found: what `twice` returned.
    """
    if found.settled:
        return [
            "no cause confirmed: more runs agree with nothing held",
            "    the first run left something behind (a file, a cache), or it varies by chance",
        ]
    if found.tried and found.inherited:
        return []  # what the first run left is said already
    if found.tried:
        held = ", or ".join(held_by(name) for name in found.tried)
        lines = [f"no cause found: the runs still differ with {held}"]
    elif not found.cause:
        return []
    elif found.confirmed:
        lines = [f"confirmed: with {held_by(found.cause)}, both runs agree"]
        if "+" in found.cause:  # on one line: the report has to fit a screen
            lines.append(f"    with less than that they do not; cure: {cure_of(found.cause)}")
    else:
        lines = [
            f"likely, not confirmed: with {held_by(found.cause)}, both runs agree",
            "    but no other way of holding it gives other results: it may be chance, or timing",
        ]
    said = not found.confirmed or "+" in found.cause or found.inherited
    cure = "" if said else cure_of(found.cause)
    return [*lines, *_where_from(found), *[f"    cure: {cure}"] * bool(cure)]


def _where_from(found: Twice) -> list[str]:
    """Say which lines asked for what varies: as the one source, or as what may be it."""
    if not found.sources:
        return []
    first, *others = [_event(each) for each in found.sources]
    if others:
        more = f"one of {len(others)} more lines, which --json has"
        return [
            f"    it may come from {first}",
            f"    or from {others[0] if len(others) == 1 else more}",
        ]
    root = found.compared.roots[0] if found.compared.roots else None
    names = root.names if root and found.traced and found.confirmed else ()
    comes = f"{', '.join(names[:3])} comes from " if names else ""
    return [f"    {comes}{first}"]


def _again(again: CallAgain | None) -> list[str]:
    """Say what two more runs kept of the call, and what came of executing it alone."""
    lines = []
    if again and again.differences:
        shown = "; ".join(again.differences[:NAMES_SHOWN])
        lines.append(f"in two more runs, {shown}")
    if again and again.replayed:
        lines.append(f"executed from kept inputs: {again.replayed}")
    return lines


def _event(event: Event) -> str:
    return f"{event.what}, {line_and_text(event.site[0])}" if event.site else event.what


def line_and_text(line: SourceLine) -> str:
    """Write a line's file as seen from here, if that is shorter, and what stands in the line.

    Args:
        line: one of a record.
    """
    where = f"{near_place(line)}, in {line.function}"
    text = linecache.getline(line.file, line.line).strip()
    return f"{where}: {text[: max(SHORTEST, COLUMNS - len(where) - 10)]}" if text else where
