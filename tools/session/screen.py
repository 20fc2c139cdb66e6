"""What a terminal shows of what it got, and the whole session as text.

The rule: what a terminal would show in a way that is not known here is refused, not guessed.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any


def screen(raw: str, columns: int) -> list[str]:
    """Return the lines that a terminal shows after it got `raw`: a line may be written again.

    What is too long goes on below as in a terminal, but at a space where it has one.
    """
    text = re.sub(r"\x1b\[\?25[hl]", "", raw).replace("\r\n", "\n").removesuffix("\n")
    lines = [line.rpartition("\r\x1b[2K")[2] for line in text.split("\n")] if text else []
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
    return screen("".join(text for _, text in scene["output"]), columns)


def typed(scene: dict[str, Any]) -> list[str]:
    """Return the lines of a command, after a prompt."""
    return [("$ " if not n else "  ") + line for n, line in enumerate(lines_of(scene["command"]))]


def lines_of(text: str) -> list[str]:
    """Return the lines of a text; an empty one has none."""
    return text.split("\n") if text else []


def transcript(recording: dict[str, Any]) -> str:
    """Return the whole session as text: what is not from the terminal stands in brackets."""
    lines: list[str] = []
    for scene in recording["scenes"]:
        lines += [*lines_of(scene["says"]), *typed(scene)]
        lines += last_screen(scene, recording["columns"])
        if scene["killed_by"]:
            lines.append(f"[{scene['killed_by']}, from another process]")
        lines.append(f"[exit code {scene['exit']}]")
    return "\n".join(lines) + "\n"


def everywhere(text: str) -> str:
    """Return the part of a transcript that is the same on every machine."""
    text = re.sub(r"^step +\d+/(\d+) .*\n(?=\[kill)", r"step N/\1\n", text, flags=re.MULTILINE)
    text = re.sub(r"loss \d+\.\d+ \d:\d\d:\d\d", "loss L T", text)
    text = re.sub(r"kill -9 \d+", "kill -9 PID", text)
    return re.sub(r"[0-9a-f]{32,}", "DIGEST", text)
