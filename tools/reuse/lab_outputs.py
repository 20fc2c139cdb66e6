"""Keep the labs as they were executed, so that `make serve` shows their outputs without a wait.

The rule: a notebook is kept under the SHA-256 of all that its outputs can depend on, and shown only
as long as nothing of that has changed. `mkdocs build` uses none of this: it runs every lab.

Run as a program, it executes the labs that are named.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from mkdocs_jupyter import convert
from nbconvert.preprocessors import ExecutePreprocessor

from tools.labs import settings
from tools.reuse import inputs

ROOT = Path(__file__).parents[2]
# What executes a lab, beside the lab itself.
EXECUTES = (
    "reproducibility",
    "tools/labs",
    "tools/reuse/lab_outputs.py",
    "requirements.lock",
    "pyproject.toml",
)
KEPT = 4  # of each lab: a build may be showing one, and who changes something may change it back
NOT_RUN = """
<div class="admonition warning">
<p class="admonition-title">Not run yet</p>
<p>Something that this page depends on has changed since its cells ran, or they never ran here. So
their outputs are missing. <code>make serve</code> runs them in the background and then reloads this
page; if they fail, its log says why. <code>mkdocs serve</code> runs no lab. <code>make site</code>
always runs them.</p>
</div>
"""

log = logging.getLogger("mkdocs.labs")


def places(root: Path = ROOT) -> dict[Path, Path]:
    """Return for each lab where its executed notebook is kept while all is as it is now."""
    executes = inputs.json_digest(inputs.files_digest(root, EXECUTES), inputs.surroundings_digest())
    found = {}
    for pattern in settings.SOURCES:
        for source in (root / "docs").glob(pattern):
            name = source.relative_to(root).as_posix()
            digest = inputs.json_digest(executes, inputs.files_digest(root, [name]))
            found[source] = root / "build" / "labs" / f"{source.stem}-{digest}.ipynb"
    return found


def missing(root: Path = ROOT) -> dict[Path, Path]:
    """Return the labs that have not run with all as it is now, and where they would be kept."""
    return {source: place for source, place in places(root).items() if not place.is_file()}


class LabsShown:
    """The labs as one build shows them: with outputs as fresh as the page, or with none."""

    def __init__(self) -> None:
        self.notebooks: dict[Path, Path] = {}
        self.nb2html = convert.nb2html
        convert.nb2html = self._nb2html

    def choose(self, root: Path = ROOT) -> None:
        """Decide, once for a build, which labs are shown with outputs."""
        self.notebooks = {lab: place for lab, place in places(root).items() if place.is_file()}

    def _nb2html(self, source: str, execute: bool = False, **options: Any) -> str:
        # In the place of mkdocs-jupyter's: nothing is executed.
        return str(self.nb2html(str(self.notebooks.get(Path(source), source)), **options))

    def mark_not_run(self, html: str, source: Path) -> str:
        """Say under the title of a lab that it has not run, if it has not."""
        if source in self.notebooks:
            return html
        return html.replace("</h1>", f"</h1>{NOT_RUN}", 1)


def execute(chosen: Iterable[Path], root: Path = ROOT) -> list[Path]:
    """Execute labs as a build of the site does, and keep them once the last one has run.

    A lab whose sources changed meanwhile is not kept: nobody knows which of the two it saw. Nor is
    one that failed: the log says why, and the labs that failed are returned.
    """
    settings.use_own_settings(root / "build")
    before, texts, failed = places(root), {}, []
    for source in chosen:
        try:
            texts[source] = _executed(source)
        except Exception as error:  # whatever a lab can do: the others are kept all the same
            log.error(f"Lab {source.relative_to(root).as_posix()} failed: {error}")
            failed.append(source)
    after = places(root)
    for source, text in texts.items():
        if source in after and after[source] == before.get(source):
            keep(after[source], text)
    return failed


def _executed(source: Path) -> str:
    notebook = jupytext.read(source)
    ExecutePreprocessor(kernel_name="python3", store_widget_state=True).preprocess(notebook)
    return str(nbformat.writes(notebook))


def _lab(place: Path) -> str:
    return place.stem.rpartition("-")[0]  # without the SHA-256


def keep(target: Path, text: str) -> None:
    """Keep an executed notebook, and of the same lab at most three before it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = [path for path in target.parent.glob("*.ipynb") if _lab(path) == _lab(target)]
    for old in sorted(kept, key=lambda path: path.stat().st_mtime)[: 1 - KEPT]:
        old.unlink()
    half = target.with_suffix(".half")
    half.write_text(text, "utf-8")
    half.replace(target)


if __name__ == "__main__":
    os.nice(10)  # whoever waits for a page comes first
    sys.exit(bool(execute(ROOT / name for name in sys.argv[1:])))
