"""What was tried, as a file that is committed and as tables for the page.

The rule: the outcome of the first attempt at a fault is written down once, and never again.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tests.faults.attempt import NOT_COUNTED, Attempt
from tests.faults.planted import HERE, Fault, Kind, all_faults, clean_of, script_names

RESULTS = HERE / "results.json"
# Of the kinds: their sections, and the head of the table by cause.
TITLES: dict[Kind, str] = {"resume": "Resumed runs", "hidden": "Hidden inputs"}
CAUSES: dict[Kind, str] = {
    "twice": "cause, and where it shows",
    "resume": "fault",
    "hidden": "hidden input",
}
type Results = dict[str, dict[str, dict[str, object]]]
HEADING = "## What was found\n\n"  # of the page: the tables come after it, to the end


def read_results(path: Path = RESULTS) -> Results:
    """Return the outcomes that are committed: of clean scripts, and of faults."""
    if not path.exists():
        return {"scripts": {}, "faults": {}}
    found: Results = json.loads(path.read_text(encoding="utf-8"))
    return found


def write_results(attempts: Iterable[tuple[Attempt, Attempt | None]], path: Path = RESULTS) -> None:
    """Write down the last attempts, each with the first one.

    A first attempt that is written down already stays.
    """
    found = read_results(path)
    for last, first in attempts:
        group = "faults" if "." in last.id else "scripts"
        before = found[group].get(last.id, {})
        earliest = first or last
        named = before.get("first", earliest.outcome)
        sure = before.get("first_confirmed", earliest.confirmed)
        found[group][last.id] = {
            "first": named,
            "first_confirmed": sure,
            "outcome": last.outcome,
            "confirmed": last.confirmed,
            "seconds": last.seconds,
            "got": last.got,
        }
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def tables(results: Results) -> str:
    """Return the tables of the page, kind by kind."""
    parts = [_tables(results, "twice")]
    parts += [f"## {TITLES[kind]}\n\n{_tables(results, kind)}" for kind in TITLES]
    return "\n\n".join(parts)


def _tables(results: Results, kind: Kind) -> str:
    """Return the tables of a kind: all, by cause, by script, and what was not right."""
    known = results["faults"]
    faults = [f for f in all_faults(kind) if f.id in known]
    counted = [f for f in faults if known[f.id]["outcome"] not in NOT_COUNTED]
    by_cause = _by(counted, known, CAUSES[kind], lambda f: f.group)
    by_script = _by(counted, known, "script", lambda f: f"`{_short(f.script)}`")
    return "\n\n".join(
        [
            *([] if kind == "twice" else [_tried(kind, results)]),
            _summary(counted, results),
            f"{_heading(kind, 'By cause')}\n\n{by_cause}",
            f"{_heading(kind, 'By script')}\n\n{by_script}",
            f"{_heading(kind, 'What was not right')}\n\n{_not_right(faults, known)}",
            f"{_heading(kind, 'Clean scripts')}\n\n{_clean(results['scripts'], kind)}",
        ]
    )


def _tried(kind: Kind, results: Results) -> str:
    """Say how much of a kind was tried: what was not is in no table."""
    faults = [fault.id in results["faults"] for fault in all_faults(kind)]
    clean = [c.id in results["scripts"] for s in script_names(kind) for c in clean_of(s)]
    return (
        f"Tried were {sum(faults)} of {len(faults)} planted faults, and {sum(clean)} of"
        f" {len(clean)} clean scripts. What was not tried yet is in no table."
    )


def _heading(kind: Kind, text: str) -> str:
    """Return a heading that is on the page once."""
    before = "" if kind == "twice" else f"{TITLES[kind]}: "
    return f"### {before}{text[0].lower() if before else text[0]}{text[1:]}"


def _short(name: str) -> str:
    """Return a name of a script or a fault without its kind."""
    return name.rpartition("/")[2]


def write_page(page: Path, results: Results) -> None:
    """Write the tables into the page."""
    text, heading, _ = page.read_text(encoding="utf-8").partition(HEADING)
    page.write_text(text + heading + tables(results) + "\n", encoding="utf-8")


def _summary(faults: list[Fault], results: Results) -> str:
    known, rows = results["faults"], []
    first = {
        name: each | {"outcome": each["first"], "confirmed": each["first_confirmed"]}
        for name, each in known.items()
    }
    authors = (("", "all"), ("stranger", "by people who had not seen the tool"), ("house", "ours"))
    for author, called in authors:
        of_them = [f for f in faults if author in ("", f.author)]
        rows.append(_row(f"{called}: first attempt", of_them, first))
        rows.append(_row(f"{called}: now", of_them, known))
    return _table("faults", rows)


def _by(
    faults: list[Fault],
    results: Mapping[str, Mapping[str, object]],
    what: str,
    key: Callable[[Fault], str],
) -> str:
    names = sorted({key(fault) for fault in faults})
    return _table(what, [_row(n, [f for f in faults if key(f) == n], results) for n in names])


def _table(what: str, rows: list[str]) -> str:
    head = (
        f"| {what} | number | right at the first attempt | right | missed | cannot be told |"
        " wrong | confirmed | wrongly confirmed |"
    )
    return "\n".join([head, "|---|" + "---|" * 8, *rows])


def _row(name: str, faults: list[Fault], results: Mapping[str, Mapping[str, object]]) -> str:
    found = [results[fault.id] for fault in faults]
    now = Counter(str(each["outcome"]) for each in found)
    first = sum(each["first"] == "right" for each in found)
    wrong = len(found) - now["right"] - now["missed"] - now["cannot be told"]
    wrong -= now["wrongly confirmed"]
    sure = sum(bool(each["confirmed"]) for each in found)
    numbers = (len(found), first, now["right"], now["missed"], now["cannot be told"], wrong, sure)
    return f"| {name} | {' | '.join(str(n) for n in numbers)} | {now['wrongly confirmed']} |"


def _not_right(faults: list[Fault], results: Mapping[str, Mapping[str, object]]) -> str:
    rows = ["| fault | outcome | answered |", "|---|---|---|"]
    for fault in faults:
        outcome, got = results[fault.id]["outcome"], str(results[fault.id]["got"])
        if outcome != "right":
            rows.append(f"| `{_short(fault.id)}` | {outcome} | {_cell(got)} |")
    return "\n".join(rows)


def _clean(results: Mapping[str, Mapping[str, object]], kind: Kind) -> str:
    rows = [f"| script | {'twice' if kind == 'twice' else 'answer'} | calls |", "|---|---|---|"]
    for item in (each for name in script_names(kind) for each in clean_of(name)):
        if item.id in results:
            found, got = results[item.id]["outcome"], str(results[item.id]["got"])
            rows.append(f"| `{_short(item.id)}` | {found} | {_cell(got)} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    """Return a text that stays within its cell, and in which nothing is markup."""
    quoted = text.replace("|", "\\|").replace("`", "'")
    return re.sub(r"([*_<>\[\]])", r"\\\1", quoted)
