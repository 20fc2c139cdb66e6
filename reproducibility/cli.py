"""Parses the command line; the work, and what is shown of it, are elsewhere.

The rule: results go to stdout; progress and every reason for a code other than 0 go to stderr.
Chapter: docs/guide/using_the_project.md

Nothing heavy is imported before the command line is read: `--help` and a mistyped flag answer in
a fraction of the time that JAX takes to load.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import signal
import sys
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Union

from reproducibility.errors import (
    ConfigError,
    ExitCode,
    ReplayError,
    ReproducibilityError,
    SetAsideWarning,
)
from reproducibility.reference.config import TrainConfig
from reproducibility.terminal import (
    keep_stdout,
    patient_progress,
    print_comparison,
    print_faults,
    print_findings,
    print_json,
    print_origin,
    print_rows,
    progress_bar,
    progress_lines,
    say_on_stderr,
    shown_setting,
)

if TYPE_CHECKING:
    from reproducibility.reference.check import Finding

ENDING = (signal.SIGINT, signal.SIGTERM)
COMMANDS = ("train", "launch", "compare", "trace", "digest", "check", "doctor")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainCommand(TrainConfig):
    """Train a network, or go on training it: the same command again resumes.

    It can be killed at any moment and goes on from its newest intact checkpoint; what is damaged
    is set aside. The run directory refuses other settings than those it was made with (seed, data
    set, batch size, shards, hidden, dropout, learning rate). Steps may grow; the rest is free.

    Example: reproducibility train --run-dir runs/first --steps 400
    """

    run_dir: Path
    """Directory of the run; it is made if it is not there."""
    seed: int = 0
    """The integer from which every random number of the run is derived, 0 to 2**32-1."""
    out: Path | None = None
    """Also write a copy of result.json here when the run is finished."""
    processes: int | None = None
    """Processes of the run; SLURM, Open MPI and Kubernetes tell by themselves."""
    process_index: int | None = None
    """Which of them this one is, from 0."""
    coordinator: str | None = None
    """host:port of process 0, a port that is free there."""
    deadline: int = 60
    """Seconds to wait for the other processes to start."""

    @property
    def config(self) -> TrainConfig:
        """What `train` takes of these settings."""
        names = [field.name for field in dataclasses.fields(TrainConfig)]
        return TrainConfig(**{name: getattr(self, name) for name in names})

    def __call__(self) -> int:
        """Train, print the result."""
        if self.out:
            _check_out(self.out, self.run_dir)
        with contextlib.ExitStack() as stack:
            progress, stop = stack.enter_context(_progress(self.steps))
            from reproducibility.scale.launch import end_with_parent
            from reproducibility.scale.processes import initialize, this_process

            end_with_parent()
            count = initialize(
                processes=self.processes,
                process_index=self.process_index,
                coordinator=self.coordinator,
                devices=self.devices,
                deadline=self.deadline,
            )
            if count > 1:
                keep_stdout()
                progress, stop = _together(progress, stop)
            from reproducibility.reference.loop import train
            from reproducibility.reference.run import write_result

            done = train(self.config, run_dir=self.run_dir, progress=progress, stop=stop)
        step = int(done.state.step)
        if this_process()[0]:  # process 0 says it
            return ExitCode.INTERRUPTED if done.ended == "interrupted" else ExitCode.SAME
        if done.ended == "interrupted":
            say_on_stderr(f"Interrupted after {step} updates; the same command goes on from there.")
            return ExitCode.INTERRUPTED
        rows = [("steps", f"{step}"), ("digest", done.digest)]
        if done.result:
            rows.insert(0, ("run", done.result.run))
            rows.append(("params_digest", done.result.params_digest))
            loss = done.result.loss
            rows.append(("loss", "not finite" if loss is None else f"{loss:.6f}"))
            rows.append(("accuracy", f"{done.result.accuracy:.4f}"))
            rows.append(("seconds", f"{done.result.seconds:.1f}"))
        print_rows(rows)
        if done.result and self.out:
            write_result(self.out, done.result)
        elif done.ended == "stopped":
            rest = "" if self.out is None else f" {self.out} is written when the run is finished."
            say_on_stderr(f"Stopped after {step} of {self.steps} updates, as asked.{rest}")
        return ExitCode.SAME


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

    def __call__(self, command: Sequence[str] = ()) -> int:
        """Start them with what follows `--`, wait for them."""
        from reproducibility.scale.launch import launch

        if self.processes < 1:
            raise ConfigError(
                "use", "--processes", expected="1 or more", got=self.processes, do="Try 2."
            )
        request = _parse_arguments(list(command)) if command else None
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareCommand:
    """Say whether two runs are the same, bit for bit; if not, where they part and how far.

    The ledgers tell the first step, stage and leaf that differ. That step is then computed again
    for both runs, each in a process with its recorded environment, to tell how many elements
    differ and by how many units in the last place (ULP).

    Exit code: 0 the same, 1 different, 2 not two runs, 3 cannot be told.

    Example: reproducibility compare runs/first runs/second --html report.html
    """

    a: Path
    """A run directory, a ledger.jsonl, or a result file that `train --out` wrote."""
    b: Path
    """Another one."""
    html: Path | None = None
    """Also write a page with pictures here, in one file."""
    no_replay: bool = False
    """Compute nothing again: only compare what is on disk."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self) -> int:
        """Compare, print the verdict and the explanations."""
        from reproducibility.explain.compare import compare

        if self.html:
            _check_file("--html", self.html, outside=(self.a, self.b))
        found = compare(self.a, self.b, replay=not self.no_replay, progress=patient_progress())
        if self.html:
            from reproducibility.explain.report import write_report

            write_report(self.html, found, names=(str(self.a), str(self.b)))
        if self.json:
            print_json(found.to_json())
        else:
            print_comparison(found)
        if found.exit_code:
            say_on_stderr(found.reason)
        return found.exit_code


