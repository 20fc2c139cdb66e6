"""Parses and prints; the work is elsewhere.

The rule: results go to stdout; progress and every reason for a code other than 0 go to stderr.
Chapter: docs/guide/using_the_project.md

Nothing heavy is imported before the command line is read: `--help` and a mistyped flag answer in
a fraction of the time that JAX takes to load.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import math
import os
import signal
import sys
import time
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

if TYPE_CHECKING:
    from reproducibility.explain.compare import Comparison
    from reproducibility.explain.origin import Origin
    from reproducibility.reference.check import Finding
    from reproducibility.reference.doctor import Diagnosis

ENDING = (signal.SIGINT, signal.SIGTERM)
COMMANDS = ("train", "launch", "compare", "trace", "digest", "check", "doctor")
SHOWN = 12  # leaves that are printed; --json has all


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(TrainConfig):
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
            from reproducibility.scale.processes import here, initialize

            end_with_parent()
            count = initialize(
                processes=self.processes, process_index=self.process_index,
                coordinator=self.coordinator, devices=self.devices, deadline=self.deadline,
            )  # fmt: skip
            if count > 1:
                _keep_stdout()
                progress, stop = _together(progress, stop)
            from reproducibility.reference.loop import train
            from reproducibility.reference.run import write_result

            done = train(self.config, run_dir=self.run_dir, progress=progress, stop=stop)
        step = int(done.state.step)
        if here()[0]:  # process 0 says it
            return ExitCode.INTERRUPTED if done.ended == "interrupted" else ExitCode.SAME
        if done.ended == "interrupted":
            _say(f"Interrupted after {step} updates; the same command goes on from there.")
            return ExitCode.INTERRUPTED
        rows = [("steps", f"{step}"), ("digest", done.digest)]
        if done.result:
            rows.insert(0, ("run", done.result.run))
            rows.append(("params_digest", done.result.params_digest))
            loss = done.result.loss
            rows.append(("loss", "not finite" if loss is None else f"{loss:.6f}"))
            rows.append(("accuracy", f"{done.result.accuracy:.4f}"))
            rows.append(("seconds", f"{done.result.seconds:.1f}"))
        _print_rows(rows)
        if done.result and self.out:
            write_result(self.out, done.result)
        elif done.ended == "stopped":
            rest = "" if self.out is None else f" {self.out} is written when the run is finished."
            _say(f"Stopped after {step} of {self.steps} updates, as asked.{rest}")
        return ExitCode.SAME


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
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
        request = _parse(list(command)) if command else None
        if not isinstance(request, Train):
            raise ConfigError(
                "launch", " ".join(command[:1]) or "nothing", expected="a train command",
                got="another" if command else "none after --",
                do="For example: reproducibility launch --processes 2 -- train --run-dir runs/a.",
            )  # fmt: skip
        if (request.processes, request.process_index, request.coordinator) != (None, None, None):
            raise ConfigError(
                "launch", "processes", expected="a train command that does not say which it is",
                got="one with --processes, --process-index or --coordinator",
                do="Leave those out: launch adds them.",
            )  # fmt: skip
        return launch(command, self.processes, devices=request.devices, say=_say)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
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
        found = compare(self.a, self.b, replay=not self.no_replay, progress=_patiently())
        if self.html:
            from reproducibility.explain.report import write_report

            write_report(self.html, found, names=(str(self.a), str(self.b)))
        if self.json:
            _print_json(found.to_json())
        else:
            _print_comparison(found)
        if found.exit_code:
            _say(found.reason)
        return found.exit_code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trace:
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
        found = trace_steps(runs, self._step(), progress=_patiently())
        if self.json:
            _print_json(found.to_json())
        elif found.parting is None:
            rows = [
                (str(n), op.name, " ".join(op.shapes), op.path or "-", op.where)
                for n, op in enumerate(found.traces[0].operations)
            ]
            _print_rows(rows, ("number", "operation", "result", "inside", "source"))
        else:
            _print_origin(found)
        if found.exit_code:
            _say(found.reason)
        return found.exit_code

    def _step(self) -> int:
        """Return the step that was named, or the first that differs."""
        if self.step is None and self.against:
            from reproducibility.explain.compare import compare

            found = compare(self.run, self.against)
            if found.stage and found.since + 1 != found.step:  # not every step has a line
                found = compare(self.run, self.against, replay=True, progress=_patiently())
            if found.stage and found.step is not None:
                return found.step
            raise ReplayError(
                "find", "the step where the runs part", path=self.run,
                expected="ledgers that differ", got=found.reason.rstrip("."),
                do="Name a step: --step N.",
            )  # fmt: skip
        if self.step is None or self.step < 0:
            raise ConfigError(
                "use", "step", expected="0 or more", got=self.step, do="Name one: --step N."
            )
        return self.step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Digest:
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
class Check:
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

        found = check(self.run, repair=self.repair, progress=_patiently())
        if self.json:
            _print_json(found.to_json())
        else:
            steps = ", ".join(str(step) for step in found.checkpoints)
            intact = f"{steps} (every byte as sealed)" if steps else "none"
            _print_rows(
                [
                    ("run", found.run or "cannot be told"),
                    ("verdict", "damaged" if found.damaged else "intact"),
                    ("checkpoints", intact),
                    ("files", f"{found.files} of {found.bytes:,} bytes, as they were written"),
                ]
            )
            _print_findings("repaired", found.repaired)
            _print_findings("found", found.findings)
        if found.damaged:
            first, rest = found.damaged[0], len(found.damaged) - 1
            more = f"; and {rest} more" if rest else ""
            _say(f"Damaged: {first.path}: {first.detail}{more}. {_advice(self, first)}")
        return found.exit_code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doctor:
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

        found = diagnose(accept=self.accept, progress=lambda text: _say(f"{text} …"))
        if self.json:
            _print_json(found.to_json())
        else:
            _print_rows([(name, _text(value)) for name, value in found.environment.items()])
            print()
            _print_rows([(check.question, check.answer) for check in found.checks])
            print()
            _print_faults(found)
        for reason in found.reasons:
            _say(reason)
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
        code = _parse(arguments)(*command)
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
        processes.give_way()
    _say(reason)
    if processes:
        processes.leave(error, code)
    return code


def _parse(arguments: list[str]) -> Any:
    """Read the command line into one of the commands; refuse it in one sentence."""
    import tyro

    subcommand, positional = tyro.conf.subcommand, tyro.conf.PositionalRequiredArgs
    commands = (
        Annotated[Train, subcommand("train", prefix_name=False)],
        Annotated[Launch, subcommand("launch", prefix_name=False)],
        Annotated[Compare, subcommand("compare", prefix_name=False), positional],
        Annotated[Trace, subcommand("trace", prefix_name=False), positional],
        Annotated[Digest, subcommand("digest", prefix_name=False), positional],
        Annotated[Check, subcommand("check", prefix_name=False), positional],
        Annotated[Doctor, subcommand("doctor", prefix_name=False)],
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
            _say(_one_sentence(complaint.getvalue(), arguments))
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
            _say(str(message))
        else:
            show(message, category, *rest, **more)

    warnings.showwarning = say
    warnings.simplefilter("always", SetAsideWarning)


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens: go on with the work
        print(text, file=sys.stderr, flush=True)


def _check_out(out: Path, run_dir: Path) -> None:
    """Refuse, before training, a place where the result could not be written after it."""
    if out.resolve().is_relative_to(run_dir.resolve()):
        raise ConfigError(
            "use", "--out", path=out, expected="a file outside of the run directory",
            got="one in it", do="Choose another file; the run keeps its own result.json.",
        )  # fmt: skip
    _check_file("--out", out)


def _check_file(flag: str, path: Path, outside: Sequence[Path] = ()) -> None:
    if any(path.resolve().is_relative_to(place.resolve()) for place in outside):
        raise ConfigError(
            "use", flag, path=path, expected="a file outside of what is compared", got="one in it",
            do="Choose another file; nothing was written.",
        )  # fmt: skip
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(
            "use", flag, path=path, expected="a file in a directory that can be written",
            got="a directory" if path.is_dir() else "no such directory", do="Choose another file.",
        )  # fmt: skip


def _patiently() -> Callable[[str], None]:
    """Return a function that says what is being done, once that takes long."""
    began = time.monotonic()

    def progress(text: str) -> None:
        if time.monotonic() - began > 2:  # nobody waits for what is done by then
            _say(f"{text} …")

    return progress


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
            _say("Interrupted: saving a checkpoint. A second Ctrl-C or SIGTERM ends at once.")
        return bool(asked)

    previous = {number: signal.signal(number, interrupt) for number in ENDING}
    try:
        with _bar(steps) if sys.stderr.isatty() else contextlib.nullcontext(_lines(steps)) as tell:
            yield tell, stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _every(seconds: float) -> Callable[[], bool]:
    """Return a function that says True at most once in so many seconds.

    Reading a loss waits for the device: do it for people, not for every step.
    """
    last = -math.inf

    def due() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < seconds:
            return False
        last = now
        return True

    return due


def _together(
    tell: Callable[[int, Any], None], asked: Callable[[], bool]
) -> tuple[Callable[[int, Any], None], Callable[[], bool]]:
    """Make of what one process tells and asks what several do: process 0 tells, all stop at once.

    JAX hears SIGTERM, in any of them, and finds a step after which all can stop.
    """
    from reproducibility.scale.processes import here, stop_together

    reached, passed_on, first = 0, False, here()[0] == 0

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
            _say("Interrupted: saving a checkpoint.")
        return ending

    return told, stop


def _keep_stdout() -> None:
    """Let only this command print to stdout: Gloo, which connects processes on CPU, chats there."""
    ours = os.dup(1)
    sys.stdout.flush()
    sys.stdout = os.fdopen(ours, "w", encoding="utf-8")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)


def _lines(steps: int) -> Callable[[int, Any], None]:
    """Progress where stderr is no terminal: a line every few seconds, and one at the end."""
    due = _every(5.0)

    def tell(step: int, loss: Any) -> None:
        if due() or step == steps:
            _say(f"step {step} of {steps}, loss {float(loss):.4f}")

    return tell


@contextlib.contextmanager
def _bar(steps: int) -> Iterator[Callable[[int, Any], None]]:
    """Progress in a terminal."""
    from rich import progress as rich_progress
    from rich.console import Console

    columns = [
        rich_progress.TextColumn("step"),
        rich_progress.MofNCompleteColumn(),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("loss {task.fields[loss]}"),
        rich_progress.TimeRemainingColumn(),
    ]
    due = _every(0.2)
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("train", total=steps, loss="…")

        def tell(step: int, loss: Any) -> None:
            if due() or step == steps:
                bar.update(task, completed=step, loss=f"{float(loss):.4f}")

        yield tell


def _print_rows(rows: Sequence[Sequence[str]], heads: Sequence[str] = ()) -> None:
    """Print a table: in colour in a terminal, as aligned plain lines elsewhere, never cut off."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*heads, box=None, show_header=bool(heads), pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(text.replace("[", r"\[") for text in row))
    # A terminal wraps by itself; what goes to a file or a pipe has neither breaks nor padding.
    console = Console(width=None if sys.stdout.isatty() else 1000)
    with console.capture() as text:
        console.print(table)
    print("\n".join(line.rstrip() for line in text.get().splitlines()))


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, sort_keys=True))


