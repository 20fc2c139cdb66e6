"""Clean scripts, and the faults that are planted in copies of them.

The rule: a fault is a few replacements of text that occurs once, and an expectation.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

HERE = Path(__file__).parent
type Edit = tuple[str, str]
type FaultClass = Literal["host", "program", "path"]
type Author = Literal["stranger", "house"]
CAUSES = (
    *("entropy", "clock", "hash", "listing", "pid", "address", "threads", "memory", "files"),
    *("callback", "other"),
)
# What the environment of the tests has as well.
OF_THE_TESTS = {"jax", "jaxlib", "numpy", "flax", "optax", "equinox", "orbax", "grain", "scipy"}


@dataclass(frozen=True)
class Planted:
    """A fault: what is replaced in which script, and what is expected of the answer.

    `cause` is the line in which the value that varies is asked for, `enters` that of the compiled
    call in which it first enters, `argument` the name of the argument there. `kind` is a word or
    two. `causes` are what may be confirmed; usually there is one. `cell` is where the cause is in a
    cell of a notebook, as Python calls it: `<cell 2>:3`.
    """

    script: str
    name: str
    kind: str
    edits: tuple[Edit, ...]
    cause: str
    enters: str
    argument: str
    classes: tuple[str, ...]
    causes: tuple[str, ...]
    author: str
    cell: str = ""

    @property
    def id(self) -> str:
        """What `--only` and the tables call it."""
        return f"{self.script}.{self.name}"

    def planted_in(self, text: str) -> str:
        """Return the script with the fault in it."""
        for find, put in self.edits:
            if text.count(find) != 1:
                raise ValueError(f"{self.id}: {text.count(find)} places hold {find!r}")
            text = text.replace(find, put)
        return text


def script_names() -> list[str]:
    """Return the names of the clean scripts."""
    return sorted(path.stem for path in (HERE / "scripts").glob("*.py"))


def text_of_script(name: str) -> str:
    """Return what is in a clean script."""
    return (HERE / "scripts" / f"{name}.py").read_text(encoding="utf-8")


def faults_of(script: str) -> list[Planted]:
    """Return the faults of a script, in the order in which they are written down."""
    path = HERE / "planted" / f"{script}.toml"
    if not path.exists():
        return []
    found = tomllib.loads(path.read_text(encoding="utf-8"))["fault"]
    return [_planted(script, each) for each in found]


def all_faults() -> list[Planted]:
    """Return every fault of every script."""
    return [fault for script in script_names() for fault in faults_of(script)]


def _planted(script: str, facts: dict[str, object]) -> Planted:
    edits = [facts, *facts.get("edit", [])]  # type: ignore[misc]
    return Planted(
        script,
        name=str(facts["name"]),
        kind=str(facts["kind"]),
        edits=tuple((each["find"], each["put"]) for each in edits if "find" in each),
        cause=str(facts.get("cause", "")).strip(),
        enters=str(facts.get("enters", "")).strip(),
        argument=str(facts.get("argument", "")),
        classes=_words(facts["class"], get_args(FaultClass.__value__)),
        causes=_words(facts["cause_class"], CAUSES),
        author=_words(facts.get("author", "stranger"), get_args(Author.__value__))[0],
        cell=str(facts.get("cell", "")),
    )


def _words(value: object, allowed: tuple[str, ...]) -> tuple[str, ...]:
    words = tuple(value) if isinstance(value, list) else (str(value),)
    if unknown := set(words) - set(allowed):
        raise ValueError(f"unknown: {unknown}; there are {allowed}")
    return words


def needs_only_the_tests_libraries(text: str) -> bool:
    """Whether a script imports nothing that the environment of the tests does not have."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
    exports = "export" in text  # of programs: it needs flatbuffers
    return names <= OF_THE_TESTS | set(sys.stdlib_module_names) and not exports
