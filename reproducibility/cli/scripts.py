"""The commands that run a script of yours, unchanged: does it repeat, and if not, why?

The rule: the script is the user's, word for word; what stands behind `--` is typed as without us.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from reproducibility.cli.arguments import check_output_file
from reproducibility.cli.parse import named
from reproducibility.cli.process_state import terminated_as_interrupted
from reproducibility.cli.terminal import (
    print_outcome,
    print_resumption,
    print_script_report,
    print_sweep,
    say_on_stderr,
)
from reproducibility.errors import ConfigError

if TYPE_CHECKING:
    from reproducibility.script.resumption import Resumption
    from reproducibility.script.swept import Sweep
    from reproducibility.script.twice import Twice

# What the example of `twice --help` may print.
TWICE_PRINTS = """\
different
begins with call 4, step: an input that no earlier call made: batch
    train.py:18, in <module>: params, loss = step(params, batch)
    49 more begin on that line
confirmed: with a fixed stream for the system's entropy, both runs agree
    batch comes from np.random.default_rng(), unseeded, train.py:5, in <module>
    cure: give each generator a seed
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwiceCommand:
    """Run a script twice, unchanged, and name where the two runs diverge and why.

    After `--` comes the command, as you would type it; `{run}` in it is 1 or 2, and `{dir}` a fresh
    directory. Nothing is pinned: each run is a fresh process, as from your shell. Every compiled
    call of JAX is compared: its program, its inputs and its results. If an input from the host
    differs, the pair is run again with one suspect at a time held fixed, up to that call. What the
    script prints goes to stderr.

    Exit code: 0 the same, 1 different, 2 refused, 3 cannot be told.

    Example: reproducibility twice -- python train.py --seed 0 --workdir {dir}
    """

    keep: Annotated[Path | None, named("keep", "DIR")] = None
    """Keep the records, and what the runs printed, in this new directory."""
    calls: int = 0
    """End both runs after so many calls of JAX; 0 is the end of the script."""
    for_: Annotated[str, named("for", "TIME")] = ""
    """End the first run after this time, such as 90s, 10m or 1h, at the call that it has reached,
    and the second one at the same call."""
    to_the_end: bool = False
    """Let the second run go on when it has diverged; without, it is ended within seconds."""
    env: tuple[str, ...] = ()
    """Environment variables of the runs, each as NAME=VALUE; `{run}` and `{dir}` are replaced."""
    strict_output: bool = False
    """Runs that print something else are different; times and names of temporary files pass."""
    html: Path | None = None
    """Write the answer as a page into this file too: the runs as lanes, calls as marks."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self, command: list[str]) -> int:
        """Run it twice, print the verdict and the line."""
        from reproducibility.script.twice import twice

        _check_html(self.html)
        seconds = _seconds(self.for_)
        if self.calls < 0:
            raise ConfigError("use", "--calls", expected="0 or more", got=self.calls, do="Try 100.")
        variables = dict(_name_and_value(text) for text in self.env)
        with terminated_as_interrupted():
            found = twice(
                command,
                keep=self.keep,
                variables=variables,
                calls=self.calls,
                seconds=seconds,
                to_the_end=self.to_the_end,
                strict_output=self.strict_output,
                say=say_on_stderr,
            )
        _write_html(self.html, found, command)
        reasons = [found.reason] if found.exit_code else []
        return print_outcome(found, print_script_report, reasons, as_json=self.json)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InterruptCommand:
    """Run a script whole, then stopped and resumed, and say what the resumed run lost.

    After `--` comes the command, as you would type it; `{dir}` in it is a fresh directory: one for
    the whole run, and one for the first part and the second start. The first part is ended in the
    middle of a step. Each input of the first resumed step is looked up in the whole run: which of
    its steps had that value. What the script prints goes to stderr. A script that writes into the
    folder in which it is started: -- sh -c 'cd {dir} && python /path/to/train.py'.

    Exit code: 0 the same, 1 different, 2 refused, 3 cannot be told.

    Example: reproducibility interrupt --at 22 --resume=--resume -- python train.py --workdir {dir}
    """

    at: Annotated[int, named("at", "STEP")] = 0
    """End the first part in the middle of this step, from 2, counted by calls of the step
    function; without, in one halfway through the run."""
    times: Annotated[int, named("times", "N")] = 1
    """Interrupt it so often; the further moments are spread evenly over the steps that are left."""
    random: bool = False
    """Draw the moments instead; the seed is said."""
    seed: Annotated[int | None, named("seed", "SEED")] = None
    """Draw the moments from this seed: the same ones again."""
    stop: Annotated[str, named("stop", "ARGS")] = ""
    """Arguments with which the script stops by itself, instead: --stop='--stop-after 22'."""
    resume: Annotated[str, named("resume", "ARGS")] = ""
    """Arguments that the second start has more, such as --resume='--resume'."""
    signal: Annotated[str, named("signal", "NAME")] = "KILL"
    """The signal that ends the first part."""
    step_function: Annotated[str, named("step-function", "NAME")] = ""
    """The compiled function that makes a step; without, it is found."""
    keep: Annotated[Path | None, named("keep", "DIR")] = None
    """Keep the records, and what the runs printed, in this new directory."""
    env: tuple[str, ...] = ()
    """Environment variables of the runs, each as NAME=VALUE; `{run}` and `{dir}` are replaced."""
    strict_output: bool = False
    """Runs that print or write something else are different; times and names of temporary files
    pass."""
    html: Path | None = None
    """Write the answer as a page into this file too: the runs as lanes, calls as marks."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self, command: list[str]) -> int:
        """Run it, print the verdict and the table."""
        from reproducibility.script.interrupt import interrupt

        _check_html(self.html)
        variables = dict(_name_and_value(text) for text in self.env)
        with terminated_as_interrupted():
            found = interrupt(
                command,
                at=self.at,
                times=self.times,
                drawn=self.random,
                seed=self.seed,
                stop=self.stop,
                resume=self.resume,
                signal_name=self.signal,
                step_function=self.step_function,
                keep=self.keep,
                strict_output=self.strict_output,
                variables=variables,
                say=say_on_stderr,
            )
        _write_html(self.html, found, command)
        reasons = [found.reason] if found.exit_code else []
        return print_outcome(found, print_resumption, reasons, as_json=self.json)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepCommand:
    """Run a script, unchanged, with one hidden input changed at a time, and say what matters.

    After `--` comes the command, as you would type it; `{dir}` in it is a fresh directory. First
    comes a base run in which all is held that can be: the salt of hash(), the order of listings,
    unseeded generators, the clock. It has to come to the same three times. Then one run for each
    hidden input, changed alone; one that differs is run again before it is blamed. If the base run
    does not repeat, `twice` is run. What the script prints goes to stderr.

    Exit code: 0 the same with each change, 1 an input matters, 2 refused, 3 cannot be told.

    Example: reproducibility sweep --quick -- python train.py --seed 0 --workdir {dir}
    """

    quick: bool = False
    """Change only the four that matter most often: hash, listing, entropy, clock."""
    only: Annotated[str, named("only", "NAME,...")] = ""
    """Change only these, such as hash,blas-threads or the name of a variable; the table has the
    names, and a wrong one lists all."""
    machine: bool = False
    """Change the instruction set, flags of the compiler and settings of JAX too. They change the
    bits of nearly every script."""
    keep: Annotated[Path | None, named("keep", "DIR")] = None
    """Keep the records, and what the runs printed, in this new directory."""
    calls: int = 0
    """End each run after so many calls of JAX; 0 is the end of the script."""
    for_: Annotated[str, named("for", "TIME")] = ""
    """End the first run after this time, such as 90s, 10m or 1h, at the call that it has reached,
    and all others at the same call."""
    env: tuple[str, ...] = ()
    """Environment variables of the runs, each as NAME=VALUE; they are not changed, and `{dir}` is
    replaced."""
    html: Path | None = None
    """Write the answer as a page into this file too: the runs as lanes, calls as marks."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self, command: list[str]) -> int:
        """Run it, print the table and the verdict."""
        from reproducibility.script.sweep import sweep

        _check_html(self.html)
        seconds = _seconds(self.for_)
        if self.calls < 0:
            raise ConfigError("use", "--calls", expected="0 or more", got=self.calls, do="Try 100.")
        with terminated_as_interrupted():
            found = sweep(
                command,
                only=tuple(filter(None, self.only.replace(" ", "").split(","))),
                quick=self.quick,
                machine=self.machine,
                keep=self.keep,
                variables=dict(_name_and_value(text) for text in self.env),
                calls=self.calls,
                seconds=seconds,
                say=say_on_stderr,
            )
        _write_html(self.html, found, command)
        reasons = [found.reason] if found.exit_code else []
        return print_outcome(found, print_sweep, reasons, as_json=self.json)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordCommand:
    """Run a script, unchanged, and record every compiled call of JAX.

    After `--` comes the command, as you would type it. What it prints and its exit code are passed
    on. Two records are compared with `reproducibility compare DIR_A DIR_B`. With --again calls are
    computed a second time, from the same inputs; with --keys keys are looked for that are drawn
    from twice. What came of it is said on stderr at the end, and by `reproducibility check DIR`,
    which exits with 1 if anything was found.

    Exit code: that of the command; 2 refused.

    Example: reproducibility record records/first -- python train.py --seed 0
    """

    directory: Path
    """A new or empty directory for the record."""
    again: Annotated[int, named("again", "N")] = 0
    """Compute one of N calls of each function a second time, and compare the results by bits."""
    keys: bool = False
    """Name draws that use one PRNG key twice, between programs and inside of one."""

    def __call__(self, command: list[str]) -> int:
        """Run it, pass its exit code on."""
        from reproducibility.script.start import start

        if self.again < 0:
            raise ConfigError("use", "--again", expected="0 or more", got=self.again, do="Try 16.")
        variables = {
            "REPRODUCIBILITY_AGAIN": str(self.again) if self.again else None,
            "REPRODUCIBILITY_KEYS": "1" if self.keys else None,
        }
        finished = start(command, record=self.directory, variables=variables)
        if not any(self.directory.glob("process-*")):
            say_on_stderr(
                "Nothing was recorded: the command starts no Python, or one with -E, -I or -S."
            )
        elif self.again or self.keys:
            self._say_what_was_found()
        return finished.code if finished.code >= 0 else 128 - finished.code

    def _say_what_was_found(self) -> None:
        """Say it on stderr; the exit code is the command's, whatever it is."""
        from reproducibility.script.findings import said_of

        for line in said_of(self.directory):
            say_on_stderr(line)


def _check_html(path: Path | None) -> None:
    """Refuse a page that could not be written, before hours of runs."""
    if path is not None:
        check_output_file("--html", path, {}, "")


def _write_html(path: Path | None, found: Twice | Resumption | Sweep, command: list[str]) -> None:
    if path is not None:
        from reproducibility.script.drawn import write_found

        write_found(path, found, command)


def _seconds(text: str) -> float:
    """Return a time such as 90s, 10m, 1h or 1h30m in seconds; 0 for none."""
    found = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text)
    with contextlib.suppress(ValueError):  # of a number with two points
        parts = [float(part or 0) for part in found.groups()] if found else [0.0]
        seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
        if seconds or not text:
            return seconds
    raise ConfigError(
        "use", "--for", expected="a time such as 90s, 10m or 1h", got=repr(text), do="Try 10m."
    )


def _name_and_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConfigError(
            "use", "--env", expected="NAME=VALUE", got=repr(text), do="Try OMP_NUM_THREADS=1."
        )
    return name, value
