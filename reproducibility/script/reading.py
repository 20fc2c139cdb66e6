"""A record of a script, read again: what was started, every call, and how it ended.

The rule: reading executes nothing, follows no link out of the record, and believes no byte that no
digest covers.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from reproducibility.errors import RecordDamagedError, RecordError
from reproducibility.script.sealed import (
    damaged,
    raw_lines,
    sealed_size,
    text_lines,
    without_seals,
)
from reproducibility.storage.found import path_words
from reproducibility.watch.callbacks import CALLBACKS
from reproducibility.watch.consumed import KEYS
from reproducibility.watch.second import SECOND
from reproducibility.watch.texts import PROGRAMS
from reproducibility.watch.writing import DIGEST, ENDED, FORMAT, PARTIAL, digest_of_document


@dataclass(frozen=True)
class CalledProgram:
    """A compiled program, as a record names it."""

    name: str
    text: str
    constants: str
    shapes: tuple[str, ...]
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    where: str
    optimised: str = ""  # a digest of what XLA made of it
    devices: tuple[str, ...] = ()
    kind: str = ""  # of its devices

    @property
    def called(self) -> str:
        """The name of the user's function."""
        return self.name.removeprefix("jit(").removesuffix(")")

    def argument(self, place: int) -> str:
        """Return the name of an argument."""
        return self.arguments[place] if place < len(self.arguments) else f"argument {place}"

    def result(self, place: int) -> str:
        """Return the name of a result, without the word for the whole."""
        name = self.results[place] if place < len(self.results) else f"result {place}"
        return name.removeprefix("result") or "result"


@dataclass(frozen=True)
class SourceLine:
    """A line of source."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}, in {self.function}"


@dataclass(frozen=True)
class Pattern:
    """What repeats from call to call: the program, the place, and where the arguments come from."""

    program: CalledProgram
    site: tuple[SourceLine, ...]
    references: tuple[str, ...]
    number: int = field(default=0, compare=False)  # in its file

    @cached_property
    def from_host(self) -> int:
        """How many arguments are NumPy's or Python's own: their tokens come first in each call."""
        return sum(kind in ("n", "s", "x") for kind in self.references)

    @cached_property
    def entering(self) -> tuple[int, ...]:
        """Which arguments have a token, in the order of the tokens."""
        order = [i for i, kind in enumerate(self.references) if kind in ("n", "s", "x")]
        order += [i for i, kind in enumerate(self.references) if kind in ("e", "m")]
        return tuple(order)


class Call(NamedTuple):
    """One call: `values` has a token for each argument that no recorded call made."""

    number: int
    pattern: Pattern
    values: tuple[str, ...]
    results: tuple[str, ...]
    error: str = ""

    def entered(self) -> dict[int, str]:
        """Return the tokens by the place of their argument."""
        return dict(zip(self.pattern.entering, self.values, strict=False)) if self.values else {}


class Start(NamedTuple):
    """Where to read on in a thread's file, and the number of the call that comes next."""

    offset: int
    number: int


