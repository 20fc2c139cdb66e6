"""Where a start that has just resumed is to be ended, and which checkpoints a run resumed from.

The rule: steps are counted in the whole run. A start that goes back to its checkpoint makes steps
again, and those count for nothing.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reproducibility.errors import ReproducibilityError
from reproducibility.script.reading import processes_of
from reproducibility.script.resumption import Resumption, continues_at
from reproducibility.script.steps import RunOfSteps
from reproducibility.script.values import ValuedCall, valued_calls
from reproducibility.watch.limit import UNTIL

TRIES = 20  # at a record that cannot be read yet, once it has a step


@dataclass
class Resuming:
    """A start that waits in its second step, until it is told in which one it is ended.

    `until` is a step of the whole run, `before` that in which the start before was ended. `own` is
    the answer, as a step of the start itself; 0 while there is none.
    """

    run: RunOfSteps
    until: int
    before: int
    own: int = 0
    at: int = 0  # the call of the whole run at which it continues; 0 if at none
    _looks: int = 0

    @property
    def words(self) -> str:
        """Say where it continued."""
        if self.at:
            return f"It resumed at call {self.at:,} of the whole run."
        return "Its first step is none of the whole run."

    def answer(self, record: Path) -> None:
        """Look where the start continues, and say when it ends; nothing if its step is not there.

        Args:
            record: what is being recorded of the start.
        """
        if self.own:
            return
        try:
            first = _first_step(record, self.run)
        except (ReproducibilityError, OSError, ValueError, LookupError):  # it is being written
            self._looks += 1
            if self._looks < TRIES:
                return
            first = None
        else:
            if first is None:
                return
        self.at = continues_at(self.run, first, self.before) if first else 0
        # A first step that is none of the whole run: it differs, and is ended all the same.
        self.own = max(self.until - (self.at or self.before) + 1, 2)
        whole = record / f"{UNTIL}.partial"
        whole.write_text(str(self.own + self.run.warmed), encoding="utf-8")
        os.replace(whole, record / UNTIL)


def _first_step(record: Path, run: RunOfSteps) -> ValuedCall | None:
    """Return the first step of a record that grows; None if it has none yet."""
    if not any(record.glob("process-*/thread-*.txt")):
        return None
    for process in processes_of(record):
        steps = [each for each in valued_calls(process) if each.kind == run.step]
        if len(steps) > run.warmed:
            return steps[run.warmed]
    return None


def note_starts(found: Resumption, until: Sequence[int]) -> None:
    """Say where each start resumed, and which checkpoints none of them came to.

    Args:
        found: what was found; its sentence is changed.
        until: the steps of the whole run in which the starts were ended.
    """
    starts = found.starts
    if len(starts) < 2:
        return
    if found.difference:
        before = ", ".join(f"{each:,}" for each in starts[:-1])
        calls = f"call{'s' * (len(starts) > 2)} {before}"
        found.notes.append(f"what came before agrees, from a resume at {calls} of the whole run")
        return
    calls = ", ".join(f"{each:,}" for each in starts)
    found.coverage = f"The starts resumed at calls {calls} of the whole run."
    if max(Counter(starts).values()) < 2:
        return
    if len(set(starts)) == 1:
        found.coverage = f"All {len(starts)} starts resumed at call {starts[0]:,}."
    if until[-1] < found.whole_steps:
        found.coverage += (
            f" Checkpoints that are saved after call {until[-1]:,} were not tried: "
            f"ask with --at {found.whole_steps}."
        )
