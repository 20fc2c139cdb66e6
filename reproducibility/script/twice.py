"""Run a script twice, name where the runs diverge, and confirm the cause by holding it fixed.

The rule: nothing is pinned in the two runs that decide; more runs only explain what these found.
What confirms a cause, `cause` says.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reproducibility.errors import ExitCode
from reproducibility.script.align import compare_records
from reproducibility.script.cause import (
    held_by,
    look_for_the_cause,
    overwritten_remark,
    variables_that_hold,
)
from reproducibility.script.diverging import Alignment, RecordVerdict
from reproducibility.script.growing import CountedCalls, GrowingComparison
from reproducibility.script.inherited import Inherited, files_left, look_for_inherited
from reproducibility.script.printed import first_difference, printed_remark
from reproducibility.script.reading import Event, processes_of
from reproducibility.script.repeat import CallAgain, is_worth_keeping, look_again
from reproducibility.script.screen import Screen, in_words
from reproducibility.script.sites import own_first
from reproducibility.script.start import (
    Finished,
    SameInput,
    check_command,
    new_directory,
    start,
)
from reproducibility.script.written import Contents, contents_of, written_remark

WATCHING_CHANGES = "Watching changes this script: without, it prints something else."
VARIES_UNWATCHED = "Without the recorder it does not print the same twice; recorded runs agree."


@dataclass
class Twice:
    """What came of running a script twice.

    `cause` is the suspect of `HOLDS` with which the runs agreed (`confirmed`), or that is likely;
    `sources` is what the script asked of the machine, an event a line, any of which may be the one
    (`source` is the first). `settled` says that two more
    runs with nothing held agreed, so that no cause can be confirmed. `inherited` is what the second
    run finds only because the first one was there, `left` what it may find. `stopped` says that the
    second run was ended when it had diverged. `tried` has what was held without avail; `traced`
    says that there is one source only and that it may have had a part in the diverging call.
    """

    verdict: RecordVerdict
    reason: str
    compared: Alignment
    cause: str = ""
    confirmed: bool = False
    sources: tuple[Event, ...] = ()
    remark: str = ""
    inherited: Inherited | None = None
    left: list[str] = field(default_factory=list)
    settled: bool = False
    stopped: bool = False
    tried: tuple[str, ...] = ()
    traced: bool = False
    again: CallAgain | None = None

    @property
    def source(self) -> Event | None:
        """The first of the sources."""
        return self.sources[0] if self.sources else None

    @property
    def exit_code(self) -> ExitCode:
        """What the command ends with."""
        return ExitCode.of(self.verdict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            **self.compared.to_json(),
            "verdict": self.verdict,
            "reason": self.reason,
            "cause": self.cause or None,
            "confirmed": self.confirmed,
            "settled": self.settled,
            "ended_early": self.stopped,
            "tried": list(self.tried),
            "traced": self.traced,
            "remark": self.remark or None,
            "inherited": self.inherited and self.inherited.to_json(),
            "left": self.left,
            "source": self.source and self.source.to_json(),
            "sources": [each.to_json() for each in self.sources],
            "again": self.again and self.again.to_json(),
        }


def twice(
    command: Sequence[str],
    *,
    keep: Path | None = None,
    variables: Mapping[str, str] | None = None,
    calls: int = 0,
    seconds: float = 0,
    to_the_end: bool = False,
    strict_output: bool = False,
    say: Callable[[str], None] | None = None,
) -> Twice:
    """Run a command twice, each in a fresh process, and compare every call of JAX.

    **Same bits:** the verdict is about these runs on this machine. What two runs on one machine
    cannot vary (devices, versions, the processor) is not tried.

    Args:
        command: what to run, as it would be typed; `{run}` (1 or 2) and `{dir}` (a fresh directory)
            are replaced in it.
        keep: a new directory for the records; they are deleted if this is None.
        variables: environment variables that are added; `{run}` and `{dir}` are replaced in them.
        calls: end each run before the call after so many; 0 for the end of the script.
        seconds: end the first run at the call that it has reached after so long, and the second
            one at the same call; 0 for the end of the script.
        to_the_end: whether the second run goes on when it has diverged from the first one.
        strict_output: whether runs that print something else are different; times, dates and names
            of temporary files do not count.
        say: is told what is being done, and how far it is.

    Raises:
        ConfigError: the command cannot be run, or the directory holds something.
    """
    check_command(command)
    with contextlib.ExitStack() as stack:
        if keep is None:
            keep = Path(stack.enter_context(_temporary("twice-")))
        new_directory(keep)
        folders = Path(stack.enter_context(_temporary("dirs-")))
        runs = _Runs(command, keep, folders, variables or {}, Screen(say))
        compared, finished = runs.deciding_pair(calls, seconds, to_the_end=to_the_end)
        found = _found(compared, finished, runs.reached)
        if compared.calls:
            _look_for_what_was_left(found, runs, finished[0])
        if not finished[1].stopped:
            _compare_output(found, finished, runs, strict=strict_output)
        if found.verdict == "different":
            runs.say(_so_far(found))
            cause = look_for_the_cause(compared, finished, runs)
            found.cause, found.confirmed, found.tried = cause.name, cause.confirmed, cause.tried
            found.sources, found.settled = cause.sources, cause.settled
            found.traced = cause.traced
        if compared.roots and not found.confirmed and is_worth_keeping(compared.roots[0]):
            found.again = look_again(compared.roots[0], runs.record(1, ""), runs.keeping)
        elif found.verdict == "same" and not runs.reached:
            _look_without_the_recorder(found, runs, finished)
        if found.verdict == "same" and not found.remark:
            found.remark = overwritten_remark(runs.record(1, ""), runs.record(2, ""))
        return found


def _so_far(found: Twice) -> str:
    """Say where the runs diverge, for those who do not wait until the cause is found."""
    site = own_first(found.compared.roots[0].site)[:1] if found.compared.roots else ()
    at = "".join(f" First at {Path(line.file).name}:{line.line}." for line in site)
    return f"{found.reason}{at} More runs look for the cause."


def _temporary(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """Make a directory that goes when we do, even if something of the script's still writes."""
    return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)


