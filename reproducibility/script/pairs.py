"""Which process of one run is compared with which of the other.

The rule: what was started alike belongs together; what is left over is no pair.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Any

from reproducibility.script.reading import Process

OTHER_SCRIPTS = "the records are of different scripts"
MOST_OF_A_COMMAND = 300  # characters that are shown


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


def commands_differ(one: Process, other: Process) -> str:
    """Say in which words two commands differ; nothing if they do not.

    Args:
        one: a process of the first record.
        other: its counterpart.
    """
    words = [_words_of_command(process) for process in (one, other)]
    found = []
    matcher = SequenceMatcher(None, words[0], words[1], autojunk=False)
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag != "equal":
            found.append(f"{_shown(words[0], i, j)} in A, {_shown(words[1], k, m)} in B")
    return "; ".join(found)[:MOST_OF_A_COMMAND]


def files_differ(one: Process, other: Process) -> str:
    """Say which files of their scripts two processes had in other versions; nothing if in none.

    Nothing is said if one of them does not know, such as one that was killed.

    Args:
        one: a process of the first record.
        other: its counterpart.
    """
    files = [(process.end or {}).get("sources") or {} for process in (one, other)]
    if not all(files):
        return ""
    names = sorted({*files[0], *files[1]})
    known = [name for name in names if files[0].get(name) != files[1].get(name)]
    # A file that changed while it ran may have been another one in each run.
    known += [name for name in names if "changed while it ran" in files[0].get(name, "")]
    return ", ".join(dict.fromkeys(known))[:MOST_OF_A_COMMAND]


def _words_of_command(process: Process) -> list[str]:
    """Return the words of a command behind the name of Python."""
    words = process.start.get("command", [])[1:]
    return [re.sub(r"\S*/dir-\d-\w+|\b0x[0-9a-f]+\b", "…", word) for word in words]


def _shown(words: list[str], start: int, end: int) -> str:
    """Write words of a command, with the option that they are the value of."""
    if start == end:
        return "nothing"
    if start and words[start - 1].startswith("--") and not words[start].startswith("--"):
        start -= 1
    return " ".join(words[start:end])


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
    """Say which script, machine, versions, variables and settings the two runs had otherwise."""
    # The script may have set some itself; a run that was killed does not say.
    whole = all("variables" in (process.end or {}) for process in (a, b))
    scripts = [_script_of(process) for process in (a, b)]
    differ = f"{OTHER_SCRIPTS}: {scripts[0]} and {scripts[1]}"
    machines = [_machine(process) for process in (a, b)]
    both = machines[0].keys() & machines[1].keys()  # what a record of earlier does not say
    machines = [{name: each[name] for name in each if name in both} for each in machines]
    facts = [_versions_and_variables(process, whole) for process in (a, b)]
    if a.end is None or b.end is None:  # which has the versions
        facts = [{name: each[name] for name in each if name.isupper()} for each in facts]
    return [differ] * (scripts[0] != scripts[1]) + _otherwise(*machines) + _otherwise(*facts)


def _otherwise(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [
        f"{name} is {one.get(name, 'not there')} in the first run, "
        f"{other.get(name, 'not there')} in the second"
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
        and (name.isupper() or name.upper() not in {*one, *other})  # a variable and its setting
    ]


def _machine(process: Process) -> dict[str, Any]:
    """Return the processor, its cores and the devices, as far as the record has them."""
    told = process.start.get("processor", {})
    names = {"architecture": "the architecture", "model": "the processor"}
    names["instructions"] = "the instruction set"
    found: dict[str, Any] = {label: told.get(name, "") for name, label in names.items()}
    found["the number of cores"] = len(process.start.get("cores") or ())
    found["the set of devices"] = " and ".join((process.end or {}).get("kinds") or ())
    return {name: value for name, value in found.items() if value}


def _versions_and_variables(process: Process, whole: bool) -> dict[str, Any]:
    """Return what each is by its name; settings only of runs that came to their end."""
    end = process.end or {}
    found = {"Python": process.start.get("python"), **(end.get("versions") or {})}
    found |= ((end if whole else None) or process.start).get("variables") or {}
    return found | ((end.get("settings") or {}) if whole else {})
