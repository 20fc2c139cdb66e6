"""Run one part after the other, within the time there is, and write what there is after each."""

from __future__ import annotations

import argparse
import time

from tools.accelerator.answers import Asking, say
from tools.accelerator.parts import PARTS, Scope
from tools.accelerator.tables import Part, write_all

SECONDS = 450.0  # for all parts; with more of them each part has more
START = 90.0


def measured(
    arguments: argparse.Namespace, began: float, stand_ins: str, lacking: list[str]
) -> int:
    """Measure, print the table, and return 0 if no part has an error."""
    until = began + arguments.seconds
    say(began, "what is here")
    asking = Asking(min(until, time.monotonic() + START), stand_ins)
    found = asking.ask("asked:device")
    facts = found.rows[0] if found.rows else {"error": found.error}
    if lacking:
        facts["stand-ins for"] = ", ".join(lacking)
    scope = scope_of(arguments, facts, asking)
    parts: list[Part] = []
    for name in [name for name in PARTS if name in (arguments.only or PARTS)]:
        if found.rows:
            parts.append(timed(name, scope, began, until, max(1, arguments.seconds / SECONDS)))
        text = write_all(arguments.out, facts, parts, time.monotonic() - began)
    print(text)
    say(began, f"written: {arguments.out}/accelerator.json and .md")
    return 1 if not found.rows or any(part.errors for part in parts) else 0


def scope_of(arguments: argparse.Namespace, facts: dict[str, object], asking: Asking) -> Scope:
    """Return what there is to do."""
    scope = Scope(asking, str(facts.get("platform", "cpu")), int(str(facts.get("devices", 1))))
    if arguments.small:
        scope.networks, scope.operations = ("perceptron", "attention"), (("sum", "svd", "sort"))
        scope.steps, scope.switches = 6, 1
    return scope


def timed(name: str, scope: Scope, began: float, until: float, more: float = 1) -> Part:
    """Measure one part, and say so; an error of our own costs this part only."""
    measure, seconds, kept = PARTS[name]
    start = time.monotonic()
    say(began, name)
    scope.asking.until = min(until - kept * more, start + seconds * more)
    try:
        part = measure(scope)
    except Exception as error:  # the others are measured
        part = Part(name, name, [], errors=[f"{type(error).__name__}: {error}"[:300]])
    part.seconds = round(time.monotonic() - start, 1)
    for words in (*part.errors, *part.cut):
        say(began, f"  {words}")
    return part
