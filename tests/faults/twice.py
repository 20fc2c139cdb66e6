"""Try a clean script, or a fault planted in it, with `reproducibility twice`.

The rule: a fault counts only if the result of the plain script changes, and an answer is judged by
the two runs that it is about: those that agree by chance are tried again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.faults.judge import Judgement, judge
from tests.faults.planted import Clean, Planted
from tests.faults.running import (
    counted,
    failure,
    fresh_copy,
    plain,
    recorded,
    results_in,
    twice,
)

PLAIN_RUNS = 3  # after which a script whose result has not changed has no fault
PAIRS = 3  # of runs that agree by chance, after which the fault varies too rarely to be judged


def clean(item: Clean, python: Path) -> Judgement:
    """Run a clean script alone, recorded, counted and twice: all must agree."""
    text = item.text
    with fresh_copy(text) as folder:
        alone = plain(python, folder)
    if alone.code != 0:
        return Judgement("no answer", f"alone: {failure(alone)}")
    with fresh_copy(text) as folder:
        watched, calls = recorded(python, folder)
    if (watched.code, watched.result) != (alone.code, alone.result):
        return Judgement("changed", f"{alone.result!r} alone, {watched.result!r} recorded")
    with fresh_copy(text) as folder:
        if _can_be_counted(text):
            ended, count = counted(python, folder)
            if ended.code == 0 and count not in (None, calls):
                return Judgement("miscounted", f"{calls} calls recorded, {count} in the profile")
        else:
            count = None
    with fresh_copy(text) as folder:
        ended, answer = twice(python, folder)
    how = f"{calls} calls, {'not counted' if count is None else 'as many in the profile'}"
    if answer is None:
        return Judgement("no answer", failure(ended))
    if answer["verdict"] != "same":
        return Judgement(answer["verdict"], f"{answer['reason']} ({how})")
    return Judgement("same", how)


def _can_be_counted(text: str) -> bool:
    """Whether a profile of one process has each call once: no other process, no second device."""
    own = ("XLA_FLAGS", "num_cpu_devices", "subprocess", "multiprocessing", "os.environ[")
    return not any(word in text for word in own)


def faulty(fault: Planted, python: Path) -> tuple[Judgement, dict[str, Any] | None, bool]:
    """Run a script with a fault alone until its result changes, then twice.

    Returns:
        the judgement, the answer, and whether the two runs differed that it is about.
    """
    text = fault.text
    if (same := _does_not_vary(text, python)) is not None:
        return same, None, False
    for _ in range(PAIRS):
        with fresh_copy(text) as folder:
            ended, answer = twice(python, folder)
        if answer is None:
            return Judgement("no answer", failure(ended)), None, False
        differed = len(set(results_in(ended.errors)[:2])) != 1
        if differed or answer["verdict"] == "different":
            break
    return judge(fault, text, answer, differed=differed), answer, differed


def _does_not_vary(text: str, python: Path) -> Judgement | None:
    """Say so if a few plain runs have one result."""
    with fresh_copy(text) as folder:
        first = plain(python, folder)
        for _ in range(PLAIN_RUNS - 1):
            if plain(python, folder).result != first.result:
                return None
    if first.code != 0:
        return Judgement("not a fault", f"it ends with {failure(first)}")
    return Judgement("not a fault", f"{PLAIN_RUNS} plain runs had the same result")
