"""Why a program came to other results: which of its parts two runs do not have in common.

The rule: what differs is read from both records, and nothing is guessed; where they say too little,
that is said.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any, Literal

from reproducibility.script.reading import CalledProgram, Process, SourceLine
from reproducibility.watch.callbacks import CALLBACKS, UNKNOWN
from reproducibility.watch.texts import PROGRAMS

type ProgramClass = Literal[
    "source",
    "constant",
    "shardings",
    "devices",
    "compiled",
    "callback",
    "memory",
    "same",
    "unknown",
]
MOST_OF_A_TEXT = 1 << 28  # bytes that a program's text may have once it is unpacked
MOST_OF_A_VALUE = 40  # characters of a constant that are shown

_PLACE = re.compile(r'\s*loc\(((?:[^()"]|"(?:[^"\\]|\\.)*")*)\)')
_OF_A_PLACE = re.compile(r'"((?:[^"\\]|\\.)*)":(\d+):\d+|"((?:[^"\\]|\\.)*)"\(|#loc\d*')
_OPERATION = re.compile(r"(?:= |^\s*)\"?(?:stablehlo\.|func\.)?([\w.]+)")
_CONSTANT = re.compile(r"(%\w+) = stablehlo\.constant dense(?:_resource)?<(.*)> : (\S+)")
_VALUE = re.compile(r"%\w+")
_SHARDING = re.compile(
    r'(?:sdy\.sharding = #sdy\.\w+<(?:[^<>]|<(?:[^<>]|<[^<>]*>)*>)*>|mhlo\.sharding = "[^"]*")'
    r"|mhlo\.num_(?:partitions|replicas) = \d+ : i32|[{},]| +"
)


@dataclass(frozen=True)
class ProgramDifference:
    """Which part of a program differs between two runs.

    `kind` is "source" (another text), "constant" (only a captured number), "shardings", "devices",
    "compiled" (the same text, which XLA compiled to something else), "callback" (a function of the
    host returned other values for equal arguments), "memory" (NumPy may have written into an
    argument while the call ran), "same" (the same down to what XLA made of it), or "unknown".
    `lines` are those of the first run and, where there are two, of the second; of memory, where the
    argument was put on the device and where it was used last.
    """

    kind: ProgramClass
    what: str
    lines: tuple[SourceLine, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        lines = [str(line) for line in self.lines]
        return {"kind": self.kind, "what": self.what, "lines": lines}


@dataclass(frozen=True)
class _Statement:
    """A line of a program's text, without its place, and the place."""

    text: str
    place: str

    @property
    def operation(self) -> str:
        found = _OPERATION.search(self.text)
        return found[1] if found else self.text.strip()[:MOST_OF_A_VALUE]


class ProgramText:
    """The text of a program: what it does, its constants, and the lines that each part is from."""

    def __init__(self, facts: dict[str, Any]) -> None:
        try:
            unpack = zlib.decompressobj()
            text = unpack.decompress(base64.b64decode(facts["stablehlo"]), MOST_OF_A_TEXT).decode()
        except (ValueError, zlib.error, binascii.Error):
            text = ""
        self.constants: list[str] = facts["constants"]
        self._places: dict[str, str] = {}
        self.statements: list[_Statement] = []
        for line in text.splitlines():
            name, equals, what = line.partition(" = loc(")
            if equals and name.startswith("#loc"):
                self._places[name] = what.removesuffix(")")
            else:
                places = _PLACE.findall(line)
                place = places[-1] if places else ""
                self.statements.append(_Statement(_PLACE.sub("", line), place))

    def line_of(self, statement: _Statement) -> SourceLine | None:
        """Return the innermost line of source that a statement comes from."""
        return next(self._lines(statement.place), None)

    def _lines(self, place: str, name: str = "", depth: int = 0) -> Iterator[SourceLine]:
        for found in _OF_A_PLACE.finditer(place):
            file, line, inner = found.groups()
            if file is not None:
                yield SourceLine(file, int(line), name or "<module>")
            elif inner is not None:
                name = inner
            elif depth < 50:
                yield from self._lines(self._places.get(found[0], ""), name, depth + 1)

    def without_shardings(self) -> list[str]:
        """Return the statements without what says on which devices their arrays lie."""
        kept = (each.text for each in self.statements if "sdy.mesh @" not in each.text)
        return [_SHARDING.sub("", text) for text in kept]

    def constant(self, number: int) -> tuple[str, str, SourceLine | None] | None:
        """Return type and value of a constant, and the line of the first operation with it."""
        count = -1
        for place, statement in enumerate(self.statements):
            if found := _CONSTANT.search(statement.text):
                count += 1
                if count == number:
                    uses = self._first_use(place, found[1]) or statement
                    return _type(found[3]), found[2], self.line_of(uses)
        return None

    def _first_use(self, place: int, name: str) -> _Statement | None:
        used = re.compile(re.escape(name) + r"(?![\w])")
        for statement in self.statements[place + 1 :]:
            if "func.func" in statement.text:
                return None
            if used.search(statement.text):
                return statement
        return None


