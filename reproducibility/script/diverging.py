"""What comes of comparing two records: a verdict, and where each difference begins.

The rule: what is certain is a root; what could not be compared is a problem, and no run is "the
same" with one.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from reproducibility.errors import ExitCode
from reproducibility.script.programs import ProgramDifference
from reproducibility.script.reading import SourceLine

type RootKind = Literal["host", "program", "path", "end", "error"]
type RecordVerdict = Literal["same", "different", "cannot be told"]
RUNS = ("first", "second")
STRETCHES = 10_000  # of calls that differ, which are kept apart


@dataclass(frozen=True)
class Root:
    """Where a difference begins.

    `kind` is "host" (an input that no earlier call made), "program" (equal inputs, other results),
    "path" (another function or shape), "end" (one run made more calls), or "error" (one call
    failed).
    """

    kind: RootKind
    what: str
    names: tuple[str, ...]
    program: str
    site: tuple[SourceLine, ...]
    other_site: tuple[SourceLine, ...]
    process: str
    thread: str
    call: int
    program_differs: ProgramDifference | None = None  # of a "program"
    places: tuple[int, ...] = ()  # of what is in `names`, among the arguments or the results
    ordered: bool = True  # whether another run has this call at the same place

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; calls are counted from 1."""
        return {
            "kind": self.kind,
            "what": self.what,
            "names": list(self.names),
            "program": self.program,
            "call": self.call + 1,
            "lines": [str(line) for line in self.site],
            "other_lines": [str(line) for line in self.other_site],
            "process": self.process,
            "thread": self.thread,
            "program_differs": self.program_differs and self.program_differs.to_json(),
        }


@dataclass
class Lane:
    """The calls of a thread in both runs: how many were compared, and which of them differ.

    `stretches` are the numbers of calls that differ, from 0, first and last of each row of them;
    after `STRETCHES` of these only the last one grows. `passed` counts calls that only pass a
    difference on, by function.
    """

    process: str
    thread: str
    compared: int = 0
    stretches: list[tuple[int, int]] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)

    def differs(self, call: int) -> None:
        """Note that a call differs.

        Args:
            call: its number; they come in order.
        """
        if self.stretches and (
            call == self.stretches[-1][1] + 1 or len(self.stretches) == STRETCHES
        ):
            self.stretches[-1] = (self.stretches[-1][0], call)
        else:
            self.stretches.append((call, call))


@dataclass
class Alignment:
    """What came of comparing two records."""

    roots: list[Root] = field(default_factory=list)
    calls: int = 0
    differing: int = 0
    of: int = 0  # calls of the first run, if not all of them were compared
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    texts: bool = True  # whether a program with another text is a difference if its results agree
    lanes: list[Lane] = field(default_factory=list)  # of threads with an order

    @property
    def verdict(self) -> RecordVerdict:
        """What can be said of the two runs."""
        if self.roots:
            return "different"
        return "cannot be told" if self.problems else "same"

    @property
    def exit_code(self) -> ExitCode:
        """What the command ends with."""
        return ExitCode.of(self.verdict)

    @property
    def reason(self) -> str:
        """The verdict in a sentence."""
        if self.roots:
            # Where they took other ways, the calls behind are not counted.
            calls = self.of or (self.calls if self.roots[0].kind != "path" else 0)
            of = f" of {calls:,}" if calls else ""
            return f"They diverge at call {self.roots[0].call + 1:,}{of}."
        if self.problems:
            return f"{self.problems[0][0].upper()}{self.problems[0][1:]}."
        return f"All {self.calls:,} calls of JAX agree."

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "calls": self.calls,
            "differing": self.differing,
            "roots": [root.to_json() for root in self.roots],
            "problems": self.problems,
            "notes": self.notes,
        }
