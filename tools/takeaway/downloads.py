"""Which files a page offers to take away, and the links to them.

The rule: a file is offered under the name of its page's source, and only where it exists.
"""

from __future__ import annotations

import posixpath
import re
from html import escape
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from tools.labs.settings import is_lab
from tools.look.reading import CHAPTERS
from tools.story.stages import downloads_of_story, story
from tools.takeaway.notebooks import chapter_notebook, colab_address, lab_notebook
from tools.takeaway.programs import chapter_program

SCRIPT = re.compile(r"<!-- show: (?P<address>story/[\w/]+\.py) -->")
TABLE = "<!-- take-away -->"  # where a page lists what readers may take away


def add_downloads(files: Files, root: Path, config: MkDocsConfig) -> None:
    """Add each chapter and lab as a notebook, each chapter as a program, and the story's script."""
    for file in list(files):
        source = Path(file.abs_src_path or "")
        if file.src_uri.startswith(CHAPTERS) and file.src_uri.endswith(".md"):
            if program := chapter_program(source, root):
                _add(files, config, file, ".py", program)
                _add(files, config, file, ".ipynb", chapter_notebook(source, root, config))
        elif is_lab(file):
            _add(files, config, file, ".ipynb", lab_notebook(source, root, config))
    for address, text in downloads_of_story().items():
        files.append(File.generated(config, address, content=text))


def _add(files: Files, config: MkDocsConfig, beside: File, suffix: str, content: str) -> None:
    name = beside.src_uri.rpartition(".")[0] + suffix
    files.append(File.generated(config, name, content=content))


def with_scripts(markdown: str) -> str:
    """Return the Markdown of a page with each script that it asks for in a fold, to read."""

    def fold(found: re.Match[str]) -> str:
        # Plain text: with marks for colours it would be a third of the page's weight.
        text = escape(story(found["address"]), quote=False).rstrip("\n")
        name = posixpath.basename(found["address"])
        return (
            f'<details class="example" data-search-exclude><summary>{name}</summary>'
            f'<pre class="recorded"><code>{text}</code></pre></details>'
        )

    return SCRIPT.sub(fold, markdown)


def links_of_page(file: File, files: Files, config: MkDocsConfig) -> dict[str, str]:
    """Return the links that stand under a page's title: their texts and addresses."""
    stem = file.src_uri.rpartition(".")[0]
    name = stem.rpartition("/")[2]
    links = {
        f"{kind} <code>{name}{suffix}</code>": get_relative_url(made.url, file.url)
        for kind, suffix in (("Program", ".py"), ("Notebook", ".ipynb"))
        if (made := files.get_file_from_path(stem + suffix)) and made is not file
    }
    if (colab := colab_address(config, f"{stem}.ipynb")) and links:
        links["Open in Colab"] = colab
    return links


def with_table(
    markdown: str, pages: list[Page], on: File, files: Files, config: MkDocsConfig
) -> str:
    """Return the Markdown of the page `on` with the table of downloads where it asks for it."""
    if TABLE not in markdown:
        return markdown
    return markdown.replace(TABLE, downloads_table(pages, on, files, config))


def downloads_table(pages: list[Page], on: File, files: Files, config: MkDocsConfig) -> str:
    """Return a Markdown table of the downloads of all `pages`, as the page `on` links them."""
    rows = ["| page | program | notebook |", "|---|---|---|"]
    for page in pages:
        name = posixpath.splitext(page.file.src_uri)[0]
        program, notebook = (
            _download(file, on) if file and file is not page.file else ""
            for file in (files.get_file_from_path(name + suffix) for suffix in (".py", ".ipynb"))
        )
        if notebook:
            if opened := colab_address(config, f"{name}.ipynb"):
                file = posixpath.basename(name)
                notebook += f' [Colab]({opened}){{ aria-label="{file} in Colab" }}'
            title = f"[{page.title}]({get_relative_url(page.file.src_uri, on.src_uri)})"
            rows.append(f"| {title} | {program} | {notebook} |")
    return "\n".join(rows)


def _download(file: File, on: File) -> str:
    # Short, since names are long and screens narrow; the name is for those who hear it.
    name = posixpath.basename(file.src_uri)
    address = get_relative_url(file.src_uri, on.src_uri)
    shown = posixpath.splitext(name)[1]
    return f'[`{shown}`]({address}){{ download="{name}" aria-label="{name}" }}'
