"""Ledgers that are made up, for the tests of those who read and write them."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reproducibility import Ledger
from reproducibility.recording.lines import FINGERPRINT_DIGITS, Header
from reproducibility.recording.walk import Walk, walk_together
from reproducibility.recording.writer import Writer
from reproducibility.same.fingerprint import combined
from reproducibility.storage.files import chained

Line = tuple[Header, dict[str, Any]]

RUN = "the run"
LEAVES = {
    "batch": ["x", "y"],
    "key": ["dropout"],
    "gradients": ["b", "w"],
    "opt_state": ["count", "mu"],
    "params": ["b", "w"],
}
AFTER = ("opt_state", "params")  # what there is before the first step
STEPS = 7


def fingerprint(*words: object) -> str:
    """Make up a fingerprint."""
    return hashlib.sha256(repr(words).encode()).hexdigest()[:FINGERPRINT_DIGITS]


def line(
    step: int,
    level: str = "leaf",
    every: int = 1,
    leaves: dict[str, list[str]] = LEAVES,
    other: tuple[object, ...] = (),
    loss: float | None = None,
) -> Line:
    """Make up what a step was made of; `other` is a stage and leaf that comes out different."""
    stages = {stage: leaves[stage] for stage in leaves if step or stage in AFTER}
    body: dict[str, Any] = {"step": step}
    if step:
        body["loss"] = (1 / step if loss is None else loss).hex()
    for stage, names in stages.items():
        parts = [fingerprint(stage, n, step, (stage, n) == other) for n in names]
        body[stage] = "".join(parts) if level == "leaf" else combined(parts)
    return Header("", level, every, step, stages), body


def write(path: Path, lines: Iterable[Line], run: str = RUN, first: int = 0) -> str:
    """Write lines as a process would that starts at `first`; return the chain."""
    writer = Writer(path, run, first)
    try:
        writer.write(list(lines))
        return writer.flush()
    finally:
        writer.close()


def lines(first: int = 0, last: int = STEPS, **settings: Any) -> list[Line]:
    """Make up the lines of some steps."""
    every = settings.get("every", 1)
    return [line(step, **settings) for step in range(first, last + 1) if step % every == 0]


def craft(path: Path, *bodies: dict[str, Any] | bytes) -> Path:
    """Write lines of whatever content whose chain holds, as someone who means to deceive could."""
    head, content = RUN, b""
    for body in bodies:
        if isinstance(body, dict):
            raw, head = chained(head, body)
        else:  # what stands around the chain is no JSON
            head = hashlib.sha256(head.encode() + body).hexdigest()
            raw = body[:1] + f'"chain":"{head}",'.encode() + body[1:] + b"\n"
        content += raw
    path.write_bytes(content)
    return path


def walked(a: Path, b: Path) -> Walk:
    """Read two ledgers side by side."""
    return walk_together(Ledger(a), Ledger(b))


def header(first: int = 1, **others: Any) -> dict[str, Any]:
    """Make up a header of groups of parameters."""
    body = Header(RUN, "group", 1, first, {"params": ["b", "w"]}).body()
    return {**body, **others}


def step(number: int, **others: Any) -> dict[str, Any]:
    """Make up a line under that header."""
    return {"step": number, "params": fingerprint(number), **others}
