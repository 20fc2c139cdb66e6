"""Which file a call belongs to: that of its thread, or that of the host's function that makes it.

The rule: which thread XLA takes for a function of the host is chance, so its calls have a file of
their own, by the name of the function; a second one only while the first is in use.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import threading
from typing import Any

from .lines import ThreadFile
from .writing import Writing


class ThreadFiles:
    """The files of a process."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._files: list[ThreadFile] = []
        self._free: dict[str, list[ThreadFile]] = {}  # of functions that are not at work
        self._local: Any = threading.local()  # `file`, once it is known, and `function`
        self._lock = threading.Lock()

    @property
    def number(self) -> int:
        """How many calls this thread has made; those of a function of the host do not count."""
        file = getattr(self._local, "file", None)
        return 0 if file is None or file.function else file.number

    @property
    def most(self) -> int:
        """How many calls that thread has made that has made the most."""
        return max((file.number for file in self._files if not file.function), default=0)

    def mine(self) -> ThreadFile | None:
        """Return the file of this thread's calls; None if nobody knows who has started it."""
        try:
            found: ThreadFile | None = self._local.file
        except AttributeError:
            found = self._local.file = self._of_this_thread()
        return found

    def place(self) -> tuple[int, int]:
        """Return the number of the call that comes next, and that of its file."""
        file = self.mine()
        return (0, 0) if file is None else (file.number, file.index)

    def is_of_function(self) -> bool:
        """Whether this thread is at a function of the host that a program calls."""
        return bool(getattr(self._local, "function", ""))

    def _of_this_thread(self) -> ThreadFile | None:
        name = getattr(self._local, "function", "")
        if not name and isinstance(threading.current_thread(), threading._DummyThread):
            return None
        with self._lock:
            free = self._free.get(name)
            if name and free:
                return free.pop()
            found = ThreadFile(len(self._files) + 1, name)
            self._files.append(found)
        self._writing.begin_thread(found.file, name)
        return found

    def leave(self, name: str, file: ThreadFile) -> None:
        """Let the next one that is at a function have its file."""
        with self._lock:
            self._free.setdefault(name, []).append(file)


class AtFunction:
    """This thread is at a function of the host that a program calls, until that has returned."""

    __slots__ = ("_before", "_files", "_name")

    def __init__(self, files: ThreadFiles, name: str) -> None:
        self._files, self._name = files, name

    def __enter__(self) -> None:
        here = self._files._local.__dict__
        self._before = {key: here.pop(key) for key in ("file", "function") if key in here}
        here["function"] = self._name

    def __exit__(self, *error: object) -> None:
        here = self._files._local.__dict__
        file = here.pop("file", None)
        if file is not None:
            self._files.leave(self._name, file)
        here.pop("function", None)
        here.update(self._before)
