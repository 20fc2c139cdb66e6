"""The files of a record: a folder for each process, a file for each thread that calls JAX.

The rule: a line is on disk soon after its call, nobody but the owner can read it, and every byte
is covered by a digest. What is not ended says so by lacking `end.json`.
Chapter: docs/guide/any_script.md

    DIR/ended.json               which processes were ended with a run that was to end at a call
    DIR/until.txt                in which step a start is to be ended: see `limit`
    DIR/process-1/start.json     what was started: command, folder, versions
    DIR/process-1/thread-1.txt   its calls, in order; lines that begin with # seal those before
    DIR/process-1/host-1.txt     what that thread asked of the machine, and after which call
    DIR/process-1/second.txt     what calls came to that were computed a second time: see `second`
    DIR/process-1/called.json    is there as soon as it calls JAX
    DIR/process-1/forked.json    is there as soon as a fork of it does, whose calls are not recorded
    DIR/process-1/end.json       how it ended, and the digest of every file

A line of a thread, apart from its first, is one of

    program ID JSON              a compiled program that is called for the first time
    site ID JSON                 three lines of source, innermost first
    pattern ID PROGRAM SITE REF,REF,...
    PATTERN TOKEN,...;FINGERPRINT,...>FINGERPRINT,...      a call
    PATTERN TOKEN,...;FINGERPRINT,...!ERROR      a call that raised an error
    @N ...                       the same of call N, if that is not the one after the last
    # SHA256                     of all bytes of this file before this line

A pattern's references say where each argument comes from: `rD.I` is result I of the call D calls
ago, `iD.I` its argument I, `=` the array that stood there when this program was called from here
before; `tK:D.I` (and `uK:D.I`) is that of another thread, counted likewise. `e` is an array of the
device that no recorded call made, `n` one of NumPy, `s` a number of Python, `m` a mutable array. A
call's line has a token for each `n` and `s`, then a fingerprint for each `e` and `m`, and after `>`
one for each result.
"""

from __future__ import annotations

import _thread
import collections
import contextlib
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from os import getpid  # itself, which nobody holds
from pathlib import Path
from typing import Any

from . import hook, prints
from .hiding import text_without_secrets
from .settings import plain_settings

FORMAT = 1
ENDED = "ended.json"
DIGEST = "digest of the rest"  # what a file of JSON values has of all others in it
PARTIAL = ".partial"  # the end of a file's name until it is whole
SEAL_EVERY = 0.5  # seconds between two writes to disk
POOLS = ("concurrent.futures.thread", "concurrent.futures.process", "multiprocessing.pool")
WORDS = 300  # characters of a problem that are kept
PENDING = 2_000  # lines that may wait for their fingerprints before the script waits
LINES_TOGETHER = 500  # lines that are completed together
BETWEEN_BATCHES = 0.01  # seconds between two looks at what waits
_sleep, _now = time.sleep, time.monotonic  # as they are, whatever the script makes of them

# File, text, tokens, fingerprints of arguments with those that count, those of results, and error.
_Waiting = tuple[str, str, Any, Sequence[tuple[Any, Any]], Any, str]