@dataclasses.dataclass(frozen=True, kw_only=True)
class TraceCommand:
    """Find the operation, with its source line, that first made two runs differ.

    Computes one step of both runs operation by operation, each in a process with its recorded
    environment. The first operation whose inputs agree and whose outputs differ is the cause.
    It finds the place and verifies nothing: compiled, the operations are fused.

    Exit code: 0 every operation agrees, 1 one differs, 2 not runs, 3 cannot be told.

    Example: reproducibility trace runs/first --step 17 --against runs/second
    """

    run: Path
    """A run directory."""
    step: int | None = None
    """The step, by completed updates after it; 0 is the initialisation. By default the first in
    which the ledgers of the two runs differ."""
    against: Path | None = None
    """Another run directory; without it, the operations of the one are listed."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self) -> int:
        """Trace, print the operation."""
        from reproducibility.explain.origin import trace_steps

        runs = [self.run] if self.against is None else [self.run, self.against]
        found = trace_steps(runs, self._step(), progress=patient_progress())
        if self.json:
            print_json(found.to_json())
        elif found.parting is None:
            rows = [
                (str(n), op.name, " ".join(op.shapes), op.path or "-", op.where)
                for n, op in enumerate(found.traces[0].operations)
            ]
            print_rows(rows, ("number", "operation", "result", "inside", "source"))
        else:
            print_origin(found)
        if found.exit_code:
            say_on_stderr(found.reason)
        return found.exit_code

    def _step(self) -> int:
        """Return the step that was named, or the first that differs."""
        if self.step is None and self.against:
            from reproducibility.explain.compare import compare

            found = compare(self.run, self.against)
            if found.stage and found.since + 1 != found.step:  # not every step has a line
                found = compare(self.run, self.against, replay=True, progress=patient_progress())
            if found.stage and found.step is not None:
                return found.step
            raise ReplayError(
                "find",
                "the step where the runs part",
                path=self.run,
                expected="ledgers that differ",
                got=found.reason.rstrip("."),
                do="Name a step: --step N.",
            )
        if self.step is None or self.step < 0:
            raise ConfigError(
                "use", "step", expected="0 or more", got=self.step, do="Name one: --step N."
            )
        return self.step


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigestCommand:
    """Compute the digest of a run's state again, from a checkpoint.

    Example: reproducibility digest runs/first --leaves
    """

    run: Path
    """A run directory."""
    step: int | None = None
    """Which checkpoint; by default the newest."""
    leaves: bool = False
    """Print a digest and a name for each array instead."""

    def __call__(self) -> int:
        """Restore, hash, print."""
        from reproducibility.reference.resume import restore_state
        from reproducibility.reference.run import Run
        from reproducibility.same.hashing import leaf_digests, tree_digest

        if self.step is not None and self.step < 0:
            raise ConfigError(
                "use", "step", expected="0 or more", got=self.step, do="Name a checkpoint."
            )
        state = restore_state(Run.read(self.run), step=self.step)
        if self.leaves:
            for name, digest in leaf_digests(state).items():
                print(f"{digest}  {name}")
        else:
            print(tree_digest(state))
        return ExitCode.SAME


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckCommand:
    """Say whether every byte of a run is as it was written; train nothing, change nothing.

    Exit code: 0 intact, 1 damaged, 2 not a run, 4 a process is at work on it.

    Example: reproducibility check runs/first
    """

    run: Path
    """A run directory."""
    repair: bool = False
    """Remove what killed processes left over, and set damaged files aside; delete nothing else."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self) -> int:
        """Check, print what is intact and what is not."""
        from reproducibility.reference.check import check

        found = check(self.run, repair=self.repair, progress=patient_progress())
        if self.json:
            print_json(found.to_json())
        else:
            steps = ", ".join(str(step) for step in found.checkpoints)
            intact = f"{steps} (every byte as sealed)" if steps else "none"
            print_rows(
                [
                    ("run", found.run or "cannot be told"),
                    ("verdict", "damaged" if found.damaged else "intact"),
                    ("checkpoints", intact),
                    ("files", f"{found.files} of {found.bytes:,} bytes, as they were written"),
                ]
            )
            print_findings("repaired", found.repaired)
            print_findings("found", found.findings)
        if found.damaged:
            first, rest = found.damaged[0], len(found.damaged) - 1
            more = f"; and {rest} more" if rest else ""
            say_on_stderr(f"Damaged: {first.path}: {first.detail}{more}. {_advice(self, first)}")
        return found.exit_code


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorCommand:
    """Say whether this machine reproduces itself: train, repeat, interrupt, resume, compare.

    It also runs small programs that computed wrong values on some version or platform, after
    published issues, and says what this machine makes of them.

    Exit code: 0 it does, 1 it does not or computes wrong values, 2 refused, 3 cannot be told.

    Example: reproducibility doctor --accept xla-49176
    """

    accept: tuple[str, ...] = ()
    """Published faults, by name, that are reported and do not count."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self) -> int:
        """Diagnose, print the environment and the answers."""
        from reproducibility.reference.doctor import diagnose

        found = diagnose(accept=self.accept, progress=lambda text: say_on_stderr(f"{text} …"))
        if self.json:
            print_json(found.to_json())
        else:
            print_rows([(name, shown_setting(value)) for name, value in found.environment.items()])
            print()
            print_rows([(check.question, check.answer) for check in found.checks])
            print()
            print_faults(found)
        for reason in found.reasons:
            say_on_stderr(reason)
        return found.exit_code


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with the code of the contract.

    **Same bits:** as the commands say.

    Args:
        arguments: by default those of this process.

    Raises:
        SystemExit: always.
    """
    _quiet_orbax()
    _say_warnings()
    arguments = sys.argv[1:] if arguments is None else arguments
    command: tuple[list[str], ...] = ()
    if arguments[:1] == ["launch"]:
        places = (i for i, word in enumerate(arguments) if word in ("--", "train"))
        cut = next(places, len(arguments))
        rest = arguments[cut:]
        arguments, command = arguments[:cut], (rest[1:] if rest[:1] == ["--"] else rest,)
    try:
        code = _parse_arguments(arguments)(*command)
        sys.stdout.flush()
    except ReproducibilityError as error:
        code = _fail(str(error), error, error.exit_code)
    except KeyboardInterrupt as error:
        reason = "Interrupted; what was saved before is intact. The same command goes on."
        code = _fail(reason, error, ExitCode.INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        sys.stderr.close()
        code = ExitCode.SAME
    except OSError as error:
        reason = f"expected a working file system, got {error}. Earlier files are kept."
        code = _fail(f"Cannot go on: {reason}", error, ExitCode.FAILED)
    sys.exit(code)


def _fail(reason: str, error: BaseException, code: int) -> int:
    """Say why this process ends; where it is one of several, all end."""
    processes = sys.modules.get("reproducibility.scale.processes")
    if processes:
        processes.await_the_cause()
    say_on_stderr(reason)
    if processes:
        processes.end_together(error, code)
    return code


def _parse_arguments(arguments: list[str]) -> Any:
    """Read the command line into one of the commands; refuse it in one sentence."""
    import tyro

    subcommand, positional = tyro.conf.subcommand, tyro.conf.PositionalRequiredArgs
    commands = (
        Annotated[TrainCommand, subcommand("train", prefix_name=False)],
        Annotated[LaunchCommand, subcommand("launch", prefix_name=False)],
        Annotated[CompareCommand, subcommand("compare", prefix_name=False), positional],
        Annotated[TraceCommand, subcommand("trace", prefix_name=False), positional],
        Annotated[DigestCommand, subcommand("digest", prefix_name=False), positional],
        Annotated[CheckCommand, subcommand("check", prefix_name=False), positional],
        Annotated[DoctorCommand, subcommand("doctor", prefix_name=False)],
    )
    complaint = io.StringIO()
    cli: Any = tyro.cli  # typed for one class; here it gets a union made at run time
    try:
        with contextlib.redirect_stderr(complaint):
            return cli(
                Union[commands],  # noqa: UP007
                prog="reproducibility",
                description="Make a JAX training run repeat bit for bit, and prove that it does.",
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName),
                registry=_registry(),
            )
    except SystemExit as end:
        if end.code:
            say_on_stderr(_one_sentence(complaint.getvalue(), arguments))
        raise


