"""A value that no step of the whole run had, beside the one that belonged there: is it rounded?

The rule: the values of two calls are kept by further runs, and it is said only where every element
is so.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from reproducibility.script.inputs import FoundInput, rows_of
from reproducibility.script.repeat import KeptCall, kept_call
from reproducibility.script.resumption import Resumption
from reproducibility.script.values import ValuedCall
from reproducibility.watch.keeping import FOLDER

NARROWER = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")


def worth_keeping(found: Resumption) -> tuple[str, str] | None:
    """Return which calls of a whole and of a resumed run to keep; None if values say no more.

    Args:
        found: a resumed run that differs.
    """
    one = call_that_belongs(found)
    if one is None or found.call is None or not any(_may_be_told(each) for each in found.inputs):
        return None
    pairs = zip(found.of_processes, (one, found.call), strict=True)
    whole, resumed = (f"{process}/{call.thread}:{call.number}" for process, call in pairs)
    return whole, resumed


def call_that_belongs(found: Resumption) -> ValuedCall | None:
    """Return the call of the whole run whose inputs the call that differs should have had.

    Args:
        found: a resumed run that differs.
    """
    if found.beside is not None or found.values is None:
        return found.beside
    number = found.values.usual(found.inputs) or found.whole_steps - found.resumed_steps + 1
    steps = found.values.steps
    return steps[number - 1] if 1 < number <= len(steps) else None


def in_what_they_differ(found: Resumption, records: Sequence[Path]) -> list[str]:
    """Say of each value that was never seen how it follows from the one that belongs there.

    Args:
        found: a resumed run that differs.
        records: those of a whole and of a resumed run that kept the calls.
    """
    one = call_that_belongs(found)
    pairs = zip(records, found.of_processes, strict=True)
    kept = [kept_call(record / process / FOLDER) for record, process in pairs]
    whole, resumed = kept[0], kept[1]
    if whole is None or resumed is None or one is None or found.values is None:
        return []
    number = next(n for n, each in enumerate(found.values.steps, 1) if each is one)
    told = {}
    for each in found.inputs:
        if _may_be_told(each):
            told[each.place] = how_it_follows(whole, resumed, each.place)
    lines = []
    for row in rows_of(found.inputs):
        words = [told.get(each.place, "") for each in row.inputs]
        if all(words) and len(set(words)) == 1:
            lines.append(f"{row.name}: {words[0].format(f'call {number:,}')}")
        else:
            lines += [
                f"{each.name}: {word.format(f'call {number:,}')}"
                for each, word in zip(row.inputs, words, strict=True)
                if word
            ]
    return lines


def _may_be_told(each: FoundInput) -> bool:
    """Whether it may be a right value, rounded: the whole run may have rounded it, to save it."""
    return each.kind in ("unseen", "elsewhere") and not each.shape.startswith("key")


def how_it_follows(whole: KeptCall, resumed: KeptCall, place: int) -> str:
    """Return how one array follows from another; "" if that is not one of a few ways.

    Args:
        whole: the call of the whole run.
        resumed: that of the resumed one.
        place: of the input in both.
    """
    try:
        one, other = (each.array("input", place) for each in (whole, resumed))
    except (KeyError, IndexError, OSError, ValueError):
        return ""
    if one.size != other.size or one.dtype != other.dtype or _equal_bits(one, other):
        return ""
    if jax.numpy.issubdtype(one.dtype, jax.numpy.floating):
        for name in NARROWER:
            with np.errstate(all="ignore"):
                if _equal_bits(one.astype(jax.numpy.dtype(name)).astype(one.dtype), other):
                    return f"equal to what it was in {{}}, rounded to {name}"
    if one.size > 2 and _equal_bits(np.sort(one), np.sort(other)):
        return "the numbers of {}, in another order"
    return ""


def _equal_bits(one: Any, other: Any) -> bool:
    return bool(one.tobytes() == other.tobytes())
