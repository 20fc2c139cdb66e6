"""What one part of the measurement came to, as JSON and as a table in Markdown.

Rows and columns keep the order of the code, so that two results compare line by line.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Part:
    """One part: its table, how long it took, and what there was no time for."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)
    """What failed, a sentence each."""
    cut: list[str] = field(default_factory=list)
    """What there was no time for."""
    left_out: list[str] = field(default_factory=list)
    """What does not apply here, and why."""
    raw: dict[str, Any] = field(default_factory=dict)
    """All that the processes wrote."""

    def markdown(self) -> str:
        """Return the part as a section."""
        lines = [f"### {self.title}", ""]
        if self.rows:
            lines += [_line(self.columns), "|" + "---|" * len(self.columns)]
            lines += [_line(row) for row in self.rows] + [""]
        named = {"Failed": self.errors, "Cut for time": self.cut, "Left out": self.left_out}
        for name, words in named.items():
            lines += [f"* {name}: {each}" for each in words]
        return "\n".join(lines).rstrip() + "\n"


def write_all(folder: Path, facts: dict[str, Any], parts: list[Part], seconds: float) -> str:
    """Write all that there is so far, as JSON and Markdown, and return the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"format": 1, "facts": facts, "seconds": round(seconds, 1)}
    whole["parts"] = [dataclasses.asdict(part) for part in parts]
    (folder / "accelerator.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    text = markdown_of(facts, parts, seconds)
    (folder / "accelerator.md").write_text(text, encoding="utf-8")
    return text


def markdown_of(facts: dict[str, Any], parts: list[Part], seconds: float) -> str:
    """Return all parts, below a label that says on what they were measured."""
    text = f"## Measured on: {label(facts)}\n\n"
    text += "".join(f"* {name}: {value}\n" for name, value in facts.items())
    text += f"* the measurement took {seconds:.0f} s\n\n"
    return text + "\n".join(part.markdown() for part in parts)


def label(facts: dict[str, Any]) -> str:
    """Return what was measured on, in a line."""
    device = f"{facts.get('devices', 0)} x {facts.get('device', 'no device')}"
    return f"{device} ({facts.get('platform', '?')}), jax {facts.get('version of jax', '?')}"


def same(values: list[Any]) -> str:
    """Say whether all values are equal."""
    if not values or None in values:
        return "not measured"
    if len(set(values)) == 1:
        return "the same"
    return f"**{len(set(values))} results in {len(values)}**"


def number(value: float | None, digits: str = ".3g") -> str:
    """Return a number as a cell."""
    if value is None:
        return ""
    return "0" if value == 0 else format(value, ",.0f" if abs(value) >= 100 else digits)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
