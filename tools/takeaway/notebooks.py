"""Make of each chapter and lab a notebook, a chapter's from exactly the blocks that are tested.

The rule: a notebook is its page, for another reader. Every block is a cell, in the order of the
page, and the output that was checked is the cell's output. What a notebook cannot show becomes a
link to the page. The same source gives the same bytes.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urljoin

import jupytext  # type: ignore[import-untyped]
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.guard.pages import CONTINUES, DOWNLOADED, FENCE, OUTPUT, Block, read_page
from tools.takeaway.programs import EMPTY_DIRECTORY, FLAGS, PROGRAMS_FIRST, writes_download

# What chapters and labs import or call beyond what the package itself depends on.
MORE = ("equinox", "grain", "matplotlib", "pytest")
# The branch of the repository that holds the notebooks, for Colab; written when the site is.
BRANCH = "notebooks"

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CHAPTER = f"""\
# Made from {{name}}
# Each cell of code is a tested block of that page, with what it prints. Run this cell first;
# after it, a cell that begins with empty_directory() needs no other.
import atexit
import os
import shutil
import sys
import tempfile
{{install}}
{EMPTY_DIRECTORY}
{PROGRAMS_FIRST}
# They write lines as wide as those of the page, without colours.
os.environ.update(COLUMNS="100", NO_COLOR="1", TERM="dumb")
os.environ.pop("CLICOLOR_FORCE", None)
os.environ.pop("FORCE_COLOR", None)
"""
LAB = """\
# Made from {name}
# The cells run from top to bottom. They need the package, and matplotlib for the plots.
import sys
{install}"""
COLAB = """
if "google.colab" in sys.modules:  # anywhere else, what is installed is up to you
    %pip install --quiet {requirements}