def _print_comparison(found: Comparison) -> None:
    _print_rows(
        [("verdict", found.verdict), ("reason", found.reason)]
        + [(side, digest) for side, digest in zip("ab", found.digests, strict=True) if digest]
        + [("computed again", text) for text in _recomputed(found)]
        + [("note", note) for note in found.notes]
    )
    if found.leaves:
        rows = [(leaf, str(found.distances.get(leaf, ""))) for leaf in found.leaves[:SHOWN]]
        more = [(f"and {len(found.leaves) - SHOWN} more", "")] if found.leaves[SHOWN:] else []
        print()
        _print_rows(rows + more, (found.stage or "leaf", "distance"))
    if found.settings:
        settings = [(name, _text(a), _text(b)) for name, (a, b) in found.settings.items()]
        print()
        _print_rows(settings, ("setting", "a", "b"))
    if found.environment:
        lines = [(d.name, _text(d.a), _text(d.b), d.effect, d.why) for d in found.environment]
        print()
        _print_rows(lines, ("environment", "a", "b", "effect", "why"))


def _print_faults(found: Diagnosis) -> None:
    here = [fault for fault in found.faults if fault.verdict != "does not apply"]
    accepted = dict.fromkeys(found.accepted, ", accepted")
    rows = [(f.name, f.text + accepted.get(f.name, ""), f.fault, f.source) for f in here]
    _print_rows(rows, ("published fault", "here", "what goes wrong", "issue"))
    if rest := len(found.faults) - len(here):
        print(f"{rest} more that do not apply to this platform and these settings")
    for fault in here:
        if fault.verdict == "wrong":
            lines = [("wrong", fault.detail), ("so", fault.consequence), ("cure", fault.cure)]
            print()
            _print_rows([(fault.name, ""), *lines])


