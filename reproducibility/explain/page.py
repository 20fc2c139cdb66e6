"""A page of what was found: one file of HTML that needs nothing else, to read, print and send.

The rule: what comes from a run is text and stays text: it is escaped, and the page allows itself no
script and no request.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from reproducibility.storage.files import write_atomically

SIGNS = {"same": "=", "different": "≠", "cannot be told": "?"}


def html_page(
    title: str,
    verdict: str,
    reason: str,
    head: str,
    sections: Mapping[str, str],
    written_by: str,
) -> str:
    """Return a page: a verdict, its reason, and sections, those without content left out.

    Args:
        title: what the verdict is about, as text.
        verdict: "same", "different" or "cannot be told".
        reason: the sentence below it, as text.
        head: HTML below that.
        sections: the HTML of each, by its heading.
        written_by: HTML that says what wrote the page.

    Returns:
        HTML that refers to nothing outside of itself.
    """
    sign, said = SIGNS[verdict], verdict.capitalize()
    body = "\n".join(f"<section><h2>{h}</h2>\n{t}</section>" for h, t in sections.items() if t)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{sign} {said}: {escaped(title)}</title>
<style>
{_style()}</style></head>
<body><main>
<header class="{verdict.partition(" ")[0]}"><h1><span aria-hidden="true">{sign}</span> {said}</h1>
<p>{escaped(reason)}</p>
{head}</header>
{body}
<footer>Written by {written_by}</footer>
</main></body></html>
"""


def write_page(path: str | os.PathLike[str], page: str) -> None:
    """Write a page into a file.

    Args:
        path: the file, replaced if it exists.
        page: its HTML.

    Raises:
        RunSaveError: it cannot be written.
    """
    # The name of a file may be no text: what UTF-8 has no bytes for is spelled out.
    write_atomically(Path(path), page.encode(errors="backslashreplace"))


def html_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table; each cell knows its heading, which stands beside it on a narrow screen.

    Args:
        heads: the headings, as text.
        rows: the cells of each row, as text; the first one is what the row is about.
    """
    top = "".join(f"<th scope='col'>{escaped(head)}</th>" for head in heads)
    body = ""
    for first, *rest in rows:
        cells = "".join(
            f"<td data-head='{escaped(head)}'>{escaped(cell)}</td>"
            for head, cell in zip(heads[1:], rest, strict=True)
        )
        body += f"<tr><th scope='row'>{escaped(first)}</th>{cells}</tr>\n"
    return f"<table><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table>"


def html_list(lines: Iterable[str]) -> str:
    """Write a list of texts; nothing where there are none.

    Args:
        lines: the texts.
    """
    items = "".join(f"<li>{escaped(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def svg_picture(height: int, title: str, summary: str, drawn: str) -> str:
    """Write a picture as wide as the page; places across are in percent, so text keeps its size.

    Args:
        height: in pixels.
        title: what it shows, as HTML.
        summary: the same as words, as HTML, for whoever does not see it.
        drawn: its SVG; where it has the class "parted", `HATCH` goes before it, once in a page.
    """
    return (
        f"<svg class='picture' width='100%' height='{height}' role='img'><title>{title}</title>"
        f"<desc>{summary}.</desc>{drawn}</svg>"
    )


def percent_of(part: float, whole: float) -> str:
    """Return a place in a picture that is `whole` wide.

    Args:
        part: the place.
        whole: the width.
    """
    return f"{100 * part / whole if whole else 50:.2f}%"


def escaped(text: object) -> str:
    """Return a text as HTML.

    Args:
        text: it.
    """
    return escape(str(text))


def _style() -> str:
    return resources.files(__package__).joinpath("report.css").read_text("utf-8")


HATCH = """<defs><pattern id='hatch' width='8' height='8' patternUnits='userSpaceOnUse'
 patternTransform='rotate(45)'><rect class='under' width='8' height='8'/>
<rect class='over' width='3' height='8'/></pattern></defs>"""
