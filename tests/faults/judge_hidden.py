"""Was the answer of `reproducibility sweep` about a script right?

The rule: exactly what the script depends on has to be found. A hidden input that was invented is as
bad as one that was missed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tests.faults.judge import Judgement

# Which kinds of hidden inputs each row of the answer stands for; any other row is a variable.
ROWS: dict[str, tuple[str, ...]] = {
    "hash": ("hash salt",),
    "listing": ("listing order",),
    "entropy": ("entropy",),
    "clock": ("clock",),
    "pid": ("process id",),
    "addresses": ("address",),
    "folder": ("working directory",),
    "script": ("script path",),
    "user": ("user",),
    "home": ("cache",),
    "host": ("host name",),
    "zone": ("time zone",),
    "locale": ("locale",),
    "races": ("race", "worker order"),
    "workers": ("worker order", "race"),
    "processors": ("cpu count",),
    "xla-threads": ("threads",),
    "blas-threads": ("threads",),
    "blas-kernels": ("threads", "other"),
    "devices": ("devices",),
    "x64": ("jax setting",),
    "prng": ("jax setting",),
    "partitionable": ("jax setting",),
    "precision": ("jax setting",),
    "cache": ("cache",),
    "left": ("cache",),
}
OF_A_VARIABLE = ("environment variable", "other")
QUICK = ("hash", "listing", "entropy", "clock")  # what --quick changes


def kinds_of(row: str) -> tuple[str, ...]:
    """Return the kinds of hidden inputs that a row of the answer stands for.

    Args:
        row: its name.
    """
    return ROWS.get(row, OF_A_VARIABLE)


def judge_hidden(wanted: Collection[str], answer: dict[str, Any] | None) -> Judgement:
    """Compare an answer with what a script depends on.

    Args:
        wanted: the kinds of hidden inputs that it depends on.
        answer: what `sweep --json` printed; None if it printed no JSON.
    """
    if answer is None:
        return Judgement("no answer", "no JSON")
    rows = {row["name"]: row for row in answer["rows"]}
    found = [name for name, row in rows.items() if row["result"] == "different"]
    got = _in_words(answer, [rows[name] for name in found])
    if any(not set(kinds_of(name)) & set(wanted) for name in found):
        return Judgement("invented", got)
    left = [kind for kind in wanted if not any(kind in kinds_of(name) for name in found)]
    if not left and (wanted or answer["verdict"] == "same"):
        return Judgement("right" if wanted else "same", got)
    denied = {kind for name in rows if rows[name]["result"] == "same" for kind in kinds_of(name)}
    return Judgement("missed" if set(left) & denied else "cannot be told", got)


def _in_words(answer: dict[str, Any], found: list[dict[str, Any]]) -> str:
    """Say in a line what an answer had."""
    parts = [f"{row['name']} ({(row['line'] or 'no line').rpartition('/')[2]})" for row in found]
    same = sum(row["result"] == "same" for row in answer["rows"])
    unknown = [row["name"] for row in answer["rows"] if row["result"] == "cannot be told"]
    parts += [f"cannot be told: {', '.join(unknown)}"] if unknown else []
    parts += [answer["reason"]] if not answer["rows"] else []
    return "; ".join([answer["verdict"], *parts, f"{same} do not matter"])
