"""Plant faults in scripts, and see whether the commands for scripts name them: `make faults`.

Prints what came of each, and ends with 1 if one is missed or wrongly confirmed, or if a clean
script is not the same. What was tried with this package already is not tried again.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.faults import attempt as trying
from tests.faults.attempt import Attempt
from tests.faults.hidden import is_quick
from tests.faults.judge import FATAL
from tests.faults.planted import (
    KINDS,
    Clean,
    Fault,
    HiddenFault,
    Item,
    Kind,
    Planted,
    all_faults,
    clean_of,
    faults_of,
    needs_only_the_tests_libraries,
    script_names,
    text_of_script,
)
from tests.faults.running import BUILD
from tests.faults.table import read_results, write_page, write_results

# Of the sample: what varies in every run, so that it is found in every run.
STEADY = {"entropy", "clock", "hash", "pid", "listing", "files"}
# Where threads share a memory, these follow their timing: on a busy machine the held base run may
# differ from itself, and then `sweep` says that it cannot be told. The nights try them.
UNSTEADY = {"address", "race"}
VENV = BUILD / "venv" / "bin" / "python"


def main() -> int:
    """Try what was asked for."""
    asked = _arguments()
    items = _sample(asked.sample, asked.seed) if asked.sample else _chosen(asked.only, asked.kind)
    found, todo = [], []
    for item in items:
        known = None if asked.again or asked.sample else trying.kept(item)
        settled = known and (
            known.is_current or asked.known or (asked.wrong_only and _is_well(known))
        )
        found.append(known) if known and settled else todo.append(item)
    print(f"{len(items)} to try, {len(found)} of them known.", flush=True)
    if asked.known:
        todo = []
    random.Random(asked.seed).shuffle(todo)  # so that the first answers are about many scripts
    with ThreadPoolExecutor(asked.jobs) as pool:
        jobs = {
            pool.submit(trying.attempt, item, asked.python.absolute(), keep=not asked.sample): item
            for item in todo
        }
        for number, job in enumerate(as_completed(jobs), 1):
            done = job.result()
            found.append(done)
            line = f"{done.id}: {done.outcome} ({done.seconds} s): {done.got}"
            print(f"[{number}/{len(todo)}] {line}", flush=True)
            if asked.list:
                _write_list(asked.list, found)
    if asked.table:
        by_id = {item.id: item for item in items}
        write_results((done, trying.kept(by_id[done.id], first=True)) for done in found)
        write_page(asked.table, read_results())
    return _say(found, sample=bool(asked.sample))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    add = parser.add_argument
    add("--sample", type=int, default=0, help="draw so many faults, and one clean script")
    add("--seed", type=int, default=0, help="of the sample")
    add("--kind", action="append", choices=KINDS, help="only these; all without")
    add("--only", action="append", default=[], help="SCRIPT, SCRIPT.clean or SCRIPT.FAULT")
    add("--jobs", type=int, default=2, help="how many at a time")
    add("--python", type=Path, default=VENV, help="the Python of the scripts")
    add("--again", action="store_true", help="also what is known")
    add("--wrong-only", action="store_true", help="of what is known from before, what was not well")
    add("--known", action="store_true", help="try nothing: write down what is known")
    add("--table", type=Path, help="a page: write the tables into it, and results.json")
    add("--list", type=Path, help="write each fault, what was expected, and what was answered")
    return parser.parse_args()


def _chosen(only: list[str], kinds: list[Kind] | None) -> list[Item]:
    """Return clean scripts and faults: all, or those that were named."""
    found: list[Item] = []
    for kind in kinds or KINDS:
        for script in script_names(kind):
            wanted = {script, f"{script}.clean"} & set(only) or not only
            found += clean_of(script) if wanted else []
            found += [f for f in faults_of(script) if not only or {script, f.id} & set(only)]
    if only and not found:
        sys.exit(f"Nothing is called {', '.join(only)}.")
    return found


def _sample(number: int, seed: int) -> list[Item]:
    """Draw faults that are named right, quickly and in every run; and a clean script.

    Of each other kind, one fault is drawn.
    """
    results, draw = read_results(), random.Random(seed)
    found: list[Item] = []
    for kind in KINDS:
        scripts = [s for s in script_names(kind) if _runs_with_the_tests(s)]
        faults = {f.id: f for s in scripts for f in faults_of(s) if _is_steady(f)}
        well = _quicker_half(faults, results["faults"], "right")
        of_this_kind = number if kind == "twice" else 1
        if kind == "twice":
            clean = _quicker_half(scripts, results["scripts"], "same")
            found += [Clean(script=s) for s in draw.sample(clean, min(1, len(clean)))]
        found += [faults[name] for name in draw.sample(well, min(of_this_kind, len(well)))]
    return found


def _runs_with_the_tests(script: str) -> bool:
    return needs_only_the_tests_libraries(text_of_script(script))


def _is_steady(fault: Fault) -> bool:
    if isinstance(fault, HiddenFault):
        return is_quick(fault) and not UNSTEADY.intersection(fault.depends_on)
    return not isinstance(fault, Planted) or set(fault.causes) <= STEADY


def _quicker_half(
    names: Iterable[str], results: dict[str, dict[str, object]], outcome: str
) -> list[str]:
    """Return those that came out well, of them the half that took less time."""
    well = [name for name in names if results.get(name, {}).get("outcome") == outcome]
    return sorted(well, key=lambda name: int(str(results[name]["seconds"])))[: (len(well) + 1) // 2]


def _is_well(done: Attempt) -> bool:
    return done.outcome in ("right", "same")


def _write_list(path: Path, found: list[Attempt]) -> None:
    """Write each fault, what was expected, and what was answered; what is wrong comes first.

    What stands in the file above the first of them stays.
    """
    faults = {fault.id: fault for kind in KINDS for fault in all_faults(kind)}
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = [before.partition("* **")[0].rstrip(), ""] if before else []
    for done in sorted(found, key=lambda each: (_is_well(each), each.id)):
        stale = "" if done.is_current else " (with an earlier package)"
        lines.append(f"* **{done.id}**: {done.outcome}{stale}")
        if fault := faults.get(done.id):
            lines.append(f"    * expected {fault.expected}")
        lines.append(f"    * got {done.got}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _say(found: list[Attempt], *, sample: bool) -> int:
    """Print the count of each outcome, and what is not as it must be."""
    outcomes = [done.outcome for done in found]
    for outcome in sorted(set(outcomes)):
        print(f"{outcome}: {outcomes.count(outcome)}")
    bad = [
        done
        for done in found
        if done.outcome in FATAL or (("." not in done.id or sample) and not _is_well(done))
    ]
    for done in bad:
        print(f"not as it must be: {done.id}: {done.outcome}: {done.got}")
    print(f"{len(found) - len(bad)} passed, {len(bad)} failed")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
