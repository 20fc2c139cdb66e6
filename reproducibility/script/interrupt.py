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
from pathlib import Path

from reproducibility.errors import ConfigError
from reproducibility.script.growing import CountedCalls
from reproducibility.script.reading import Event, processes_of
from reproducibility.script.resumption import Resumption, RunOfSteps, compare_resumed, run_of_steps
from reproducibility.script.screen import Screen, in_words
from reproducibility.script.start import Finished, SameInput, check_command, new_directory, start

LOOK_AT_CALLS = 0.5  # seconds between two looks at how far a run is
PLACES = ("{dir}", "{run}")


def interrupt(
    command: Sequence[str],
    *,
    at: int = 0,
    stop: str = "",
    resume: str = "",
    signal_name: str = "KILL",
    step_function: str = "",
    keep: Path | None = None,
    variables: Mapping[str, str] | None = None,
    say: Callable[[str], None] | None = None,
) -> Resumption:
    """Run a command whole; then again, stopped and started a second time; and compare.

    **Same bits:** the verdict is about these runs on this machine.

    Args:
        command: what to run, as it would be typed; `{dir}` (a fresh directory for the whole run,
            and one for both parts of the other) and `{run}` (1 or 2) are replaced in it.
        at: the call of the step function in which the first part is ended.
        stop: arguments with which the script stops by itself; the first part is not ended then.
        resume: arguments that the second start has more.
        signal_name: what ends the first part, such as KILL or TERM.
        step_function: its name; it is found if this is empty.
        keep: a new directory for the records; they are deleted if this is None.
        variables: environment variables that are added; `{run}` and `{dir}` are replaced in them.
        say: is told what is being done, and how far it is.

    Raises:
        ConfigError: the command cannot be run so, or the whole run has no such step.
    """
    variables = variables or {}
    _check_request(command, at, stop, variables)
    number = _signal_number(signal_name)
    extra = [_words_of_shell("--stop", stop), _words_of_shell("--resume", resume)]
    with contextlib.ExitStack() as stack:
        if keep is None:
            keep = Path(stack.enter_context(_folder_for_now("interrupt-")))
        new_directory(keep)
        folders = [stack.enter_context(_folder_for_now(f"dir-{run}-")) for run in (1, 2)]
        runs = _Parts(command, keep, folders, variables, Screen(say))
        return _three_runs(runs, at, extra, number, step_function)


def _three_runs(
    runs: _Parts, at: int, extra: Sequence[Sequence[str]], number: int, step_function: str
) -> Resumption:
    """Start the three runs, and compare their records."""
    runs.say("Run 1 of 3: the whole run.")
    whole = runs.one("whole", 1)
    if whole.code:
        return _cannot_be_told(f"the whole run failed: {_how(whole)}")
    if not runs.has_record("whole"):
        return _cannot_be_told("the command starts no Python, or one with -E, -I or -S")
    steps = run_of_steps(runs.record("whole"), "the whole run", step_function)
    if steps is None:
        return _cannot_be_told("the whole run calls no compiled function")
    stops = extra[0]
    name = steps.steps[0].program.called
    runs.say(f"Run 2 of 3: the first part, until {_until(stops, at, name)}.")
    limits = {} if stops else _limits(steps, at, number)
    part = runs.one("interrupted", 2, more=stops, limits=limits)
    if stops and part.code:
        return _cannot_be_told(f"the first part failed: {_how(part)}")
    if not runs.has_record("interrupted"):
        return _cannot_be_told("nothing was recorded of the first part")
    if problem := _went_on(runs, steps, by_itself=bool(stops)):
        return _cannot_be_told(problem)
    runs.say("Run 3 of 3: the second start.")
    resumed = runs.one("resumed", 2, more=extra[1])
    if not runs.has_record("resumed"):
        return _cannot_be_told(f"nothing was recorded of the second start: {_how(resumed)}")
    found = compare_resumed(
        runs.record("whole"),
        runs.record("resumed"),
        interrupted=runs.record("interrupted"),
        step_function=step_function,
    )
    if resumed.code:
        found.problems.insert(0, f"the second start failed: {_how(resumed)}")
    if event := _read_from_the_whole(runs):
        found.notes.append(f"the second start reads what the whole run wrote: {event.what}")
    return found


def _cannot_be_told(problem: str) -> Resumption:
    return Resumption(problems=[problem])


def _until(stops: Sequence[str], at: int, name: str) -> str:
    return f"it stops with {shlex.join(stops)}" if stops else f"call {at:,} of {name}"