def _registry() -> Any:
    """Teach tyro to say what number it expects, rather than what Python's parser says."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry = ConstructorRegistry()
    words = {int: "a whole number", float: "a number"}

    @registry.primitive_rule
    def number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        optional = type(None) in typing.get_args(info.type)  # as in `int | None`
        kind: Any = typing.get_args(info.type)[0] if optional else info.type
        if kind not in words:
            return None

        def read(texts: list[str]) -> Any:
            try:
                return kind(texts[0])
            except ValueError:
                raise ValueError(f"expected {words[kind]}, got {texts[0]!r}") from None

        def fits(value: Any) -> bool:
            return type(value) is kind or (optional and value is None)

        return PrimitiveConstructorSpec(
            1, kind.__name__.upper(), read, fits, lambda value: [str(value)]
        )

    @registry.primitive_rule
    def names(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        def read(texts: list[str]) -> tuple[str, ...]:
            if not texts:
                raise ValueError("expected a name or more, got none")
            return tuple(texts)

        spec = PrimitiveConstructorSpec("*", "NAME [NAME ...]", read, lambda value: True, list)
        return spec if info.type == tuple[str, ...] else None

    return registry


def _one_sentence(complaint: str, arguments: list[str]) -> str:
    """Take the words out of tyro's box: its first paragraph says what is wrong."""
    lines = [line.strip("╭╮╰╯│─ ") for line in complaint.splitlines()[1:]]
    paragraph = lines[: lines.index("")] if "" in lines else lines
    known = arguments and arguments[0] in COMMANDS
    command = f"{arguments[0]} " if known else ""
    problem = " ".join(line for line in paragraph if line).rstrip(".")
    return f"Cannot read the command line: {problem}. See reproducibility {command}--help."


