"""Fresh processes of Python, which import the package of this one.

The rule: nothing is imported from the directory that one happens to be in, and what a process died
of is said.
Chapter: docs/guide/using_the_project.md
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

_PACKAGE = Path(__file__).parents[2]


def python(*arguments: str) -> list[str]:
    """Return the command of a fresh Python, which does not look into its directory for modules.

    Args:
        arguments: those of Python, as in `"-m", "module"`.
    """
    return [sys.executable, "-P", *arguments]


def with_package(variables: Mapping[str, str]) -> dict[str, str]:
    """Add to environment variables where this package is, before all other places.

    Args:
        variables: by name.
    """
    paths = [str(_PACKAGE), *filter(None, [variables.get("PYTHONPATH")])]
    return {**variables, "PYTHONPATH": os.pathsep.join(paths)}


def last_words(errors: str) -> str:
    """Pick what a process died of: the exception, or else the first thing that XLA complained.

    Same bits: everywhere.

    Args:
        errors: what it wrote to stderr.
    """
    lines = errors.strip().splitlines()
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit)\b", line)]
    told = (raised[-1:] or lines[:1] or ["nothing"])[0]
    return repr(re.sub(r"^[EFIW]\d{4} [^]]*\] ", "", told)[:300])
