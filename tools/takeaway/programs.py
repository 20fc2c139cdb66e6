"""Make of each chapter a Python file that runs by itself, from exactly the blocks that are tested.

The rule: blocks stand in the order of the page, unchanged, under the page's headings. Each chain
begins in an empty directory, as in the tests. Shell blocks are run from Python, so that the file
does all that the page does.
"""

from __future__ import annotations

import re
from pathlib import Path

from tools.guard.pages import FENCE, Block, Page, read_page
from tools.story.stages import story

EMPTY_DIRECTORY = '''
def empty_directory():
    """Work in an empty directory, which is removed at the end."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.chdir(folder)
'''
PROGRAMS_FIRST = """
# The programs beside this Python come first, whichever environment is active.
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
"""
DIRECTORY = f"""
import atexit
import os
import shutil
import sys
import tempfile

sys.path.insert(0, "")  # a block may import what one before it wrote

{EMPTY_DIRECTORY}"""
SHELL = f'''
import subprocess


def shell(program, flags, commands):
    """Run the commands of a shell block, and end here if one of them fails."""
    sys.stdout.flush()
    subprocess.run([program, *flags, "-c", commands], check=True)

{PROGRAMS_FIRST}'''
FLAGS = {"sh": ["-eu"], "bash": ["-eu", "-o", "pipefail"]}


def chapter_program(path: Path, root: Path) -> str | None:
    """Return the page at `path` as a Python program, or None if it has no Python block."""
    page = read_page(path, root)
    if not any(block.language == "python" for block in page.blocks):
        return None
    headings = _headings(path.read_text("utf-8"))
    title = headings.pop(min(headings)) if headings else path.stem
    parts = [f'"""{title}: every code block of {page.name}, as tested."""', DIRECTORY]
    if any(block.language != "python" for block in page.blocks):
        parts.append(SHELL)
    for line, text in sorted([*headings.items(), *_code(page).items()]):
        parts.append(text if line in _code(page) else f"\n# {'-' * 98}\n# {text}\n")
    return "\n".join(parts)


def _headings(source: str) -> dict[int, str]:
    # By line; what looks like a heading inside a fence is a comment of its code.
    found: dict[int, str] = {}
    closing = None
    for number, text in enumerate(source.splitlines(), 1):
        if closing is None and (fence := FENCE.match(text)):
            closing = fence["ticks"]
        elif closing is not None:
            closing = None if text.strip() == closing else closing
        elif heading := re.match(r"#{1,6} +(.+?)(?: *\{.*\})?$", text):
            found[number] = heading[1].replace("`", "")
    return found


def _code(page: Page) -> dict[int, str]:
    code = {
        block.line: writes_download(block)
        + (
            block.code
            if block.language == "python"
            else f"shell({block.language!r}, {FLAGS[block.language]!r}, {block.code!r})\n"
        )
        for block in page.blocks
    }
    for chain in page.chains:
        code[chain[0].line] = f"empty_directory()\n{code[chain[0].line]}"
    return code


def writes_download(block: Block) -> str:
    """Return the code that writes the script with which a block begins, if it has one."""
    if not block.downloaded:
        return ""
    name, text = block.downloaded.rpartition("/")[2], story(block.downloaded)
    return f"with open({name!r}, 'w', encoding='utf-8') as file:\n    file.write({text!r})\n"
