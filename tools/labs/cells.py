"""The code cells of a lab: those that its page shows, and those of an executed notebook.

The rule: both are read into the same form, so that a page can be compared with a second run.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from bs4 import BeautifulSoup

from tools.guard.published import without_line_end
from tools.labs.markup import drawing


@dataclass(frozen=True)
class Cell:
    """A code cell of a lab: its source, the texts it prints, and its drawings."""

    source: str
    texts: tuple[str, ...]
    drawings: tuple[str, ...]


def lab_cells(html: str) -> list[Cell]:
    """Return the code cells of the page of a lab."""
    return [
        Cell(
            "".join(
                without_line_end(tag.get_text()) for tag in cell.select(".language-python pre")
            ),
            tuple(without_line_end(tag.get_text()) for tag in cell.select(".output pre")),
            tuple(str(tag) for tag in cell.select("svg")),
        )
        for cell in BeautifulSoup(html, "html.parser").select(".lab > .cell")
    ]


def cells_as_shown(notebook: Any) -> list[Cell]:
    """Return the code cells of an executed notebook, as `lab_cells` finds them on its page."""
    numbers = itertools.count(1)
    return [
        Cell(
            "" if "hide_code" in cell.metadata.get("tags", []) else cell.source,
            tuple(
                without_line_end(out.text) for out in cell.outputs if out.output_type == "stream"
            ),
            tuple(
                str(
                    BeautifulSoup(
                        str(drawing(out.data["image/svg+xml"], next(numbers))), "html.parser"
                    )
                )
                for out in cell.outputs
                if out.output_type == "display_data"
            ),
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
