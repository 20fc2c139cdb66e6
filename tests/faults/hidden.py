"""Try a clean script, or a fault planted in it, with `reproducibility sweep`.

The rule: a fault counts only if the plain script has another result when what it depends on is
changed without the package.
"""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.judge import Judgement
from tests.faults.judge_hidden import QUICK, ROWS, judge_hidden
from tests.faults.planted import HERE, Clean, HiddenFault, Item, facts_of
from tests.faults.running import PLAIN, answered, failure, fresh_copy, run


@dataclass(frozen=True)
class Way:
    """How a plain script is run: with variables, in another folder, or lying in another one."""

    variables: dict[str, str] = field(default_factory=dict)
    folder: str = ""
    script: str = ""


def _hooked(name: str, **more: str) -> Way:
    """Return a run in which `sitecustomize` changes something."""
    return Way({"OUTSIDE": name, "PYTHONPATH": str(HERE / "outside"), **more})


def _alike(text: str, *values: str) -> dict[str, str]:
    """Return variables of one value."""
    return dict.fromkeys(text.split(), *values)


BLAS = "OPENBLAS_NUM_THREADS OMP_NUM_THREADS NPROC"
SETTINGS = {
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
}
AGAIN = Way()
# How a plain script is run to see whether a kind of hidden input matters, beside its first run.
WAYS: dict[str, tuple[Way, ...]] = {
    "hash salt": tuple(Way({"PYTHONHASHSEED": f"{salt}"}) for salt in range(4)),
    "listing order": (_hooked("listing"),),
    # Another month, day and hour; and two other days of the week, one of them of a weekend.
    "clock": (
        AGAIN,
        _hooked("clock"),
        _hooked("clock", OUTSIDE_DAYS="3"),
        _hooked("clock", OUTSIDE_DAYS="5"),
    ),
    "time zone": (Way({"TZ": "XST9:30"}),),
    "locale": (Way(_alike("LC_ALL LANG", "C")), Way(_alike("LC_ALL LANG", "sv_SE.UTF-8"))),
    "working directory": (Way(folder="deeper"),),
    "script path": (Way(script="elsewhere"),),
    "user": (Way(_alike("LOGNAME USER", "somebody")), _hooked("user")),
    "host name": (_hooked("host"),),
    "threads": (Way(_alike(BLAS, "1")), Way(_alike(BLAS, "3"))),
    "devices": (Way({"JAX_NUM_CPU_DEVICES": "3"}),),
    "jax setting": (Way(SETTINGS),),
    "worker order": (_hooked("workers"), AGAIN),
    "race": (_hooked("workers"), AGAIN),
    "cpu count": (_hooked("processors"),),
}
NATURAL = (AGAIN, AGAIN)  # what differs from run to run by itself


def clean(item: Clean, python: Path) -> Judgement:
    """Sweep a script that depends on nothing."""
    answer, said = _swept(item, python, set())
    return judge_hidden((), answer) if answer else Judgement("no answer", said)


def faulty(
    fault: HiddenFault, python: Path, *, alone: bool = False
) -> tuple[Judgement, dict[str, Any] | None, bool]:
    """Run a script with a fault plain, with what it depends on changed, and then sweep it.

    It is swept over what it depends on, and if not `alone`, over what is most frequent; over all
    where it depends on what has no name beforehand.

    Returns:
        the judgement, the answer, and whether the plain runs differed.
    """
    for kind in fault.depends_on:
        if (problem := _does_not_matter(fault, kind, python)) is not None:
            return Judgement("not a fault", f"{kind}: {problem}"), None, False
    answer, said = _swept(fault, python, _rows(fault, alone=alone))
    if answer is None:
        return Judgement("no answer", said), None, True
    return judge_hidden(fault.depends_on, answer), answer, True


def has_names(fault: HiddenFault) -> bool:
    """Whether all rows of what a fault depends on have a name beforehand."""
    return not set(fault.depends_on) & {"environment variable", "cache", "other"}


def is_quick(fault: HiddenFault) -> bool:
    """Whether a fault is swept over one row, so that a sample may hold it."""
    return has_names(fault) and len(_own(fault)) == 1


def _own(fault: HiddenFault) -> set[str]:
    """Return the rows of what a fault depends on."""
    return {row for row in ROWS if set(ROWS[row]) & set(fault.depends_on)}


def _rows(fault: HiddenFault, *, alone: bool) -> set[str]:
    """Return the rows that a fault is swept over; none are all."""
    if not has_names(fault):
        return set()
    return _own(fault) | (set() if alone else set(QUICK))


def _swept(item: Item, python: Path, only: set[str]) -> tuple[dict[str, Any] | None, str]:
    """Sweep a script over some rows, or over all; return the answer, and how that failed."""
    command = shlex.split(facts_of(item.script)["run"]["command"])
    options = [f"--only={','.join(sorted(only))}"] if only else []
    with fresh_copy(item.text) as folder:
        words = ["sweep", "--json", *options, "--", python, "script.py", *command]
        ended, answer = answered(words, folder)
    return answer, failure(ended)


def _does_not_matter(fault: HiddenFault, kind: str, python: Path) -> str | None:
    """Say so if a plain script has one result, however what is of a kind is changed.

    A run that fails has none, as where a locale is not installed.
    """
    ways = WAYS.get(kind, NATURAL)
    if fault.changed:
        ways = (Way(dict(fault.changed)), *ways)
    with fresh_copy(fault.text) as folder, tempfile.TemporaryDirectory(dir=folder) as home:
        found = [_result(fault, python, folder, home, AGAIN)]
        for way in ways:
            found.append(_result(fault, python, folder, home, way))
            if found[0] != found[-1] and not found[-1].startswith("exit code"):
                return None
    if found[0].startswith("exit code"):
        return f"it ends with {found[0]}"
    return f"{len(found)} plain runs had the same result"


def _result(fault: HiddenFault, python: Path, folder: Path, home: str, way: Way) -> str:
    """Return the result of a plain run; all runs of a fault have one home."""
    command = facts_of(fault.script)["run"]["command"]
    script = folder / way.script / "script.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(fault.text, encoding="utf-8")
    at = folder / way.folder
    at.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as filled:
        words = shlex.split(command.replace("{dir}", filled))
        return run([python, script, *words], at, PLAIN, {"HOME": home, **way.variables}).result
