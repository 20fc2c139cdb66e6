"""The programs that readers download do what their chapters show."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.downloads import CHAPTERS, script
from tools.pages import read_page
from tools.record import read_record

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT / "docs").with_suffix("").as_posix()
    for chapter in CHAPTERS
    for path in (ROOT / "docs" / chapter).rglob("*.md")
    if script(path, ROOT)
)


def source(name: str) -> Path:
    """The Markdown file of a chapter."""
    return ROOT / "docs" / f"{name}.md"


@pytest.mark.parametrize("name", PAGES)
def test_a_download_prints_what_its_page_shows(name: str, tmp_path: Path) -> None:
    """Run alone, in an empty directory, the program ends well and prints what its page shows."""
    page = read_page(source(name), ROOT)
    ran = read_record(ROOT)["pages"].get(page.name, {"sha256": None})
    assert ran["sha256"] == page.sha256, f"{page.name} has changed: run `make test-docs` first"
    program = tmp_path / f"{source(name).stem}.py"
    program.write_text(script(source(name), ROOT) or "", "utf-8")
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=empty,
        env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    blocks = [ran["blocks"][str(block.line)] for block in page.blocks]
    shown = "".join(block["printed"] for block in blocks if block["output"] is not None)
    if all(block["output"] is not None or not block["printed"] for block in blocks):
        assert done.stdout == shown


def test_a_download_is_made_of_exactly_the_blocks(tmp_path: Path) -> None:
    """Headings become comments, Python stays as it is, shell blocks are run from Python, and each

    chain begins in an empty directory, which does not remain.
    """
    path = tmp_path / "chapter.md"
    path.write_text(
        "# Chapter `x`\n\n```python\n# no heading\nopen('left_behind', 'x').close()\n```\n\n"
        "## Part {#p}\n\n```sh\nls\necho 2\npwd\n```\n",
        "utf-8",
    )
    program = script(path, tmp_path) or ""
    assert program.startswith('"""Chapter x: every code block of chapter.md, as tested."""\n')
    assert "\nempty_directory()\n# no heading\nopen('left_behind', 'x').close()\n" in program
    assert "\n# Part\n" in program
    assert "\nempty_directory()\nshell('sh', ['-eu'], 'ls\\necho 2\\npwd\\n')\n" in program
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    two, folder = done.stdout.splitlines()
    assert two == "2"
    assert not Path(folder).exists()


def test_a_page_without_python_has_no_download(tmp_path: Path) -> None:
    """A program of nothing but shell commands is not offered."""
    path = tmp_path / "chapter.md"
    path.write_text("# Chapter\n\n```sh\necho 2\n```\n", "utf-8")
    assert script(path, tmp_path) is None
