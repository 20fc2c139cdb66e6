"""A record that is being written: how many calls it has, and whether it has left another one.

The rule: only what is sealed is compared. A difference counts when it is found a second time, for
what was not yet written the first time may be read then.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import time
from pathlib import Path

from reproducibility.errors import ReproducibilityError
from reproducibility.script.align import compare_records
from reproducibility.script.diverging import Root
from reproducibility.script.reading import processes_of

BEGINS_AFTER = 20.0  # seconds: what takes less is not worth being ended
REST = 10  # times as long as a comparison took, until the next
LEAST_REST = 1.0  # seconds


class CountedCalls:
    """How many calls of JAX a record has by now."""

    def __init__(self, record: Path) -> None:
        self._record, self._read, self._calls = record, dict[Path, int](), 0

    def count(self) -> int:
        """Read what has been written since the last time, and return the number."""
        for path in self._record.glob("process-*/thread-*.txt"):
            with open(path, "rb") as file:
                file.seek(self._read.get(path, 0))
                whole = file.read().rpartition(b"\n")[0]
            if whole:
                self._read[path] = self._read.get(path, 0) + len(whole) + 1
                lines = whole.split(b"\n")
                self._calls += sum(line[:1].isdigit() or line[:1] == b"@" for line in lines)
        return self._calls


class GrowingComparison:
    """Compares a record that grows with a whole one, now and then."""

    def __init__(self, whole: Path, growing: Path) -> None:
        self._records = whole, growing
        self._next = time.monotonic() + BEGINS_AFTER
        self._suspect: Root | None = None

    def diverged(self) -> bool:
        """Whether the two have diverged for certain; False while it is not yet time to look."""
        began = time.monotonic()
        if began < self._next:
            return False
        found = self._first_root()
        self._next = time.monotonic() + max(LEAST_REST, REST * (time.monotonic() - began))
        again = found is not None and found == self._suspect
        self._suspect = found
        return again

    def _first_root(self) -> Root | None:
        try:
            compared = compare_records(*self._records)
        except (ReproducibilityError, OSError, ValueError, LookupError):  # not as far yet
            return None
        root = compared.roots[0] if compared.roots else None
        return root if root and self._has_its_pair(root) else None

    def _has_its_pair(self, root: Root) -> bool:
        """Whether a process that has not started yet cannot be why it was compared with another."""
        processes = [processes_of(record) for record in self._records]
        commands = [[each.start.get("command") for each in run] for run in processes]
        own = next(each for each in processes[0] if each.path.name == root.process)
        return len(commands[0]) == len(commands[1]) or own.start.get("command") in commands[1]
