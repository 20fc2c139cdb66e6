"""The first base run, begun again without what a script cannot bear to have held.

The rule: a script that fails, or that does not end, only because something is held is run without
that; it is said, and nothing is told of that input.
Chapter: docs/guide/hidden_inputs.md
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from reproducibility.script.changing import TIMES_AS_LONG, ChangedRuns
from reproducibility.script.hidden import HELD
from reproducibility.script.screen import Screen
from reproducibility.script.start import Finished

ONE_BY_ONE = ("pid", "clock", "entropy", "addresses", "listing", "timing", "workers")
PATIENCE_WITH_A_CLOCK = 60.0  # seconds
LOOKS = 100  # at the clock that are many


@dataclass
class Begun:
    """A first base run: its name, how it ended, and how it `fails` if it does."""

    name: str
    finished: Finished
    failing: str = " with all held that can be"
    notes: list[str] = field(default_factory=list)


def begin(runs: ChangedRuns, name: str, screen: Screen, calls: int, seconds: float) -> Begun:
    """Run it with all held that can be, and again without one thing if it cannot bear that.

    Args:
        runs: what runs the command; it is told what is not held from now on.
        name: that of the record.
        screen: is told what is being done.
        calls: end it before the call after so many; 0 for the end of the script.
        seconds: end it after so long; 0 for the end of the script.
    """

    def waits(passed: float) -> bool:
        return passed > PATIENCE_WITH_A_CLOCK and _looks_at_clock(runs.record(name))

    limited = bool(calls or seconds)
    finished = runs.one(name, calls=calls, seconds=seconds, give_up=None if limited else waits)
    if finished.stopped:
        return _with_its_own_clock(runs, name, screen)
    begun = Begun(name, finished)
    return _without_one(runs, begun, screen, calls, seconds) if finished.code else begun


def _with_its_own_clock(runs: ChangedRuns, name: str, screen: Screen) -> Begun:
    """See how long it takes with the true clock; hold it unless that is much longer."""
    screen.say("The script looks at the clock again and again, and that is held: once without it.")
    runs.unheld = {"clock"}
    free = f"{name}-without-clock"
    begun = Begun(free, runs.one(free), " where the clock is not held")
    longest = TIMES_AS_LONG * (begun.finished.ended - begun.finished.began)
    if longest > PATIENCE_WITH_A_CLOCK:
        screen.say("Base run 1 again, with all held that can be.")
        runs.unheld = set()
        held = f"{name}-again"
        finished = runs.one(held, give_up=lambda passed: passed > longest)
        if not finished.stopped:
            return Begun(held, finished)
        runs.unheld = {"clock"}
    begun.notes = [
        f"with a held clock the script takes more than {TIMES_AS_LONG} times as long, so it is not"
        " held: a loop may wait until some time has passed"
    ]
    return begun


def _looks_at_clock(record: Path) -> bool:
    """Whether a script that still runs has looked at the clock many times."""
    looks = 0
    for file in record.glob("process-*/host.txt"):
        with contextlib.suppress(OSError):
            looks += file.read_text("utf-8", "replace").count('"clock"')
    return looks >= LOOKS


def _without_one(
    runs: ChangedRuns, begun: Begun, screen: Screen, calls: int, seconds: float
) -> Begun:
    """Find the one thing with which it fails and without which it does not."""
    screen.say("It failed. Base run 1 again, with nothing held.")
    runs.unheld = set(HELD) - {"hash"}
    free = runs.one(f"{begun.name}-without-all", calls=calls, seconds=seconds)
    if free.code:
        begun.failing = ", also with nothing held"
    for unheld in ONE_BY_ONE if not free.code else ():
        screen.say(f"Base run 1 again, without holding {unheld}.")
        runs.unheld, name = {unheld}, f"{begun.name}-without-{unheld}"
        finished = runs.one(name, calls=calls, seconds=seconds)
        if not finished.code:
            note = f"the script fails where {unheld} is held, so it is not held"
            return Begun(name, finished, notes=[note])
    runs.unheld = set()
    return begun