class _Runs:
    """Runs the command, each time with new directories.

    `reached` is the call before which runs were ended because that was asked for, or 0; `own` are
    the directories that belong to one run each.
    """

    def __init__(
        self,
        command: Sequence[str],
        records: Path,
        folders: Path,
        variables: Mapping[str, str],
        screen: Screen,
    ) -> None:
        self._command, self._records, self._folders = command, records, folders
        self._variables, self._screen = variables, screen
        self._stdin = SameInput()
        self.reached, self.own = 0, list[str]()
        self._outside: dict[str, Contents] = {}

    def deciding_pair(
        self, calls: int, seconds: float, *, to_the_end: bool
    ) -> tuple[Alignment, list[Finished]]:
        """Run it twice with nothing held; the second run is ended once it has diverged."""
        until = f", for {in_words(seconds)}" if seconds else ""
        until += f", until call {calls:,}" if calls else ""
        self._screen.say(f"Run 1 of 2{until}.")
        first = self.one(1, calls=calls, seconds=seconds)
        self.reached = _ended_at(self.record(1, ""))
        self._outside = contents_of(map(Path, self._left_outside(1)), self.own)
        until = f", until call {self.reached:,}" if self.reached else ""
        self._screen.say(f"Run 2 of 2{until}.")
        second = self.one(2, calls=self.reached or calls, compare=not to_the_end)
        finished = [first, second]
        compared = self._compared(finished)
        if second.stopped:
            _say_that_it_was_ended(compared, CountedCalls(self.record(1, "")).count())
        return compared, finished

    def _left_outside(self, number: int) -> list[str]:
        """Return what a run wrote outside of its directory: the next one may write it again."""
        record = self.record(number, "")
        return files_left(record, self.own) if any(record.glob("process-*")) else []

    def wrote(self) -> tuple[dict[str, Contents], dict[str, Contents]]:
        """Return what is in the files that each run of the deciding pair wrote."""
        first, second = (contents_of([Path(folder)], self.own) for folder in self.own[:2])
        outside = contents_of(map(Path, self._left_outside(2)), self.own)
        return first | self._outside, second | outside

    def _compared(self, finished: Sequence[Finished]) -> Alignment:
        """Compare the records of the pair."""
        records = [self.record(number, "") for number in (1, 2)]
        if all(any(record.glob("process-*")) for record in records):
            return compare_records(*records)
        if any(run.code for run in finished):  # which is said then
            return Alignment(problems=["nothing was recorded"])
        return Alignment(problems=["the command starts no Python, or one with -E, -I or -S"])

    def say(self, text: str) -> None:
        """Say what has been found so far, to who may not wait for the rest."""
        self._screen.say(text)

    def again(self, number: int, hold: str, calls: int, place: int) -> Finished:
        """Run it as run 1 or 2 with something held; its record has a number of its own."""
        names = "+".join(each.partition("=")[0] for each in hold.split(","))
        until = f", until call {calls:,}" if calls else ""
        self._screen.say(f"Run {place}, with {held_by(names)}{until}.")
        return self.one(number, hold=hold, calls=calls, place=place)

    def keeping(self, number: int, wanted: str) -> Path:
        """Run it once more up to a call, whose program and values are kept."""
        self._screen.say(f"Run {number} once more, to keep the call where they diverge.")
        self.one(number, hold="kept", wanted=wanted)
        return self.record(number, "kept")

    def unwatched(self, place: int) -> Finished:
        """Run it once without the recorder."""
        self._screen.say("Run 1 once more, without the recorder.")
        return self.one(1, watched=False, place=place)

    def record(self, number: int, hold: str) -> Path:
        """Return where a run's record is."""
        return self._records / (f"{hold}-{number}" if hold else f"run-{number}")

    def one(
        self,
        number: int,
        *,
        hold: str = "",
        calls: int = 0,
        seconds: float = 0,
        watched: bool = True,
        wanted: str = "",
        compare: bool = False,
        place: int | None = None,
    ) -> Finished:
        """Run it once, as run 1 or 2; its record has that number, or another one."""
        folder = tempfile.mkdtemp(prefix=f"dir-{number}-", dir=self._folders)
        self.own.append(folder)

        def filled(text: str) -> str:
            return text.replace("{run}", str(number)).replace("{dir}", folder)

        variables = {name: filled(value) for name, value in self._variables.items()}
        variables |= variables_that_hold(hold)
        if wanted:
            variables["REPRODUCIBILITY_KEEP"] = wanted
        if calls:
            variables["REPRODUCIBILITY_CALLS"] = str(calls)
        if seconds:
            variables["REPRODUCIBILITY_UNTIL"] = str(time.monotonic() + seconds)
        record = self.record(place or number, hold) if watched else None
        keep = record or self._records / f"unwatched-{place}"
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._stdin.again() as stdin:
            return start(
                [filled(word) for word in self._command],
                record=record,
                variables=variables,
                keep=keep,
                stdin=stdin,
                screen=self._screen,
                look=self._look(record, compare=compare),
                limited=bool(calls or seconds or wanted),
            )

    def _look(self, record: Path | None, *, compare: bool) -> Callable[[], bool]:
        """Return what is done while a run goes on: say how far it is, and whether to end it."""
        began = time.monotonic()
        counted = CountedCalls(record) if record else None
        growing = GrowingComparison(self.record(1, ""), record) if record and compare else None

        def look() -> bool:
            calls = f"calls of JAX: {counted.count():,}, " if counted else ""
            self._screen.progress(f"… {calls}{in_words(time.monotonic() - began)}")
            return growing is not None and growing.diverged()

        return look


