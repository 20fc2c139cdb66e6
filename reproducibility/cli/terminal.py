"""What the commands show: progress, tables and reasons.

The rule: results go to stdout, progress and every reason to stderr; a closed pipe ends nothing.
Chapter: docs/guide/using_the_project.md
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from reproducibility.errors import on_one_line

if TYPE_CHECKING:
    from reproducibility.evidence.verdict import Audit
    from reproducibility.exercise.verdict import Judgement
    from reproducibility.explain.comparison import Comparison
    from reproducibility.explain.origin import Origin
    from reproducibility.reference.doctor import Diagnosis
    from reproducibility.reference.loop import TrainResult
    from reproducibility.script.diverging import Alignment
    from reproducibility.script.findings import Findings
    from reproducibility.script.resumption import Resumption
    from reproducibility.script.sides import AlignedRecords
    from reproducibility.script.swept import Sweep
    from reproducibility.script.twice import Twice
    from reproducibility.storage.whole import Report


LEAVES_SHOWN = 12  # leaves that are printed; --json has all


def say_on_stderr(text: str) -> None:
    """Say something that is no result."""
    with contextlib.suppress(OSError):  # nobody listens, or its disk is full: go on with the work
        print(*map(on_one_line, text.split("\n")), sep="\n", file=sys.stderr, flush=True)


def patient_progress() -> Callable[[str], None]:
    """Return a function that says what is being done, once that takes long."""
    began = time.monotonic()

    def progress(text: str) -> None:
        if time.monotonic() - began > 2:  # nobody waits for what is done by then
            say_on_stderr(f"{text} …")

    return progress


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


@contextlib.contextmanager
def training_progress(steps: int) -> Iterator[Callable[[int, Any], None]]:
    """Show how far a training is: a bar in a terminal, elsewhere a line every few seconds.

    Yields a function to call with each step and its loss.
    """
    if sys.stderr.isatty():
        with _progress_bar(steps) as show:
            yield show
    else:
        yield _progress_lines(steps)


def _progress_lines(steps: int) -> Callable[[int, Any], None]:
    due = _every(5.0)

    def show(step: int, loss: Any) -> None:
        if due() or step == steps:
            say_on_stderr(f"step {step} of {steps}, loss {float(loss):.4f}")

    return show


@contextlib.contextmanager
def _progress_bar(steps: int) -> Iterator[Callable[[int, Any], None]]:
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

        def show(step: int, loss: Any) -> None:
            if due() or step == steps:
                bar.update(task, completed=step, loss=f"{float(loss):.4f}")

        yield show


def _print_rows(rows: Sequence[Sequence[str]], heads: Sequence[str] = ()) -> None:
    """Print a table: in colour in a terminal, as aligned plain lines elsewhere, never cut off."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*heads, box=None, show_header=bool(heads), pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(on_one_line(text).replace("[", r"\[") for text in row))
    # A terminal wraps by itself; what goes to a file or a pipe has neither breaks nor padding.
    console = Console(width=None if sys.stdout.isatty() else 1000)
    with console.capture() as text:
        console.print(table)
    print("\n".join(line.rstrip() for line in text.get().splitlines()))


class Outcome(Protocol):
    """What a command found: its exit code, and itself as JSON values."""

    @property
    def exit_code(self) -> int:
        """The code of the contract."""

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""


def print_outcome[Found: Outcome](
    found: Found, show: Callable[[Found], None], reasons: Sequence[str], *, as_json: bool
) -> int:
    """Print what was found, for people or for programs, then the reasons for its exit code on
    stderr; return that code."""
    if as_json:
        print(json.dumps(found.to_json(), indent=1, sort_keys=True))
    else:
        show(found)
    for reason in reasons:
        say_on_stderr(reason)
    return found.exit_code


def print_script_report(found: Twice | Alignment) -> None:
    """Print what was found about two runs of a script."""
    from reproducibility.script.report import report_of

    print("\n".join(filter(None, (found.verdict, report_of(found)))))


def print_aligned(found: AlignedRecords) -> None:
    """Print what was found about two records of different commands."""
    from reproducibility.script.aligned_report import report_of_aligned

    print("\n".join(filter(None, (found.verdict, report_of_aligned(found)))))


def print_findings(found: Findings) -> None:
    """Print what a record says of itself."""
    print("\n".join([found.intact, *found.lines()]))


def print_resumption(found: Resumption) -> None:
    """Print what was found about a resumed run."""
    from reproducibility.script.lost import report_of_resumption

    print("\n".join(filter(None, (found.verdict, report_of_resumption(found)))))


def print_sweep(found: Sweep) -> None:
    """Print what was found about the hidden inputs of a script."""
    from reproducibility.script.swept import report_of_sweep

    print("\n".join((found.verdict, report_of_sweep(found))))


def print_versions() -> None:
    """Print the versions that a report needs, without importing JAX."""
    import platform
    from importlib.metadata import version

    from reproducibility import __version__

    others = f"jax {version('jax')}, jaxlib {version('jaxlib')}"
    print(f"reproducibility {__version__} ({others}, Python {platform.python_version()})")


def print_training(done: TrainResult, step: int) -> None:
    """Print what `train` came to, finished or stopped after a step."""
    rows = [("steps", f"{step}"), ("digest", done.digest)]
    if result := done.result:
        rows.insert(0, ("run", result.run))
        rows.append(("params_digest", result.params_digest))
        rows.append(("loss", "not finite" if result.loss is None else f"{result.loss:.6f}"))
        rows.append(("accuracy", f"{result.accuracy:.4f}"))
        rows.append(("seconds", f"{result.seconds:.1f}"))
    _print_rows(rows)


def print_comparison(found: Comparison) -> None:
    """Print what `compare` found."""
    recomputed = zip("ab", found.recomputed or (), strict=False)
    _print_rows(
        [("verdict", found.verdict), ("reason", found.reason)]
        + [(side, digest) for side, digest in zip("ab", found.digests, strict=True) if digest]
        + [("computed again", f"{side}: {each.answer}. {each.reason}") for side, each in recomputed]
        + [("note", note) for note in found.notes]
    )
    leaves = [(leaf, _how_far(found, leaf)) for leaf in found.leaves[:LEAVES_SHOWN]]
    if rest := len(found.leaves) - len(leaves):
        leaves.append((f"and {rest} more", ""))
    _print_below(leaves, (found.stage or "leaf", "distance"))
    settings = found.settings.items()
    rows = [(name, _shown_setting(a), _shown_setting(b)) for name, (a, b) in settings]
    _print_below(rows, ("setting", "a", "b"))
    lines = [
        (d.name, _shown_setting(d.a), _shown_setting(d.b), d.effect, d.why)
        for d in found.environment
    ]
    _print_below(lines, ("environment", "a", "b", "effect", "why"))


def _how_far(found: Comparison, leaf: str) -> str:
    """Say how far a leaf is apart, or what it is on either side."""
    if leaf in found.kinds:
        a, b = found.kinds[leaf]
        return (
            f"only b has it: {b}"
            if a == "none"
            else (f"only a has it: {a}" if b == "none" else f"{a} against {b}")
        )
    return str(found.distances.get(leaf, ""))


def print_origin(found: Origin) -> None:
    """Print what `trace --against` found."""
    divergence = found.divergence
    rows = [("verdict", found.verdict), ("reason", found.reason)]
    for side, operation in (("a", divergence and divergence.a), ("b", divergence and divergence.b)):
        if operation:
            rows += [
                (f"{side} operation", str(operation)),
                (f"{side} inputs", " ".join(operation.inputs)),
                (f"{side} outputs", " ".join(operation.outputs)),
            ]
    if divergence and divergence.differing:
        count = f"{divergence.differing} of {len(found.traces[0].operations)} operations"
        rows.append(("in all", f"{count} have other outputs; the rest of them inherit it"))
    _print_rows(rows + [("note", note) for note in found.notes])


def print_operations(found: Origin) -> None:
    """Print the operations of one run, which `trace` found."""
    rows = [
        (str(n), op.name, " ".join(op.shapes), op.path or "-", op.where)
        for n, op in enumerate(found.traces[0].operations)
    ]
    _print_rows(rows, ("number", "operation", "result", "inside", "source"))
    if twice := found.traces[0].same_key:
        _print_rows([("one key twice", str(draws)) for draws in twice])


def print_report(found: Report) -> None:
    """Print what `check` found."""
    steps = ", ".join(str(step) for step in found.checkpoints)
    is_run = found.what == "a run"
    files = f"{found.files} of {found.bytes:,} bytes, as they were written"
    if not is_run:
        files = f"{found.files} of {found.bytes:,} bytes, {'read' if found.unknown else 'intact'}"
    _print_rows(
        [
            ("run", found.run or "cannot be told") if is_run else ("what", found.what),
            ("verdict", found.verdict),
            *_checkpoint_rows(found, steps),
            ("files", files),
            *(("note", note) for note in found.notes),
        ]
    )
    for title, findings in {"repaired": found.repaired, "found": found.findings}.items():
        _print_below([(f.kind, f.path, f.detail) for f in findings], (title, "path", "detail"))


def _checkpoint_rows(found: Report, steps: str) -> list[tuple[str, str]]:
    """Say which checkpoints there are; a file has none."""
    if found.unknown:
        return [("checkpoints", steps)] if steps else []
    if not steps and found.what not in ("a run", "a store of checkpoints"):
        return []
    return [("checkpoints", f"{steps} (every byte as sealed)" if steps else "none")]


def print_audit(found: Audit) -> None:
    """Print what `audit` found."""
    from reproducibility.evidence.verdict import rows_of_audit

    _print_rows(rows_of_audit(found))


def print_diagnosis(found: Diagnosis) -> None:
    """Print what `doctor` found."""
    _print_rows([(name, _shown_setting(value)) for name, value in found.environment.items()])
    _print_below([(check.question, check.answer) for check in found.checks])
    print()
    asked = [fault for fault in found.faults if fault.verdict != "does not apply"]
    accepted = dict.fromkeys(found.accepted, ", accepted")
    rows = [(f.name, f.text + accepted.get(f.name, ""), f.fault, f.source) for f in asked]
    _print_rows(rows, ("published fault", "here", "what goes wrong", "issue"))
    if rest := len(found.faults) - len(asked):
        print(f"{rest} more that do not apply to this platform and these settings")
    for fault in asked:
        if fault.verdict == "wrong":
            lines = [("wrong", fault.detail), ("so", fault.consequence), ("cure", fault.cure)]
            _print_below([(fault.name, ""), *lines])


def _print_below(rows: Sequence[Sequence[str]], heads: Sequence[str] = ()) -> None:
    """Print a further table, if it has rows, below an empty line."""
    if rows:
        print()
        _print_rows(rows, heads)


def _shown_setting(value: Any) -> str:
    """Say a setting in a table."""
    return "not set" if value is None else str(value)


def print_exercises(rows: Sequence[Sequence[str]], solved: int) -> None:
    """Print the exercises: name, state, what goes wrong, the chapter; and how many are solved."""
    _print_rows(rows)
    print(f"\n{solved} of {len(rows)} solved")


def print_judgement(found: Judgement) -> None:
    """Print what the judge tried, what was right, and what the program printed if it is wrong."""
    from reproducibility.exercise.bench import shown_prints

    rows = [("right" if o.right else "wrong", o.tried, o.seen) for o in found.observations]
    _print_rows(rows)
    if not found.solved:
        for line in shown_prints(list(found.printed)):
            print(f"it printed: {on_one_line(line)}")
