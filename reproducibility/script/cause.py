"""Why two runs diverge: what varies is held fixed, one thing at a time, until they agree.

The rule: a cause is confirmed if three runs agree once only that is held, and two with nothing
held differ again.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reproducibility.script.align import Alignment, Root, compare_records
from reproducibility.script.reading import Event, processes_of
from reproducibility.script.start import Finished

# What can be held fixed, and what it is called; the salt of hash() is held by a variable.
HOLDS = {
    "entropy": "a fixed stream for the system's entropy",
    "hash": "PYTHONHASHSEED=0",
    "listing": "folders listed in the order of names",
    "clock": "a fixed clock",
}
NOTHING = "nothing held"  # of the pair that shows that a held one agrees because it is held
# Which of them each kind of host event makes a suspect.
SUSPECTS = {"entropy": "entropy", "draws": "entropy", "clock": "clock", "listing": "listing"}


@dataclass
class Cause:
    """What was found out: a name of `HOLDS`, whether it is confirmed, and where it is asked for.

    `settled` says that two more runs with nothing held agreed, so that no cause can be confirmed.
    """

    name: str = ""
    confirmed: bool = False
    settled: bool = False
    source: Event | None = None


class CanRun(Protocol):
    """What runs the command again."""

    def pair(self, hold: str, calls: int) -> tuple[Alignment, list[Finished]]:
        """Run it twice, with one thing held or nothing, and compare the records."""

    def third(self, hold: str, calls: int) -> Finished:
        """Run it once more with the same thing held."""

    def record(self, number: int, hold: str) -> Path:
        """Return where a run's record is."""


def may_come_from_the_host(root: Root) -> bool:
    """Whether what differs may be a value of the host: an argument, a constant, a way taken."""
    return root.kind in ("host", "path") or (root.kind == "program" and not root.names)


def look_for_the_cause(root: Root, runs: CanRun) -> Cause:
    """Hold what may be the cause, one thing at a time, and look whether the runs agree.

    Args:
        root: where the difference begins.
        runs: what runs the command again.
    """
    found = Cause()
    events = _events_until(root, runs.record(1, ""))
    suspects = {SUSPECTS[event.kind] for event in events if event.kind in SUSPECTS}
    for hold in sorted(HOLDS, key=lambda name: name not in suspects):
        if _three_agree(runs, hold, root.call + 1):
            # Or do the runs agree by now whatever is held, as with a file that the first one left?
            compared, finished = runs.pair(NOTHING, root.call + 1)
            found.settled = _runs_agree(compared, finished, root.call + 1)
            found.confirmed = not found.settled
            found.name = hold if found.confirmed else ""
            break
    else:
        found.name = next((name for name in HOLDS if name in suspects), "")
    of_cause = (event for event in events if SUSPECTS.get(event.kind) == found.name)
    found.source = next(of_cause, None)
    return found


def variables_that_hold(hold: str) -> dict[str, str]:
    """Return the environment variables with which a run has something held.

    Args:
        hold: a name of `HOLDS`, or another one for nothing.
    """
    if hold == "hash":
        return {"PYTHONHASHSEED": "0"}
    return {"REPRODUCIBILITY_HOLD": hold} if hold in HOLDS else {}


def _three_agree(runs: CanRun, hold: str, calls: int) -> bool:
    """Whether runs with something held are the same up to a call: two, and then a third one.

    Two may agree by chance, and a run that ends before the call says nothing about it.
    """
    compared, finished = runs.pair(hold, calls)
    if not _runs_agree(compared, finished, calls):
        return False
    third = runs.third(hold, calls)
    records = (runs.record(1, hold), runs.record(3, hold))
    return _runs_agree(compare_records(*records), [third], calls)


def _runs_agree(compared: Alignment, finished: Sequence[Finished], calls: int) -> bool:
    """Whether runs were the same for so many calls, and none failed."""
    agree = compared.verdict == "same" and compared.calls >= calls
    return agree and not any(run.code for run in finished)


def _events_until(root: Root, record: Path) -> list[Event]:
    """Return what the script asked of the machine before a call, the latest first."""
    process = next(each for each in processes_of(record) if each.path.name == root.process)
    return [event for event in process.events() if event.after <= root.call][::-1]