def _recomputed(found: Comparison) -> list[str]:
    sides = zip("ab", found.recomputed or (), strict=False)
    return [f"{side}: {told.answer}. {told.reason}" for side, told in sides]


def _print_origin(found: Origin) -> None:
    parting = found.parting
    rows = [("verdict", found.verdict), ("reason", found.reason)]
    for side, operation in (("a", parting and parting.a), ("b", parting and parting.b)):
        if operation:
            rows += [
                (f"{side} operation", str(operation)),
                (f"{side} inputs", " ".join(operation.inputs)),
                (f"{side} outputs", " ".join(operation.outputs)),
            ]
    if parting and parting.differing:
        count = f"{parting.differing} of {len(found.traces[0].operations)} operations"
        rows.append(("in all", f"{count} have other outputs; the rest of them inherit it"))
    _print_rows(rows + [("note", note) for note in found.notes])


def _print_findings(title: str, findings: Sequence[Finding]) -> None:
    if findings:
        print()
        rows = [(f.kind, f.path, f.detail) for f in findings]
        _print_rows(rows, (title, "path", "detail"))


def _advice(request: Check, finding: Finding) -> str:
    if finding.path == "run.json":
        return "The train command of this run, with all its settings, writes it anew."
    if request.repair:
        return "Take an intact copy of it."
    return f"reproducibility check {request.run} --repair sets it aside, and train goes on."


def _text(value: Any) -> str:
    return "not set" if value is None else str(value)
