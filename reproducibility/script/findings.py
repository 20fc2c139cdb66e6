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
        codes = self.again.exit_code, self.keys.exit_code
        return 1 if 1 in codes else max(codes)

    @property
    def reason(self) -> str:
        """Why the exit code is not 0, in a sentence for each reason."""
        return " ".join(each.reason for each in (self.again, self.keys) if each.exit_code)

    def lines(self) -> list[str]:
        """Return what is to be said: nothing if nothing was asked for."""
        return [*self.again.lines(), *self.keys.lines()]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        parts = {"again": self.again.to_json(), "keys": self.keys.to_json()}
        return {"calls": self.again.calls, "exit_code": self.exit_code, **parts}


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
