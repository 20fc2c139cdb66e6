"""What a sweep found, and the same in words: a table, then one sentence.

The rule: an input matters if its run differs again and again. Of one that was changed and agreed it
is said in how many ways, and never that the script does not depend on it.
Chapter: docs/guide/hidden_inputs.md
"""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from reproducibility.errors import ExitCode
from reproducibility.script.diverging import RecordVerdict, Root
from reproducibility.script.reading import SourceLine
from reproducibility.script.report import COLUMNS, report_of
from reproducibility.script.sites import near_place, own_first
from reproducibility.script.twice import Twice

type SweepResult = Literal["different", "same", "set by the script", "cannot be told", "left out"]
WIDEST = 34  # columns of each part of the table
REMARKS_SHOWN = 3


@dataclass
class Row:
    """What came of changing one hidden input.

    `line` is where the script most likely asks for it, `root` the first call that differs, `why`
    says why nothing can be told, or how a run failed; `remark` is what is only printed or written
    otherwise. `ways` says in how many ways it was changed and came to the same.
    """

    name: str
    called: str
    result: SweepResult
    changed_to: str = ""
    pin: str = ""
    why: str = ""
    root: Root | None = None
    roots: int = 0
    programs: tuple[str, ...] = ()  # in whose calls a difference begins
    line: SourceLine | None = None
    remark: str = ""
    ways: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "name": self.name,
            "called": self.called,
            "result": self.result,
            "changed_to": self.changed_to or None,
            "ways": self.ways,
            "pin": self.pin if self.result == "different" else None,
            "why": self.why or None,
            "root": self.root and self.root.to_json(),
            "roots": self.roots,
            "programs": list(self.programs),
            "line": self.line and str(self.line),
            "remark": self.remark or None,
        }


@dataclass
class Sweep:
    """What a sweep found: a row for each hidden input.

    `problem` says why nothing was swept; `repeated` is what `twice` then found. `runs` is how often
    the script was run, and `seconds` how long that took; `notes` explain and decide nothing.
    """

    rows: list[Row] = field(default_factory=list)
    problem: str = ""
    repeated: Twice | None = None
    calls: int = 0
    runs: int = 0
    seconds: float = 0.0
    seconds_in_all: float = 0.0
    notes: list[str] = field(default_factory=list)

    def of(self, *results: SweepResult) -> list[Row]:
        """Return the rows with one of these results."""
        return [row for row in self.rows if row.result in results]

    @property
    def verdict(self) -> RecordVerdict:
        """What can be said of the script: "different" if a hidden input matters."""
        if self.of("different"):
            return "different"
        nothing = not self.of("same", "set by the script")
        return "cannot be told" if self.problem or nothing or self.of("cannot be told") else "same"

    @property
    def exit_code(self) -> ExitCode:
        """What the command ends with."""
        return ExitCode.of(self.verdict)

    @property
    def reason(self) -> str:
        """The verdict in a sentence."""
        if self.problem:
            return f"{self.problem[0].upper()}{self.problem[1:]}."
        if matters := self.of("different"):
            return f"The script depends on {_enumerated([_with_line(row) for row in matters])}."
        if unknown := self.of("cannot be told"):
            return f"It cannot be told about {_enumerated([row.called for row in unknown])}."
        return "It came to the same with each change that was made."

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "calls": self.calls,
            "runs": self.runs,
            "seconds_of_runs": round(self.seconds, 3),
            "seconds": round(self.seconds_in_all, 3),
            "rows": [row.to_json() for row in self.rows],
            "twice": self.repeated and self.repeated.to_json(),
            "notes": list(self.notes),
        }


def report_of_sweep(found: Sweep) -> str:
    """Return the report of a sweep, without the verdict.

    Args:
        found: what `sweep` returned.
    """
    if found.problem:
        more = ["", f"twice: {found.repeated.verdict}"] if found.repeated else []
        more += [report_of(found.repeated)] if found.repeated else []
        return "\n".join([found.reason, *_notes_of_sweep(found), *more])
    lines = _table_of_rows([row for row in found.rows if row.result != "left out"])
    lines += _remarks_of_rows(found) + _notes_of_sweep(found)
    lines += [found.reason] if found.of("different") else []
    for row in found.of("different"):
        lines += [f"    {_with_text(row.line)}"] * (row.line is not None)
        lines.append(f"    {row.called}: {row.pin}")
    if same := found.of("same"):
        ways = _enumerated([f"{row.called} ({_in_ways(row.ways)})" for row in same])
        lines.append(f"It came to the same with each of these changed alone: {ways}.")
    if own := found.of("set by the script"):
        lines.append(f"The script sets itself: {_enumerated([row.called for row in own])}.")
    if unknown := found.of("cannot be told"):
        lines.append(f"It cannot be told about {_enumerated([row.called for row in unknown])}.")
    return "\n".join(lines)


def _table_of_rows(rows: Sequence[Row]) -> list[str]:
    cells = [("name", "hidden input", "changed to", "result")]
    cells += [
        (row.name, _cut_to_width(row.called), _cut_to_width(row.changed_to), _result_of_row(row))
        for row in rows
    ]
    widths = [max(len(row[place]) for row in cells) for place in (0, 1, 2)]
    return [
        "  ".join([*(f"{row[place]:{width}}" for place, width in enumerate(widths)), row[3]])
        for row in cells
    ]


def _in_ways(ways: int) -> str:
    return f"in {ways} ways" if ways > 1 else "in one way"


def _notes_of_sweep(found: Sweep) -> list[str]:
    return [f"note: {text}" for text in found.notes]


def _cut_to_width(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _result_of_row(row: Row) -> str:
    if row.result == "different" and row.root:
        names = f": {', '.join(row.root.names[:2])}" if row.root.names else ""
        at = f", {near_place(own_first(row.root.site)[0])}" if row.root.site else ""
        return f"different: call {row.root.call + 1:,}, {row.root.program}{names}{at}"
    return f"{row.result}: {row.why}" if row.why else row.result


def _remarks_of_rows(found: Sweep) -> list[str]:
    rows = [row for row in found.of("same") if row.remark]
    shown = [f"note: with {_with_it_changed(row)}, {row.remark}" for row in rows[:REMARKS_SHOWN]]
    more = len(rows) - REMARKS_SHOWN
    return shown + [f"and {more} more notes, which --json has"] * (more > 0)


def _with_it_changed(row: Row) -> str:
    return f"{row.called} changed"


def _with_line(row: Row) -> str:
    """Return an input with the line that asks for it, or else with the call where it shows."""
    if row.line:
        return f"{row.called} ({near_place(row.line)})"
    if row.root:
        at = f", {near_place(own_first(row.root.site)[0])}" if row.root.site else ""
        return f"{row.called} ({row.root.program}{at})"
    return row.called


def _with_text(line: SourceLine | None) -> str:
    """Return a line with what stands in it."""
    if line is None:
        return ""
    text = linecache.getline(line.file, line.line).strip()
    return f"{near_place(line)}: {text}"[:COLUMNS] if text else near_place(line)


def _enumerated(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
