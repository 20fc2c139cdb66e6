"""In which call of the step function a run is to be ended.

The rule: a start that goes back to a checkpoint is ended in a step of the whole run. Which of its
own calls that is, is answered by whoever compares, once its first call is on record.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import monotonic as _now  # both as they are, whatever the script makes of them
from time import sleep as _sleep
from typing import Any

from .compiled import Compiled

UNTIL = "until.txt"  # in the folder of a record: the answer
WAITS_AT_MOST = 600.0  # seconds that a run waits for the answer; it is not ended after that
BETWEEN_QUESTIONS = 0.02  # seconds


class StepLimit:
    """Waits for a call of the step function.

    `3 4 NAME` is the third call with four arguments; `?2 4 NAME` asks in the second such call, and
    goes on when the answer is there.
    """

    def __init__(self, wanted: str, record: Path) -> None:
        when, arguments, self._name = wanted.split(" ", 2)
        self._asks = int(when[1:]) if when.startswith("?") else 0
        self._last = 0 if self._asks else int(when)
        self._arguments, self._record, self._made = int(arguments), record, 0

    def has_come(self, program: Compiled, arguments: Sequence[Any]) -> bool:
        """Whether this call is the one."""
        kept = len(arguments) if program.kept is None else len(program.kept)
        if (program.name, kept + len(program.mutable)) != (self._name, self._arguments):
            return False
        self._made += 1
        if self._made == self._asks:
            self._last = _answer(self._record / UNTIL)
        return self._made == self._last


def _answer(path: Path) -> int:
    """Wait for the answer; 0, which is no call, if there is none."""
    ends = _now() + WAITS_AT_MOST
    while _now() < ends:
        if path.exists():
            return int(path.read_text(encoding="utf-8"))
        _sleep(BETWEEN_QUESTIONS)
    return 0
