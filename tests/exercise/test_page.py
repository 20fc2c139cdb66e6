"""The page of the exercises says what the files say, and chapters lead to it."""

from pathlib import Path

from reproducibility.exercise.texts import all_exercises
from tools import practice

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_the_files_say() -> None:
    """The list and the solutions on the page are those of the command."""
    assert practice.PAGE.read_text("utf-8") == practice.page(), "run: python -m tools.practice"


def test_each_chapter_leads_to_its_exercises() -> None:
    """A chapter names its first exercise, and the place of the page where all of them are."""
    seen = set()
    for exercise in all_exercises().values():
        if exercise.chapter not in seen:
            text = (DOCS / exercise.chapter).read_text("utf-8")
            group = exercise.name.partition("_")[0]
            assert (
                f"exercises.md#{group}): `reproducibility exercise start {exercise.name}`" in text
            )
        seen.add(exercise.chapter)