def _ended_at(record: Path) -> int:
    """Return the call before which a run was ended because that was asked for; 0 if it was not."""
    if not any(record.glob("process-*")):
        return 0
    ends: list[int] = [(each.end or {}).get("ended_at", 0) for each in processes_of(record)]
    return max(ends)


def _say_that_it_was_ended(compared: Alignment, calls: int) -> None:
    """Leave out what the second run lacks only because we ended it."""
    compared.problems = [each for each in compared.problems if each.startswith("in the first run")]
    compared.of = calls
    if not compared.roots:
        compared.problems.append("the second run was ended early, and no difference can be read")


def _found(compared: Alignment, finished: Sequence[Finished], reached: int) -> Twice:
    """Say what two runs and the comparison of their records amount to."""
    found = Twice(compared.verdict, compared.reason, compared, stopped=finished[1].stopped)
    failed = [_how_it_failed(run) for run in finished if run.code and not run.stopped]
    if found.stopped:
        return found
    if len(failed) == 1:
        found.verdict, found.reason = "different", f"Only one of the runs failed: {failed[0]}."
    elif failed and not compared.roots:
        found.verdict = "cannot be told"
        agree = f" The {compared.calls:,} calls of JAX before agree." if compared.calls else ""
        how = "; ".join(dict.fromkeys(failed))
        found.reason = f"The script failed in both runs: {how}.{agree}"
    elif reached and found.verdict == "same":
        found.reason = f"{found.reason[:-1]}, up to call {reached:,}, where both runs were ended."
    return found


