"""What two records of different commands came to: what differs, and what only one side has.

The rule: what is not "different" is "the same" only if all was compared; what was not is a problem.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from reproducibility.errors import ExitCode
from reproducibility.script.aligned_lanes import AlignedLanes
from reproducibility.script.descent import Beginning, PlacePair, node_to_json
from reproducibility.script.diverging import RecordVerdict
from reproducibility.script.graph import CallNode
from reproducibility.script.reading import SourceLine


@dataclass(frozen=True)
class CallsOfLine:
    """Calls of one function in one line that only one side makes."""

    function: str
    line: SourceLine | None
    count: int
    of_user: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        line = str(self.line) if self.line else None
        return {"function": self.function, "line": line, "count": self.count}


@dataclass(frozen=True)
class FirstUpdate:
    """The first update that differs: its number on each side, and what it is given otherwise."""

    numbers: tuple[int, int]
    one: CallNode
    two: CallNode
    inputs: tuple[tuple[PlacePair, str, str], ...]  # where each comes from, in A and in B
    results: tuple[PlacePair, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        program = self.one.call.program
        return {
            "update": {"a": self.numbers[0], "b": self.numbers[1]},
            "a": node_to_json(self.one),
            "b": node_to_json(self.two),
            "inputs": [
                {"name": program.argument(pair[0]), "a": mine, "b": theirs}
                for pair, mine, theirs in self.inputs
            ],
            "results": [program.result(i) for i, _ in self.results],
        }


@dataclass
class AlignedRecords:
    """What came of aligning two records by function and by array.

    `updates` are those of each side and `equal` those pairs of them that agree; `commands` and
    `files` say in what the commands and their files differ, `digests` are those of all files;
    `first` is the first update that
    differs, and `beginnings` where that begins, or where something beside the updates does.
    """

    calls: tuple[int, int] = (0, 0)
    paired: int = 0
    updates: tuple[int, int] = (0, 0)
    names: tuple[str, str] = ("", "")
    equal: int = 0
    commands: str = ""
    files: str = ""
    digests: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
    first: FirstUpdate | None = None
    beginnings: list[Beginning] = field(default_factory=list)
    only: tuple[list[CallsOfLine], list[CallsOfLine]] = field(default_factory=lambda: ([], []))
    renamed: list[tuple[str, str]] = field(default_factory=list)
    more: list[str] = field(default_factory=list)  # results that the updates of one side have more
    in_order: bool = False  # whether all calls agree in their order, so nothing was aligned
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lanes: list[AlignedLanes] = field(default_factory=list)  # for a page: one for two processes

    @property
    def verdict(self) -> RecordVerdict:
        """What can be said of the two runs."""
        if self.beginnings or self.first:
            return "different"
        return "cannot be told" if self.problems else "same"

    @property
    def exit_code(self) -> ExitCode:
        """What the command ends with."""
        return ExitCode.of(self.verdict)

    @property
    def reason(self) -> str:
        """The verdict in a sentence."""
        if first := self.first:
            calls = f"call {first.one.call.number + 1:,} of A, {first.two.call.number + 1:,} of B"
            of = f"{first.numbers[0]:,} of {self.updates[0]:,}"
            return f"They diverge at update {of}, {first.one.name}: {calls}."
        if self.beginnings:
            return self._beside_the_updates(self.beginnings[0])
        if self.problems:
            return f"{self.problems[0][0].upper()}{self.problems[0][1:]}."
        return self.what_agrees

    def _beside_the_updates(self, first: Beginning) -> str:
        node = first.one or first.two
        assert node is not None
        if first.kind == "end":
            return f"All {self.equal:,} updates that both make agree; {first.what}."
        if self.equal and self.equal == self.updates[0]:
            return f"All {self.equal:,} updates come to the same; {node.name} differs."
        return f"They differ in {node.name}, call {node.call.number + 1:,} of A."

    @property
    def what_agrees(self) -> str:
        """What was compared and agrees, in a sentence."""
        if self.in_order:
            return f"All {self.calls[0]:,} calls of JAX agree, in their order."
        calls = f"{self.paired:,} of {self.calls[0]:,} calls of A and {self.calls[1]:,} of B agree"
        if not self.equal:
            return f"{calls}."
        name = self.names[0]
        name += f" (in B: {self.names[1]})" if self.names[1] != name else ""
        return f"All {self.equal:,} updates agree: {name}. {calls}."

    @property
    def has_no_effect(self) -> bool:
        """Whether the commands or files differ and nothing else does."""
        differ = bool(self.commands or self.files)
        return differ and self.verdict == "same" and not (self.only[0] or self.only[1])

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "aligned": True,
            "verdict": self.verdict,
            "reason": self.reason,
            "commands": self.commands,
            "files": self.files,
            "no_effect": self.has_no_effect,
            "calls": _of_sides(self.calls),
            "paired": self.paired,
            "updates": {**_of_sides(self.updates), "equal": self.equal},
            "first": self.first and self.first.to_json(),
            "beginnings": [each.to_json() for each in self.beginnings],
            "only": _of_sides([[each.to_json() for each in side] for side in self.only]),
            "renamed": [{"a": one, "b": two} for one, two in self.renamed],
            "more": self.more,
            "problems": self.problems,
            "notes": self.notes,
        }


def _of_sides(both: Sequence[Any]) -> dict[str, Any]:
    return dict(zip("ab", both, strict=True))
