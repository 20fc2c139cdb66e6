"""Keep on record what was executed, in build/executed.json, and rewrite outputs from it.

The rule: a page's entry carries the SHA-256 of the source that ran, so that it says nothing about
any other text.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tools.guard.pages import read_page

RECORD = Path("build/executed.json")


def read_record(root: Path) -> dict[str, Any]:
    """Return the record of what ran: pages by name, docstring examples by name."""
    try:
        record: dict[str, Any] = json.loads((root / RECORD).read_text("utf-8"))
    except FileNotFoundError:
        record = {"pages": {}, "doctests": {}}
    return record


def write_record(root: Path, blocks: list[dict[str, Any]], doctests: list[dict[str, Any]]) -> None:
    """Add blocks and docstring examples to the record; an edited page starts from scratch."""
    record = read_record(root)
    for block in blocks:
        page = record["pages"].get(block["page"])
        if page is None or page["sha256"] != block["sha256"]:
            page = record["pages"][block["page"]] = {"sha256": block["sha256"], "blocks": {}}
        page["blocks"][str(block["line"])] = {
            key: block[key] for key in ("language", "code", "output", "printed", "outcome")
        }
    for ran in doctests:
        record["doctests"][ran["name"]] = ran["examples"]
    path = root / RECORD
    path.parent.mkdir(exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(record, indent=1, ensure_ascii=False), "utf-8")
    draft.replace(path)


def update_outputs(root: Path, ran: list[dict[str, Any]]) -> list[str]:
    """Rewrite the outputs that differ from what was printed; return the pages that changed."""
    rewritten = []
    for name in sorted({block["page"] for block in ran}):
        path = root / name
        printed = {block["line"]: block["printed"] for block in ran if block["page"] == name}
        sha256 = {block["sha256"] for block in ran if block["page"] == name}
        if hashlib.sha256(path.read_bytes()).hexdigest() not in sha256:
            continue  # edited meanwhile: the line numbers no longer hold
        page = read_page(path, root)
        lines = path.read_text("utf-8").splitlines(keepends=True)
        for block in reversed(page.blocks):
            new = printed.get(block.line)
            if block.output and new is not None and new != block.output.text:
                start = block.output.line
                stop = start + block.output.text.count("\n")
                indent = " " * block.output.indent
                lines[start:stop] = [
                    f"{indent}{line}\n" if line else "\n"
                    for line in new.removesuffix("\n").split("\n")
                ]
        text = "".join(lines)
        if text != path.read_text("utf-8"):
            path.write_text(text, "utf-8")
            rewritten.append(name)
    return rewritten
