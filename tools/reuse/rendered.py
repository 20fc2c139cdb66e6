"""Keep the pages of the last build, so that the next one renders only what changed.

The rule: a page is kept as long as its text, all that is no Markdown, and the names of all pages
are what they were. A page that includes other files, that documents code (its headings are the aims
of links), or that was warned about, is rendered each time.
"""

from __future__ import annotations

import functools
import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from mkdocs.utils import CountHandler

from tools.reuse import inputs

RESULTS = ("content", "toc", "_title_from_render", "present_anchor_ids", "links_to_anchors")
INCLUDES = re.compile(r"--8<--|^:::", re.MULTILINE)


class RenderedPages:
    """The pages as they were rendered last."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[object, dict[str, Any]]] = {}
        self.surroundings = ""
        self.warnings = CountHandler()
        self.warnings.setLevel(logging.WARNING)
        logging.getLogger("mkdocs").addHandler(self.warnings)

    def note_inputs(self, root: Path) -> None:
        """Note, before a build, what a page is made of beside its text."""
        pages = sorted(path.as_posix() for path in (root / "docs").rglob("*.md"))
        others = ("reproducibility", "tools", "mkdocs.yml")
        self.surroundings = inputs.json_digest(
            pages,
            inputs.files_digest(root, ("docs",), but=".md"),
            inputs.files_digest(root, others),
        )

    def attach(self, page: Page) -> None:
        """Make the page take what was kept of it, where that is what it would be now."""
        page.render = functools.partial(self._render, page)

    def _render(self, page: Page, config: MkDocsConfig, files: Files) -> None:
        name, made = page.file.src_uri, (page.markdown, self.surroundings)
        if self.kept.get(name, (None, {}))[0] != made:
            warned = self.warnings.get_counts()
            Page.render(page, config, files)
            if INCLUDES.search(page.markdown or "") or self.warnings.get_counts() != warned:
                self.kept.pop(name, None)
                return
            self.kept[name] = made, {name: getattr(page, name) for name in RESULTS}
        vars(page).update(self.kept[name][1])
        # Each build has its own files, and compares the anchors of their pages.
        page.links_to_anchors = {
            found: anchors
            for file, anchors in (page.links_to_anchors or {}).items()
            if (found := files.get_file_from_path(file.src_uri))
        }
