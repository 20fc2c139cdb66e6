"""Run a script whole, then again stopped and resumed, and say what the resumed run lost.

The rule: the runs are as from a shell, each in a directory of its own but the second start, which
finds what the first part left. What the script prints decides nothing.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reproducibility.errors import ConfigError
from reproducibility.script.growing import CountedCalls
from reproducibility.script.inherited import WRITES, files_left
from reproducibility.script.lost import with_sentences
from reproducibility.script.moments import Interruptions, moments
from reproducibility.script.parts import compare_parts
from reproducibility.script.reading import Event, processes_of
from reproducibility.script.reprinted import reprinted_remark, rewritten_remark
from reproducibility.script.resuming import Resuming, note_starts
from reproducibility.script.resumption import Resumption
from reproducibility.script.rounded import in_what_they_differ, worth_keeping
from reproducibility.script.screen import Screen, in_words
from reproducibility.script.start import Finished, SameInput, check_command, new_directory, start
from reproducibility.script.steps import RunOfSteps, called, of_one_name, run_of_steps

LOOK_AT_CALLS = 0.5  # seconds between two looks at how far a run is
SIGNAL = "REPRODUCIBILITY_SIGNAL"
LOOKS_LEFT = 4  # after a process was killed, until the rest of its run is ended
PLACES = ("{dir}", "{run}")
NEVER_STOPPED, LAST = "whole", "resumed"  # the records; those between are part-1 and so on


def interrupt(
    command: Sequence[str],
    *,
    at: int = 0,
    times: int = 1,
    drawn: bool = False,
    seed: int | None = None,
    stop: str = "",
    resume: str = "",
    signal_name: str = "KILL",
    step_function: str = "",
    keep: Path | None = None,
    variables: Mapping[str, str] | None = None,
    strict_output: bool = False,
    say: Callable[[str], None] | None = None,
) -> Resumption:
    """Run a command whole; then again, stopped and started a second time; and compare.

    **Same bits:** the verdict is about these runs on this machine.

    Args:
        command: what to run, as it would be typed; `{dir}` (a fresh directory for the whole run,
            and one for all parts of the other) and `{run}` (1 or 2) are replaced in it.
        at: the call of the step function in which the first part is ended; 0 for the middle of the
            run.
        times: how often it is interrupted; the further moments are spread evenly over what is left.
        drawn: whether the moments are drawn instead; the seed is said.
        seed: from which they are drawn; a new one is, if this is None.
        stop: arguments with which the script stops by itself; the first part is not ended then.
        resume: arguments that each further start has more.
        signal_name: what ends a part, such as KILL or TERM.
        step_function: its name; it is found if this is empty.
        keep: a new directory for the records; they are deleted if this is None.
        variables: environment variables that are added; `{run}` and `{dir}` are replaced in them.
        strict_output: whether runs that print or write something else are different; times and
            names of temporary files do not count.
        say: is told what is being done, and how far it is.

    Raises:
        ConfigError: the command cannot be run so, or the whole run has no such step.
    """
    variables = variables or {}
    asked = moments(at, times, seed, drawn=drawn, stop=stop)
    _check_request(command, variables)
    number = _signal_number(signal_name)
    stops, resumes = _words_of_shell("--stop", stop), _words_of_shell("--resume", resume)
    with contextlib.ExitStack() as stack:
        if keep is None:
            keep = Path(stack.enter_context(_folder_for_now("interrupt-")))
        new_directory(keep)
        folders = [stack.enter_context(_folder_for_now(f"dir-{run}-")) for run in (1, 2, 1, 2)]
        runs = _Parts(command, keep, folders, variables, Screen(say))
        found = _all_runs(runs, asked, (stops, resumes), number, step_function)
        if strict_output and found.verdict == "same" and found.remark:
            found.difference = f"All calls agree, and {found.remark}."
        return with_sentences(found)


def _all_runs(
    runs: _Parts,
    asked: Interruptions,
    more: tuple[Sequence[str], Sequence[str]],
    number: int,
    step_function: str,
) -> Resumption:
    """Start the whole run and the parts of the other, and compare their records."""
    of = asked.times + 2
    runs.say(f"Run 1 of {of}: the whole run.")
    whole = runs.one(NEVER_STOPPED, 1)
    if whole.code:
        return _cannot_be_told(f"the whole run failed: {_how(whole)}")
    if not runs.has_record(NEVER_STOPPED):
        return _cannot_be_told("the command starts no Python, or one with -E, -I or -S")
    steps = run_of_steps(runs.record(NEVER_STOPPED), "the whole run", step_function)
    if steps is None:
        return _cannot_be_told("the whole run calls no compiled function")
    if problem := of_one_name(steps):
        return _cannot_be_told(problem)
    ends = [] if more[0] else asked.steps(len(steps.steps), called(steps.step))
    if asked.seed is not None:
        runs.say(f"The moments are drawn; --seed {asked.seed} draws the same ones again.")
    starts: list[_Start] = []
    for place in range(len(ends) or 1):
        until = f"call {ends[place]:,} of {called(steps.step)}" if ends else ""
        until = until or f"it stops with {shlex.join(more[0])}"
        until += " in the whole run" if place else ""
        runs.say(f"Run {place + 2} of {of}: {_name_of_start(place)}, until {until}.")
        resuming = Resuming(steps, ends[place], ends[place - 1]) if place else None
        when = "?2" if place else f"{ends[0]}" if ends else ""
        start_ = _Start(f"part-{place + 1}", more[place > 0], _limits(when, steps, number))
        part = runs.part(start_, 2, resuming)
        if problem := _problem_of(runs, start_, part, steps, place):
            return _cannot_be_told(problem)
        if resuming and resuming.own:
            runs.say(resuming.words)
            start_ = replace(start_, limits=_limits(f"{resuming.own}", steps, number))
        starts.append(start_)
    runs.say(f"Run {of} of {of}: {_name_of_start(len(starts))}.")
    last = runs.one(LAST, 2, more=more[1])
    if not runs.has_record(LAST):
        return _cannot_be_told(f"nothing was recorded of the last start: {_how(last)}")
    starts.append(_Start(LAST, more[1], {}))
    found = _compared(runs, starts, (whole, last), step_function)
    note_starts(found, ends)
    return found


@dataclass(frozen=True)
class _Start:
    """A start of the run that is interrupted: the name of its record, and what it is given more."""

    name: str
    more: Sequence[str]
    limits: Mapping[str, str]


def _compared(
    runs: _Parts, starts: Sequence[_Start], ends: tuple[Finished, Finished], step_function: str
) -> Resumption:
    """Compare the parts with the whole run, and say what else was seen of the runs."""
    names = [each.name for each in starts]
    records = [runs.record(name) for name in names]
    found = compare_parts(runs.record(NEVER_STOPPED), records, step=step_function)
    whole, last = ends
    if last.code:
        found.problems.insert(0, f"the last start failed: {_how(last)}")
    if event := _read_from_the_whole(runs, names):
        found.problems.append(f"a start after the first reads what the whole run wrote: {event}")
    if found.problems and "began from zero" in found.problems[0] and runs.is_empty:
        found.problems[0] += "; nothing had been written into {dir} when the first part ended"
    if outside := runs.written_outside(NEVER_STOPPED):
        found.notes.append(f"it writes outside of {{dir}}, where each run finds it: {outside}")
    if found.verdict == "same":
        found.remark = reprinted_remark(whole.printed, last.printed, runs.folders[:2])
        found.remark = found.remark or rewritten_remark(runs.folders[:2])
    elif found.difference:
        _keep_values(runs, starts, found)
    return found


def _keep_values(runs: _Parts, starts: Sequence[_Start], found: Resumption) -> None:
    """Run it again up to the calls that differ, for their values: is one the other, rounded?"""
    wanted = worth_keeping(found)
    if wanted is None:
        return
    runs.say(f"{found.reason} Further runs, as far as that, keep values of these calls.")
    keep = [{"REPRODUCIBILITY_KEEP": each} for each in wanted]
    runs.part(_Start("whole-kept", (), keep[0]), 3)
    for place, each in enumerate(starts[: found.start + 1]):
        limits = keep[1] if place == found.start else each.limits
        runs.part(_Start(f"{each.name}-kept", each.more, limits), 4)
    records = [runs.record(f"{name}-kept") for name in ("whole", starts[found.start].name)]
    found.rounded = in_what_they_differ(found, records)


def _name_of_start(place: int) -> str:
    """Name a part of the run that is interrupted."""
    return ("the first part", "the second start")[place] if place < 2 else f"start {place + 1}"


def _cannot_be_told(problem: str) -> Resumption:
    return Resumption(problems=[problem])


def _limits(when: str, steps: RunOfSteps, number: int) -> dict[str, str]:
    """Return the variables that have the recorder end a run in the middle of a step, if it does.

    `when` is one of its own steps, or "?" and the one in which it asks.
    """
    if not when:
        return {}
    asks, own = "?" * when.startswith("?"), int(when.removeprefix("?"))
    name, arguments = steps.step
    return {
        "REPRODUCIBILITY_STEP": f"{asks}{own + steps.warmed} {arguments} {name}",
        SIGNAL: str(number),
    }


def _problem_of(runs: _Parts, start_: _Start, part: Finished, steps: RunOfSteps, place: int) -> str:
    """Say why a part is none that was interrupted; "" if it is one."""
    name = _name_of_start(place)
    kills = start_.limits.get(SIGNAL) == str(int(signal.SIGKILL))
    if not runs.has_record(start_.name):
        return f"nothing was recorded of {name}: {_how(part)}"
    if part.code and (not start_.limits or (kills and not runs.was_ended(start_.name))):
        return f"{name} failed: {_how(part)}"
    made = run_of_steps(runs.record(start_.name), name, steps.step, like=steps)
    if made is not None and len(made.steps) >= len(steps.steps):
        why = "it ignores the signal" if start_.limits else "--stop did not stop it"
        return f"{name} made all {len(made.steps):,} steps: {why}"
    return ""


def _read_from_the_whole(runs: _Parts, names: Sequence[str]) -> str:
    """Return the first file that a further start reads and only the whole run wrote; "" if none."""
    written = {
        event.what for event in _requests_of(runs.record(NEVER_STOPPED)) if event.kind in WRITES
    }
    for name in (*names, LAST):
        for event in _requests_of(runs.record(name)):
            if event.kind in WRITES:
                written.discard(event.what)
            elif event.kind == "reads" and event.what in written and Path(event.what).is_file():
                return event.what
    return ""


def _requests_of(record: Path) -> list[Event]:
    return [event for process in processes_of(record) for event in process.events()]


def _how(run: Finished) -> str:
    how = f"exit code {run.code}" if run.code >= 0 else f"killed by signal {-run.code}"
    return f"{how}, {run.last_words!r}"


class _Parts:
    """Runs the command: whole in the first of its `folders`, in parts in the second.

    The other two are for the same again.
    """

    def __init__(
        self,
        command: Sequence[str],
        records: Path,
        folders: Sequence[str],
        variables: Mapping[str, str],
        screen: Screen,
    ) -> None:
        self._command, self._records, self.folders = command, records, folders
        self._variables, self._screen = variables, screen
        self._stdin = SameInput()
        self.is_empty = True  # whether no part has left anything in its directory

    def say(self, text: str) -> None:
        self._screen.say(text)

    def part(self, start_: _Start, run: int, resuming: Resuming | None = None) -> Finished:
        """Run a part; what it has left running is ended with it."""
        more, limits = start_.more, start_.limits
        return self.one(start_.name, run, more=more, limits=limits, part=True, resuming=resuming)

    def record(self, name: str) -> Path:
        return self._records / name

    def has_record(self, name: str) -> bool:
        return any(self.record(name).glob("process-*"))

    def was_ended(self, name: str) -> bool:
        """Whether a run was ended in the step that was asked for."""
        return self.has_record(name) and any(
            "ended_at" in (each.end or {}) for each in processes_of(self.record(name))
        )

    @staticmethod
    def was_killed(record: Path) -> bool:
        """Whether a process of a run that goes on has been killed in its step."""
        ends = record.glob("process-*/end.json")
        return any(b'"ended_at"' in each.read_bytes() for each in ends)

    def written_outside(self, name: str) -> str:
        """Return the first file that a run wrote where all of them find it; "" if there is none."""
        return next(iter(files_left(self.record(name), self.folders)), "")

    def one(
        self,
        name: str,
        run: int,
        *,
        more: Sequence[str] = (),
        limits: Mapping[str, str] | None = None,
        part: bool = False,
        resuming: Resuming | None = None,
    ) -> Finished:
        """Run it once, with more arguments; `run` says in which directory."""
        folder, run = self.folders[run - 1], 2 - run % 2

        def filled(text: str) -> str:
            return text.replace("{run}", str(run)).replace("{dir}", folder)

        variables = {name: filled(value) for name, value in self._variables.items()}
        record = self.record(name)
        record.mkdir(mode=0o700)
        with self._stdin.again() as stdin:
            finished = start(
                [filled(word) for word in (*self._command, *more)],
                record=record,
                variables={**variables, **(limits or {})},
                keep=record,
                stdin=stdin,
                screen=self._screen,
                look=self._look(record, limits or {}, resuming),
                limited=part,
            )
        if part and self.is_empty:
            self.is_empty = not any(Path(folder).iterdir())
        return finished

    def _look(
        self, record: Path, limits: Mapping[str, str], resuming: Resuming | None
    ) -> Callable[[], bool]:
        """Return what is done while a run goes on: say how far it is, and whether to end it.

        A launcher, and the other processes of a run, do not outlive the one that was killed.
        """
        began = last = time.monotonic()
        kills = limits.get(SIGNAL) == str(int(signal.SIGKILL))
        killed = 0
        counted = CountedCalls(record)

        def look() -> bool:
            nonlocal last, killed
            now = time.monotonic()
            if resuming is not None:
                resuming.answer(record)
            killed += kills and self.was_killed(record)
            if now - last >= LOOK_AT_CALLS:
                last = now
                calls = f"{counted.count():,} calls of JAX"
                self._screen.progress(f"… {calls}, {in_words(now - began)}")
            return killed > LOOKS_LEFT

        return look


def _folder_for_now(prefix: str) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)


def _check_request(command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Refuse what cannot be run so, before anything is run."""
    check_command(command)
    words = [*command, *variables.values()]
    if not variables and not any(place in word for word in words for place in PLACES):
        raise ConfigError(
            "run",
            "the script",
            expected="{dir}, {run} or --env in the command",
            got="none",
            do="Say where it writes: -- python train.py --workdir {dir}. If that is the folder in "
            "which it is started: -- sh -c 'cd {dir} && python /path/to/train.py'.",
        )


def _signal_number(name: str) -> int:
    """Return the number of a signal."""
    try:
        return int(signal.Signals[f"SIG{name.upper().removeprefix('SIG')}"])
    except KeyError:
        raise ConfigError(
            "use", "--signal", expected="the name of a signal", got=repr(name), do="Try TERM."
        ) from None


def _words_of_shell(flag: str, text: str) -> list[str]:
    """Return the words of arguments, as a shell would."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(
            "use", flag, expected="arguments as in a shell", got=str(error), do="Close the quote."
        ) from error
