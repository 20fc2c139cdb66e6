"""A record as a graph: which call made each array, which calls take it, and what type it has.

The rule: an array is its bits and its type; one whose bits are not known is equal to nothing.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

from reproducibility.script.programs import ProgramsOfProcess
from reproducibility.script.reading import CalledProgram, Process, SourceLine
from reproducibility.script.values import NO_VALUE, ValuedCall, valued_calls

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_ARGUMENT = re.compile(r"%arg\d+: (?:!stablehlo\.ref<)?tensor<([^<>]*(?:<[^<>]*>)?[^<>]*)>")
_RESULT = re.compile(r"tensor<([^<>]*(?:<[^<>]*>)?[^<>]*)>")
_KEY = re.compile(r"(?:\d+x)*[24]xui32")  # the words of keys
_DERIVES_KEYS = ("threefry", "rng_bit_generator", "philox", "rbg")
_READ = re.compile(r"(\d+):(\d+)\.(\d+)")  # a result, as the host's events have it
_NUMBERS = ("i32", "ui32", "i64", "ui64")
FEW = 8  # elements of an array that may be equal to another by chance

type Content = tuple[tuple[str, ...], tuple[str, ...], str]
type Parent = tuple[int, int]  # a call, and which of its results


@dataclass(frozen=True, slots=True)
class CallNode:
    """A call: its arrays as bits and type, and which result of which call each argument is."""

    index: int
    call: ValuedCall
    inputs: tuple[str, ...]
    results: tuple[str, ...]
    parents: tuple[Parent | None, ...]
    derives_keys: bool = False  # whether its program says so, by its name or by what it calls

    @property
    def name(self) -> str:
        """The name of the user's function."""
        return self.call.program.called

    @property
    def line(self) -> SourceLine | None:
        """The innermost line that is in no library."""
        own = (line for line in self.call.site if "site-packages" not in line.file)
        return next(own, None)

    @property
    def is_of_user(self) -> bool:
        """Whether its function is defined in no library."""
        where = self.call.program.where
        return bool(where) and "site-packages" not in where

    @property
    def content(self) -> Content:
        """What it takes and returns, whatever it and its arguments are called."""
        return tuple(sorted(self.inputs)), tuple(sorted(self.results)), self.call.error

    @property
    def is_known(self) -> bool:
        """Whether the bits of each argument and of each result are known."""
        return NO_VALUE not in self.inputs and NO_VALUE not in self.results

    @property
    def tells(self) -> bool:
        """Whether equal results say much of what it takes, which a few yes or no do not."""
        return any(not is_slight(x) or _type_of(x).split("x")[-1] != "i1" for x in self.results)

    @property
    def makes_keys(self) -> bool:
        """Whether all that it returns are words of random keys: as these look, in the user's own.

        What a library's function makes of them may be a part of them, or their words.
        """
        types = [_type_of(each) for each in self.results]
        keys = bool(types) and all(_KEY.fullmatch(each) for each in types)
        return keys and (self.derives_keys or not self.is_of_user)

    @property
    def makes_a_number(self) -> bool:
        """Whether it returns one whole number, such as a seed that is put on the device."""
        return [_type_of(each) in _NUMBERS for each in self.results] == [True]


@dataclass
class CallGraph:
    """The calls of one process, by number, who takes what of whom, and what the script reads.

    `read` are results by the function's name: of calls that come often, the record names some.
    """

    process: Process
    nodes: list[CallNode]
    read: frozenset[tuple[str, int]] = frozenset()
    takers: list[list[tuple[int, int]]] = field(default_factory=list)  # call, and which result

    def __post_init__(self) -> None:
        self.takers = [[] for _ in self.nodes]
        for node in self.nodes:
            for parent in node.parents:
                if parent is not None:
                    self.takers[parent[0]].append((node.index, parent[1]))

    def read_of(self, node: CallNode) -> set[str]:
        """Return those results of a call that the script reads.

        Args:
            node: a call.
        """
        return {x for place, x in enumerate(node.results) if (node.name, place) in self.read}

    def ancestors(self, of: Iterable[int]) -> set[int]:
        """Return the calls that some calls depend on, themselves among them.

        Args:
            of: indexes of calls.
        """
        found, left = set(of), list(of)
        while left:
            for parent in self.nodes[left.pop()].parents:
                if parent is not None and parent[0] not in found:
                    found.add(parent[0])
                    left.append(parent[0])
        return found

    def descendants(self, of: Iterable[int]) -> set[int]:
        """Return the calls that depend on some calls, themselves among them.

        Args:
            of: indexes of calls.
        """
        found, left = set(of), list(of)
        while left:
            for taker, _ in self.takers[left.pop()]:
                if taker not in found:
                    found.add(taker)
                    left.append(taker)
        return found


