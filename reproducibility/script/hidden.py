"""What a hidden input of a script is: what it is changed to, who asks for it, and how to pin it.

The rule: a row of the tables has all that is known of it; the search does not know any of them.
Chapter: docs/guide/hidden_inputs.md
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

type Group = Literal["", "machine"]
type Place = Literal["", "folder", "empty", "script", "home", "bare", "cache", "left"]

# What is held in the base run, each in its first way.
HELD = {
    **{"entropy": 0, "hash": 0, "listing": 0, "clock": 0, "pid": 0, "addresses": 0},
    **{"timing": 0, "workers": 0},
}
BLAS = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    *("BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"),
)
# Variables of the system that are no input of a script of their own.
NO_INPUTS = (
    *("PATH", "PWD", "OLDPWD", "SHLVL", "_", "TERM", "COLUMNS", "LINES", "TMPDIR", "TEMP", "TMP"),
    *("VIRTUAL_ENV", "LD_LIBRARY_PATH", "DISPLAY", "SHELL", "EDITOR", "PAGER"),
)
NO_INPUTS_BEGIN = ("PYTHON", "REPRODUCIBILITY_", "XDG_", "SSH_", "CUDA_VISIBLE")


@dataclass(frozen=True)
class Change:
    """What a hidden input is changed to, alone.

    `hold` has other ways of holding than those of the base run (-1: not held), `variables`
    environment variables (None: taken away), and `place` what lies elsewhere.
    """

    shown: str
    hold: Mapping[str, int] = field(default_factory=dict)
    variables: Mapping[str, str | None] = field(default_factory=dict)
    place: Place = ""
    setting: str = ""  # of JAX, which must have another value then
    may_fail: bool = False  # a run that fails tells nothing then
    words: str = ""  # tried only where a line of the script has them


@dataclass(frozen=True)
class Hidden:
    """A hidden input.

    `asks` says which events of a record are a script's question for it, as kind and pattern;
    `words` what a line has in it that asks for it. A script that asks in one of the ways of
    `told_anyway` and `words_anyway` was not shown another one, so nothing can be told of it.
    """

    name: str
    called: str
    pin: str
    changes: tuple[Change, ...]
    asks: tuple[tuple[str, str], ...] = ()
    words: str = ""
    quick: bool = False
    group: Group = ""
    timing: bool = False  # changed timing need not show each time
    more: tuple[Change, ...] = ()  # tried where the script is seen to ask for it
    # How a script can ask so that it is told the same in spite of the change: events, and words.
    told_anyway: tuple[tuple[str, str], ...] = ()
    words_anyway: str = ""


@dataclass(frozen=True)
class Surroundings:
    """What a script is run in: what is known once it has run."""

    command: Sequence[str]
    environment: Mapping[str, str]
    settings: Mapping[str, str]
    cores: int
    devices: int
    read: Sequence[str]  # variables that the script reads

    def number(self, name: str, default: int) -> int:
        """Return the number that a variable has."""
        text = self.environment.get(name, "")
        return int(text) if text.isdecimal() else default


def command_in_line(names: str) -> str:
    """Return the pattern of a line that starts one of these commands.

    Args:
        names: a pattern of their names.
    """
    starts = r"(subprocess|check_output|check_call|\brun\(|[Pp]open|system\(|getoutput|spawn)"
    return rf"{starts}.*['\"\s(`/|;]({names})(['\"\s)`|;+]|$)"


def is_another_row(name: str) -> bool:
    """Whether a variable is none that is changed for its own sake."""
    mine = ("USER", "LOGNAME", "LNAME", "USERNAME", "HOME", "HOSTNAME", "TZ", "LANG", "LANGUAGE")
    begin = (*NO_INPUTS_BEGIN, "LC_", "JAX_", "XLA_", "NPROC", "OPENBLAS_", "MKL_", "OMP_", "TF_")
    return name in (*NO_INPUTS, *mine, *BLAS) or name.startswith(begin)


def script_in(command: Sequence[str]) -> int | None:
    """Return which word of a command is a script of Python; None if none is.

    Args:
        command: as it would be typed.
    """
    for place, word in enumerate(command):
        if word in ("-m", "-c"):
            return None
        if word.endswith(".py") and os.path.isfile(word):
            return place
    return None


def is_variable(name: str) -> bool:
    """Whether something is named as environment variables are, and no row is.

    Args:
        name: the name.
    """
    return name.isidentifier() and name == name.upper()


def is_wanted(hidden: Hidden, *, only: Sequence[str], quick: bool, machine: bool) -> bool:
    """Whether a hidden input is changed.

    Args:
        hidden: the input.
        only: names of those that are changed; empty for all.
        quick: whether only the most frequent ones are.
        machine: whether those that belong to the machine are, too.
    """
    if only:
        return hidden.name in only
    if hidden.group == "machine":
        return machine
    return hidden.quick or not quick


def shown_together(changes: Sequence[Change]) -> str:
    """Return what an input was changed to, in all ways that were tried.

    Args:
        changes: the ways.
    """
    more = len(changes) - 1
    return changes[0].shown + f", and {more} more" * (more > 0) if changes else ""
