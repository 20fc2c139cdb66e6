"""Has a script itself set what was changed outside of it, so that nothing was changed?

The rule: what decides is what a process had when it took effect: the salt of hash() when
Python began, all else when the script ended.
Chapter: docs/guide/hidden_inputs.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reproducibility.script.hidden import Change
from reproducibility.script.reading import Process

SALT = "PYTHONHASHSEED"
SALT_TOO_LATE = (
    f"the script sets {SALT} itself, which has no effect on its own process: hash() is"
    " salted when Python starts"
)


def is_undone(change: Change, base: Sequence[Process], changed: Sequence[Process]) -> bool:
    """Whether the script has undone a change.

    Args:
        change: what was changed.
        base: the processes of the base run.
        changed: those of the changed run that called JAX.
    """
    ends = [each.end or {} for each in changed]
    if any(set(change.variables) & set(end.get("undone", ())) for end in ends):
        return True
    if change.hold.get("hash") is not None:
        return str(change.hold["hash"]) not in [_salt_in(each.start) for each in changed]
    before = [each.end or {} for each in base]
    if change.setting:
        return _settings(before, change.setting) == _settings(ends, change.setting)
    if "JAX_NUM_CPU_DEVICES" in change.variables:
        devices = [end.get("devices") for end in before if end.get("devices")]
        return [end.get("devices") for end in ends] == devices
    return False


def sets_salt_too_late(change: Change, changed: Sequence[Process]) -> bool:
    """Whether the script sets the salt for its own process, which has begun with another one.

    Args:
        change: what was changed.
        changed: the processes of the changed run that called JAX.
    """
    salt = change.hold.get("hash")
    salts = [(_salt_in(each.start), _salt_in(each.end or {})) for each in changed]
    return any(began == str(salt) and ended not in (None, began) for began, ended in salts)


def _salt_in(facts: dict[str, Any]) -> str | None:
    found: str | None = (facts.get("variables") or {}).get(SALT)
    return found


def _settings(ends: Sequence[dict[str, Any]], name: str) -> list[str | None]:
    return [end["settings"].get(name) for end in ends if end.get("settings")]
