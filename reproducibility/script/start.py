"""Start a command with the recorder in its Python.

The rule: the command is the user's, word for word, in the user's working directory; what it prints
and what it exits with are passed on.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from reproducibility.errors import ConfigError

WATCH = Path(__file__).parents[1] / "watch"
WORDS = 200  # characters of a script's last line that are shown when it fails
# What JAX writes below an error.
_NO_WORDS = re.compile(r"\s*$|-+$|For simplicity, JAX has removed its internal frames")


@dataclass(frozen=True)
class Finished:
    """How a command ended, and what it printed if that was asked for."""

    code: int
    output: bytes = b""
    errors: bytes = b""

    @property
    def last_words(self) -> str:
        """The last line that it wrote to stderr, or else to stdout."""
        lines = (self.errors or self.output).decode(errors="replace").strip().splitlines()
        while len(lines) > 1 and _NO_WORDS.match(lines[-1]):
            lines.pop()
        return lines[-1].strip()[:WORDS] if lines else "it printed nothing"


def start(
    command: Sequence[str],
    *,
    record: Path | None,
    variables: Mapping[str, str] | None = None,
    keep: bool = False,
    stdin: int | None = None,
) -> Finished:
    """Run a command to its end, and return how it ended.

    Args:
        command: what to run, as it would be typed.
        record: a new or empty directory for the record; none is made if this is None.
        variables: environment variables that are added.
        keep: whether what it prints is kept, and shown on stderr, instead of passed on.
        stdin: what it reads, if that is not what this process reads.

    Raises:
        ConfigError: there is no such command, or the directory holds something else.
    """
    check_command(command)
    environment = {**os.environ, **(variables or {})}
    if record is not None:
        new_directory(record)
        paths = [str(WATCH), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        environment["REPRODUCIBILITY_RECORD"] = str(record.absolute())
    pipe = subprocess.PIPE if keep else None
    with subprocess.Popen(
        command, env=environment, stdin=stdin, stdout=pipe, stderr=pipe
    ) as process:
        kept = [bytearray(), bytearray()]
        try:
            if keep:
                readers = [
                    threading.Thread(target=_pass_on, args=(stream, into), daemon=True)
                    for stream, into in zip((process.stdout, process.stderr), kept, strict=True)
                ]
                for reader in readers:
                    reader.start()
                for reader in readers:
                    reader.join()
            process.wait()
        except KeyboardInterrupt:  # the command has heard it too
            process.wait()
            raise
    return Finished(process.returncode, bytes(kept[0]), bytes(kept[1]))


class SameInput:
    """Gives every run the same on stdin: a file from where it stood, or what came through a pipe.

    A terminal is passed on: a run that asks there is answered each time.
    """

    def __init__(self) -> None:
        self._place: int | None = None
        self._kept: bytearray | None = None
        self._ended = False
        self._lock = threading.Lock()
        with contextlib.suppress(OSError):  # it may be closed
            mode = os.fstat(0).st_mode
            if stat.S_ISREG(mode):
                self._place = os.lseek(0, 0, os.SEEK_CUR)
            elif stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
                self._kept = bytearray()

    @contextlib.contextmanager
    def again(self) -> Iterator[int | None]:
        """Yield what the next run reads; None for what this process does."""
        if self._place is not None:
            os.lseek(0, self._place, os.SEEK_SET)
        if self._kept is None:
            yield None
            return
        reads, writes = os.pipe()
        threading.Thread(target=self._feed, args=(writes,), daemon=True).start()
        try:
            yield reads
        finally:
            os.close(reads)

    def _feed(self, writes: int) -> None:
        """Write what came before, then what comes, until nobody reads or nothing comes."""
        assert self._kept is not None
        place = 0
        with open(writes, "wb", buffering=0) as pipe, contextlib.suppress(OSError):
            while True:
                with self._lock:
                    if place == len(self._kept) and not self._ended:
                        data = os.read(0, 65536)
                        self._kept += data
                        self._ended = not data
                    data = bytes(self._kept[place : place + 65536])
                if not data:
                    return
                place += pipe.write(data)


def check_command(command: Sequence[str]) -> None:
    """Refuse a command that is none, before anything is run.

    Args:
        command: what is to be run.

    Raises:
        ConfigError: there is no such command.
    """
    if not command or shutil.which(command[0]) is None:
        raise ConfigError(
            "run",
            repr(command[0]) if command else "nothing",
            expected="a command after --",
            got="none of that name" if command else "none",
            do="Put it as you would type it: -- python train.py.",
        )


def new_directory(path: Path) -> None:
    """Make a directory that only its owner can read; refuse one that holds something.

    Args:
        path: where.

    Raises:
        ConfigError: it holds something else, or cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = next(iter(path.iterdir()), None)
    except OSError as error:
        raise ConfigError(
            "record",
            "a script",
            path=path,
            expected="a directory that can be made",
            got=error.strerror or str(error),
            do="Choose another one.",
        ) from error
    if held is not None:
        raise ConfigError(
            "record",
            "a script",
            path=path,
            expected="a new or empty directory",
            got=f"one that holds {held.name}",
            do="Choose another one.",
        )


def _pass_on(stream: IO[bytes] | None, into: bytearray) -> None:
    """Show what comes on stderr, and keep it."""
    while stream and (data := stream.read1(65536)):  # type: ignore[attr-defined]
        into += data
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