@dataclass
class Thread:
    """The calls of a thread."""

    path: Path
    name: str
    pool: bool  # whether it works for a pool
    size: int  # bytes that a digest covers: after them comes what a killed process was writing
    function: bool = False  # whether it is no thread, but a function that a program calls
    programs: dict[int, CalledProgram] = field(default_factory=dict)
    sites: dict[int, tuple[SourceLine, ...]] = field(default_factory=dict)
    patterns: dict[int, Pattern] = field(default_factory=dict)
    _offsets: dict[int, int] = field(default_factory=dict)  # of calls, once one was asked for

    @property
    def number(self) -> int:
        """What other threads of the record call it."""
        return int(self.path.stem.partition("-")[2])

    def calls(self, start: Start | None = None) -> Iterator[Call]:
        """Give each call, in the order of their lines, from the first or from `start` on."""
        offset, number, header = (*start, 0) if start else (0, 0, 1)
        with contextlib.closing(raw_lines(self.path, self.size, offset)) as lines:
            for _, line in itertools.islice(lines, header, None):
                if line[:1].isdigit() or line[:1] == b"@":
                    call = self._call(number, line.decode()[:-1])
                    number = call.number + 1
                    yield call
                elif line[:1] != b"#":
                    self._define(*line.decode()[:-1].partition(" ")[::2])

    def at(self, number: int) -> Call | None:
        """Return one call; None if there is no such call."""
        if not self._offsets:
            expected = 0
            with contextlib.closing(raw_lines(self.path, self.size)) as lines:
                for begin, line in itertools.islice(lines, 1, None):
                    if line[:1] == b"@":
                        expected = int(line[1 : line.index(b" ")])
                    if line[:1].isdigit() or line[:1] == b"@":
                        self._offsets[expected] = begin
                        expected += 1
        offset = self._offsets.get(number)
        return None if offset is None else next(self.calls(Start(offset, number)))

    def _define(self, what: str, text: str) -> None:
        name, _, rest = text.partition(" ")
        if what == "pattern":
            program, site, *references = rest.split(" ")
            words = tuple(references[0].split(",")) if references and references[0] else ()
            self.patterns[int(name)] = Pattern(
                self.programs[int(program)], self.sites[int(site)], words, int(name)
            )
        elif what == "site":
            self.sites[int(name)] = tuple(SourceLine(*each) for each in json.loads(rest))
        else:
            facts = json.loads(rest)
            self.programs[int(name)] = CalledProgram(
                facts["name"],
                facts["text"],
                facts["constants"],
                tuple(facts["shapes"]),
                tuple(facts["arguments"]),
                tuple(facts["results"]),
                facts["where"],
                facts.get("optimised", ""),
                tuple(facts.get("devices", ())),
                facts.get("kind", ""),
            )

    def _call(self, number: int, text: str) -> Call:
        if text.startswith("@"):
            place, _, text = text.partition(" ")
            number = int(place[1:])
        name, _, rest = text.partition(" ")
        host, _, rest = rest.partition(";")
        rest, _, error = rest.partition("!")
        device, _, results = rest.partition(">")
        return Call(
            number,
            self.patterns[int(name)],
            _tokens(host) + _tokens(device),
            _tokens(results),
            error,
        )


@dataclass(frozen=True)
class Event:
    """What the script asked of the machine, after how many calls of its thread."""

    after: int
    kind: str
    what: str
    site: tuple[SourceLine, ...]
    digest: str = ""  # of a file that is read, by parts if it is large, or of a folder's order
    thread: int = 0  # of what was overwritten: that of the call which had it last

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"what": self.what, "lines": [str(line) for line in self.site]}


@dataclass(frozen=True)
class Process:
    """A process of a record: how it began, how it ended, and its threads."""

    path: Path
    start: dict[str, Any]
    end: dict[str, Any] | None
    problems: tuple[str, ...]
    threads: tuple[Thread, ...]
    hosts: int  # bytes of `host.txt` that a digest covers
    called: bool  # whether it called JAX
    pool: bool  # whether it works for a pool of processes, which hands out tasks as they come
    stopped: bool = False  # whether it was ended because another process came to a call
    sizes: dict[str, int] = field(default_factory=dict)  # the same of files that only explain

    def lines(self, name: str) -> Iterator[str]:
        """Give the lines of a file that explains a difference; none if there is no such file."""
        with contextlib.closing(text_lines(self.path / name, self.sizes.get(name, 0))) as lines:
            yield from (text for text in lines if not text.startswith("#"))

    def events(self) -> Iterator[Event]:
        """Give what the script asked of the machine, in order."""
        with contextlib.closing(text_lines(self.path / "host.txt", self.hosts)) as lines:
            for text in lines:
                if not text.startswith("#"):
                    each = json.loads(text)
                    site = tuple(SourceLine(*line) for line in each["lines"])
                    digest = each.get("digest") or each.get("order") or ""
                    thread = each.get("thread", 0)
                    yield Event(each["after"], each["kind"], each["what"], site, digest, thread)


def processes_of(record: Path) -> list[Process]:
    """Read a record, all of whose bytes are those that were written.

    Raises:
        RecordError: the directory is no record.
        RecordDamagedError: a file of it is not as it was written.
    """
    if not record.is_dir():
        got = "a file" if record.exists() else "no such directory"
        do = "Make one with reproducibility record."
        raise RecordError("read", "a record", path=record, expected=_RECORD, got=got, do=do)
    folders = [each for each in _numbered(record.glob("process-*")) if _has_begun(each)]
    if not folders:
        raise _without_a_process(record)
    found = [_process(folder) for folder in folders]
    ended = (_document(record / ENDED) or {}).get("pids", [])
    return [replace(each, stopped=each.start.get("pid") in ended) for each in found]


def _without_a_process(record: Path) -> RecordError:
    got, do = path_words(record), "Make one with reproducibility record."
    if not any(record.iterdir()) or any(each.is_dir() for each in record.glob("process-*")):
        got = "one without a process"
        do = "See whether the command starts Python, and not with -E, -I or -S."
    return RecordError("read", "a record", path=record, expected=_RECORD, got=got, do=do)