class Writing:
    """The folder of one process; lines are completed and written by a thread of its own."""

    def __init__(self, directory: Path, start: dict[str, Any]) -> None:
        self.directory = _new_folder(directory)
        self._files: dict[str, _File] = {}
        self._queue: collections.deque[_Waiting] = collections.deque()
        self._started, self._done = False, threading.Event()
        self._lock = threading.Lock()
        self._owner = getpid()
        self._plain = self._closing = self._forked = False
        self._settings: Any = None
        self.problems: list[str] = []
        self.remarks: list[str] = []
        self.counts: dict[str, int] = {}
        _write_json(self.directory / "start.json", {"format": FORMAT, **start})

    def problem(self, what: str) -> None:
        """Note what could not be seen; nothing is "the same" with a problem."""
        what = what.partition("\n")[0][:WORDS]
        if what not in self.problems and len(self.problems) < 20:
            self.problems.append(what)
            with contextlib.suppress(Exception):  # a full disk: `end` says so, if only by its lack
                _write_json(self.directory / "problems.json", {"problems": self.problems})

    def remark(self, what: str) -> None:
        """Note what decides nothing."""
        if what not in self.remarks and len(self.remarks) < 20:
            self.remarks.append(what)

    def count(self, what: str) -> None:
        """Count something that has no line."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def is_owner(self) -> bool:
        """Whether this is the process that is watched, and no fork of it."""
        return getpid() == self._owner

    def called(self) -> None:
        """Note, before anything else can happen, that JAX is called."""
        if self.is_owner():
            _write_json(self.directory / "called.json", _kind_of_process())

    def begin_thread(self, name: str, function: str = "") -> None:
        """Write the first line of the file of this thread, or of a function of the host."""
        facts: dict[str, Any] = {"thread": function, "pool": False, "function": True}
        if not function:
            mine = threading.current_thread()
            facts = {"thread": mine.name, "pool": _works_for_a_pool(mine)}
        self.line(name, json.dumps(facts))

    def line(self, name: str, text: str) -> None:
        """Add a line to a file."""
        self.call(name, text, None, (), None)

    def call(
        self,
        name: str,
        text: str,
        tokens: Sequence[str | prints.OfHost] | None,
        before: Sequence[tuple[prints.Pending, Sequence[int] | None]],
        after: Any,
        error: str = "",
        *,
        may_wait: bool = True,
    ) -> None:
        """Add the line of a call: its pattern, tokens, and fingerprints that are still computed.

        Of those of the arguments only some may count. What a program waits for must not wait. What
        comes after may be anything with `small` and `finish` of `prints.Pending`.
        """
        if not self.is_owner():  # a fork, whose parent writes
            if name.startswith("thread-") and not self._forked:
                self._forked = True
                _write_json(self.directory / "forked.json", {})
            return
        if not self._started:
            with self._lock:
                if not self._started:
                    self._started = True
                    # Not of `threading`: a script numbers, lists and counts its threads there.
                    _thread.start_new_thread(self._work, ())
        self._queue.append((name, text, tokens, before, after, error))
        while may_wait and len(self._queue) > PENDING and not self._done.is_set():
            _sleep(BETWEEN_BATCHES / 10)

    def end(self, *, patience: float | None = None, **facts: Any) -> None:
        """Write what waits, and the last file; without it if that takes longer than `patience`.

        With patience no lock is taken, for the script may be anywhere, even in a signal's handler.
        """
        if not self.is_owner():
            return
        if self._started:
            self._closing = True
            if not self._done.wait(patience):
                return
        try:
            files = {name: file.close() for name, file in sorted(self._files.items())}
            facts["problems"], facts["remarks"] = self.problems, self.remarks
            facts["counts"], facts["files"] = self.counts, files
            _write_json(self.directory / "end.json", facts)
        except OSError as error:  # without its end, the record is never "the same"
            for file in self._files.values():
                file.abandon()
            with contextlib.suppress(OSError):
                (self.directory / "end.json").unlink()
            with contextlib.suppress(Exception):
                sys.stderr.write(f"reproducibility: the record is not whole: {error}\n")

    def not_ended(self, why: str) -> None:
        """Take the last file back: the process goes on."""
        if self.is_owner():
            self.problem(why)
            with contextlib.suppress(OSError):
                (self.directory / "end.json").unlink()

    def _work(self) -> None:
        with hook.unseen(), contextlib.ExitStack() as self._settings:
            self._write_lines()
        self._done.set()

    def _write_lines(self) -> None:
        written = _now()
        while True:
            closing = self._closing
            waiting = [self._queue.popleft() for _ in range(min(len(self._queue), LINES_TOGETHER))]
            if not waiting and closing:
                return
            try:
                self._write(waiting)
            except Exception as error:  # never the script's
                self.problem(f"a line could not be written: {type(error).__name__}: {error}")
            if _now() - written > SEAL_EVERY:
                self._flush_or_say()
                written = _now()
            if not self._queue and not closing:
                _sleep(BETWEEN_BATCHES)

    def _write(self, waiting: list[_Waiting]) -> None:
        pending: list[Any] = []
        for _, _, tokens, before, after, _ in waiting:
            pending += [each for each in tokens or () if type(each) is not str]
            pending += [each for each, _ in before]
            if after is not None:
                pending.append(after)
        if pending and not self._plain:  # JAX is imported by now: not before the script does it
            self._plain = True
            self._settings.enter_context(plain_settings())
        found = iter(prints.texts(pending))
        lines: dict[str, list[str]] = {}
        for item in waiting:
            lines.setdefault(item[0], []).append(self._line(item, found))
        if any(isinstance(each, prints.Pending) and each.unlike for each in pending):
            self.problem("devices hold replicas of an array that differ")
        for name, texts in lines.items():
            file = self._files.get(name)
            if file is None:
                file = self._files[name] = _File(self.directory / name)
            file.write("".join(texts))

    def _line(self, item: _Waiting, found: Iterator[list[str] | Exception]) -> str:
        """Return a line; every fingerprint of a call is taken, even if an earlier one failed."""
        name, text, tokens, before, after, error = item
        if name == "host.txt":  # names of files
            text = text_without_secrets(text)
        if tokens is None:
            return f"{text}\n"
        words: list[Any] = [each if type(each) is str else next(found) for each in tokens]
        entered = [next(found) for _ in before]
        results: Any = next(found) if after is not None else []
        late = next((e for e in (*words, *entered, results) if isinstance(e, Exception)), None)
        if late is not None:  # a call that fails where its results are used first
            error = type(late).__name__
            first = str(late).partition("\n")[0]
            self.problem(f"a call has no result that can be read: {error}: {first}")
        text += ",".join([each if type(each) is str else each[0] for each in words]) + ";"
        taken: list[str] = []
        for prints_of, (_, picks) in zip(entered, before):  # noqa: B905 (Python 3.10)
            if isinstance(prints_of, Exception):
                return f"{text}!{error}\n"
            taken += prints_of if picks is None else [prints_of[i] for i in picks]
        text += ",".join(taken)
        return f"{text}!{error}\n" if error else f"{text}>{','.join(results)}\n"

    def _flush_or_say(self) -> None:
        try:
            self._flush()
        except Exception as error:
            self.problem(f"a line could not be written: {type(error).__name__}: {error}")

    def _flush(self) -> None:
        for file in self._files.values():
            file.flush()


class _File:
    """A text file that knows the digest of what it holds."""

    def __init__(self, path: Path) -> None:
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._digest = hashlib.sha256()
        self._sealed = True

    def write(self, text: str) -> None:
        data = text.encode()
        self._file.write(data)
        self._digest.update(data)
        self._sealed = False

    def flush(self) -> None:
        if not self._sealed:
            self.write(f"# {self._digest.hexdigest()}\n")
            self._file.flush()
            self._sealed = True

    def abandon(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def close(self) -> str:
        self.flush()
        self._file.close()
        return self._digest.hexdigest()


def write_ended(record: Path, processes: Iterable[int]) -> None:
    """Note which processes were ended because their run had come to the call that was asked for."""
    with contextlib.suppress(OSError):  # they lack their end then, and that is said
        _write_json(record / ENDED, {"pids": sorted(processes)})


def _new_folder(directory: Path) -> Path:
    """Make the next free folder for a process."""
    for number in range(1, 10_000):
        path = directory / f"process-{number}"
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return path
    raise OSError(f"too many processes in {directory}")


def _kind_of_process() -> dict[str, Any]:
    """Return whether this process works for a pool, which hands out tasks as they come."""
    process: Any = sys.modules.get("multiprocessing.process")
    return {"pool": bool(process) and _works_for_a_pool(process.current_process())}


def _works_for_a_pool(worker: Any) -> bool:
    """Return whether a thread or process was started by a pool, whatever its name."""
    return getattr(getattr(worker, "_target", None), "__module__", "") in POOLS


def digest_of_document(document: dict[str, Any]) -> str:
    """Return the digest that a file of JSON values has of all others in it.

    Args:
        document: the values.
    """
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _write_json(path: Path, document: dict[str, Any]) -> None:
    partial, document = path.with_suffix(PARTIAL), json.loads(json.dumps(document))  # as it is read
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({**document, DIGEST: digest_of_document(document)}, file, sort_keys=True)
        file.write("\n")
    os.replace(partial, path)
