"""What was found about two runs of a script, in words that fit a screen.

The rule: the line where the difference begins, then why, then what could not be seen.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import linecache
import os
from collections.abc import Sequence

from reproducibility.script.align import RUNS, Alignment, Root
from reproducibility.script.cause import held_by
from reproducibility.script.reading import Event, SourceLine
from reproducibility.script.twice import Twice

ROOTS_SHOWN = 5  # places where a difference begins; --json has all
WIDTH = 60  # characters of a line of source
_KINDS = {
    "host": "an input that no earlier call made",
    "program": "equal inputs, other results",
    "path": "another call",
    "end": "one run makes no such call",
    "error": "a call that fails in one run",
}
# What two runs on one machine cannot vary, so that "same" says nothing about it.
NOT_VARIED = "devices, versions, the processor, flags, or what else this machine always has"


def report_of(found: Twice | Alignment) -> str:
    """Return the report of a comparison, without the verdict and its reason.

    Args:
        found: what `twice` or `compare_records` returned.
    """
    compared = found.compared if isinstance(found, Twice) else found
    groups = _groups(compared.roots)
    lines = []
    if isinstance(found, Twice) and found.inherited:
        lines.append("the second run reads what the first one wrote; give each its own {dir}:")
        lines.append(f"    {_event(found.inherited)}")
    for number, group in enumerate(groups[:ROOTS_SHOWN]):
        lines += _root(group, "and with" if number else "begins with")
    if len(groups) > ROOTS_SHOWN:
        lines.append(f"and from {len(groups) - ROOTS_SHOWN} more lines")
    if (passed := compared.differing - len(compared.roots)) > 0:
        lines.append(f"{passed:,} more calls only pass it on")
    if isinstance(found, Twice):
        if found.stopped:
            made = f"its {compared.calls:,} calls until then are compared"
            lines.append(f"the second run was ended early ({made}; --to-the-end lets it go on)")
        lines += _cause(found)
        lines += [f"note: {found.remark}"] if found.remark and found.verdict == "same" else []
    lines += [f"note: {note}" for note in compared.notes[:ROOTS_SHOWN]]
    lines += [f"note: {problem}" for problem in compared.problems[:ROOTS_SHOWN]]
    if found.verdict == "same":
        lines.append(found.reason)
        if isinstance(found, Twice):
            lines.append(f"Two runs here cannot tell about {NOT_VARIED}.")
        else:
            lines.append("Nothing is told about what both runs had: devices, versions, flags.")
    return "\n".join(lines)


def _groups(roots: Sequence[Root]) -> list[list[Root]]:
    """Put the roots of one line together, in the order in which each first came."""
    groups: dict[object, list[Root]] = {}
    for root in roots:
        groups.setdefault((root.kind, root.program, root.site[:1]), []).append(root)
    return list(groups.values())


def _root(group: Sequence[Root], begins: str) -> list[str]:
    root = group[0]
    names = ", ".join(root.names[:3]) + (", …" if len(root.names) > 3 else "")
    head = f"{begins} call {root.call + 1:,}, {root.program}: {_KINDS[root.kind]}"
    lines = [head + (f": {names}" if names else "")]
    if root.what:
        lines.append(f"    {root.what}")
    lines += [f"    {text}" for text in _lines_of_program(root)]
    lines += [f"    {_line_and_text(line)}" for line in root.site]
    if root.kind == "path":
        lines += [f"    in the other run: {_line_and_text(line)}" for line in root.other_site[:1]]
    if len(group) > 1:
        lines.append(f"    {len(group) - 1:,} more begin on that line")
    return lines


def _lines_of_program(root: Root) -> list[str]:
    """Return the lines of source of what differs in a program; those of a call follow."""
    found = root.program_differs
    texts = [_line_and_text(line) for line in found.lines] if found else []
    if len(texts) == 1 or len(set(texts)) == 1:
        return [f"at {texts[0]}, called in"]
    return [f"in the {run} run: {text}" for run, text in zip(RUNS, texts, strict=False)]


def _cause(found: Twice) -> list[str]:
    if found.settled:
        return [
            "no cause confirmed: more runs agree with nothing held",
            "    the first run left something behind (a file, a cache), or it varies by chance",
        ]
    if found.tried:
        held = ", or ".join(held_by(name) for name in found.tried)
        lines = [f"no cause found: the runs still differ with {held}"]
    elif not found.cause:
        return []
    elif found.confirmed:
        lines = [f"confirmed: with {held_by(found.cause)}, both runs agree"]
        if "+" in found.cause:
            lines.append("    with less than that they do not")
    else:
        lines = [
            f"likely, not confirmed: with {held_by(found.cause)}, both runs agree",
            "    but no other way of holding it gives other results: it may be chance, or timing",
        ]
    if found.source:
        names = found.compared.roots[0].names if found.traced and found.confirmed else ()
        comes = f"{', '.join(names[:3])} comes from " if names else ""
        lines.append(f"    {comes}{_event(found.source)}")
    return lines


def _event(event: Event) -> str:
    return f"{event.what}, {_line_and_text(event.site[0])}" if event.site else event.what


def _line_and_text(line: SourceLine) -> str:
    """Write a line's file as seen from here, if that is shorter, and what stands in the line."""
    near = os.path.relpath(line.file) if os.path.isabs(line.file) else line.file
    file = near if len(near) < len(line.file) else line.file
    text = linecache.getline(line.file, line.line).strip()
    return f"{file}:{line.line}, in {line.function}" + (f": {text[:WIDTH]}" if text else "")