def graphs_of(one: Process, other: Process) -> tuple[CallGraph, CallGraph]:
    """Read the calls of two processes as graphs.

    A function that was compiled before the record began has no text in it, so that types are not
    known: then arrays are compared by their bits alone, on both sides.

    Args:
        one: a process of the first record.
        other: its counterpart.
    """
    calls = [valued_calls(each) for each in (one, other)]
    types = [_Types(ProgramsOfProcess(each)) for each in (one, other)]
    typed = all(
        kinds.has_text_of(program)
        for kinds, made in zip(types, calls, strict=True)
        for program in {each.program for each in made}
    )
    return (
        _graph(one, calls[0], types[0] if typed else None),
        _graph(other, calls[1], types[1] if typed else None),
    )


def _graph(process: Process, calls: Sequence[ValuedCall], types: _Types | None) -> CallGraph:
    numbers = {(each.thread, each.number): index for index, each in enumerate(calls)}
    nodes: list[CallNode] = []
    for index, call in enumerate(calls):
        parents = []
        for origin in call.origins:
            number = None if origin is None else numbers.get((origin.thread, origin.call))
            parents.append(None if origin is None or number is None else (number, origin.place))
        arguments, results = types.of(call.program) if types else ([], [])
        arrays = [
            tuple(_typed(*each)) for each in ((call.values, arguments), (call.results, results))
        ]
        keys = types is not None and types.derives_keys(call.program)
        nodes.append(CallNode(index, call, arrays[0], arrays[1], tuple(parents), keys))
    return CallGraph(process, nodes, frozenset(_read(process, nodes, numbers)))


def _read(
    process: Process, nodes: Sequence[CallNode], numbers: dict[tuple[int, int], int]
) -> Iterator[tuple[str, int]]:
    """Yield the results that the script reads: the name of the function, and which of them."""
    for event in process.events():
        found = _READ.fullmatch(event.what) if event.kind == "leaves" else None
        if found:
            thread, call, place = map(int, found.groups())
            if (thread, call) in numbers:
                yield nodes[numbers[thread, call]].name, place


class _Types:
    """Types of what programs take and return, as far as their text was kept."""

    def __init__(self, programs: ProgramsOfProcess) -> None:
        self._programs = programs
        self._known: dict[str, tuple[list[str], list[str]]] = {}
        self._of_keys: dict[str, bool] = {}

    def of(self, program: CalledProgram) -> tuple[list[str], list[str]]:
        """Return the types of arguments and results; none if they are not known."""
        if program.text not in self._known:
            self._known[program.text] = self._read(program)
        return self._known[program.text]

    def has_text_of(self, program: CalledProgram) -> bool:
        """Whether what a program takes and returns can be read."""
        return any(self.of(program))

    def derives_keys(self, program: CalledProgram) -> bool:
        """Whether a program, or a function that it calls, derives keys."""
        if program.text not in self._of_keys:
            text = self._programs.text(program)
            words = (program.name, *(each.text for each in (text.statements if text else ())))
            self._of_keys[program.text] = any(k in each for each in words for k in _DERIVES_KEYS)
        return self._of_keys[program.text]

    def _read(self, program: CalledProgram) -> tuple[list[str], list[str]]:
        text = self._programs.text(program)
        heads = (each.text for each in text.statements if " @main(" in each.text) if text else ()
        head = _QUOTED.sub('""', next(iter(heads), ""))
        given, _, returned = head.partition(") -> ")
        return _ARGUMENT.findall(given), _RESULT.findall(returned)


def _typed(values: tuple[str, ...], types: list[str]) -> Iterator[str]:
    """Put type and bits together; where their numbers differ, the types are not known."""
    known = types if len(types) == len(values) else [""] * len(values)
    return (f"{value} {kind}" if value else NO_VALUE for value, kind in zip(values, known))  # noqa: B905


def _type_of(array: str) -> str:
    return array.partition(" ")[2]


def is_slight(array: str) -> bool:
    """Whether an array has so few elements that it may be equal to another by chance.

    Args:
        array: bits and type.
    """
    sizes = [int(size) for size in re.findall(r"(\d+)x", _type_of(array))]
    return prod(sizes) < FEW


def short_line(line: SourceLine) -> str:
    """Write a line of source without its folder.

    Args:
        line: one of a record.
    """
    return f"{line.file.rpartition('/')[2]}:{line.line}, in {line.function}"


def shown_type(array: str) -> str:
    """Return the type of an array as `f32[3,4]`; nothing if it is not known.

    Args:
        array: bits and type.
    """
    kind = _type_of(array)
    dtype = re.sub(r"^(\d+x)*", "", kind)
    sizes = kind.removesuffix(dtype).split("x")[:-1]
    return f"{dtype.replace('ui', 'u')}[{','.join(sizes)}]" if dtype else ""
