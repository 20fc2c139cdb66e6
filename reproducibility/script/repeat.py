"""The call where runs diverge, kept in further runs: by how much it differs, and if it repeats.

The rule: inputs are kept by runs of their own, so what is said of them is said of those; the call
is executed again in a fresh process of the script's own Python, without the script.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from reproducibility.same.distance import distance
from reproducibility.script.diverging import Root
from reproducibility.script.reading import processes_of
from reproducibility.script.start import WATCH
from reproducibility.watch.again import ANSWER
from reproducibility.watch.keeping import CALL, FOLDER

TIMES = 10
PATIENCE_WITH_A_CALL = 600  # seconds for all of them
# Loads what executes a call, under another name and without the package around it.
_LOADER = """
import importlib, importlib.util, os, pathlib, sys
watch, folder, out, times = sys.argv[1:]
name = "_reproducibility_watch"
spec = importlib.util.spec_from_file_location(
    name, os.path.join(watch, "__init__.py"), submodule_search_locations=[watch])
sys.modules[name] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
again = importlib.import_module(name + ".again")
again.execute_again(pathlib.Path(folder), pathlib.Path(out), int(times))
"""


@dataclass(frozen=True)
class CallAgain:
    """What two further runs kept of a call, and what came of executing it alone.

    `times` is how often it was executed, and `alike` how many of them gave the most frequent
    results; both are 0 if it was not executed, and `replayed` says why.
    """

    differences: tuple[str, ...] = ()
    replayed: str = ""
    times: int = 0
    alike: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "in_two_more_runs": list(self.differences),
            "replayed": self.replayed or None,
            "times": self.times,
            "alike": self.alike,
        }


def is_worth_keeping(root: Root) -> bool:
    """Whether values of the call can say more: its inputs, or whether it repeats."""
    if not root.ordered:
        return False
    if root.kind == "program":
        why = root.program_differs
        return why is not None and why.kind in ("same", "unknown", "compiled", "devices")
    return root.kind == "host"


def look_again(root: Root, record: Path, keep: Callable[[int, str], Path]) -> CallAgain:
    """Keep the call of a root in two more runs, and execute it if its program is in question.

    **Same bits:** nowhere: it runs the script, and what differs may differ otherwise.

    Args:
        root: where the difference begins.
        record: the first run's.
        keep: runs the script as run 1 or 2, with a call kept, and returns the record.
    """
    process = next(each for each in processes_of(record) if each.path.name == root.process)
    number = next(each.number for each in process.threads if each.name == root.thread)
    wanted = f"{root.process}/{number}:{root.call}"
    records = [keep(run, wanted) for run in (1, 2)]
    found = [kept_call(each / root.process / FOLDER) for each in records]
    kept = [each for each in found if each is not None]
    if len(kept) < len(found):
        return CallAgain(replayed="the call was not kept: further runs did not come to it")
    if root.kind == "host":
        return CallAgain(_differences(kept, "input", root.places, root.names))
    differences = _differences(kept, "result", root.places, root.names)
    again = _replay(kept[0], root.names, root.places)
    return replace(again, differences=differences)


def replay_call(folder: Path, names: Sequence[str] = (), times: int = TIMES) -> CallAgain:
    """Execute a call that was kept, in a fresh process.

    **Same bits:** nowhere: whether it has them is the question.

    Args:
        folder: where a run kept it, `DIR/process-1/kept`.
        names: those of its results.
        times: how often.
    """
    kept = kept_call(folder)
    if kept is None:
        return CallAgain(replayed="it was not kept")
    return _replay(kept, names, range(len(names)), times)


def _replay(
    kept: KeptCall, names: Sequence[str], places: Sequence[int], times: int = TIMES
) -> CallAgain:
    """Execute a call again and again, and say whether its results are alike."""
    if "not" in kept.facts:
        return CallAgain(replayed=f"it cannot be executed alone: {kept.facts['not']}")
    with tempfile.TemporaryDirectory(prefix="again-") as folder:
        why = _execute_in_its_python(kept, Path(folder), times)
        if why:
            return CallAgain(replayed=f"it cannot be executed alone: {why}")
        answers = json.loads((Path(folder) / ANSWER).read_text(encoding="utf-8"))["results"]
        counts = Counter(tuple(answer) for answer in answers)
        most, alike = counts.most_common(1)[0]
        times = len(answers)
        if alike == times:
            as_before = list(most) == kept.digests()
            return CallAgain((), _repeats(times, as_before=as_before), times, alike)
        named = dict(zip(places, names, strict=False))
        words = [
            f"{named.get(number, f'result {number}')} in "
            f"{sum(answer[number] != most[number] for answer in answers)} of {times}"
            f"{_by_how_much(kept, Path(folder), number, {a[number] for a in answers})}"
            for number in range(len(most))
            if any(answer[number] != most[number] for answer in answers)
        ]
        return CallAgain((), f"it differs from run to run: {'; '.join(words)}", times, alike)


def _repeats(times: int, *, as_before: bool) -> str:
    """Say that a call repeats by itself, and whether as in the script."""
    alone = f"it repeats by itself: {times} of {times} alike"
    if as_before:
        return f"{alone}, and as in the script; so what makes it differ lies around it"
    return f"{alone}, and otherwise than in the script"


def _execute_in_its_python(kept: KeptCall, out: Path, times: int) -> str:
    """Have a fresh process of the script's Python execute a call; return why it could not."""
    facts = kept.facts
    ours = {name: os.environ[name] for name in os.environ if not name.startswith("REPRODUCIBILITY")}
    command = [facts["python"], "-c", _LOADER, str(WATCH), str(kept.folder.absolute()), str(out)]
    try:
        done = subprocess.run(
            [*command, str(times)],
            cwd=out,
            env={**ours, **facts["variables"]},
            capture_output=True,
            check=False,
            timeout=PATIENCE_WITH_A_CALL,
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {PATIENCE_WITH_A_CALL // 60} minutes"
    except OSError as error:
        return str(error)
    if (out / ANSWER).is_file():
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else f"its process ended with {done.returncode}"


def _by_how_much(kept: KeptCall, folder: Path, number: int, digests: set[str]) -> str:
    """Return how far the values of a result are apart at most."""
    dtype = kept.facts["results"][number]["dtype"]
    arrays = []
    for digest in sorted(digests):
        parts = sorted(folder.glob(f"{number}-{digest}-*"), key=lambda path: path.name[-3:])
        data = b"".join(path.read_bytes() for path in parts)
        arrays.append(np.frombuffer(data, jax.numpy.dtype(dtype)))
    found = [distance(arrays[0], other).ulp for other in arrays[1:]]
    known = [each for each in found if each is not None]
    return f", by at most {max(known)} ULP" if known and "float" in dtype else ""


def _differences(
    kept: Sequence[KeptCall], what: str, places: Sequence[int], names: Sequence[str]
) -> tuple[str, ...]:
    """Say by how much inputs or results of two runs differ."""
    found = []
    for place, name in zip(places, names, strict=False):
        try:
            one, other = (each.array(what, place) for each in kept)
            far = distance(one, other)
        except (KeyError, IndexError, OSError, ValueError):  # another call was kept, or no values
            continue
        if not far.differing:
            found.append(f"{name} agrees")
            continue
        words = f"{name}: {far.differing:,} of {far.elements:,} elements differ"
        found.append(words + _at_most(one, other, far.ulp))
    return tuple(found)


def _at_most(one: Any, other: Any, ulp: int | None) -> str:
    """Return the largest difference of two arrays of numbers."""
    if ulp is None:
        return ""
    with np.errstate(all="ignore"):
        wide = [
            each.astype(np.complex128 if each.dtype.kind == "c" else float) for each in (one, other)
        ]
        apart = np.abs(wide[0] - wide[1])
    finite = apart[np.isfinite(apart)]
    most = f", by at most {finite.max():.3g}" if finite.size else ""
    return f"{most} ({ulp:,} ULP)" if one.dtype.kind not in "iu" else most


@dataclass(frozen=True)
class KeptCall:
    """A call that was kept."""

    folder: Path
    facts: dict[str, Any]

    def digests(self) -> list[str]:
        """Return the digest of each result, all parts of it, as the fresh process computes it."""
        found = []
        for number, facts in enumerate(self.facts["results"]):
            paths = [self.folder / f"result-{number}-{i}" for i in range(len(facts["parts"]))]
            found.append(hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest())
        return found

    def array(self, what: str, number: int) -> Any:
        """Return the numbers of an input or a result, one after the other."""
        facts = self.facts[f"{what}s"][number]
        parts = [
            (self.folder / f"{what}-{number}-{place}").read_bytes()
            for place, part in enumerate(facts["parts"])
            if part["replica"] == 0
        ]
        return np.frombuffer(b"".join(parts), jax.numpy.dtype(facts["dtype"]))


def kept_call(folder: Path) -> KeptCall | None:
    """Return a call that was kept whole."""
    path = folder / CALL
    if not path.is_file():
        return None
    facts = json.loads(path.read_text(encoding="utf-8"))
    for name, digest in facts["files"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            return None
    return KeptCall(folder, facts)
