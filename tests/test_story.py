"""The script of the learning path: each stage is whole, and the pages show what really changes."""

import ast
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.guard.pages import read_page
from tools.story.stages import CURES, LAST, ORDER, changes, downloads_of_story, script, story

ROOT = Path(__file__).parent.parent


def test_every_stage_is_a_formatted_program(tmp_path: Path) -> None:
    """A mark that is set wrongly leaves a name undefined, a line too many or a blank one."""
    for number in range(len(ORDER) + 1):
        ast.parse(script(number))
        (tmp_path / f"stage_{number}.py").write_text(script(number), "utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["format", "--diff"], ["check", "--isolated", "--select", "F,I,E7"]):
        length = ["--line-length", "100"]
        found = subprocess.run([*ruff, *command, *length, tmp_path], capture_output=True, text=True)
        assert found.returncode == 0, found.stdout


def test_the_script_stays_short() -> None:
    """A reader holds it in the head."""
    assert all(len(script(number).splitlines()) <= 120 for number in range(len(ORDER) + 1))


def test_each_chapter_begins_with_what_the_one_before_it_cured() -> None:
    """The downloads form one series, which ends in the script with every cure."""
    for one, following in itertools.pairwise(ORDER):
        assert story(f"story/{one}/cured/train.py") == story(f"story/{following}/train.py")
    assert story(f"story/{ORDER[-1]}/cured/train.py") == story(LAST)
    assert len(set(downloads_of_story().values())) == len(ORDER) + 1


@pytest.mark.parametrize("name", CURES)
def test_a_chapter_shows_the_lines_that_its_cure_changes(name: str) -> None:
    """The diff on the page is the one between the two files that it offers."""
    page = read_page(ROOT / "docs" / CURES[name], ROOT)
    shown = [each.text for each in page.listings if each.language == "diff"]
    assert changes(name) in shown, f"{page.name} must show this diff:\n{changes(name)}"
    downloaded = [block.downloaded for block in page.blocks if block.downloaded]
    assert downloaded == [f"story/{name}/train.py", f"story/{name}/cured/train.py"]
    text = (ROOT / page.name).read_text("utf-8")
    assert {f"../{address}" for address in downloaded} <= set(re.findall(r"\]\(([^)]+)\)", text))


def test_the_whole_run_is_that_of_the_script_with_every_cure() -> None:
    """The page after the chapters offers the last stage, runs it first, and names each chapter."""
    page = read_page(ROOT / "docs/workflow/complete_flow.md", ROOT)
    assert [block.downloaded for block in page.blocks if block.downloaded] == [LAST]
    assert page.blocks[0].downloaded == LAST
    text = (ROOT / page.name).read_text("utf-8")
    assert {f"../{LAST}", *(f"../{chapter}" for chapter in CURES.values())} <= set(
        re.findall(r"\]\(([^)]+)\)", text)
    )
