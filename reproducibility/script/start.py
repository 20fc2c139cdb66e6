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
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from reproducibility.errors import ConfigError
from reproducibility.script.ending import ASKED, end_family
from reproducibility.script.screen import Screen
from reproducibility.watch.writing import write_ended

WATCH = Path(__file__).parents[1] / "watch"
PRINTED = ("stdout.txt", "stderr.txt")  # the files of what it prints
BETWEEN_LOOKS = 0.5  # seconds; the end of the command is seen at once
LAST_OF_IT = 2.0  # seconds until a stream that something holds open is left
LAST_WORDS = 200  # characters of a script's last line that are shown when it fails
# What JAX writes below an error.
_NO_WORDS = re.compile(r"\s*$|-+$|For simplicity, JAX has removed its internal frames")


@dataclass(frozen=True)
class Finished:
    """How a command ended, and the files with what it printed, if that was kept."""

    code: int
    output: Path | None = None
    errors: Path | None = None
    stopped: bool = False  # whether we ended it
    problem: str = ""  # why what it printed was not kept whole
    began: float = 0.0  # as the clock of files has it
    ended: float = 0.0

    @property
    def printed(self) -> tuple[Path | None, Path | None]:
        """The files of what it wrote to stdout and to stderr."""
        return self.output, self.errors

    @property
    def last_words(self) -> str:
        """The last line that it wrote to stderr, or else to stdout."""
        lines = _last_lines(self.errors) or _last_lines(self.output)
        while len(lines) > 1 and _NO_WORDS.match(lines[-1]):
            lines.pop()
        return lines[-1].strip()[:LAST_WORDS] if lines else "it printed nothing"


def start(
    command: Sequence[str],
    *,
    record: Path | None,
    variables: Mapping[str, str | None] | None = None,
    keep: Path | None = None,
    stdin: int | None = None,
    screen: Screen | None = None,
    look: Callable[[], bool] | None = None,
    limited: bool = False,
    folder: Path | None = None,
) -> Finished:
    """Run a command to its end, and return how it ended.

    Args:
        command: what to run, as it would be typed.
        record: a new or empty directory for the record; none is made if this is None.
        variables: environment variables that are added; one that is None is taken away.
        keep: a directory in which what it prints is kept; it is then shown on the screen, instead
            of passed on.
        stdin: what it reads, if that is not what this process reads.
        screen: shows what it prints.
        look: is called twice a second; the command is ended once it returns True.
        limited: whether it ends itself at a call; what it has started is ended then, too.
        folder: the working directory, if that is not the one of this process.

    Raises:
        ConfigError: there is no such command, or the directory holds something else.
    """
    check_command(command)
    added = {**os.environ, **(variables or {})}
    environment = {name: text for name, text in added.items() if text is not None}
    mark = ""
    if record is not None:
        new_directory(record)
        paths = [str(WATCH), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        environment["REPRODUCIBILITY_RECORD"] = str(record.absolute())
        mark = f"REPRODUCIBILITY_RECORD={record.absolute()}"
    pipe = subprocess.PIPE if keep else None
    try:
        process = subprocess.Popen(
            command, env=environment, stdin=stdin, stdout=pipe, stderr=pipe, cwd=folder
        )
    except OSError as error:  # such as a script without a line that says who runs it
        raise _no_such_command(command, error.strerror or str(error)) from error
    began = time.time()
    streams = (process.stdout, process.stderr)
    kept = [
        _Kept(stream, keep / name, screen or Screen(None))
        for stream, name in zip(streams, PRINTED, strict=True)
        if stream is not None and keep is not None
    ]
    stopped = False
    try:
        if keep:
            stopped = _wait_or_end(process, mark, look)
            if limited and record is not None:
                write_ended(record, end_family(process, mark))
        else:
            _wait_and_pass_on(process, mark)
    finally:
        for each in kept:
            each.end()
    problem = next((each.problem for each in kept if each.problem), "")
    output, errors = (each.path for each in kept) if kept else (None, None)
    return Finished(process.returncode, output, errors, stopped, problem, began, time.time())


def _wait_or_end(
    process: subprocess.Popen[bytes], mark: str, look: Callable[[], bool] | None
) -> bool:
    """Wait for the end, and return whether it is ours; whatever ends this ends the command."""
    try:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(BETWEEN_LOOKS if look else None)
            if look is not None and process.returncode is None and look():
                end_family(process, mark)
                return True
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and _in_the_terminal():  # the command heard it too
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(ASKED)
        end_family(process, mark)
        raise
    return False


def _wait_and_pass_on(process: subprocess.Popen[bytes], mark: str) -> None:
    """Wait for the end; what this process is sent is for the command, which may save something."""
    with _signals_for(process):
        try:
            process.wait()
            return
        except KeyboardInterrupt:
            if not _in_the_terminal():
                process.send_signal(signal.SIGINT)
        try:
            process.wait()
        except KeyboardInterrupt:  # asked twice
            end_family(process, mark)
    if process.returncode:
        end_family(process, mark)
        raise KeyboardInterrupt


@contextlib.contextmanager
def _signals_for(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Send on what a scheduler sends, until the process has ended."""
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, lambda n, _: process.send_signal(n))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _in_the_terminal() -> bool:
    """Whether Ctrl-C in the terminal reaches this process, and so what it started."""
    with contextlib.suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    return False


class _Kept:
    """A stream of the command, shown and kept in a file that only its owner can read."""

    def __init__(self, stream: IO[bytes], path: Path, screen: Screen) -> None:
        self.path, self.problem, self._size = path, "", 0
        self._stream, self._screen = stream, screen
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Wait for the last of it, but not for what the command has left running."""
        seen = -1
        while self._thread.is_alive() and self._size != seen:
            seen = self._size
            self._thread.join(LAST_OF_IT)

    def _pass_on(self) -> None:
        try:
            file = open(self.path, "xb", buffering=0, opener=_for_the_owner)  # noqa: SIM115
        except OSError as error:
            self.problem = error.strerror or str(error)
            file = None
        with self._stream, contextlib.closing(file) if file else contextlib.nullcontext():
            while data := self._stream.read1(65536):  # type: ignore[attr-defined]
                if file and not self.problem:
                    try:
                        file.write(data)
                    except OSError as error:  # a full disk: the script still runs
                        self.problem = error.strerror or str(error)
                self._size += len(data)
                self._screen.output(data)


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _last_lines(path: Path | None) -> list[str]:
    """Return the lines at the end of a file."""
    if path is None or not path.exists():
        return []
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
        return file.read().decode(errors="replace").strip().splitlines()


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
        raise _no_such_command(command, "none of that name" if command else "none")


def _no_such_command(command: Sequence[str], got: str) -> ConfigError:
    do = "Put it as you would type it: -- python train.py."
    if command and command[0].endswith(".py") and Path(command[0]).is_file():
        do = f"Put python before it: -- python {command[0]}."
    return ConfigError(
        "run",
        repr(command[0]) if command else "nothing",
        expected="a command after --",
        got=got,
        do=do,
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
