"""What `twice`, `interrupt`, `sweep` and `compare` of records found, as a page with pictures.

The rule: the page shows what the report says, and finds nothing by itself.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from reproducibility.explain.page import (
    HATCH,
    escaped,
    html_list,
    html_page,
    html_table,
    percent_of,
    svg_picture,
    write_page,
)
from reproducibility.script.aligned_report import report_of_aligned
from reproducibility.script.diverging import Alignment
from reproducibility.script.drawn_aligned import sections_of_aligned
from reproducibility.script.inputs import InputRow, rows_of
from reproducibility.script.lanes import (
    GAP,
    LANE,
    line_in_full,
    root_in_words,
    sections_of_records,
    sections_of_twice,
)
from reproducibility.script.lost import report_of_resumption, sentences
from reproducibility.script.report import report_of
from reproducibility.script.resumption import Resumption
from reproducibility.script.sides import AlignedRecords
from reproducibility.script.swept import Row, Sweep, report_of_sweep
from reproducibility.script.twice import Twice

type Found = Twice | Resumption | Sweep | Alignment | AlignedRecords

STEP_ROW = 22  # height of an input's row, in pixels
STEPS_DOTTED = 200  # values of an input that are drawn


def write_found(
    path: str | os.PathLike[str], found: Found, command: Sequence[str], by: str = ""
) -> None:
    """Write what a command for scripts found as a page in one file.

    **Same bits:** everywhere, for the same answer and command.

    Args:
        path: the file, replaced if it exists.
        found: what `twice`, `interrupt`, `sweep` or a comparison of records returned.
        command: what was run.
        by: the command that found it, where several may.

    Raises:
        RunSaveError: it cannot be written.
    """
    write_page(path, page_of(found, command, by))


def page_of(found: Found, command: Sequence[str], by: str = "") -> str:
    """Return what a command for scripts found as a page.

    **Same bits:** everywhere, for the same answer and command.

    Args:
        found: what `twice`, `interrupt`, `sweep` or a comparison of records returned.
        command: what was run.
        by: as of `write_found`.

    Returns:
        HTML that refers to nothing outside of itself.
    """
    name, sections, words = _by_kind(found)
    line = shlex.join(command)
    report = f"<pre tabindex='0'>{escaped(found.verdict)}\n{escaped(words)}</pre>"
    return html_page(
        line,
        found.verdict,
        found.reason,
        f"<p><code>{escaped(line)}</code></p>",
        sections | {"As the terminal has it": report},
        f"<code>reproducibility {by or name} --html</code>.",
    )


def _by_kind(found: Found) -> tuple[str, dict[str, str], str]:
    """Return the command that finds such an answer, its sections, and its report."""
    if isinstance(found, Twice):
        return "twice", sections_of_twice(found), report_of(found)
    if isinstance(found, Alignment):
        return "compare", sections_of_records(found), report_of(found)
    if isinstance(found, AlignedRecords):
        return "compare", sections_of_aligned(found), report_of_aligned(found)
    if isinstance(found, Resumption):
        return "interrupt", _of_resumption(found), report_of_resumption(found)
    return "sweep", _of_sweep(found), report_of_sweep(found)


def _of_resumption(found: Resumption) -> dict[str, str]:
    rows = rows_of(found.inputs)
    return {
        "The whole run, and what was resumed": _resumed_lanes(found),
        "Each input, and the steps of the whole run that had its value": _dots(found, rows),
        "What follows": html_list(sentences(found, rows) if rows else found.rounded),
        "What limits the answer": html_list([*found.notes, *found.problems]),
    }


def _resumed_lanes(found: Resumption) -> str:
    """Draw the steps of the whole run, and those that the last start made below them."""
    if not found.whole_steps or not found.resumed_steps:
        return ""
    begins = found.continues_at or max(found.whole_steps - found.resumed_steps + 1, 1)
    whole = max(found.whole_steps, begins - 1 + found.resumed_steps)
    kind = "agreed" if found.verdict == "same" else "unknown" if not found.difference else "parted"
    spans = [
        (0, found.whole_steps, "agreed", 0),
        (begins - 1, begins - 1 + found.resumed_steps, kind, LANE + GAP),
    ]
    bars = "".join(
        f"<rect class='{tone}' x='{percent_of(start, whole)}' y='{y}' "
        f"width='{percent_of(end - start, whole)}' height='{LANE}'/>"
        for start, end, tone, y in spans
    )
    at = f"it begins with the inputs of step {begins:,}"
    if not found.continues_at:
        at = "no step has all inputs of its first one; it is drawn as if it went to the end"
    summary = (
        f"{found.whole_steps:,} steps of {escaped(found.step)} in the whole run, "
        f"{found.resumed_steps:,} in the resumed one: {at}"
    )
    labels = "".join(
        f"<text x='-8' y='{y + 15}' text-anchor='end'>{name}</text>"
        for name, y in (("whole run", 0), ("resumed", LANE + GAP))
    )
    title = "The steps of both runs"
    picture = svg_picture(2 * (LANE + GAP), title, summary, HATCH + bars + labels)
    return f"<figure><div>{picture}</div><figcaption>{summary}.</figcaption></figure>"


def _dots(found: Resumption, rows: Sequence[InputRow]) -> str:
    """Draw each input of the first call that differs against the steps that had its value."""
    steps = found.whole_steps
    if not rows or not steps:
        return ""
    usual = found.values.usual(found.inputs) if found.values else 0
    drawn = ""
    if usual:
        x, end = percent_of(usual - 0.5, steps), len(rows) * STEP_ROW
        drawn += f"<line class='mark' x1='{x}' x2='{x}' y1='-4' y2='{end}'/>"
        drawn += f"<text x='{x}' y='{end + 16}' text-anchor='middle'>step {usual:,}</text>"
    for number, row in enumerate(rows):
        y = number * STEP_ROW + STEP_ROW // 2
        drawn += f"<line class='grid' x1='0%' x2='100%' y1='{y}' y2='{y}'/>"
        drawn += (
            f"<text x='-8' y='{y + 4}' text-anchor='end'>{escaped(_middle_cut(row.title))}</text>"
        )
        drawn += _dots_of(row, steps, usual, y)
    said = "; ".join(f"{escaped(row.title)}: {escaped(row.words)}" for row in rows)
    picture = svg_picture(len(rows) * STEP_ROW + 24, "Inputs and steps", said, drawn)
    return f"<figure class='inputs'><div>{picture}</div></figure>"


def _dots_of(row: InputRow, steps: int, usual: int, y: int) -> str:
    if not row.calls:
        words = "" if row.inputs[0].kind == "every" else row.words.removeprefix("the value of ")
        return (
            f"<text class='cross' x='50%' y='{y + 4}'>{escaped(_middle_cut(words, 36))}</text>"
            if words
            else ""
        )
    kind = "ring" if usual in row.calls or not usual else "dot"
    return "".join(
        f"<circle class='{kind}' cx='{percent_of(call - 0.5, steps)}' cy='{y}' r='5'>"
        f"<title>{escaped(row.title)}: step {call:,}</title></circle>"
        for call in row.calls[:STEPS_DOTTED]
    )


def _middle_cut(text: str, most: int = 20) -> str:
    return text if len(text) <= most else f"{text[: most - 12]}…{text[-11:]}"


def _of_sweep(found: Sweep) -> dict[str, str]:
    tried = [row for row in found.rows if row.result != "left out"]
    matters = found.of("different")
    twice = sections_of_twice(found.repeated) if found.repeated else {}
    return {
        "What matters, and what to do": html_table(
            ("hidden input", "where the script asks", "what to pin or change"),
            [(row.called, _asked(row), row.pin) for row in matters],
        )
        if matters
        else "",
        "Every hidden input": html_table(
            ("hidden input", "result", "changed to", "in how many ways", "why"),
            [
                (
                    row.called,
                    _signed(row),
                    row.changed_to,
                    f"{row.ways or 1}",
                    row.why or row.remark,
                )
                for row in tried
            ],
        )
        if tried
        else "",
        "Left out": html_list(
            f"{row.called}: {row.why}" for row in found.rows if row.result == "left out"
        ),
        **twice,
        "Notes": html_list(found.notes),
    }


def _asked(row: Row) -> str:
    if row.line:
        return line_in_full(row.line)
    return root_in_words(row.root) if row.root else "not known"


def _signed(row: Row) -> str:
    signs = {"different": "≠ ", "same": "= ", "cannot be told": "? "}
    return f"{signs.get(row.result, '')}{row.result}"
