"""Which process of one run is compared with which of the other.

The rule: what was started alike belongs together; what is left over is no pair.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import re

from reproducibility.script.reading import Process


def pairs_of(ones: list[Process], others: list[Process]) -> list[tuple[Process, Process]]:
    """Put together what was started alike; if as many are left over, those in their order."""
    found = []
    ones, others = ones.copy(), others.copy()
    for one in ones.copy():
        other = next((each for each in others if _who(each) == _who(one)), None)
        if other is not None:
            found.append((one, other))
            ones.remove(one)
            others.remove(other)
    if len(ones) == len(others):  # the same with another argument, such as the name of a folder
        found += zip(*(sorted(each, key=_place) for each in (ones, others)), strict=True)
    return sorted(found, key=lambda pair: int(pair[0].path.name.partition("-")[2]))


def _who(process: Process) -> tuple[str, list[int]]:
    """Return what was started, and which process of its job it was."""
    return command_of(process), _place(process)


def _place(process: Process) -> list[int]:
    """Return which process of its job it was, and how many there are."""
    return (process.end or {}).get("place") or [0, 1]


def command_of(process: Process) -> str:
    """Return what was started, without what differs between two runs by intent."""
    command = " ".join(process.start.get("command", []))
    return re.sub(r"\S*/dir-\d-\w+|\b0x[0-9a-f]+\b", "…", command)[:200]


def _script_of(process: Process) -> str:
    """Return what Python was given to run: a file, a module, or the text of a program."""
    words = iter(process.start.get("command", [])[1:])
    for word in words:
        if word in ("-X", "-W"):
            next(words, None)
        elif word in ("-m", "-c"):
            return f"{word} {next(words, '')[:40]}"
        elif not word.startswith("-"):
            return re.sub(r"\S*/dir-\d-\w+", "…", word)
    return "no script"


def unlike(a: Process, b: Process) -> list[str]:
    """Say which script, versions, and variables that may matter, the two runs had otherwise."""
    facts = []
    # The script may have set some itself; a run that was killed does not say.
    whole = all("variables" in (process.end or {}) for process in (a, b))
    for process in (a, b):
        python = {"Python": process.start.get("python")}
        versions = (process.end or {}).get("versions") or {}
        variables = ((process.end if whole else None) or process.start).get("variables") or {}
        facts.append({**python, **versions, **variables})
    if a.end is None or b.end is None:  # which has the versions
        facts = [{name: each[name] for name in each if name.isupper()} for each in facts]
    one, other = facts
    scripts = [_script_of(process) for process in (a, b)]
    differ = f"the records are of different scripts: {scripts[0]} and {scripts[1]}"
    return [differ] * (scripts[0] != scripts[1]) + [
        f"{name} is {one.get(name, 'not there')} in the first run, "
        f"{other.get(name, 'not there')} in the second"
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
    ]
