"""Clean scripts, and the faults that are planted in copies of them.

The rule: a fault is a few replacements of text that occurs once, and an expectation.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

HERE = Path(__file__).parent
type Edit = tuple[str, str]
type FaultClass = Literal["host", "program", "path"]
type Author = Literal["stranger", "house"]
# The commands that faults are planted for. A script's name begins with its kind, if it is not the
# first: `resume/orbax_linen`.
type Kind = Literal["twice", "resume", "hidden"]
KINDS: tuple[Kind, ...] = get_args(Kind.__value__)
# What a script can depend on.
HIDDEN = (
    *("hash salt", "listing order", "clock", "time zone", "locale", "entropy"),
    *("working directory", "script path", "user", "host name", "process id", "threads", "devices"),
    *("jax setting", "environment variable", "cache", "race", "worker order", "cpu count"),
    *("address", "other"),
)
CAUSES = (
    *("entropy", "clock", "hash", "listing", "pid", "address", "threads", "memory", "files"),
    *("hash+address", "hash+entropy", "callback", "other"),
)
# What the environment of the tests has as well.
OF_THE_TESTS = {"jax", "jaxlib", "numpy", "flax", "optax", "equinox", "orbax", "grain", "scipy"}


@dataclass(frozen=True, kw_only=True)
class Item:
    """A script to try: its name, and what is replaced in it."""

    script: str
    name: str = ""
    edits: tuple[Edit, ...] = ()

    @property
    def kind_of_trial(self) -> Kind:
        """The command that is asked about it."""
        folder, slash, _ = self.script.partition("/")
        return next(kind for kind in KINDS if kind == folder) if slash else "twice"

    @property
    def id(self) -> str:
        """What `--only` and the tables call it."""
        raise NotImplementedError

    @property
    def text(self) -> str:
        """The script with all that is replaced."""
        return self.planted_in(text_of_script(self.script))

    def planted_in(self, text: str) -> str:
        """Return the script with all that is replaced."""
        for find, put in self.edits:
            if text.count(find) != 1:
                raise ValueError(f"{self.id}: {text.count(find)} places hold {find!r}")
            text = text.replace(find, put)
        return text


@dataclass(frozen=True, kw_only=True)
class Clean(Item):
    """A script in which nothing is wrong; with a name, another right way to write it."""

    @property
    def id(self) -> str:
        """What `--only` and the tables call it."""
        return self.script + (f"+{self.name}" if self.name else "")


@dataclass(frozen=True, kw_only=True)
class Fault(Item):
    """A fault: `kind` is a word or two."""

    kind: str
    author: str

    @property
    def id(self) -> str:
        """What `--only` and the tables call it."""
        return f"{self.script}.{self.name}"

    @property
    def group(self) -> str:
        """What the table by cause calls it."""
        return self.kind

    @property
    def expected(self) -> str:
        """What is expected of the answer, in a line."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Planted(Fault):
    """A fault for `twice`: what is expected of the answer.

    `cause` is the line in which the value that varies is asked for, `enters` that of the compiled
    call in which it first enters, `argument` the name of the argument there. `causes` are what may
    be confirmed; usually there is one. `cell` is where the cause is in a cell of a notebook, as
    Python calls it: `<cell 2>:3`.
    """

    cause: str
    enters: str
    argument: str
    classes: tuple[str, ...]
    causes: tuple[str, ...]
    cell: str = ""

    @property
    def group(self) -> str:
        """What varies, and where that shows."""
        return f"{' and '.join(self.causes)}: {' or '.join(self.classes)}"

    @property
    def expected(self) -> str:
        """What is expected of the answer, in a line."""
        return (
            f"{'/'.join(self.classes)}, {'/'.join(self.causes)}; cause `{self.cause}`; enters"
            f" `{self.enters}`; argument {self.argument or 'none'}"
        )