def _quiet_orbax() -> None:
    """Let one sentence of ours say what went wrong, not Orbax's tracebacks before it.

    It logs a failure before it raises it, once for each array; and what was still being read or
    written finds the event loop closed, which Python reports for each array.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    report = sys.unraisablehook

    def hook(found: sys.UnraisableHookArgs) -> None:
        if str(found.exc_value) != "Event loop is closed":
            report(found)

    sys.unraisablehook = hook


def _say_warnings() -> None:
    """Print a warning of ours as the sentence it is."""
    show = warnings.showwarning

    def say(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, SetAsideWarning):
            say_on_stderr(str(message))
        else:
            show(message, category, *rest, **more)

    warnings.showwarning = say
    warnings.simplefilter("always", SetAsideWarning)


def _check_out(out: Path, run_dir: Path) -> None:
    """Refuse, before training, a place where the result could not be written after it."""
    if out.resolve().is_relative_to(run_dir.resolve()):
        raise ConfigError(
            "use",
            "--out",
            path=out,
            expected="a file outside of the run directory",
            got="one in it",
            do="Choose another file; the run keeps its own result.json.",
        )
    _check_file("--out", out)


def _check_file(flag: str, path: Path, outside: Sequence[Path] = ()) -> None:
    if any(path.resolve().is_relative_to(place.resolve()) for place in outside):
        raise ConfigError(
            "use",
            flag,
            path=path,
            expected="a file outside of what is compared",
            got="one in it",
            do="Choose another file; nothing was written.",
        )
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(
            "use",
            flag,
            path=path,
            expected="a file in a directory that can be written",
            got="a directory" if path.is_dir() else "no such directory",
            do="Choose another file.",
        )


@contextlib.contextmanager
def _progress(steps: int) -> Iterator[tuple[Callable[[int, Any], None], Callable[[], bool]]]:
    """Show progress on stderr, and turn the first Ctrl-C or SIGTERM into a request to stop.

    SIGTERM is what a scheduler sends before it takes the machine away.

    Yields what `train` calls after each update: one function to tell it, one to ask.
    """
    asked: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)  # and no more: a handler may have cut into the middle of a print

    def stop() -> bool:
        if asked:
            say_on_stderr(
                "Interrupted: saving a checkpoint. A second Ctrl-C or SIGTERM ends at once."
            )
        return bool(asked)

    previous = {number: signal.signal(number, interrupt) for number in ENDING}
    try:
        with (
            progress_bar(steps)
            if sys.stderr.isatty()
            else contextlib.nullcontext(progress_lines(steps)) as tell
        ):
            yield tell, stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _together(
    tell: Callable[[int, Any], None], asked: Callable[[], bool]
) -> tuple[Callable[[int, Any], None], Callable[[], bool]]:
    """Make of what one process tells and asks what several do: process 0 tells, all stop at once.

    JAX hears SIGTERM, in any of them, and finds a step after which all can stop.
    """
    from reproducibility.scale.processes import stop_together, this_process

    reached, passed_on, first = 0, False, this_process()[0] == 0

    def told(step: int, loss: Any) -> None:
        nonlocal reached
        reached = step
        if first:
            tell(step, loss)

    def stop() -> bool:
        nonlocal passed_on
        if not passed_on and asked():  # by Ctrl-C, or before the processes had met
            passed_on = True
            os.kill(os.getpid(), signal.SIGTERM)
        ending = stop_together(reached)
        if ending and first and not passed_on:
            say_on_stderr("Interrupted: saving a checkpoint.")
        return ending

    return told, stop


def _advice(request: CheckCommand, finding: Finding) -> str:
    if finding.path == "run.json":
        return "The train command of this run, with all its settings, writes it anew."
    if request.repair:
        return "Take an intact copy of it."
    return f"reproducibility check {request.run} --repair sets it aside, and train goes on."
