"""What the commands show: progress, tables and reasons.

The rule: results go to stdout, progress and every reason to stderr; a closed pipe ends nothing.
Chapter: docs/guide/using_the_project.md
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reproducibility.explain.compare import Comparison
    from reproducibility.explain.origin import Origin
    from reproducibility.reference.check import Finding
    from reproducibility.reference.doctor import Diagnosis


LEAVES_SHOWN = 12  # leaves that are printed; --json has all


def say_on_stderr(text: str) -> None:
    """Say something that is no result."""
    with contextlib.suppress(BrokenPipeError):  # nobody listens: go on with the work
        print(text, file=sys.stderr, flush=True)


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


def keep_stdout() -> None:
    """Let only this command print to stdout: Gloo, which connects processes on CPU, chats there."""
    ours = os.dup(1)
    sys.stdout.flush()
    sys.stdout = os.fdopen(ours, "w", encoding="utf-8")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)


def progress_lines(steps: int) -> Callable[[int, Any], None]:
    """Progress where stderr is no terminal: a line every few seconds, and one at the end."""
    due = _every(5.0)

    def tell(step: int, loss: Any) -> None:
        if due() or step == steps:
            say_on_stderr(f"step {step} of {steps}, loss {float(loss):.4f}")

    return tell


@contextlib.contextmanager
def progress_bar(steps: int) -> Iterator[Callable[[int, Any], None]]:
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


def print_rows(rows: Sequence[Sequence[str]], heads: Sequence[str] = ()) -> None:
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


def print_json(value: Any) -> None:
    """Print a result for a program."""
    print(json.dumps(value, indent=1, sort_keys=True))


def print_comparison(found: Comparison) -> None:
    """Print what `compare` found."""
    print_rows(
        [("verdict", found.verdict), ("reason", found.reason)]
        + [(side, digest) for side, digest in zip("ab", found.digests, strict=True) if digest]
        + [("computed again", text) for text in _recomputed(found)]
        + [("note", note) for note in found.notes]
    )
    if found.leaves:
        rows = [(leaf, str(found.distances.get(leaf, ""))) for leaf in found.leaves[:LEAVES_SHOWN]]
        more = (
            [(f"and {len(found.leaves) - LEAVES_SHOWN} more", "")]
            if found.leaves[LEAVES_SHOWN:]
            else []
        )
        print()
        print_rows(rows + more, (found.stage or "leaf", "distance"))
    if found.settings:
        settings = [
            (name, shown_setting(a), shown_setting(b)) for name, (a, b) in found.settings.items()
        ]
        print()
        print_rows(settings, ("setting", "a", "b"))
    if found.environment:
        lines = [
            (d.name, shown_setting(d.a), shown_setting(d.b), d.effect, d.why)
            for d in found.environment
        ]
        print()
        print_rows(lines, ("environment", "a", "b", "effect", "why"))


def print_faults(found: Diagnosis) -> None:
    """Print what came of the published faults."""
    asked = [fault for fault in found.faults if fault.verdict != "does not apply"]
    accepted = dict.fromkeys(found.accepted, ", accepted")
    rows = [(f.name, f.text + accepted.get(f.name, ""), f.fault, f.source) for f in asked]
    print_rows(rows, ("published fault", "here", "what goes wrong", "issue"))
    if rest := len(found.faults) - len(asked):
        print(f"{rest} more that do not apply to this platform and these settings")
    for fault in asked:
        if fault.verdict == "wrong":
            lines = [("wrong", fault.detail), ("so", fault.consequence), ("cure", fault.cure)]
            print()
            print_rows([(fault.name, ""), *lines])


def _recomputed(found: Comparison) -> list[str]:
    sides = zip("ab", found.recomputed or (), strict=False)
    return [f"{side}: {told.answer}. {told.reason}" for side, told in sides]


def print_origin(found: Origin) -> None:
    """Print what `trace --against` found."""
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
    print_rows(rows + [("note", note) for note in found.notes])


def print_findings(title: str, findings: Sequence[Finding]) -> None:
    """Print what `check` found, as a table."""
    if findings:
        print()
        rows = [(f.kind, f.path, f.detail) for f in findings]
        print_rows(rows, (title, "path", "detail"))


def shown_setting(value: Any) -> str:
    """Say a setting in a table."""
    return "not set" if value is None else str(value)