def first_process(record: Path) -> Process | None:
    """Read how the first process of a record began and ended, and none of its calls.

    Args:
        record: a record's directory.

    Returns:
        None if that cannot be read: `processes_of` says why.
    """
    folder = record / "process-1"
    try:
        start, end = _document(folder / "start.json"), _document(folder / "end.json")
    except (RecordDamagedError, OSError):
        return None
    return None if start is None else Process(folder, start, end, (), (), 0, False, False)


def _has_begun(folder: Path) -> bool:
    """Whether a process came as far as its first file: it may have been killed before."""
    return folder.is_dir() and any(path.suffix != PARTIAL for path in folder.iterdir())


def _process(folder: Path) -> Process:
    start = _document(folder / "start.json")
    if start is None or start.get("format") != FORMAT:
        raise RecordError(
            "read",
            "a record",
            path=folder,
            expected=f"start.json of format {FORMAT}",
            got="none" if start is None else f"format {start.get('format')}",
            do="Record the script again.",
        )
    end = _document(folder / "end.json")
    digests = end.get("files") if end else {}
    if not isinstance(digests, dict):
        raise damaged(folder / "end.json", "something else")
    threads = []
    paths = _numbered(folder.glob("thread-*.txt"))
    for path in paths:
        if size := sealed_size(path, digests.get(path.name)):
            header = json.loads(next(text_lines(path, size)))
            kind = header.get("pool", False), size, header.get("function", False)
            threads.append(Thread(path, header["thread"], *kind))
    host = folder / "host.txt"
    hosts = sealed_size(host, digests.get(host.name)) if host.exists() else 0
    names = (PROGRAMS, CALLBACKS, SECOND, KEYS)
    more = [folder / name for name in names if (folder / name).exists()]
    sizes = {path.name: sealed_size(path, digests.get(path.name)) for path in more}
    files = {path.name for path in (*paths, host, *more) if path.exists()}
    if end and files != set(digests):
        lacking = ", ".join(sorted(set(digests) - files))
        others = ", ".join(sorted(files - set(digests)))
        raise damaged(folder, f"no {lacking}" if lacking else f"{others} as well")
    problems = (end or _document(folder / "problems.json") or {}).get("problems", [])
    if _document(folder / "forked.json") is not None:
        problems = [*problems, "a fork of the process called JAX, which was not recorded"]
    task = _document(folder / "called.json")
    called, pool = task is not None or bool(paths), bool(task and task.get("pool"))
    told = tuple(problems), tuple(threads)
    return Process(folder, start, end, *told, hosts, called, pool, sizes=sizes)


def _numbered(paths: Iterable[Path]) -> list[Path]:
    """Sort files by the number at the end of their names."""
    found = {}
    for path in paths:
        number = path.stem.partition("-")[2]
        if not number.isdecimal() or path.is_symlink():
            raise damaged(path, "something else")
        found[int(number)] = path
    return [path for _, path in sorted(found.items())]


def equal_calls(a: Thread, b: Thread) -> Iterator[tuple[int, Pattern, Start, Start]]:
    """Give the calls with which two threads begin and whose lines are equal, byte for byte.

    Each comes with its number, and with where to read on after it. All that these lines refer to
    is defined by equal lines too, so nothing of them differs.
    """
    number = 0
    with (
        contextlib.closing(raw_lines(a.path, a.size)) as ones,
        contextlib.closing(raw_lines(b.path, b.size)) as others,
    ):
        next(ones), next(others)
        pairs = zip(without_seals(ones), without_seals(others), strict=False)
        for (begin, line), (other, same) in pairs:
            if line != same:
                return
            if not line[:1].isdigit():
                if line[:1] != b"@":
                    for thread in (a, b):
                        thread._define(*line.decode()[:-1].partition(" ")[::2])
                    continue
                place, _, line = line.partition(b" ")
                number = int(place[1:])
            pattern = a.patterns[int(line[: line.index(b" ")])]
            yield (
                number,
                pattern,
                Start(begin + len(same), number + 1),
                Start(other + len(same), number + 1),
            )
            number += 1


def _document(path: Path) -> dict[str, Any] | None:
    if not path.is_file() or path.is_symlink():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise damaged(path, "no JSON") from None
    if not isinstance(found, dict):
        raise damaged(path, "something else")
    digest = found.pop(DIGEST, None)  # older records have none
    if digest not in (None, digest_of_document(found)):
        raise damaged(path, "something else")
    return found


def _tokens(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


_RECORD = "a record of a script"
