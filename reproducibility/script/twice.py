"""Run a script twice, name where the runs diverge, and confirm the cause by holding it fixed.

The rule: nothing is pinned in the two runs that decide. A cause is confirmed if three runs agree
once only that is held, and two with nothing held differ again.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from reproducibility.errors import ExitCode
from reproducibility.script.align import Alignment, RecordVerdict, compare_records
from reproducibility.script.cause import (
    HOLDS,
    look_for_the_cause,
    may_come_from_the_host,
    variables_that_hold,
)
from reproducibility.script.reading import Event, processes_of
from reproducibility.script.start import (
    Finished,
    SameInput,
    check_command,
    new_directory,
    start,
)

SHOWN_OF_A_LINE = 60  # characters


@dataclass
class Twice:
    """What came of running a script twice.

    `cause` is the suspect of `HOLDS` with which the runs agreed (`confirmed`), or that is likely;
    `source` is what the script asked of the machine, with its line. `settled` says that two more
    runs with nothing held agreed, so that no cause can be confirmed. `inherited` is the first file
    that the second run reads and the first one wrote.
    """

    verdict: RecordVerdict
    reason: str
    compared: Alignment
    cause: str = ""
    confirmed: bool = False
    source: Event | None = None
    remark: str = ""
    inherited: Event | None = None
    settled: bool = False

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
            "remark": self.remark or None,
            "inherited": self.inherited and self.inherited.to_json(),
            "source": self.source and self.source.to_json(),
        }


def twice(
    command: Sequence[str],
    *,
    keep: Path | None = None,
    variables: Mapping[str, str] | None = None,
    calls: int = 0,
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
        strict_output: whether runs that print something else are different; times, dates and names
            of temporary files do not count.
        say: is told what is being done.

    Raises:
        ConfigError: the command cannot be run, or the directory holds something.
    """
    check_command(command)
    with contextlib.ExitStack() as stack:
        if keep is None:
            keep = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twice-")))
        new_directory(keep)
        folders = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dirs-")))
        runs = _Runs(command, keep, folders, variables or {}, say or (lambda text: None))
        compared, finished = runs.pair("", calls)
        found = _found(compared, finished)
        if calls and compared.verdict == "same":
            found.reason = f"{found.reason[:-1]}, up to call {calls:,} at most."
        if compared.calls:
            _look_for_files_in_common(found, runs)
        _compare_output(found, finished, folders, strict=strict_output)
        if compared.roots and may_come_from_the_host(compared.roots[0]):
            cause = look_for_the_cause(compared.roots[0], runs)
            found.cause, found.confirmed = cause.name, cause.confirmed
            found.source, found.settled = cause.source, cause.settled
        elif found.verdict == "same" and not calls and not found.remark:
            _look_without_the_recorder(found, runs, finished)
        return found


