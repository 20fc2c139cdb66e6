"""The programs and notebooks that readers take away do what their pages show."""

import ast
import json
import os
import posixpath
import re
import shlex
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jupytext
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from mkdocs.config import load_config
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import get_files
from mkdocs.structure.nav import get_navigation
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from packaging.requirements import Requirement

from tests import kernels
from tools.guard.executed import read_record
from tools.guard.pages import Block, Page, read_page
from tools.labs.settings import use_own_settings
from tools.look.reading import CHAPTERS
from tools.story.stages import story
from tools.takeaway.downloads import downloads_table
from tools.takeaway.notebooks import chapter_notebook, colab_address, lab_notebook
from tools.takeaway.programs import DIRECTORY, FLAGS, SHELL, chapter_program

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    path.relative_to(DOCS).with_suffix("").as_posix()
    for chapter in CHAPTERS
    for path in (DOCS / chapter).rglob("*.md")
    if chapter_program(path, ROOT)
)
LABS = sorted(DOCS.rglob("*.py"))
# Each notebook is run. A program holds the same code in the same order, which is compared; what is
# left to see is that such a program runs: one with Python, shell blocks and a script to download.
PROGRAMS = ["fundamentals/jax_prng_tutorial"]


def source(name: str) -> Path:
    """The Markdown file of a chapter."""
    return DOCS / f"{name}.md"


def config(
    site: str = "https://owner.example/name/", repository: str = "https://github.com/owner/name"
) -> MkDocsConfig:
    """The site's configuration, at addresses that are known, or with "" unknown."""
    made = load_config(str(ROOT / "mkdocs.yml"), site_url=site, repo_url=repository)
    made.extra.pop("revision", None)
    return made


def chapter(name: str) -> NotebookNode:
    """The notebook of a chapter."""
    return nbformat.reads(chapter_notebook(source(name), ROOT, config()), 4)


