"""What the copy button copies is code that runs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tools.guard.pages import CONTINUES, Block, read_page
from tools.takeaway.programs import chapter_program

ROOT = Path(__file__).parents[2]
CHAPTERS = (
    "fundamentals/jax_prng_tutorial",
    "guide/trace",
)


def copied(page: Page) -> list[str]:
    """Press every copy button of a page that stands on a block that runs; return the texts."""
    texts = []
    page.evaluate("document.querySelectorAll('details').forEach((it) => (it.open = true))")
    for box in page.locator("article div.highlight:not(.output)").all():
        if box.locator("span.filename").count() and not box.locator(".language-python").count():
            continue
        box.hover()
        box.locator("button[data-md-type=copy], button.md-clipboard").first.click()
        texts.append(page.evaluate("navigator.clipboard.readText()"))
    return texts


def as_page(texts: list[str], chains: list[list[Block]]) -> str:
    """A page of the copied texts, which continue each other as those on the site do."""
    texts = texts[::-1]
    page = "# Copied\n"
    for chain in chains:
        for number, block in enumerate(chain):
            continues = f"{CONTINUES}\n" if number else ""
            if block.downloaded:  # the reader has it from the page's link
                continues = f"<!--pytest-codeblocks:downloaded={block.downloaded}-->\n{continues}"
            page += f"\n{continues}```{block.language}\n{texts.pop()}```\n"
    return page


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_copied_chapter_runs(visit: Callable[..., Page], tmp_path: Path, name: str) -> None:
    """Every block, copied by its button, is the tested block; put together, they run."""
    page = visit(f"{name}/", permissions=["clipboard-read", "clipboard-write"])
    source = read_page(ROOT / "docs" / f"{name}.md", ROOT)
    texts = [f"{text.rstrip()}\n" for text in copied(page)]
    assert texts == [f"{block.code.rstrip()}\n" for block in source.blocks]
    (tmp_path / "copied.md").write_text(as_page(texts, source.chains), "utf-8")
    program = tmp_path / "copied.py"
    program.write_text(chapter_program(tmp_path / "copied.md", tmp_path) or "", "utf-8")
    done = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