class _Runs:
    """Runs the command, each time with new directories."""

    def __init__(
        self,
        command: Sequence[str],
        records: Path,
        folders: Path,
        variables: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._command, self._records, self._folders = command, records, folders
        self._variables, self._say = variables, say
        self._stdin = SameInput()

    def pair(self, hold: str, calls: int) -> tuple[Alignment, list[Finished]]:
        """Run it twice, with one thing held or nothing, and compare the records."""
        finished = []
        for number in (1, 2):
            what = f", with {HOLDS.get(hold, hold)}" if hold else ""
            self._say(
                f"Run {number} of 2{what}, until call {calls}." if calls else f"Run {number}."
            )
            finished.append(self.one(number, hold=hold, calls=calls))
        records = [self.record(number, hold) for number in (1, 2)]
        if not all(any(record.iterdir()) for record in records):
            return Alignment(
                problems=["the command starts no Python, or one with -E, -I or -S"]
            ), finished
        return compare_records(*records), finished

    def third(self, hold: str, calls: int) -> Finished:
        """Run it once more with the same thing held."""
        self._say(f"Run 3, with {HOLDS.get(hold, hold)}, until call {calls}.")
        return self.one(2, hold=hold, calls=calls, place=3)

    def record(self, number: int, hold: str) -> Path:
        """Return where a run's record is."""
        return self._records / (f"{hold}-{number}" if hold else f"run-{number}")

    def one(
        self,
        number: int,
        *,
        hold: str = "",
        calls: int = 0,
        watched: bool = True,
        place: int | None = None,
    ) -> Finished:
        """Run it once, as run 1 or 2; its record has that number, or another one."""
        folder = tempfile.mkdtemp(prefix=f"dir-{number}-", dir=self._folders)

        def filled(text: str) -> str:
            return text.replace("{run}", str(number)).replace("{dir}", folder)

        variables = {name: filled(value) for name, value in self._variables.items()}
        variables |= variables_that_hold(hold)
        if calls:
            variables["REPRODUCIBILITY_CALLS"] = str(calls)
        record = self.record(place or number, hold) if watched else None
        command = [filled(word) for word in self._command]
        with self._stdin.again() as stdin:
            return start(command, record=record, variables=variables, keep=True, stdin=stdin)


def _found(compared: Alignment, finished: Sequence[Finished]) -> Twice:
    """Say what two runs and the comparison of their records amount to."""
    found = Twice(compared.verdict, compared.reason, compared)
    failed = [_how_it_failed(run) for run in finished if run.code]
    if len(failed) == 1:
        found.verdict, found.reason = "different", f"Only one of the runs failed: {failed[0]}."
    elif failed and not compared.roots:
        found.verdict = "cannot be told"
        found.reason = f"The script failed in both runs: {'; '.join(dict.fromkeys(failed))}."
    return found


def _look_for_files_in_common(found: Twice, runs: _Runs) -> None:
    """Say which file the second run reads and the first one wrote: then they are no two starts."""
    written = {event.what for event in _events(runs.record(1, "")) if event.kind == "writes"}
    for event in _events(runs.record(2, "")):
        if event.kind == "reads" and event.what in written and Path(event.what).is_file():
            found.inherited = event
            return


def _events(record: Path) -> list[Event]:
    """Return what the processes of a record asked of the machine."""
    return [event for process in processes_of(record) for event in process.events()]


def _how_it_failed(run: Finished) -> str:
    how = f"exit code {run.code}" if run.code > 0 else f"killed by signal {-run.code}"
    return f"{how}, {run.last_words!r}"


# What two runs may print differently though they are the same: times, dates, addresses, numbers of
# processes, names of temporary files.
_PASSING = re.compile(
    r"\d{4}-\d\d-\d\d|\d+:\d\d(:\d\d)?([.,]\d+)?|0x[0-9a-f]{6,}"
    r"|(?i:\bpid\W*)\d+|/tmp/\S+|[\d.,]+ ?(ns|us|µs|ms|s|sec|seconds|min|it/s|s/it)\b"
)


def _compare_output(
    found: Twice, finished: Sequence[Finished], folders: Path, *, strict: bool
) -> None:
    """Say whether the runs printed the same, beside what passes."""
    own = re.compile(re.escape(str(folders)) + r"/dir-\d-\w+")
    texts = [run.output.decode(errors="replace") for run in finished]
    lines = [
        [_PASSING.sub("…", own.sub("…", line)) for line in text.splitlines()] for text in texts
    ]
    for number, pair in enumerate(zip_longest(*lines, fillvalue=""), start=1):
        if pair[0] != pair[1]:
            shown = " and ".join(repr(text[:SHOWN_OF_A_LINE]) for text in pair)
            found.remark = f"line {number} of what they print differs: {shown}"
            break
    if found.remark and strict and found.verdict == "same":
        found.verdict, found.reason = "different", f"All calls agree, and {found.remark}."


def _look_without_the_recorder(found: Twice, runs: _Runs, finished: Sequence[Finished]) -> None:
    """Run the script once more, without the recorder: does it print the same?"""
    plain = runs.one(1, watched=False)
    if plain.output != finished[0].output == finished[1].output or plain.code != finished[0].code:
        found.verdict = "cannot be told"
        found.reason = "Watching changes this script: without, it prints something else."
