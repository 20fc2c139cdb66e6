"""What can be compared: a run directory, a ledger, a result file, or something with arrays in it.

The rule: what is at a path is told once, here, and what is none of these is refused.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

from reproducibility.errors import LedgerError, RunError
from reproducibility.machine.environment import Difference, Environment, environment_differences
from reproducibility.recording.ledger import LEDGER, Ledger
from reproducibility.recording.surroundings import environments_beside
from reproducibility.reference.run import (
    IDENTITY,
    AttemptEnd,
    AttemptStart,
    Result,
    Run,
    attempts_of,
    read_result,
)
from reproducibility.storage.files import saved_steps
from reproducibility.storage.found import FoundArrays, arrays_at, path_words


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two things to compare: a run directory, a ledger, a result file, or arrays."""

    path: Path
    run: Run | None = None
    result: Result | None = None
    ledger: Ledger | None = None
    arrays: FoundArrays | None = None
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What it is."""
        if self.run or self.ledger or self.result:
            return "a run" if self.run else "a ledger" if self.ledger else "a result"
        return self.arrays.words if self.arrays else "nothing"

    @property
    def alone(self) -> bool:
        """Whether there are arrays and nothing that says how they came about."""
        return bool(self.arrays) and not (self.run or self.ledger)

    @property
    def steps(self) -> set[int]:
        """Steps of which a state is on disk."""
        return set(saved_steps(self.run.checkpoints)) if self.run else set()


def side_at(path: Path) -> Side:
    """See what there is at a path.

    Args:
        path: anything.

    Raises:
        RunError: it is nothing that can be compared.
    """
    file = path / LEDGER if path.is_dir() else path
    found = arrays_at(path)
    if found and not (path / IDENTITY).exists() and (path.is_file() or not file.is_file()):
        return Side(path, arrays=found)
    if path.is_dir() and not (path / IDENTITY).exists() and not file.is_file():
        raise _nothing_to_compare(path)
    if (path / IDENTITY).exists():
        run, ledger, notes = Run.read(path), None, []
        try:
            ledger = Ledger(file, run.name)
        except LedgerError as error:
            notes.append(f"The ledger of {path} tells nothing: {error.got}.")
        arrays = arrays_at(run.checkpoints)
        return Side(path, run, run.result(), ledger, arrays, tuple(notes))
    try:
        return Side(path, ledger=Ledger(file), arrays=found)
    except LedgerError as error:
        if file.suffix == ".jsonl" or error.got.startswith("format"):
            raise
    try:
        return Side(path, result=read_result(path))
    except RunError as error:
        if path.suffix == ".json":
            raise
        raise _nothing_to_compare(path) from error


def _nothing_to_compare(path: Path) -> RunError:
    expected = "a run, a record, a ledger, a result, or something with arrays in it"
    do = "Check the path."
    return RunError("compare", str(path), expected=expected, got=path_words(path), do=do)


def reach_of(side: Side) -> int:
    """Return the last step that one side is known to have computed.

    Args:
        side: what is compared.
    """
    steps = [0, *side.steps]
    steps += [side.ledger.last] if side.ledger and side.ledger.last else []
    steps += [side.result.steps] if side.result else []
    ends = attempts_of(side.run) if side.run else []
    steps += [line.to_step or 0 for line in ends if isinstance(line, AttemptEnd)]
    return max(steps)


def what_may_explain(
    left: Side, right: Side
) -> tuple[dict[str, tuple[Any, Any]], tuple[Difference, ...]]:
    """List the settings and the recorded environments that differ.

    Args:
        left: one side.
        right: the other.
    """
    settings: dict[str, tuple[Any, Any]] = {}
    if left.run and right.run:
        a, b = left.run.identity, right.run.identity
        names = sorted(a.keys() | b.keys())
        settings = {n: (a.get(n), b.get(n)) for n in names if a.get(n) != b.get(n)}
    found = [
        difference
        for one, other in itertools.product(environments_of(left), environments_of(right))
        for difference in environment_differences(one, other)
    ]
    return settings, tuple(dict.fromkeys(found))


def environments_of(side: Side) -> list[Environment]:
    """Return what is recorded about each attempt on a run or a ledger, without repeats.

    Args:
        side: one side.
    """
    if not side.run:
        return environments_beside(side.ledger.path) if side.ledger else []
    unique: list[Environment] = []
    for line in attempts_of(side.run):
        if isinstance(line, AttemptStart) and line.facts not in unique:
            unique.append(line.facts)
    return unique
