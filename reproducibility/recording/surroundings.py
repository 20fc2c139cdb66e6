"""What a ledger was made in: the environments of its recorders, in a file beside it.

The rule: a ledger says what was computed and nothing of where, so that equal ledgers are equal
files; what may explain a difference stands beside it, and decides nothing.
Chapter: docs/guide/flight_recorder.md

`one.jsonl` has `one.jsonl.environments`: a line for each recorder that wrote it in an environment
that is not the one before, with the step from which on it did.
"""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

from reproducibility.machine.environment import (
    Environment,
    capture_environment,
    jax_settings,
)
from reproducibility.recording.lines import json_object
from reproducibility.storage.files import append_bytes, canonical_json

SUFFIX = ".environments"


def surroundings() -> Environment:
    """Return the environment of this process, as it is for the thread that asks.

    Same bits: as `capture_environment`.
    """
    return {**_of_the_process(), **jax_settings()}


def note_surroundings(ledger: Path, step: int, facts: Environment) -> None:
    """Note in which environment the steps of a ledger are recorded, if it is another than before.

    Where it cannot be written, the ledger has none: it explains, and decides nothing.

    Args:
        ledger: The file.
        step: The first step.
        facts: The environment.
    """
    if environments_beside(ledger)[-1:] == [facts]:
        return
    with contextlib.suppress(OSError):
        line = canonical_json({"from": step, "environment": facts}) + b"\n"
        append_bytes(_file_beside(ledger), line, wait=False)


def environments_beside(ledger: Path) -> list[Environment]:
    """Return the environments that a ledger was made in, as far as they are known, in order.

    Args:
        ledger: The file.
    """
    path = _file_beside(ledger)
    if not path.is_file() or path.is_symlink():
        return []
    with contextlib.suppress(OSError):
        lines = [json_object(line) for line in path.read_bytes().splitlines()]
        return [line["environment"] for line in lines if _is_environment(line.get("environment"))]
    return []


def _file_beside(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + SUFFIX)


def _is_environment(facts: object) -> bool:
    plain = (str, int, type(None))
    return isinstance(facts, dict) and all(isinstance(value, plain) for value in facts.values())


@functools.cache
def _of_the_process() -> Environment:
    return capture_environment()
