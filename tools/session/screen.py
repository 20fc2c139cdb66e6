"""What a terminal shows of what it got, and the whole session as text.

The rule: what a terminal would show in a way that is not known here is refused, not guessed.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any


def screen(raw: str, columns: int) -> list[str]:
    """Return the lines that a terminal shows after it got `raw`.

    What is too long continues below as in a terminal, but at a space where it has one.
    """
    text = raw.replace("\r\n", "\n").removesuffix("\n")
    lines = text.split("\n") if text else []
    for line in lines:
        if re.search(r"[\x00-\x1f]", line):
            raise ValueError(f"this is no terminal for {line!r}: teach it")
    return [
        part.rstrip()
        for line in lines
        for part in textwrap.wrap(line, columns, break_on_hyphens=False) or [""]
    ]


def last_screen(scene: dict[str, Any], columns: int) -> list[str]:
    """Return what a command leaves in the terminal."""
    return screen(scene["output"], columns)


def typed(scene: dict[str, Any], columns: int) -> list[str]:
    """Return the lines of a command, after a prompt."""
    return textwrap.wrap(f"$ {scene['command']}", columns, break_on_hyphens=False)


def transcript(recording: dict[str, Any]) -> str:
    """Return the whole session as text, with the exit codes in brackets."""
    lines: list[str] = []
    for scene in recording["scenes"]:
        lines += [scene["says"]] if scene["says"] else []
        lines += [f"$ {scene['command']}", *scene["output"].replace("\r\n", "\n").splitlines()]
        lines.append(f"[exit code {scene['exit']}]")
    return "\n".join(lines) + "\n"