@dataclass(frozen=True, kw_only=True)
class ResumeFault(Fault):
    """A fault for `interrupt`: which arguments of the first resumed step are wrong.

    `parts` are these arguments, or parts of them; none if all are right and something else is
    wrong. `origin` is where their values come from in the whole run: "before step 1", "8 instead
    of 16" (the value of call 8 of the step function), "rounded to bfloat16", "swapped with ema",
    "the value of ema", "not in the whole run", "not taken", "from zero". `continues_at` is the step
    that the first resumed one should be.
    """

    parts: tuple[str, ...]
    origin: str
    continues_at: int

    @property
    def expected(self) -> str:
        """What is expected of the answer, in a line."""
        return f"{', '.join(self.parts) or 'every input right'}: {self.origin or 'other results'}"


@dataclass(frozen=True, kw_only=True)
class HiddenFault(Fault):
    """A fault for `sweep`: on which kinds of hidden inputs the script depends now.

    `line` is the one that asks for the hidden value, and `changed` are variables that change it.
    """

    depends_on: tuple[str, ...]
    line: str
    changed: tuple[tuple[str, str], ...] = ()

    @property
    def expected(self) -> str:
        """What is expected of the answer, in a line."""
        return f"{' and '.join(self.depends_on)}; `{self.line}`"


def script_names(kind: Kind = "twice") -> list[str]:
    """Return the names of the clean scripts of a kind."""
    folder = "" if kind == "twice" else f"{kind}/"
    return sorted(f"{folder}{path.stem}" for path in (HERE / "scripts" / folder).glob("*.py"))


def text_of_script(name: str) -> str:
    """Return what is in a clean script."""
    return (HERE / "scripts" / f"{name}.py").read_text(encoding="utf-8")


def facts_of(script: str) -> dict[str, Any]:
    """Return all that is written down about a script."""
    path = HERE / "planted" / f"{script}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def clean_of(script: str) -> list[Clean]:
    """Return a script as it is, and the other right ways to write it."""
    others = facts_of(script).get("right", [])
    return [
        Clean(script=script),
        *(Clean(script=script, name=each["name"], edits=_edits(each)) for each in others),
    ]


def faults_of(script: str) -> list[Fault]:
    """Return the faults of a script, in the order in which they are written down."""
    facts = facts_of(script)
    author = facts.get("run", {}).get("author", "stranger")
    read = _READERS[Clean(script=script).kind_of_trial]
    found = facts.get("fault", [])
    return [read(facts.get("run", {}) | each, _common(script, author, each)) for each in found]


def all_faults(kind: Kind = "twice") -> list[Fault]:
    """Return every fault of every script of a kind."""
    return [fault for script in script_names(kind) for fault in faults_of(script)]


def _edits(facts: dict[str, Any]) -> tuple[Edit, ...]:
    pairs = [(find, put) for find, put in facts.get("edits", [])]
    named = [facts, *facts.get("edit", [])]
    return (*pairs, *((each["find"], each["put"]) for each in named if "find" in each))


def _common(script: str, author: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what all kinds of faults have."""
    return {
        "script": script,
        "name": facts["name"],
        "kind": facts["kind"],
        "edits": _edits(facts),
        "author": _words(facts.get("author", author), get_args(Author.__value__))[0],
    }


def _planted(facts: dict[str, Any], common: dict[str, Any]) -> Planted:
    return Planted(
        **common,
        cause=facts.get("cause", "").strip(),
        enters=facts.get("enters", "").strip(),
        argument=facts.get("argument", ""),
        classes=_words(facts["class"], get_args(FaultClass.__value__)),
        causes=_words(facts["cause_class"], CAUSES),
        cell=facts.get("cell", ""),
    )


def _of_a_resume(facts: dict[str, Any], common: dict[str, Any]) -> ResumeFault:
    return ResumeFault(
        **common,
        parts=tuple(facts["parts"]),
        origin=facts["origin"],
        continues_at=facts["continues_at"],
    )


def _of_a_sweep(facts: dict[str, Any], common: dict[str, Any]) -> HiddenFault:
    return HiddenFault(
        **common,
        depends_on=_words(facts["depends_on"], HIDDEN),
        line=facts["line"],
        changed=tuple(facts.get("changed", {}).items()),
    )


_READERS: dict[Kind, Callable[[dict[str, Any], dict[str, Any]], Fault]] = {
    "twice": _planted,
    "resume": _of_a_resume,
    "hidden": _of_a_sweep,
}


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