class ProgramsOfProcess:
    """The programs of one process of a record, as far as their text was kept."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @cached_property
    def _texts(self) -> dict[str, dict[str, Any]]:
        found = (json.loads(line) for line in self._process.lines(PROGRAMS))
        return {facts["text"]: facts for facts in found}

    def text(self, program: CalledProgram) -> ProgramText | None:
        """Return the text of a program, if it was kept."""
        facts = self._texts.get(program.text)
        return ProgramText(facts) if facts else None

    @cached_property
    def _callbacks(self) -> dict[str, dict[int, _Callback]]:
        """Return for each program what the functions returned that it calls on the host."""
        found: dict[str, dict[int, _Callback]] = {}
        by_number: dict[str, _Callback] = {}
        for line in self._process.lines(CALLBACKS):
            first, second, rest = line.split(" ", 2)
            if first == "callback":
                facts = json.loads(rest)
                of_program = found.setdefault(facts["text"], {})
                site = SourceLine(*facts["line"]) if "line" in facts else None
                callback = of_program.setdefault(facts["place"], _Callback(site, []))
                by_number[second] = callback
            else:
                by_number[first].returned.append((second, rest))
        return found

    def callbacks(self, program: CalledProgram) -> dict[int, _Callback]:
        """Return what the functions returned that a program calls on the host."""
        return self._callbacks.get(program.text, {})


@dataclass
class _Callback:
    """A function of the host: its line, and what it was given and returned, in order."""

    site: SourceLine | None
    returned: list[tuple[str, str]]


def difference_of_programs(
    ones: ProgramsOfProcess, one: CalledProgram, others: ProgramsOfProcess, other: CalledProgram
) -> ProgramDifference:
    """Return what two programs of one name do not have in common.

    **Same bits:** everywhere: it reads what two runs wrote.

    Args:
        ones: the programs of the first run's process.
        one: a program of it, whose inputs agree.
        others: those of the second run.
        other: what was called there in its place.
    """
    if one.text != other.text:
        return _texts_differ(ones.text(one), others.text(other), one, other)
    if (one.devices, one.kind) != (other.devices, other.kind):
        return ProgramDifference("devices", _devices_differ(one, other))
    pairs = ones.callbacks(one), others.callbacks(other)
    for place in pairs[0].keys() & pairs[1].keys():
        if found := _callbacks_differ(pairs[0][place], pairs[1][place]):
            return found
    if not one.optimised or not other.optimised:
        return ProgramDifference("unknown", "the same program; what XLA made of it is not known")
    if one.optimised != other.optimised:
        return ProgramDifference("compiled", "the same program, which XLA compiled differently")
    return ProgramDifference("same", "the same program, and the same optimised HLO")


def _texts_differ(
    a: ProgramText | None, b: ProgramText | None, one: CalledProgram, other: CalledProgram
) -> ProgramDifference:
    only_constants = one.constants == other.constants
    if a is None or b is None or not a.statements or not b.statements:
        what = "another constant in it" if only_constants else "another program"
        return ProgramDifference("constant" if only_constants else "source", what)
    if only_constants:
        return _constants_differ(a, b)
    if a.without_shardings() == b.without_shardings():
        if len(one.devices) != len(other.devices):
            return ProgramDifference("devices", _devices_differ(one, other))
        return ProgramDifference("shardings", "the same program with other shardings")
    return _statements_differ(a, b)


def _constants_differ(a: ProgramText, b: ProgramText) -> ProgramDifference:
    pairs = zip(a.constants, b.constants, strict=False)
    numbers = [number for number, (x, y) in enumerate(pairs) if x != y]
    found = a.constant(numbers[0]) if numbers else None
    theirs = b.constant(numbers[0]) if numbers else None
    if found is None or theirs is None:
        return ProgramDifference("constant", "another constant in it")
    what = f"another constant in it: {found[0]}"
    if max(len(found[1]), len(theirs[1])) <= MOST_OF_A_VALUE and found[1] != theirs[1]:
        what += f", {found[1]} in one run, {theirs[1]} in the other"
    if len(numbers) > 1:
        what += f", and {len(numbers) - 1} more"
    return ProgramDifference("constant", what, tuple(filter(None, [found[2]])))


def _statements_differ(a: ProgramText, b: ProgramText) -> ProgramDifference:
    # A number is told by the operation that takes it.
    kept = [[x for x in text.statements if not _CONSTANT.search(x.text)] for text in (a, b)]
    texts = [_renumbered(each) for each in kept]
    if texts[0] == texts[1]:
        texts = [[each.text for each in side] for side in kept]
    pairs = enumerate(zip_longest(*texts))
    number = next((n for n, (one, other) in pairs if one != other), len(kept[0]) - 1)
    x, y = (side[number] if number < len(side) else None for side in kept)
    names = [each.operation if each else "nothing more" for each in (x, y)]
    what = "another program: it first differs in "
    what += names[0] if names[0] == names[1] else f"{names[0]}, which is {names[1]} in the other"
    places = [text.line_of(each) if each else None for text, each in ((a, x), (b, y))]
    return ProgramDifference("source", what, tuple(place for place in places if place))


def _renumbered(statements: Sequence[_Statement]) -> list[str]:
    """Number values as they come: MLIR numbers those of a block before those of what is in it."""
    names: dict[str, str] = {}

    def numbered(name: re.Match[str]) -> str:
        return names.setdefault(name[0], f"%{len(names)}")

    found = []
    for each in statements:
        if "func.func" in each.text:
            names.clear()
        found.append(_VALUE.sub(numbered, each.text))
    return found


def _callbacks_differ(a: _Callback, b: _Callback) -> ProgramDifference | None:
    """Say so if the first that differs is what a function returned, not what it was given."""
    for (given, returned), (given_there, returned_there) in zip(
        a.returned, b.returned, strict=False
    ):
        if given != given_there or UNKNOWN in (given, returned, returned_there):
            return None
        if returned != returned_there:
            name = a.site.function if a.site else "a function"
            what = f"{name}, called on the host, returned another value for equal arguments"
            return ProgramDifference("callback", what, tuple(filter(None, [a.site])))
    return None


def _devices_differ(one: CalledProgram, other: CalledProgram) -> str:
    texts = [
        f"{len(each.devices)} of {each.kind or 'a kind'}, in the order {_order(each.devices)}"
        for each in (one, other)
    ]
    return f"other devices: {texts[0]} in one run, {texts[1]} in the other"


def _order(devices: tuple[str, ...]) -> str:
    names = [name.rpartition(":")[2] for name in devices]
    return ",".join(names[:8]) + (",…" if len(names) > 8 else "")


def _type(text: str) -> str:
    """Return `tensor<3x4xf32>` as `f32[3,4]`."""
    *sizes, dtype = text.removeprefix("tensor<").removesuffix(">").split("x")
    return f"{dtype}[{','.join(sizes)}]"
