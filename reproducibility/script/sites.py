"""How a line of source is shown: its file as short as it can be said, the script's own lines first.

The rule: nothing here decides anything; a line keeps its file, number and function.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from reproducibility.script.reading import SourceLine

_INSTALLED = re.compile(r".*[/\\](?:site|dist)-packages[/\\]", re.DOTALL)


def near_file(file: str) -> str:
    """Return a file as seen from the current directory, or as it is imported, if that is shorter.

    Args:
        file: its path.
    """
    if inside := _INSTALLED.match(file):
        return file[inside.end() :]
    near = os.path.relpath(file) if os.path.isabs(file) else file
    return min(near, file, key=len)


def near_place(line: SourceLine) -> str:
    """Return file and line, as short as it can be said.

    Args:
        line: one of a record.
    """
    return f"{near_file(line.file)}:{line.line}"


def own_first(site: Sequence[SourceLine]) -> tuple[SourceLine, ...]:
    """Return the lines of a call with those of the script before those of installed libraries.

    Args:
        site: innermost first, as recorded.
    """
    return tuple(sorted(site, key=lambda line: bool(_INSTALLED.match(line.file))))
