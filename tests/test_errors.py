"""Promises of `reproducibility.errors`: one wording, attributes, and a section for each class."""

import inspect
import re
from pathlib import Path

import pytest

from reproducibility import IdentityMismatchError, ReproducibilityError, errors

CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, ReproducibilityError)
]
EXIT_CODES = {
    "CheckpointDamagedError": 1,
    "CheckpointReadError": 4,
    "CheckpointSaveError": 4,
    "NotReproducedError": 1,
    "ProcessError": 4,
    "RecordDamagedError": 3,
    "ReplayError": 3,
    "RunDamagedError": 1,
    "RunLockedError": 4,
    "RunSaveError": 4,
}
PAGE = (Path(__file__).parents[1] / errors.PAGE).read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (\w+Error)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))

IN_ORDER = sorted(CLASSES, key=lambda cls: inspect.getsourcelines(cls)[1])

FACTS = {"expected": "a whole number", "got": -1, "do": "Choose another one."}


@pytest.mark.parametrize("cls", CLASSES)
def test_the_message_has_the_four_parts(cls: type[ReproducibilityError]) -> None:
    """A message says what cannot be done, what was expected, what came, and what to do."""
    error = cls("use", "seed", **FACTS)
    assert str(error) == "Cannot use seed: expected a whole number, got -1. Choose another one."


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"path": "runs/a"}, " at runs/a"),
        ({"step": 0}, ", step 0"),
        ({"path": Path("runs/a"), "step": 40}, " at runs/a, step 40"),
    ],
)
def test_the_message_says_where(where: dict[str, object], words: str) -> None:
    """A path and a step stand behind the thing, each only if it is known; step 0 is known."""
    error = ReproducibilityError("read", "a checkpoint", **FACTS, **where)
    assert str(error).startswith(f"Cannot read a checkpoint{words}: expected ")


@pytest.mark.parametrize("cls", CLASSES)
def test_the_facts_are_attributes(cls: type[ReproducibilityError]) -> None:
    """A program reads the facts from attributes, as the objects that were given."""
    error = cls("read", "a checkpoint", path="runs/a", step=40, **FACTS)
    assert (error.thing, error.path, error.step) == ("a checkpoint", "runs/a", 40)
    assert (error.expected, error.got) == ("a whole number", -1)
    bare = cls("read", "a checkpoint", **FACTS)
    assert (bare.path, bare.step) == (None, None)


def test_an_identity_mismatch_names_settings() -> None:
    """`settings` is there before anyone fills it."""
    assert IdentityMismatchError("continue", "the run", **FACTS).settings == ()


@pytest.mark.parametrize("cls", CLASSES)
def test_the_note_leads_to_a_section_of_the_page(cls: type[ReproducibilityError]) -> None:
    """Under each traceback stands an address, and something is there."""
    (note,) = cls("use", "seed", **FACTS).__notes__
    assert note == f"See docs/reference/errors.md#{cls.__name__.lower()}"
    assert cls.__name__ in SECTIONS


def tree(cls: type, indent: str = "") -> list[str]:
    """Draw the classes below one, in the order of the module."""
    below = [each for each in IN_ORDER if each.__bases__ == (cls,)]
    lines = []
    for each in below:
        last = each is below[-1]
        lines.append(f"{indent}{'└── ' if last else '├── '}{each.__name__}")
        lines += tree(each, indent + ("    " if last else "│   "))
    return lines


def test_the_tree_of_the_docstring_is_that_of_the_classes() -> None:
    """The tree that the module begins with has each class once, below its base, and a word on
    each; a class that is added is drawn there."""
    drawn = re.findall(r"^    ((?:[│ ] {3})*(?:[├└]── )?\w+Error)\b(.*)$", errors.__doc__, re.M)
    assert [line for line, _ in drawn] == ["ReproducibilityError", *tree(ReproducibilityError)]
    assert all(word.strip() for _, word in drawn[1:])


def test_the_page_has_no_section_of_a_class_that_is_gone() -> None:
    """The page describes exactly the classes that exist, in the order of the module."""
    in_order = re.findall(r"^class (\w+Error)\(", inspect.getsource(errors), re.M)
    assert list(SECTIONS) == in_order
    assert {cls.__name__ for cls in CLASSES} == set(in_order)


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not ReproducibilityError])
def test_each_section_produces_its_error_and_says_what_to_do(
    cls: type[ReproducibilityError],
) -> None:
    """A section catches its own class in a block that runs, shows the words, and advises."""
    section = SECTIONS[cls.__name__]
    assert f"except {cls.__name__} as error:" in section
    assert re.search(r"^Cannot .+: expected .+, got .+\. .+$", section, re.M)
    assert "**Do" in section


@pytest.mark.parametrize("cls", CLASSES)
def test_the_exit_code_is_that_of_the_contract(cls: type[ReproducibilityError]) -> None:
    """Refused 2, damaged 1, cannot be told 3, failed while running 4; the page's table agrees."""
    assert cls.exit_code == EXIT_CODES.get(cls.__name__, 2)
    row = re.search(rf"^\| \[`{cls.__name__}`\].*\| (\d+) \|$", PAGE, re.M)
    assert row
    assert int(row[1]) == cls.exit_code


def test_the_warning_has_a_section_too() -> None:
    """What is set aside is explained on the same page."""
    assert "\n## SetAsideWarning\n" in PAGE