def _look_for_what_was_left(found: Twice, runs: _Runs, first: Finished) -> None:
    """Say what the second run finds only because the first one was there before it."""
    records = (runs.record(1, ""), runs.record(2, ""))
    times = (first.began, first.ended)
    found.inherited = look_for_inherited(*records, times, listings=found.verdict != "same")
    if found.verdict != "same" and not found.inherited:
        found.left = files_left(records[0], runs.own)


def _how_it_failed(run: Finished) -> str:
    how = f"exit code {run.code}" if run.code > 0 else f"killed by signal {-run.code}"
    return f"{how}, {run.last_words!r}"


def _compare_output(
    found: Twice, finished: Sequence[Finished], runs: _Runs, *, strict: bool
) -> None:
    """Say whether the runs printed and wrote the same, beside what passes."""
    kept = next((_not_kept(run) for run in finished if run.problem), "")
    differs = "" if kept else printed_remark(finished[0].printed, finished[1].printed, runs.own)
    if found.verdict == "same" and not differs:
        differs = written_remark(*runs.wrote())
    found.remark = kept or differs
    if strict and found.remark and found.verdict == "same":
        found.verdict = "different" if differs else "cannot be told"
        found.reason = f"All calls agree, {'and' if differs else 'but'} {found.remark}."


def _not_kept(run: Finished) -> str:
    return f"what the script printed could not be kept whole: {run.problem}"


def _look_without_the_recorder(found: Twice, runs: _Runs, finished: Sequence[Finished]) -> None:
    """Run the script once more, without the recorder: does it print the same?

    If not, that may be chance, so it is run once more with it, and once more without.
    """
    if first_difference(finished[0].output, finished[1].output, runs.own):
        return  # it does not with it, either
    plain = runs.unwatched(1)
    if _ends_alike(plain, finished[0], runs.own):
        return
    recorded, again = runs.one(1, place=3), runs.unwatched(2)
    compared = compare_records(runs.record(1, ""), runs.record(3, ""))
    if compared.verdict != "same":
        found.compared, found.verdict = compared, compared.verdict
        found.reason = f"A third run is not like the first two. {compared.reason}"
    elif not _ends_alike(recorded, finished[0], runs.own):
        found.remark = "what they print differs in a third run"
    else:
        found.verdict, found.reason = "cannot be told", WATCHING_CHANGES
        if not _ends_alike(again, plain, runs.own):
            found.reason = VARIES_UNWATCHED


def _ends_alike(one: Finished, other: Finished, own: Sequence[str]) -> bool:
    """Whether two runs print the same, and have one exit code."""
    return one.code == other.code and not first_difference(one.output, other.output, own)
