"""What the first run left behind and the second one finds: then the two are no two starts.

The rule: a file that a run wrote itself before it reads it is its own. What was changed on disk
while the first run went on counts, whoever noticed that it was written.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import ast
import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from reproducibility.script.reading import Event, processes_of

WRITES = ("writes", "appends")
# Where packages lie. uv links a file of a package into each environment, so that one that is set up
# elsewhere changes the time at which the file's links changed, though nobody wrote it.
_PACKAGES = ("site-packages", "dist-packages")
_OF_SYSTEM, _SOURCES = ("/proc/", "/sys/", "/dev/"), (".py", ".pyc")


@dataclass(frozen=True)
class Inherited:
    """What the second run found: a file that it `reads`, one that it `misses`, or that it `lists`.

    A file that it misses was deleted by the first run.
    """

    how: Literal["reads", "misses", "lists"]
    event: Event
    name: str  # of the file

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**self.event.to_json(), "how": self.how, "file": self.name}


def look_for_inherited(
    first: Path, second: Path, times: tuple[float, float], *, listings: bool
) -> Inherited | None:
    """Return what the second run finds because the first one was there before; None if nothing.

    Args:
        first: the record of the first run.
        second: that of the second one.
        times: when the first run began and ended, as the clock of files has it.
        listings: whether a folder counts that the first run has put something into.
    """
    asked = list(_events(first))
    written = {event.what for event in asked if event.kind in WRITES}
    deleted = {event.what for event in asked if event.kind == "deletes"} - written
    own: set[str] = set()
    listed = None
    for event in _events(second):
        if event.kind == "writes":
            own.add(event.what)
        elif event.kind == "reads" and event.what not in own:
            path = Path(event.what)
            if _is_left(path, written, times):
                return Inherited("reads", event, event.what)
            if event.what in deleted and not path.exists():
                return Inherited("misses", event, event.what)
        elif event.kind == "listing" and listings and not listed:
            name = _left_in(event, written - own, times)
            listed = Inherited("lists", event, name) if name else None
    return listed


def is_made_by(name: str, record: Path) -> bool:
    """Whether a run has made a file: it wrote it before it read it, if it did, and it is there.

    Args:
        name: the file.
        record: that of the run.
    """
    mine = [event.kind for event in _events(record) if event.what == name]
    return bool(mine) and mine[0] == "writes" and Path(name).is_file()


def is_written_by(name: str, record: Path) -> bool:
    """Whether a run wrote a file that is there.

    Args:
        name: the file.
        record: that of the run.
    """
    kinds = {event.kind for event in _events(record) if event.what == name}
    return bool(kinds & set(WRITES)) and Path(name).is_file()


def files_left(first: Path, own: Sequence[str]) -> list[str]:
    """Return the files that the first run wrote where the second one may find them.

    Args:
        first: the record of the first run.
        own: directories that belong to one run each.
    """
    here, apart = os.getcwd() + os.sep, (*own, tempfile.gettempdir())
    written = dict.fromkeys(event.what for event in _events(first) if event.kind in WRITES)
    names = (name for name in written if name.startswith(here) or not name.startswith(apart))
    return [name for name in names if Path(name).exists()]


def files_changed(a: Path, b: Path) -> list[str]:
    """Say which data files two runs read with other contents: those that neither wrote before.

    Sources are left out, and what the system itself keeps. Of a large file parts are compared.

    Args:
        a: the record of the first run.
        b: that of the second.
    """
    ones, others = _first_read(a), _first_read(b)
    return [
        f"{name}, which both read, has other contents in the second{_in_line(one)}"
        for name, one in ones.items()
        if name in others and one.digest != others[name].digest
    ]


def _in_line(event: Event) -> str:
    line = event.site[0] if event.site else None
    return f": {PurePath(line.file).name}:{line.line}, in {line.function}" if line else ""


def _first_read(record: Path) -> dict[str, Event]:
    """Return how each file was when a run read it, if it had not written it before."""
    found: dict[str, Event | None] = {}
    for event in _events(record):
        own = event.what.startswith(_OF_SYSTEM) or event.what.endswith(_SOURCES)
        if event.kind in WRITES:
            found.setdefault(event.what, None)
        elif event.kind == "reads" and event.digest and not own:
            found.setdefault(event.what, event)
    return {name: event for name, event in found.items() if event is not None}


def _events(record: Path) -> Iterator[Event]:
    """Give what the processes of a record asked of the machine."""
    for process in processes_of(record):
        yield from process.events()


def _is_left(path: Path, written: set[str], times: tuple[float, float]) -> bool:
    """Whether a file is there, and was written while the first run went on."""
    return path.is_file() and (str(path) in written or _changed(path, times))


def _changed(path: Path, times: tuple[float, float]) -> bool:
    with contextlib.suppress(OSError):  # it may be gone
        status = path.stat()
        linked = any(each in path.parts for each in _PACKAGES)
        return times[0] <= (status.st_mtime if linked else status.st_ctime) <= times[1]
    return False


def _left_in(event: Event, written: set[str], times: tuple[float, float]) -> str:
    """Return what the first run has put into a folder that is listed; nothing if it has not."""
    with contextlib.suppress(ValueError, SyntaxError, OSError):
        listed = ast.literal_eval(event.what.partition("(")[2].rpartition(")")[0])
        if not isinstance(listed, str):  # the number of an open folder, as shutil.rmtree lists it
            return ""
        for path in sorted(Path(listed).absolute().iterdir()):
            if str(path) in written or _changed(path, times):
                return str(path)
    return ""