def _limits(steps: RunOfSteps, at: int, number: int) -> dict[str, str]:
    """Return the variables that have the recorder end a run in the middle of a step."""
    if at > len(steps.steps):
        name = steps.steps[0].program.called
        raise ConfigError(
            "use",
            "--at",
            expected=f"one of the {len(steps.steps):,} calls of {name} in the whole run",
            got=at,
            do="Choose a smaller one, or another function with --step-function.",
        )
    return {
        "REPRODUCIBILITY_CALLS": str(steps.steps[at - 1].number),
        "REPRODUCIBILITY_SIGNAL": str(number),
    }


def _went_on(runs: _Parts, steps: RunOfSteps, *, by_itself: bool) -> str:
    """Say that the first part made all steps; "" if it did not."""
    part = run_of_steps(runs.record("interrupted"), "the first part", steps.step)
    if part is None or len(part.steps) < len(steps.steps):
        return ""
    why = "--stop did not stop it" if by_itself else "it ignores the signal"
    return f"the first part made all {len(part.steps):,} steps: {why}"


def _read_from_the_whole(runs: _Parts) -> Event | None:
    """Return the first file that the second start reads and only the whole run wrote."""
    written: list[set[str]] = [
        {event.what for event in _requests_of(runs.record(name)) if event.kind == "writes"}
        for name in ("whole", "interrupted")
    ]
    only = written[0] - written[1]
    reads = (event for event in _requests_of(runs.record("resumed")) if event.kind == "reads")
    return next((each for each in reads if each.what in only and Path(each.what).is_file()), None)


def _requests_of(record: Path) -> list[Event]:
    return [event for process in processes_of(record) for event in process.events()]


def _how(run: Finished) -> str:
    how = f"exit code {run.code}" if run.code >= 0 else f"killed by signal {-run.code}"
    return f"{how}, {run.last_words!r}"


class _Parts:
    """Runs the command: whole in one directory, in two parts in another."""

    def __init__(
        self,
        command: Sequence[str],
        records: Path,
        folders: Sequence[str],
        variables: Mapping[str, str],
        screen: Screen,
    ) -> None:
        self._command, self._records, self._folders = command, records, folders
        self._variables, self._screen = variables, screen
        self._stdin = SameInput()

    def say(self, text: str) -> None:
        self._screen.say(text)

    def record(self, name: str) -> Path:
        return self._records / name

    def has_record(self, name: str) -> bool:
        return any(self.record(name).glob("process-*"))

    def one(
        self,
        name: str,
        run: int,
        *,
        more: Sequence[str] = (),
        limits: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run it once, with more arguments; `run` says in which directory."""
        folder = self._folders[run - 1]

        def filled(text: str) -> str:
            return text.replace("{run}", str(run)).replace("{dir}", folder)

        variables = {name: filled(value) for name, value in self._variables.items()}
        record = self.record(name)
        record.mkdir(mode=0o700)
        with self._stdin.again() as stdin:
            return start(
                [filled(word) for word in (*self._command, *more)],
                record=record,
                variables={**variables, **(limits or {})},
                keep=record,
                stdin=stdin,
                screen=self._screen,
                look=self._look(record),
                limited=bool(limits),
            )

    def _look(self, record: Path) -> Callable[[], bool]:
        """Return what is done while a run goes on: say how far it is."""
        began = last = time.monotonic()
        counted = CountedCalls(record)

        def look() -> bool:
            nonlocal last
            now = time.monotonic()
            if now - last >= LOOK_AT_CALLS:
                last = now
                calls = f"{counted.count():,} calls of JAX"
                self._screen.progress(f"… {calls}, {in_words(now - began)}")
            return False

        return look


def _folder_for_now(prefix: str) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)


def _check_request(
    command: Sequence[str], at: int, stop: str, variables: Mapping[str, str]
) -> None:
    """Refuse what cannot be run so, before anything is run."""
    check_command(command)
    if at < 1 and (at or not stop):
        raise ConfigError(
            "use", "--at", expected="a step, from 1", got=at, do="Try --at 22, or --stop."
        )
    words = [*command, *variables.values()]
    if not variables and not any(place in word for word in words for place in PLACES):
        raise ConfigError(
            "run",
            "the script",
            expected="{dir}, {run} or --env in the command",
            got="none",
            do="Say where it writes: -- python train.py --workdir {dir}.",
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
