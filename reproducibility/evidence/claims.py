"""What a run says of itself is of the form that a run has, before anything goes by it.

The rule: a value of another kind is refused by its name; what a run says is not yet true.
Chapter: docs/guide/verification.md
"""

from __future__ import annotations

import itertools
import os
from typing import Any, NoReturn

from reproducibility.errors import EvidenceError, ReplayError
from reproducibility.reference.config import identity_of
from reproducibility.reference.run import ATTEMPTS, RESULT, Run

MOST_ATTEMPTS = 10_000  # starts and ends of work on a run
_PLAIN_KINDS = (str, int, bool, type(None))
_NUMERIC = (int, float)


def refuse_malformed(run: Run) -> None:
    """Refuse a run whose attempts or result are not of the form that `train` writes.

    Args:
        run: the run.

    Raises:
        EvidenceError: they are of a different form.
        ReplayError: its settings are not those of this version, or too large to compute here.
    """
    lines = run.attempts()
    if len(lines) > MOST_ATTEMPTS:
        _refuse_form(run, ATTEMPTS, f"at most {MOST_ATTEMPTS:,} lines", f"{len(lines):,}")
    for number, line in enumerate(lines, 1):
        if not _is_attempt(line):
            _refuse_form(run, ATTEMPTS, "what `train` writes", f"a different line {number}")
    result = run.result()
    if result:
        texts = (result.run, result.digest, result.params_digest)
        numbers = (result.accuracy, result.seconds, 0 if result.loss is None else result.loss)
        good = all(isinstance(text, str) for text in texts) and _is_count(result.steps)
        if not (good and all(type(number) in _NUMERIC for number in numbers)):
            _refuse_form(run, RESULT, "what `train` writes", "values of a different kind")
    _refuse_large(run)


def _is_attempt(line: dict[str, Any]) -> bool:
    event = line.get("event")
    if event == "start":
        environment, layout, programs = (
            line.get(name, {}) for name in ("environment", "layout", "programs")
        )
        return (
            _is_count(line.get("from_step"))
            and isinstance(line.get("environment"), dict)
            and all(isinstance(value, _PLAIN_KINDS) for value in environment.values())
            and isinstance(layout, dict)
            and all(type(value) is int for value in layout.values())
            and isinstance(programs, dict)
            and all(isinstance(value, str) for value in programs.values())
        )
    if event == "end":
        ended, to_step, seconds = (line.get(name) for name in ("ended", "to_step", "seconds"))
        known = ended is None or isinstance(ended, str)
        return known and (to_step is None or _is_count(to_step)) and type(seconds) in _NUMERIC
    return event == "mended" and isinstance(line.get("problem"), str)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def _refuse_large(run: Run) -> None:
    """Refuse settings whose computation would not fit into the memory of this machine."""
    try:
        identity = identity_of(run.identity)
    except (AttributeError, TypeError, ValueError) as error:
        raise _not_here(run, "settings of this version", type(error).__name__) from error
    widths = [64, *identity.hidden, 64]  # more than either data set has
    parameters = sum(a * b for a, b in itertools.pairwise(widths))
    values = 12 * parameters + 8 * identity.batch_size * sum(widths)
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * values > here // 2:
        got = f"settings that take about {4 * values / 1e9:,.0f} GB"
        raise _not_here(run, f"at most half of the {here / 1e9:,.0f} GB of this machine", got)


def _not_here(run: Run, expected: str, got: str) -> ReplayError:
    do = "Nothing can be told about it on this machine."
    return ReplayError("audit", "a run", path=run.path, expected=expected, got=got, do=do)


def _refuse_form(run: Run, name: str, expected: str, got: str) -> NoReturn:
    do = "Ask for an intact copy."
    raise EvidenceError("audit", name, path=run.path, expected=expected, got=got, do=do)
