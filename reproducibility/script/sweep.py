"""Change what is outside of a script, one thing at a time, and say on which of it the bits depend.

The rule: nothing is blamed before a base run, with all held that can be, came to the same three
times; and nothing is said of what was not seen to be changed.
Chapter: docs/guide/hidden_inputs.md
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from reproducibility.errors import ConfigError
from reproducibility.script.asking import asked_in, told_anyway, variables_read, ways_of
from reproducibility.script.changing import ChangedRuns, how_it_ended
from reproducibility.script.diverging import Alignment
from reproducibility.script.hidden import (
    Change,
    Hidden,
    Surroundings,
    is_another_row,
    is_variable,
    is_wanted,
    shown_together,
)
from reproducibility.script.hidden_table import hidden_inputs
from reproducibility.script.inherited import (
    Inherited,
    is_made_by,
    is_written_by,
    look_for_inherited,
)
from reproducibility.script.printed import printed_remark
from reproducibility.script.reading import processes_of
from reproducibility.script.screen import Screen, in_words
from reproducibility.script.sites import near_place
from reproducibility.script.start import Finished, check_command, new_directory
from reproducibility.script.swept import Row, Sweep
from reproducibility.script.twice import twice
from reproducibility.script.undone import SALT_TOO_LATE, is_undone, sets_salt_too_late
from reproducibility.script.unheld import begin
from reproducibility.script.written import written_remark

BASE = 3  # runs with all held, which have to agree
REPEATS = 2  # runs of a change that differs, which have to differ too
REPEATS_OF_TIMING = 4  # where one more has to
MOST_LEFT = 4  # files of the first run that are taken away
LEFT = "left"  # the name of what an earlier run left
CHANCE = "it differs by chance"
MOST_VARIABLES = 12  # that a script reads, each of which is changed


def sweep(
    command: Sequence[str],
    *,
    only: Sequence[str] = (),
    quick: bool = False,
    machine: bool = False,
    keep: Path | None = None,
    variables: Mapping[str, str] | None = None,
    calls: int = 0,
    seconds: float = 0,
    say: Callable[[str], None] | None = None,
) -> Sweep:
    """Run a command with one hidden input changed at a time, and compare every call of JAX.

    **Same bits:** the verdict is about these runs on this machine.

    Args:
        command: what to run, as it would be typed; `{dir}` (a fresh directory) is replaced in it.
        only: names of the hidden inputs that are changed; all if there is none.
        quick: whether only the four most frequent ones are changed.
        machine: whether what belongs to the machine is changed too, such as the instruction set.
        keep: a new directory for the records; they are deleted if this is None.
        variables: environment variables that are added, and not changed; `{dir}` is replaced.
        calls: end each run before the call after so many; 0 for the end of the script.
        seconds: end the first run at the call that it has reached after so long, and all others at
            the same call; 0 for the end of the script.
        say: is told what is being done, and how far it is.

    Raises:
        ConfigError: the command cannot be run, or there is no hidden input of such a name.
    """
    check_command(command)
    _check_names(only, command)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        if keep is None:
            keep = Path(stack.enter_context(_emptied_folder("sweep-")))
        new_directory(keep)
        folders = Path(stack.enter_context(_emptied_folder("swept-"))).resolve()
        screen = Screen(say)
        runs = ChangedRuns(command, keep, folders, variables or {}, screen)
        search = _Sweeping(runs, screen, command, variables or {})
        search.named = [name for name in only if is_variable(name)]
        wanted = partial(is_wanted, only=only, quick=quick, machine=machine)
        found = search.sweep(wanted, calls, seconds)
        if found.problem and search.repeats is False:
            screen.say("The base run does not repeat, so two runs with nothing held are compared.")
            found.repeated = twice(
                command, variables=variables, calls=search.reached or calls, say=say
            )
    found.runs, found.seconds = runs.runs, runs.seconds
    found.seconds_in_all = time.monotonic() - began
    return found


def _emptied_folder(prefix: str) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)


def _check_names(only: Sequence[str], command: Sequence[str]) -> None:
    """Refuse a name that no hidden input has, before anything is run."""
    known = [each.name for each in hidden_inputs(_surroundings_before(command))]
    for name in only:
        if name not in known and not is_variable(name):
            raise ConfigError(
                "use",
                "--only",
                expected=f"names out of {', '.join(known)}",
                got=repr(name),
                do="Try --only hash,listing.",
            )


def _surroundings_before(command: Sequence[str]) -> Surroundings:
    return Surroundings(command, os.environ, {}, _cores(), 1, ())


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class _Sweeping:
    """The base run, and the changed ones beside it.

    `reached` is the call before which all runs are ended, or 0; `repeats` whether the base run
    came to the same, once that is known.
    """

    def __init__(
        self,
        runs: ChangedRuns,
        screen: Screen,
        command: Sequence[str],
        variables: Mapping[str, str],
    ) -> None:
        self._runs, self._screen, self._command = runs, screen, command
        self._variables = variables
        self._base, self._finished = "base-1", Finished(0)
        self.reached, self.repeats = 0, None  # type: int, bool | None
        self._found = Sweep()
        self.named: list[str] = []  # variables that were asked for

    def sweep(self, wanted: Callable[[Hidden], bool], calls: int, seconds: float) -> Sweep:
        """Run all, and return what was found."""
        problem = self._first(calls, seconds) or self._others()
        if problem:
            self._found.problem = problem
            return self._found
        rows = [each for each in hidden_inputs(self._surroundings()) if wanted(each)]
        self._estimate(rows)
        for number, hidden in enumerate(rows, start=1):
            self._found.rows.append(self._row(hidden, f"{number} of {len(rows)}"))
        timing = {hidden.name for hidden in rows if hidden.timing}
        _blame_nothing_beside_chance(self._found, timing)
        return self._found

    def _first(self, calls: int, seconds: float) -> str:
        """Run the base run for the first time; say what is wrong with it."""
        until = f", for {in_words(seconds)}" if seconds else ""
        self._screen.say(f"Base run 1 of {BASE}, with all held that can be{until}.")
        begun = begin(self._runs, self._base, self._screen, calls, seconds)
        self._base, self._finished = begun.name, begun.finished
        self._found.notes += begun.notes
        if begun.finished.code:
            return f"the script fails{begun.failing}: {how_it_ended(begun.finished)}"
        if not self._runs.has_record(self._base):
            return "the command starts no Python, or one with -E, -I or -S"
        processes = processes_of(self._runs.record(self._base))
        self.reached = max((each.end or {}).get("ended_at", 0) for each in processes)
        self._runs.longest = self._finished.ended - self._finished.began
        return ""

    def _others(self) -> str:
        """Run it again; say in which way it does not come to the same."""
        for number in range(2, BASE + 1):
            name = f"base-{number}"
            self._screen.say(f"Base run {number} of {BASE}.")
            again = self._runs.one(name, calls=self.reached, fill_cache=number == BASE)
            compared = self._beside_base(name)
            if compared.verdict == "same" and not again.code:
                continue
            if compared.problems and not compared.roots:
                return compared.problems[0]
            left = self._left_by_the_first(name) if number == 2 else None
            if self._without_what_was_left(left, compared):
                continue
            self.repeats = False
            at = f": {compared.reason}" if compared.roots else ""
            return f"the base run does not come to the same again{at}".rstrip(".")
        self.repeats, self._found.calls = True, self._beside_base(f"base-{BASE}").calls
        return ""

    def _left_by_the_first(self, name: str) -> Inherited | None:
        """Return what a run finds only because the first one wrote it."""
        times = (self._finished.began, self._finished.ended)
        first = self._runs.record(self._base)
        left = look_for_inherited(first, self._runs.record(name), times, listings=True)
        if left is None or Path(left.name) in self._runs.files:
            return None
        return left if is_written_by(left.name, first) else None

    def _without_what_was_left(self, left: Inherited | None, compared: Alignment) -> bool:
        """Hold what the first run has left, and blame it if the base run repeats then."""
        first, tried = left, 0
        while left is not None and tried < MOST_LEFT:
            tried += 1
            name, file = f"base-held-{tried}", Path(left.name)
            made = is_made_by(left.name, self._runs.record(self._base))
            self._runs.files[file] = None if made else file.read_bytes()
            how = "without" if made else "each time with"
            self._screen.say(f"Base run once more, {how} {file}.")
            again = self._runs.one(name, calls=self.reached)
            if not made:  # the first run found another one, which is gone
                self._base, self._finished = name, again
                name = f"{name}-again"
                again = self._runs.one(name, calls=self.reached)
            if self._beside_base(name).verdict == "same" and not again.code:
                break
            left = self._left_by_the_first(name)
        if left is None or first is None or tried == MOST_LEFT:
            return False
        row = Row(LEFT, "what an earlier run left", "different", "a file that it wrote")
        row.pin = f"give each run its own folder, or delete {first.name}"
        row.root = compared.roots[0] if compared.roots else None
        row.roots = len(compared.roots)
        row.line = first.event.site[0] if first.event.site else None
        self._found.rows.append(row)
        return True

    def _beside_base(self, name: str) -> Alignment:
        return self._runs.beside(self._base, name)

    def _surroundings(self) -> Surroundings:
        """Return what is known once the base run has ended."""
        record = self._runs.record(self._base)
        ends = [each.end or {} for each in processes_of(record) if each.called]
        end: dict[str, Any] = ends[0] if ends else {}
        read = [name for name in variables_read(record) if not is_another_row(name)]
        return Surroundings(
            self._command,
            {**os.environ, **self._variables},
            end.get("settings", {}),
            _cores(),
            end.get("devices", 1),
            [*read[:MOST_VARIABLES], *(each for each in self.named if each not in read)],
        )

    def _estimate(self, rows: Sequence[Hidden]) -> None:
        runs = sum(len(hidden.changes) for hidden in rows)
        one = self._runs.seconds / self._runs.runs
        self._screen.say(
            f"The base run repeats. A run takes {in_words(one)}; {runs} more for"
            f" {len(rows)} hidden inputs: about {in_words(one * runs)},"
            f" and {REPEATS} more for each that matters."
        )

    def _row(self, hidden: Hidden, number: str) -> Row:
        """Change one hidden input, and say what came of it."""
        row = Row(hidden.name, hidden.called, "left out", pin=hidden.pin)
        if any(self._runs.unheld & set(change.hold) for change in hidden.changes):
            return replace(row, result="cannot be told", why="the script does not bear it held")
        changes = ways_of(hidden, self._runs.record(self._base))
        for way, change in enumerate(changes):
            row.changed_to = change.shown
            mine = [name for name in change.variables if name in self._variables]
            if mine:
                return replace(row, why=f"{mine[0]} was given with --env")
            self._screen.say(f"{number}: {hidden.called}, changed to {change.shown}.")
            row = self._row_of_change(row, hidden, change, f"{hidden.name}-{way}")
            if row.result != "same":
                return row
        if not changes:
            why = "the script does not ask for it" if hidden.more else "it cannot be changed here"
            return replace(row, why=why)
        row.changed_to = shown_together(changes)
        if line := told_anyway(hidden, self._runs.record(self._base)):
            why = f"{near_place(line)} asks in a way that cannot be changed"
            return replace(row, result="cannot be told", why=why, line=line)
        return row

    def _row_of_change(self, row: Row, hidden: Hidden, change: Change, name: str) -> Row:
        finished = self._runs.one(name, change, calls=self.reached)
        if not self._runs.has_record(name):
            return replace(row, result="cannot be told", why="nothing was recorded")
        compared = self._beside_base(name)
        if finished.stopped:
            return replace(row, result="cannot be told", why="it did not end, and was ended")
        if finished.code and change.may_fail:
            remark = row.remark or f"it fails: {how_it_ended(finished)}"
            return replace(row, result="same", remark=remark)
        if compared.roots or finished.code:
            return self._confirmed(row, hidden, change, name, finished, compared)
        if self._is_undone(change, name):
            return replace(row, result="set by the script")
        if compared.problems:
            return replace(row, result="cannot be told", why=compared.problems[0])
        remark = row.remark or self._remark(name, finished)
        return replace(row, result="same", remark=remark, ways=row.ways + 1)

    def _confirmed(
        self,
        row: Row,
        hidden: Hidden,
        change: Change,
        name: str,
        finished: Finished,
        compared: Alignment,
    ) -> Row:
        """Say whether it differs again and again, and where."""
        root = compared.roots[0] if compared.roots else None
        whole = finished.code or root is None or root.kind == "end"
        calls = self.reached if whole or root is None else root.call + 1
        if not self._differs_again(hidden, change, name, calls, finished.code):
            return replace(row, result="cannot be told", why=CHANCE)
        base = f"{name}-base"
        self._runs.one(base, calls=calls)
        if self._beside_base(base).verdict != "same":
            return replace(row, result="cannot be told", why=CHANCE)
        why = how_it_ended(finished) if finished.code else ""
        line = asked_in(hidden, root, self._runs.record(self._base))
        row = replace(row, result="different", why=why, root=root, line=line)
        row.programs = tuple(dict.fromkeys(each.program for each in compared.roots))
        return replace(row, roots=len(compared.roots))

    def _differs_again(
        self, hidden: Hidden, change: Change, name: str, calls: int, code: int
    ) -> bool:
        """Whether more runs of a change differ from the base run, too, and end as the first did."""

        def differs(again: str) -> bool:
            finished = self._runs.one(again, change, calls=calls)
            return finished.code == code and bool(self._beside_base(again).roots or code)

        names = (
            f"{name}-again-{n}" for n in range(REPEATS_OF_TIMING if hidden.timing else REPEATS)
        )
        return any(map(differs, names)) if hidden.timing else all(map(differs, names))

    def _is_undone(self, change: Change, name: str) -> bool:
        """Whether the script itself has set what was changed, so that nothing was."""
        changed = [each for each in processes_of(self._runs.record(name)) if each.called]
        if sets_salt_too_late(change, changed) and SALT_TOO_LATE not in self._found.notes:
            self._found.notes.append(SALT_TOO_LATE)
        return is_undone(change, processes_of(self._runs.record(self._base)), changed)

    def _remark(self, name: str, finished: Finished) -> str:
        """Say what was only printed or written otherwise."""
        printed = printed_remark(self._finished.printed, finished.printed, self._runs.own)
        return printed or written_remark(self._runs.wrote[self._base], self._runs.wrote[name])


def _blame_nothing_beside_chance(found: Sweep, timing: set[str]) -> None:
    """Where one input differed by chance, another may have done so three times."""
    if any(row.why == CHANCE and row.name not in timing for row in found.rows):
        for row in found.of("different"):
            if row.name != LEFT:
                row.result, row.why = "cannot be told", CHANCE