"""

ADMONITION = re.compile(r'(?:\?{3}\+?|!{3}) +(?P<kind>\w+)[\w ]*(?:"(?P<title>.*)")?\s*$')
HEADING = re.compile(r"#{1,6} ")
REFERENCE = re.compile(r"^\[([^\]]+)\]: +(\S+)\n?", re.MULTILINE)
# What Markdown means on this site and not in a notebook. Code comes first: nothing in it is a link.
MARKUP = re.compile(
    r"""
      ^(?P<fence>`{3,})[^\n]*\n .*? ^(?P=fence)$
    | (?P<ticks>`+)(?!`) .+? (?P=ticks)(?!`)
    | (?P<drawing> <figure\b .*? </figure> | ^--8<--[^\n]*$ )
    | (?P<dropped> <!-- .*? -->\n? | [ ]*\{:?[ ]*(?:[#.][\w-]+[ ]*)+\} )  # comments, attributes
    | (?<!!)\[ (?P<text> (?: `[^`]*` | \[[^\]]*\] | [^\[\]`] )+ ) \]\( (?P<target> [^)\s]+ ) \)
    """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)


def chapter_notebook(path: Path, root: Path, config: MkDocsConfig) -> str:
    """Return the page at `path` as a notebook that shows the outputs that were checked."""
    return _notebook(_cells(path, root), CHAPTER, path, root, config)


def lab_notebook(path: Path, root: Path, config: MkDocsConfig) -> str:
    """Return the lab at `path` as a notebook without outputs: these belong to each machine."""
    cells = jupytext.read(path, fmt="py:percent").cells
    for number, cell in enumerate(cells, 1):
        cell.id = f"cell-{number}"  # was random
    return _notebook(cells, LAB, path, root, config)


def colab_address(config: MkDocsConfig, name: str) -> str | None:
    """Return where Colab opens the notebook `name`, if the repository is where it can look."""
    found = re.fullmatch(
        r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?", config.repo_url or ""
    )
    base = "https://colab.research.google.com/github"
    return f"{base}/{found[1]}/blob/{BRANCH}/{name}" if found else None


@cache
def pins(root: Path) -> tuple[str, ...]:
    """Return what the package and the pages need, each at the version of requirements.lock."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {re.split(r"[^\w-]", text)[0] for text in project["dependencies"]} | {*MORE}
    lock = (root / "requirements.lock").read_text("utf-8")
    locked = re.findall(r"^(([\w.-]+)==.+?) \\$", lock, re.MULTILINE)
    return tuple(pin for pin, name in locked if name in needed)


def _notebook(
    cells: list[NotebookNode], template: str, path: Path, root: Path, config: MkDocsConfig
) -> str:
    # The cell that prepares the others stands below the first: the title, and what it is about.
    name = path.relative_to(root / "docs").as_posix()
    prose = [cell for cell in cells if cell.cell_type == "markdown"]
    references = dict(REFERENCE.findall("\n".join(cell.source for cell in prose)))
    for cell in prose:
        cell.source = _prose(_inlined(cell.source, references), name, root, config)
    install = ""
    if config.repo_url:
        revision = config.extra.get("revision") or "main"
        package = f"reproducibility @ git+{config.repo_url.rstrip('/')}@{revision}"
        requirements = " \\\n        ".join(f'"{text}"' for text in (package, *pins(root)))
        install = COLAB.format(requirements=requirements)
    text = template.format(name=_address(name, config) or name, install=install)
    cells.insert(1, new_code_cell(text.rstrip("\n"), id="setup"))
    return nbformat.writes(new_notebook(cells=cells, metadata=METADATA)) + "\n"


def _cells(path: Path, root: Path) -> list[NotebookNode]:
    page = read_page(path, root)
    begins = {chain[0].line for chain in page.chains}
    cells: list[NotebookNode] = []
    prose: list[tuple[int, str]] = []  # with its line
    for line, piece in [*_pieces(path, {block.line: block for block in page.blocks}), (0, "# ")]:
        if isinstance(piece, Block) or HEADING.match(piece):
            if source := "\n".join(text for _, text in prose).strip("\n"):
                cells.append(new_markdown_cell(source, id=f"line-{prose[0][0]}"))
            prose = []
        if isinstance(piece, Block):
            cells += _code_cells(piece, piece.line in begins)
        else:
            prose.append((line, piece))
    return cells


def _pieces(path: Path, blocks: dict[int, Block]) -> Iterator[tuple[int, str | Block]]:
    # From top to bottom, each with its line: blocks that run; listings; every other line.
    outputs = {block.output.line for block in blocks.values() if block.output}
    lines = path.read_text("utf-8").split("\n")
    number = lines.index("---", 1) + 1 if lines[0] == "---" else 0  # the front matter
    folded = False
    while number < len(lines):
        text = lines[number]
        number += 1
        if fence := FENCE.match(text):
            end = lines.index(fence["indent"] + fence["ticks"], number)
            if number in blocks:
                yield number, blocks[number]
            elif number not in outputs:
                body = [line[len(fence["indent"]) :] for line in lines[number : end + 1]]
                yield number, "\n".join([_opening(fence), *body])
            number = end + 1
        elif marker := ADMONITION.match(text):
            folded = True
            yield number, f"**{marker['title'] or marker['kind'].capitalize()}**\n"
        elif text.strip() not in (CONTINUES, OUTPUT) and not DOWNLOADED.fullmatch(text.strip()):
            folded = folded and (text.startswith("    ") or not text.strip())
            yield number, text[4:] if folded else text


def _opening(fence: re.Match[str]) -> str:
    # A title becomes a line above the listing.
    language, _, options = fence["info"].partition(" ")
    title = re.search(r'title="(.*?)"', options)
    return (f"*{title[1]}*\n\n" if title else "") + fence["ticks"] + language


def _code_cells(block: Block, begins: bool) -> list[NotebookNode]:
    source, identity = block.code.rstrip("\n"), f"line-{block.line}"
    cells = []
    if write := writes_download(block).rstrip("\n"):
        begin, begins = "empty_directory()\n" * begins, False
        cells.append(new_code_cell(f"{begin}{write}", id=f"{identity}-file"))
    if block.language in FLAGS:
        # A magic must be a cell's first line.
        if begins:
            cells.append(new_code_cell("empty_directory()", id=f"{identity}-begin"))
        source = f"%%script {' '.join([block.language, *FLAGS[block.language]])}\n{source}"
    elif begins:
        source = f"empty_directory()\n{source}"
    shown = block.output.text if block.output else ""
    outputs = [new_output("stream", name="stdout", text=shown)] if shown else []
    return [*cells, new_code_cell(source, id=identity, outputs=outputs)]


def _inlined(source: str, references: dict[str, str]) -> str:
    # A cell is rendered alone, so that its links must hold their own targets.
    for label, target in references.items():
        source = source.replace(f"][{label}]", f"]({target})")
    return REFERENCE.sub("", source)


def _prose(source: str, name: str, root: Path, config: MkDocsConfig) -> str:
    # `name` is the page's source, named from docs/.
    address = _address(name, config)

    def replace(found: re.Match[str]) -> str:
        if found["drawing"]:
            title = re.search(r"<title[^>]*>(.*?)</title>", found[0], re.DOTALL)
            part = re.search(r"([\w-]+)\.html", found[0])
            what = title[1] if title else part[1].replace("-", " ") if part else "a drawing"
            return f"*On the page: {f'[{what}]({address})' if address else what}*"
        if found["target"]:
            target = _target(found["target"], name, root, config)
            return f"[{found['text']}]({target})" if target else found["text"]
        return "" if found["dropped"] else found[0]

    return MARKUP.sub(replace, source).strip("\n")


def _target(link: str, name: str, root: Path, config: MkDocsConfig) -> str | None:
    # Where a link of the page `name` leads from outside of the site.
    if re.match(r"[a-z]+:", link):
        return link
    address = _address(name, config)
    if address is None or link.startswith("#") or name.endswith(".py"):
        # The links of a lab are those of its built page.
        return address and urljoin(address, link)
    path, hash_sign, anchor = link.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
    is_page = path.endswith((".md", ".py")) and (root / "docs" / path).is_file()
    found = _address(path, config) if is_page else urljoin(config.site_url or "", path)
    return f"{found}{hash_sign}{anchor}"


def _address(name: str, config: MkDocsConfig) -> str | None:
    # Where the page of a source file stands, if it is known where the site does.
    as_page = File(
        posixpath.splitext(name)[0] + ".md",
        config.docs_dir,
        config.site_dir,
        config.use_directory_urls,
    )
    return urljoin(config.site_url, as_page.url) if config.site_url else None
