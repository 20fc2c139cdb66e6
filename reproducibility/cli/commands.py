"""The commands, and how each of them ends.

The rule: every end is an exit code of the contract and at most one sentence, never a traceback.
Chapter: docs/reference/cli.md

A command is a dataclass in the file of its family, and a line of `COMMANDS`. Its fields are its
flags, its docstring is its help, and calling it does the work. What it prints is in `terminal`.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import NoReturn

from reproducibility.cli.audits import AuditCommand, CommitCommand
from reproducibility.cli.exercises import ExerciseCommand
from reproducibility.cli.machines import DoctorCommand
from reproducibility.cli.parse import Subcommand, parse_arguments, split_arguments
from reproducibility.cli.process_state import quiet_orbax, warnings_as_sentences
from reproducibility.cli.runs import CheckCommand, CompareCommand, DigestCommand, TraceCommand
from reproducibility.cli.scripts import (
    TWICE_PRINTS,
    InterruptCommand,
    RecordCommand,
    SweepCommand,
    TwiceCommand,
)
from reproducibility.cli.terminal import print_versions, say_on_stderr
from reproducibility.cli.training import TrainCommand
from reproducibility.errors import ConfigError, ExitCode, ReproducibilityError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchCommand:
    """Start several processes of one run on this machine, to try out what a cluster does.

    After `--` comes the train command, without the settings that say which process it is. The
    output of each is labelled. When one fails or is killed, all end; the same command goes on, and
    so does `train` with any other number of processes and devices.

    Example: reproducibility launch --processes 2 -- train --run-dir runs/first --devices 2
    """

    processes: int
    """How many processes."""

    def __call__(self, command: list[str]) -> int:
        """Start them with what follows `--`, wait for them."""
        from reproducibility.scale.launch import launch

        if self.processes < 1:
            raise ConfigError(
                "use", "--processes", expected="1 or more", got=self.processes, do="Try 2."
            )
        request = parse_arguments(command, COMMANDS) if command else None
        if not isinstance(request, TrainCommand):
            raise ConfigError(
                "launch",
                " ".join(command[:1]) or "nothing",
                expected="a train command",
                got="another" if command else "none after --",
                do="For example: reproducibility launch --processes 2 -- train --run-dir runs/a.",
            )
        if (request.processes, request.process_index, request.coordinator) != (None, None, None):
            raise ConfigError(
                "launch",
                "processes",
                expected="a train command that does not say which it is",
                got="one with --processes, --process-index or --coordinator",
                do="Leave those out: launch adds them.",
            )
        return launch(command, self.processes, devices=request.devices, say=say_on_stderr)


# In the order of `--help`.
COMMANDS = {
    "twice": Subcommand(TwiceCommand, runs_from=("--",), prints=TWICE_PRINTS),
    "interrupt": Subcommand(InterruptCommand, runs_from=("--",)),
    "sweep": Subcommand(SweepCommand, runs_from=("--",)),
    "record": Subcommand(RecordCommand, positional=True, runs_from=("--",)),
    "train": Subcommand(TrainCommand),
    "launch": Subcommand(LaunchCommand, runs_from=("--", "train")),
    "compare": Subcommand(CompareCommand, positional=True),
    "trace": Subcommand(TraceCommand, positional=True),
    "digest": Subcommand(DigestCommand, positional=True),
    "check": Subcommand(CheckCommand, positional=True),
    "audit": Subcommand(AuditCommand, positional=True),
    "commit": Subcommand(CommitCommand, positional=True),
    "doctor": Subcommand(DoctorCommand),
    "exercise": Subcommand(ExerciseCommand, positional=True),
}


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with the code of the contract.

    **Same bits:** as the commands say.

    Args:
        arguments: by default those of this process, which is ours then: Orbax logs nothing in it.

    Raises:
        SystemExit: always.
    """
    if arguments is None:
        quiet_orbax()
        arguments = sys.argv[1:]
    try:
        with warnings_as_sentences():
            code = _perform(arguments)
        sys.stdout.flush()
    except ReproducibilityError as error:
        code = _fail(str(error), error, error.exit_code)
    except KeyboardInterrupt as error:
        scripts = (
            "twice",
            "interrupt",
            "sweep",
            "record",
        )  # what runs there is not ours to go on with
        goes_on = "" if set(arguments[:1]) & set(scripts) else " The same command goes on."
        reason = f"Interrupted; what was saved before is intact.{goes_on}"
        code = _fail(reason, error, ExitCode.INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        sys.stderr.close()
        code = ExitCode.SAME
    except OSError as error:
        reason = f"expected a working file system, got {error}. Earlier files are kept."
        code = _fail(f"Cannot go on: {reason}", error, ExitCode.FAILED)
    sys.exit(code)


def _perform(arguments: list[str]) -> int:
    """Do what the command line asks for, and return its code."""
    if arguments[:1] == ["--version"]:
        print_versions()
        return ExitCode.SAME
    arguments, another = split_arguments(arguments, COMMANDS)
    command = parse_arguments(arguments, COMMANDS, another=any(another))
    code: int = command(*another)
    return code


def _fail(reason: str, error: BaseException, code: int) -> int:
    """Say why this process ends; where it is one of several, all end."""
    start = sys.modules.get("reproducibility.scale.start")  # importing it loads JAX
    if start:
        start.await_the_cause()
    say_on_stderr(reason)
    if start:
        start.end_together(error, code)
    return code
