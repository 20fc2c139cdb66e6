"""What the site's build does beyond MkDocs: each hook is a line or two that calls a function.

MkDocs loads this file through `hooks:` in mkdocs.yml.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
if str(ROOT) not in sys.path:  # `mkdocs serve` does not put the working directory there
    sys.path.append(str(ROOT))

from tools import downloads, labs  # noqa: E402
from tools.pages import CONTINUES, FENCE, OUTPUT  # noqa: E402

serving: list[bool] = []


def on_startup(command: str, dirty: bool) -> None:
    """Start the labs' kernels with our settings only, not with those of whoever builds."""
    labs.use_own_settings(ROOT / "build")
    serving.append(command == "serve")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """While serving, run a lab again only when it or the package changed."""
    if any(serving):
        config.plugins["mkdocs-jupyter"].config.update(
            cache=True, cache_dir=str(labs.cache_directory(ROOT))
        )
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the downloadable program of each chapter."""
    for file in list(files.documentation_pages()):
        if file.src_uri.startswith(downloads.CHAPTERS) and file.abs_src_path:
            program = downloads.script(Path(file.abs_src_path), ROOT)
            if program:
                name = file.src_uri.removesuffix(".md") + ".py"
                files.append(File.generated(config, name, content=program))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mark outputs, drop the tags, and link the chapter's download under its title."""
    program = page.file.src_uri.removesuffix(".md") + ".py"
    if page.file.src_uri.endswith(".md") and files.get_file_from_path(program):
        markdown = add_download(markdown, program.rpartition("/")[2])
    return mark_outputs(markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Simplify what mkdocs-jupyter made of a lab."""
    if not labs.is_lab(page.file):
        return html
    return labs.simplify(html, page.url, Path(config.site_dir))


def mark_outputs(markdown: str) -> str:
    """Give the fence after each output tag the class `output`, and remove all tags."""
    lines, is_output = [], False
    for line in markdown.split("\n"):
        fence = FENCE.match(line)
        if line.strip() in (CONTINUES, OUTPUT):
            is_output = line.strip() == OUTPUT
            line = ""
        elif is_output and fence:
            language, _, rest = fence["info"].strip().partition(" ")
            attributes = " ".join(filter(None, [f".{language}", ".output", rest]))
            line, is_output = f"{fence['indent']}{fence['ticks']} {{{attributes}}}", False
        lines.append(line)
    return "\n".join(lines)


def add_download(markdown: str, name: str) -> str:
    """Put the link under the first heading."""
    link = f'[:material-download: `{name}`]({name}){{ .download download="{name}" }}'
    link = f"{link}: every code block of this chapter, as one program"
    return re.sub(r"^# .*$", lambda title: f"{title[0]}\n\n{link}", markdown, count=1, flags=re.M)