def small_chapter(text: str, folder: Path, **known: str) -> NotebookNode:
    """The notebook of a page with this text, at docs/part/page.md in `folder`."""
    path = folder / "docs" / "part" / "page.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    for name in ("pyproject.toml", "requirements.lock"):
        (folder / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    return nbformat.reads(chapter_notebook(path, folder, config(**known)), 4)


def prose(notebook: NotebookNode) -> str:
    """All that a notebook says, without its code."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """The cells of code by their ids, without the one that prepares them."""
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    del cells["setup"]
    return cells


def printed(notebook: NotebookNode) -> dict[str, str]:
    """What each cell of code shows, but for stderr; a value that is displayed counts too."""
    return {
        name: ended(
            "".join(
                output.text if output.output_type == "stream" else output.data["text/plain"]
                for output in cell.outputs
                if output.get("name") != "stderr"
            )
        )
        for name, cell in code(notebook).items()
    }


def ended(text: str) -> str:
    """The text with its last line ended, as a fence of a page must show it."""
    return text if text.endswith("\n") or not text else f"{text}\n"


def on_record(name: str) -> list[tuple[Block, dict]]:
    """The blocks of a chapter and what is on record of them."""
    page = read_page(source(name), ROOT)
    ran = read_record(ROOT)["pages"].get(page.name, {"sha256": None})
    assert ran["sha256"] == page.sha256, f"{page.name} has changed: run `make test-docs` first"
    return [(block, ran["blocks"][str(block.line)]) for block in page.blocks]


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Execute a notebook from top to bottom in an empty directory, and return it."""
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(variable, "")  # so that what is set next is undone afterwards
    use_own_settings(tmp_path / "settings")
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(notebook: NotebookNode) -> NotebookNode:
        ran = nbformat.from_dict(notebook)
        kernels.execute(ran, empty, 240)
        return ran

    return run


# Blocks run as blocks each time; as notebooks, those of one page, and of all each night.
EACH_TIME = {"guide/testing_your_code"}
NOTEBOOKS = [
    name if name in EACH_TIME else pytest.param(name, marks=pytest.mark.nightly) for name in PAGES
]


@pytest.mark.long
@pytest.mark.timeout(900)  # a cell has a limit of its own, as a block has
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_prints_what_its_page_shows(name: str, execute) -> None:
    """In an empty directory each cell prints what its block did, which the notebook shows."""
    notebook = chapter(name)
    shown, ran = printed(notebook), printed(execute(notebook))
    blocks = {f"line-{block.line}": on_file for block, on_file in on_record(name)}
    assert set(blocks) <= set(ran)
    for cell, found in ran.items():
        block = blocks.get(cell, {"output": None, "printed": ""})
        assert shown[cell] == (block["output"] or "")
        if block["output"] is not None or not block["printed"]:
            assert found == ended(block["printed"]), cell


@pytest.mark.parametrize("name", PAGES)
def test_a_program_and_a_notebook_are_the_same_code(name: str) -> None:
    """Both hold the blocks of the page, all of them, in their order, and nothing else that runs."""
    page = read_page(source(name), ROOT)
    assert as_program(chapter(name)) == as_program(page)
    prepared = DIRECTORY
    if any(block.language != "python" for block in page.blocks):
        prepared += SHELL
    title, *program = ast.parse(chapter_program(source(name), ROOT) or "").body
    expected = ast.parse(f"{prepared}\n{as_program(page)}").body
    assert isinstance(title, ast.Expr)
    assert [ast.dump(node) for node in program] == [ast.dump(node) for node in expected]


def as_program(of: NotebookNode | Page) -> str:
    """The code of a notebook or a page as one program, in which shell blocks are calls."""
    if isinstance(of, Page):
        begins = {chain[0].line for chain in of.chains}
        return "\n".join(
            ("empty_directory()\n" if block.line in begins else "")
            + (written(block.downloaded) if block.downloaded else "")
            + (
                block.code.rstrip()
                if block.language == "python"
                else call(block.language, block.code)
            )
            for block in of.blocks
        )
    sources = [cell.source.partition("\n") for cell in code(of).values()]
    return "\n".join(
        call(first.split()[1], f"{rest}\n", first.split()[2:])
        if first.startswith("%%script ")
        else first + line_end + rest
        for first, line_end, rest in sources
    )


def written(address: str) -> str:
    """How a program makes the stage of the script that a block begins with."""
    name, text = address.rpartition("/")[2], story(address)
    return f"with open({name!r}, 'w', encoding='utf-8') as file:\n    file.write({text!r})\n"


def call(program: str, commands: str, flags: list[str] | None = None) -> str:
    """How a program runs the commands of a shell block, with the flags of that shell."""
    return f"shell({program!r}, {flags or FLAGS[program]!r}, {commands!r})"


@pytest.mark.long
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_prints_what_its_page_shows(name: str, tmp_path: Path) -> None:
    """Run alone, in an empty directory, a program ends well and prints what its page shows."""
    blocks = on_record(name)
    assert all(ran["output"] is not None or not ran["printed"] for _, ran in blocks)
    done = run_program(chapter_program(source(name), ROOT) or "", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(ran["printed"] for _, ran in blocks)


def run_program(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a downloaded program in an empty directory that is not its own."""
    program, empty = folder / "program.py", folder / "empty"
    program.write_text(text, "utf-8")
    empty.mkdir()
    return subprocess.run(
        [sys.executable, str(program)],
        cwd=empty,
        env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_program_is_made_of_exactly_the_blocks(tmp_path: Path) -> None:
    """Headings become comments, Python stays as it is, shell blocks are run from Python, and each

    chain begins in an empty directory, which does not remain.
    """
    path = tmp_path / "chapter.md"
    path.write_text(
        "# Chapter `x`\n\n```python\n# no heading\nopen('left_behind', 'x').close()\n```\n\n"
        "## Part {#p}\n\n```sh\nls\necho n=2 > beside.py\npwd\n```\n\n"
        "<!--pytest-codeblocks:cont-->\n```python\nimport beside\nprint(beside.n)\n```\n",
        "utf-8",
    )
    program = chapter_program(path, tmp_path) or ""
    assert program.startswith('"""Chapter x: every code block of chapter.md, as tested."""\n')
    assert "\nempty_directory()\n# no heading\nopen('left_behind', 'x').close()\n" in program
    assert "\n# Part\n" in program
    assert (
        "\nempty_directory()\nshell('sh', ['-eu'], 'ls\\necho n=2 > beside.py\\npwd\\n')\n"
        in program
    )
    done = run_program(program, tmp_path)
    assert done.returncode == 0, done.stderr
    folder, two = done.stdout.splitlines()
    assert two == "2"
    assert not Path(folder).exists()


def test_a_page_without_python_has_no_program(tmp_path: Path) -> None:
    """A program of nothing but shell commands is not offered."""
    path = tmp_path / "chapter.md"
    path.write_text("# Chapter\n\n```sh\necho 2\n```\n", "utf-8")
    assert chapter_program(path, tmp_path) is None


CHAIN = """---
description: Three blocks.
---
# Title

```sh
echo 'n = 42' > beside.py
which python
```
<!--pytest-codeblocks:expected-output-->
```text
PYTHON
```

<!--pytest-codeblocks:cont-->
```python
import os
import beside

print(beside.n, sorted(set(os.listdir()) - {"__pycache__"}))
print(os.environ["COLUMNS"], "FORCE_COLOR" in os.environ)
```
<!--pytest-codeblocks:expected-output-->
```text
42 ['beside.py']
100 False
```

```python
print(len(os.listdir()))
print("last", end="")
```
<!--pytest-codeblocks:expected-output-->
```text
0
last
```
""".replace("PYTHON", str(Path(sys.executable).with_name("python")))


def test_what_a_notebook_shows_is_what_it_prints(tmp_path: Path, execute) -> None:
    """Shell and Python cells take turns in one directory, each chain begins in an empty one, and

    the programs beside the kernel's Python are found; one other character in what the page shows,
    or in what a cell prints, is seen.
    """
    notebook = small_chapter(CHAIN, tmp_path)
    ran = printed(execute(notebook))
    assert printed(notebook) == ran
    assert printed(small_chapter(CHAIN.replace("\n42 [", "\n43 ["), tmp_path)) != ran
    assert printed(execute(small_chapter(CHAIN.replace("n = 42", "n = 43"), tmp_path))) != ran


@pytest.mark.parametrize("block", ["```sh\nfalse\necho 2\n```", "```bash\nfalse | cat\n```"])
def test_a_cell_whose_command_fails_fails(block: str, tmp_path: Path, execute) -> None:
    """A shell cell ends at the first command that fails, as on the page, and so does the run."""
    with pytest.raises(CellExecutionError, match="returned non-zero exit status 1"):
        execute(small_chapter(f"# Title\n\n{block}\n\n```python\n1\n```\n", tmp_path))


def test_a_value_that_is_displayed_counts_as_printed(tmp_path: Path, execute) -> None:
    """A cell that ends in a value shows it, which its page does not: that is a difference."""
    notebook = small_chapter("# Title\n\n```python\n6 * 7\n```\n", tmp_path)
    assert printed(execute(notebook)) != printed(notebook)


@pytest.mark.parametrize("name", PAGES)
def test_a_notebook_is_valid_and_the_same_each_time(name: str) -> None:
    """The same bytes from the same source, valid, with an id of its own for each cell."""
    made = [chapter_notebook(source(name), ROOT, config()) for _ in range(2)]
    assert made[0] == made[1]
    nbformat.validate(json.loads(made[0]))
    ids = [cell.id for cell in chapter(name).cells]
    assert len(set(ids)) == len(ids)
    assert ids[1] == "setup"  # below the title


PROSE = """---
description: Nothing of this is shown.
---
# Title { #name .wide }

A [page](../guide/using_the_project.md#check), [this `x`](#part), [one over
two lines](page.md), [home](../index.md), [a lab](../labs/ablation.py), [a
file](page.py),
[another host](https://host.example/x.md), and `code [that](stays.md) {.as} <!-- it -->` is.

<figure>
<svg><title id="t">A drawing</title>

</svg>
<figcaption>Below it.</figcaption>
</figure>

--8<-- "docs/explorables/key-tree.html"

## Part

<!-- a comment -->
* A list

    with a [paragraph][below].

??? question "What is `it`?"
    The answer.

    ```python
    print("[a](b.md)")
    ```
    <!--pytest-codeblocks:expected-output-->
    ```text
    [a](b.md)
    ```

    * Of a list

        its paragraph.

    ```yaml title="ci.yml"
    # a listing [that](stays.md)
    on: push
    ```

!!! warning
    Mind it.

Outside, a fence in details is one as well.

[below]: page.md
"""
SAID = """# Title

A [page](SITE/guide/using_the_project/#check), [this `x`](SITE/part/page/#part), [one over
two lines](SITE/part/page/), [home](SITE/), [a lab](SITE/labs/ablation/), [a
file](SITE/part/page.py),
[another host](https://host.example/x.md), and `code [that](stays.md) {.as} <!-- it -->` is.

*On the page: [A drawing](SITE/part/page/)*

*On the page: [key tree](SITE/part/page/)*

## Part

* A list

    with a [paragraph](SITE/part/page/).

**What is `it`?**

The answer.

* Of a list

    its paragraph.

*ci.yml*

```yaml
# a listing [that](stays.md)
on: push
```

**Warning**

Mind it.

Outside, a fence in details is one as well."""


def test_prose_is_what_a_notebook_can_show(tmp_path: Path) -> None:
    """Links lead to the site, details are unfolded, what only the site can show is a link to it,

    tags and attributes are gone, and code stays as it is.
    """
    for name in ("guide/using_the_project.md", "index.md", "labs/ablation.py"):
        (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / name).touch()
    known = prose(small_chapter(PROSE, tmp_path, site="https://owner.example/name/"))
    assert known == SAID.replace("SITE", "https://owner.example/name")
    unknown = prose(small_chapter(PROSE, tmp_path, site=""))
    links = re.compile(r"\[([^\[\]]*)\]\(SITE.*?\)")
    assert unknown == links.sub(r"\1", SAID)


@pytest.mark.parametrize("name", [*PAGES, "lab"])
def test_on_colab_the_first_cell_installs_what_the_page_needs(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Colab it installs the package, from the repository, and all that the notebook imports, at

    the versions of requirements.lock. Elsewhere it installs nothing.
    """
    made = lab_notebook(LABS[0], ROOT, config()) if name == "lab" else None
    notebook = nbformat.reads(made, 4) if made else chapter(name)
    assert first_cell(notebook, monkeypatch) == []
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    [(magic, line)] = first_cell(notebook, monkeypatch)
    command, quiet, package, *pins = shlex.split(line)
    assert (magic, command, quiet) == ("pip", "install", "--quiet")
    assert package == "reproducibility @ git+https://github.com/owner/name@main"
    lock = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    assert {f"{pin} \\" for pin in pins} <= set(lock)
    installed = {Requirement(pin).name for pin in pins} | {"reproducibility", "ipython"}
    assert needed(notebook) <= installed


def first_cell(notebook: NotebookNode, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Run the cell that prepares the others; return the magics that it called."""
    called: list[tuple[str, str]] = []
    shell = SimpleNamespace(run_line_magic=lambda *what: called.append(what))
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert cell.id == "setup"
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", dict(os.environ))
        exec(TransformerManager().transform_cell(cell.source), {"get_ipython": lambda: shell})
    return called


def needed(notebook: NotebookNode) -> set[str]:
    """The distributions whose modules the cells import; modules that a page writes have none."""
    sources = [cell.source for cell in code(notebook).values()]
    nodes = [node for text in sources if text[:2] != "%%" for node in ast.walk(ast.parse(text))]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    known = packages_distributions()
    return {known[top][0] for top in {name.partition(".")[0] for name in modules} if top in known}


def test_the_first_cell_names_the_revision_that_is_published() -> None:
    """What Colab installs is the package as it was when the site was built, where that is known;

    without a repository there is nothing to install.
    """
    known, unknown = config(), config(repository="")
    known.extra["revision"] = "0123abc"
    assert "git+https://github.com/owner/name@0123abc" in chapter_notebook(
        source(PAGES[0]), ROOT, known
    )
    assert "pip install" not in chapter_notebook(source(PAGES[0]), ROOT, unknown)


def test_colab_opens_notebooks_of_github_only() -> None:
    """The link names owner, repository, branch and file; elsewhere Colab cannot look."""
    for address in ("", "/", ".git"):
        known = config(repository=f"https://github.com/owner/na.me{address}")
        assert colab_address(known, "labs/x.ipynb") == (
            "https://colab.research.google.com/github/owner/na.me/blob/notebooks/labs/x.ipynb"
        )
    for elsewhere in ("", "https://git.example/owner/name", "https://github.com/owner"):
        assert colab_address(config(repository=elsewhere), "labs/x.ipynb") is None


@pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)
def test_the_notebook_of_a_lab_holds_exactly_its_cells(path: Path) -> None:
    """Its code is that of the lab, which two executions have tested, cell by cell; no outputs."""
    text = lab_notebook(path, ROOT, config())
    assert text == lab_notebook(path, ROOT, config())
    notebook = nbformat.reads(text, 4)
    nbformat.validate(notebook)
    original = jupytext.read(path)
    assert [(cell.cell_type, cell.metadata) for cell in notebook.cells if cell.id != "setup"] == [
        (cell.cell_type, cell.metadata) for cell in original.cells
    ]
    assert [cell.source for cell in code(notebook).values()] == [
        cell.source for cell in original.cells if cell.cell_type == "code"
    ]
    assert not any(cell.get("outputs") for cell in notebook.cells)
    targets = re.findall(r"\]\((.*?)\)", prose(notebook))
    assert targets
    assert all(target.startswith("https://") for target in targets)
    said = "\n\n".join(cell.source for cell in original.cells if cell.cell_type == "markdown")
    assert without_targets(prose(notebook)) == without_targets(said)


def without_targets(text: str) -> str:
    """Markdown without where its links lead: in the link, or below the text."""
    text = re.sub(r"^\[.*\]: .*$", "", text, flags=re.MULTILINE)
    return re.sub(r"(?<=\])(\[.*?\]|\(.*?\))", "", text).strip()


def test_the_table_misses_nothing() -> None:
    """Every chapter and lab has a row, in the order of the navigation, with its program and its

    notebook, and the links lead to files of the site.
    """
    known = config()
    files = known.plugins.on_files(get_files(known), config=known)
    pages = get_navigation(files, known).pages
    here = files.get_file_from_path("reference/glossary.md")
    rows = [
        re.findall(r"\]\((.*?)\)", row)
        for row in downloads_table(pages, here, files, known).splitlines()[2:]
    ]
    found = [[posixpath.normpath(f"reference/{link}") for link in row[:-1]] for row in rows]
    chapters = [
        [f"{name}.md", f"{name}.py", f"{name}.ipynb"]
        for name in (page.file.src_uri.removesuffix(".md") for page in pages)
        if name in PAGES
    ]
    labs = [
        [name, f"{name.removesuffix('.py')}.ipynb"]
        for name in (path.relative_to(DOCS).as_posix() for path in LABS)
    ]
    assert len(chapters) == len(PAGES)
    assert [row for row in found if row[0].endswith(".md")] == chapters
    assert sorted(row for row in found if row[0].endswith(".py")) == labs
    assert all(files.get_file_from_path(link) for row in found for link in row)
    assert [row[-1] for row in rows] == [colab_address(known, row[-1]) for row in found]
