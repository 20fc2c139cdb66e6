"""What a record says by itself: calls that do not repeat, and keys that are drawn from twice.

The rule: 1 if anything was found, 3 if something was asked for and could not be looked at.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproducibility.errors import ReproducibilityError
from reproducibility.script.recomputed import ComputedTwice, recomputed
from reproducibility.script.reused import DrawnKeys, drawn_keys


@dataclass(frozen=True)
class Findings:
    """What was asked for when a record was made, and what came of it."""

    again: ComputedTwice
    keys: DrawnKeys

    @property
    def exit_code(self) -> int:
        """0 if all is well, 1 if something was found, 3 if something could not be looked at."""
        codes = self.again.exit_code, self.keys.exit_code, 0 if self.has_ended else 3
        return 1 if 1 in codes else max(codes)

    @property
    def has_ended(self) -> bool:
        """Whether each process wrote its end: one that was killed may have done more."""
        return not self.again.without_end

    @property
    def intact(self) -> str:
        """What can be said of the bytes of the record."""
        record = f"the record of {self.again.calls:,} calls"
        if self.has_ended:
            return f"intact: {record} is as it was written"
        return f"cannot be told: {record} has no end; what it has is as it was written"

    @property
    def reason(self) -> str:
        """Why the exit code is not 0, in a sentence for each reason."""
        reasons = [each.reason for each in (self.again, self.keys) if each.exit_code]
        if not self.has_ended:
            what = "a process was killed, or left by os._exit or exec"
            reasons.append(f"The record has no end: {what}, and may have done more.")
        return " ".join(reasons)

    def lines(self) -> list[str]:
        """Return what is to be said: nothing if nothing was asked for."""
        return [*self.again.lines(), *self.keys.lines()]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        parts = {"again": self.again.to_json(), "keys": self.keys.to_json()}
        facts = {"calls": self.again.calls, "exit_code": self.exit_code, "ended": self.has_ended}
        return {**facts, **parts}


def findings_of(record: Path) -> Findings:
    """Read what a record says by itself.

    Args:
        record: the directory of a record.

    Raises:
        RecordError: it is none.
        RecordDamagedError: a file of it is not as it was written.
    """
    return Findings(recomputed(record), drawn_keys(record))


def said_of(record: Path) -> list[str]:
    """Return what is to be said of a record that has just been made, whatever became of it.

    Args:
        record: the directory of a record.
    """
    try:
        return findings_of(record).lines()
    except ReproducibilityError as error:
        return [str(error)]
