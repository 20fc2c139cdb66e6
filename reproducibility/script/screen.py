"""What is seen while a script runs: its output, what is being done, and how far it is.

The rule: a line of ours never breaks one of the script's, and nobody waits for who looks.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable

FIRST_AFTER = 10.0  # seconds until how far it is is said where that cannot be rewritten
LONGEST_BREAK = 300.0  # seconds between two such lines: each break is twice the one before
_ERASE = b"\r\x1b[2K"


class Screen:
    """Stderr, which the script's output and our own lines share."""

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self._say, self._lock = say, threading.Lock()
        self._at_start, self._drawn, self._gone = True, False, False
        self._began, self._break = time.monotonic(), FIRST_AFTER
        with contextlib.suppress(Exception):  # of a notebook it may lack the method
            self._rewrites = sys.stderr.isatty()
            return
        self._rewrites = False

    def output(self, data: bytes) -> None:
        """Show what the script prints."""
        with self._lock:
            self._erase()
            self._write(data)
            self._at_start = data.endswith(b"\n")

    def say(self, text: str) -> None:
        """Say what is being done, on a line of its own."""
        with self._lock:
            self._erase()
            if self._say is not None:
                if not self._at_start:
                    self._write(b"\n")
                self._at_start = True
                self._say(text)
            self._began, self._break = time.monotonic(), FIRST_AFTER

    def progress(self, text: str) -> None:
        """Say how far it is: on a line that is rewritten, elsewhere now and then on a new one."""
        with self._lock:
            if self._say is None or not self._at_start:
                return
            if self._rewrites:
                width = shutil.get_terminal_size().columns - 1
                self._write(_ERASE + text[:width].encode(errors="replace"))
                self._drawn = True
            elif time.monotonic() - self._began >= self._break:
                self._began, self._break = time.monotonic(), min(2 * self._break, LONGEST_BREAK)
                self._say(text)

    def clear(self) -> None:
        """Take the rewritten line away."""
        with self._lock:
            self._erase()

    def _erase(self) -> None:
        if self._drawn:
            self._write(_ERASE)
            self._drawn = False

    def _write(self, data: bytes) -> None:
        """Write to stderr; if that is gone, the script still runs."""
        if self._gone:
            return
        try:
            binary = getattr(sys.stderr, "buffer", None)
            if binary is None:
                sys.stderr.write(data.decode(errors="replace"))
            else:
                binary.write(data)
            sys.stderr.flush()
        except (OSError, ValueError):
            self._gone = True


def in_words(seconds: float) -> str:
    """Return a time as people say it.

    Args:
        seconds: how many.
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
