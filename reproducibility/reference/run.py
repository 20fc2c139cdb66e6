"""A run on disk, format 1: identity, attempts, lock, result.

The rule: what determines the bits is written once and never changed; what does not, is logged.
Chapter: docs/guide/using_the_project.md

    RUN/
      run.json         the identity and its own digest; the file's SHA-256 is the run's name
      attempts.jsonl   a line when work on the run starts and one when it ends, in a chain
      ledger.jsonl     what every step was made of: see `recording/ledger`
      checkpoints/     see `storage/checkpoint`
      result.json      when finished: digests, loss, accuracy, and its own SHA-256
      lock             held (flock) while a process works here; it dies with the process
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reproducibility.errors import (
    IdentityMismatchError,
    NotReproducedError,
    ResultError,
    RunDamagedError,
    RunError,
    RunLockedError,
)
from reproducibility.machine.environment import Environment, facts_of
from reproducibility.recording.ledger import LEDGER
from reproducibility.storage.files import (
    SET_ASIDE,
    TEMPORARY,
    append_line,
    canonical_json,
    discard,
    flush,
    next_line,
    read_json,
    read_lines,
    read_with_digest,
    readable_json,
    set_aside,
    sha256,
    with_digest,
    write_atomically,
)
from reproducibility.storage.found import path_words

RUN_FORMAT = 1
IDENTITY = "run.json"
ATTEMPTS = "attempts.jsonl"
RESULT = "result.json"
LOCK = "lock"
CHECKPOINTS = "checkpoints"
_OTHER_FORMAT = "Use the version of this package that wrote it."
# A file that got no further: its name to be, "damaged-" before it or not, and a process.
_LEFTOVER = re.compile(
    rf"{re.escape(TEMPORARY)}({SET_ASIDE})?({IDENTITY}|{ATTEMPTS}|{LEDGER}|{RESULT})(-[0-9]+)+"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished run came to: the content of `result.json`.

    Same bits: `digest` and `params_digest` are equal exactly if every bit of the state is.
    """

    run: str
    """SHA-256 of the run's `run.json`: its name."""
    steps: int
    """Completed updates."""
    digest: str
    """`tree_digest` of the whole final state."""
    params_digest: str
    """`tree_digest` of the parameters alone."""
    loss: float | None
    """Mean cross-entropy over the held-out examples, in nats; None where it is not finite."""
    accuracy: float
    """Share of held-out examples that are classified correctly, 0 to 1."""
    seconds: float
    """Wall time of the training loop, all attempts together."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields, the format and the SHA-256 over both.

        Same bits: everywhere.
        """
        return with_digest({"format": RUN_FORMAT, **dataclasses.asdict(self)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttemptStart:
    """The line of `attempts.jsonl` that is written when work on a run starts."""

    from_step: int
    """Updates that were complete."""
    environment: Environment
    """What surrounds the process: `capture_environment`."""
    layout: dict[str, int] | None = None
    """How many devices of how many processes."""
    programs: dict[str, str] | None = None
    """The digest of each program."""

    @property
    def facts(self) -> Environment:
        """All that is recorded about the attempt, in one dictionary."""
        return facts_of(_without_none(vars(self)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttemptEnd:
    """The line that is written when work on a run ends, unless the process was killed."""

    ended: str | None = None
    """ "finished", "stopped", "interrupted" or "failed"."""
    to_step: int | None = None
    """Updates that are complete; None if that is not known."""
    seconds: float = 0.0
    """Wall time of the training loop."""


class Run:
    """A run directory. `Run.read` looks at one; `Run.work` makes or continues one.

    Same bits: reading and writing are exact; nothing here computes.

    Args:
        path: the directory.
        identity: the content of its `run.json`, without its digest.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = dict(identity)
        self.name = sha256(canonical_json(with_digest(self.identity)))
        self.checkpoints = path / CHECKPOINTS

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Run:
        """Open an existing run for reading, without its lock.

        Args:
            path: a run directory.

        Returns:
            The run.

        Raises:
            RunError: there is no run at `path`, or one of another format.
            RunDamagedError: its `run.json` is not as it was written.
        """
        path = Path(path)
        file = path / IDENTITY
        if not file.is_file():
            expected = f"a run directory with {IDENTITY}"
            got = path_words(path)
            do = "Make one: reproducibility train --run-dir DIR."
            raise RunError("read", "a run", path=path, expected=expected, got=got, do=do)
        identity = read_with_digest(file, RunDamagedError)
        if identity.get("format") != RUN_FORMAT:
            expected, got = f"run format {RUN_FORMAT}", repr(identity.get("format"))
            raise RunError("read", "a run", path=file, expected=expected, got=got, do=_OTHER_FORMAT)
        return cls(path, identity)

    @classmethod
    @contextlib.contextmanager
    def work(cls, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> Iterator[Run]:
        """Lock a run directory for work: make it, or continue one of the same identity.

        Args:
            path: a run directory, an empty directory, or none yet.
            settings: what determines the bits, JSON values by name.

        Yields:
            The run. The lock is released at the end, also by a crash.

        Raises:
            RunError: the path is a file, cannot be written, or holds something else.
            RunLockedError: another process works on this run.
            IdentityMismatchError: the run there has other settings; `settings` names them.
            RunDamagedError: its `run.json` is damaged, and nothing else there tells that it had
                these settings. Where something does, it is written anew.
        """
        path = Path(path)
        run = cls(path, {"format": RUN_FORMAT, **settings})
        _claim(path)
        with locked(path):
            if os.path.lexists(path / IDENTITY) or (path / ATTEMPTS).exists():
                run._confirm()
            else:
                write_atomically(path / IDENTITY, canonical_json(with_digest(run.identity)))
            for leftover in filter(is_leftover, path.iterdir()):
                discard(leftover)
            run.mend_attempts()
            run.mend_result()
            yield run

    def log(self, **event: Any) -> None:
        """Append a line to `attempts.jsonl` and flush it to the disk.

        Args:
            **event: JSON values by name.
        """
        append_line(self.path / ATTEMPTS, self.name, event)

    def attempts(self) -> list[dict[str, Any]]:
        """Return the lines of `attempts.jsonl`, as far as its chain holds."""
        return read_attempts(self.path, self.name)[0]

    def mend_attempts(self, problem: str | None = None) -> bool:
        """Set a damaged `attempts.jsonl` aside and keep the lines before the damage.

        A line with the event "mended" follows them: others may be missing.

        Args:
            problem: what is wrong with it, where that cannot be seen from its lines alone.

        Returns:
            Whether there was anything to do.
        """
        file = self.path / ATTEMPTS
        lines, broken = read_attempts(self.path, self.name)
        problem = broken or problem
        if problem:
            intact = b"".join(canonical_json(line) + b"\n" for line in lines)
            intact += next_line(lines, self.name, {"event": "mended", "problem": problem})
            if file.exists():
                set_aside(file, f"{problem}.", replacement=intact)
            else:
                write_atomically(file, intact)
        return problem is not None

    def result(self) -> Result | None:
        """Return the result, or None while the run is not finished.

        Raises:
            ResultError: `result.json` is damaged.
        """
        file = self.path / RESULT
        return read_result(file) if file.exists() else None

    def finish(self, result: Result) -> None:
        """Write `result.json`, replacing one of fewer steps in one move.

        Raises:
            NotReproducedError: there is one of as many steps and with another digest; it stays.
            RunSaveError: it cannot be written; one of fewer steps stays.
        """
        before = self.result()
        if before and before.steps == result.steps and before.digest != result.digest:
            raise NotReproducedError(
                "finish",
                "the run",
                path=self.path,
                step=result.steps,
                expected=f"digest {before.digest}, as the result has that is there",
                got=result.digest,
                do="Compare it with a run in a new directory: --run-dir.",
            )
        write_result(self.path / RESULT, result)

    def mend_result(self) -> bool:
        """Set a damaged `result.json` aside; training writes it again.

        Returns:
            Whether there was anything to do.
        """
        try:
            self.result()
        except ResultError as error:
            set_aside(self.path / RESULT, f"expected {error.expected}, got {error.got}.")
            return True
        return False

    def _confirm(self) -> None:
        """Refuse a `run.json` of other settings; write a damaged one anew if these were its own.

        The attempts tell: their chain begins with the run's name.
        """
        file = self.path / IDENTITY
        try:
            recorded = Run.read(self.path).identity
        except RunError as error:
            lost = isinstance(error, RunDamagedError) or not file.is_file()
            if not (lost and self.attempts()):
                raise
            intact = canonical_json(with_digest(self.identity))
            if os.path.lexists(file):
                why = f"expected {error.expected}, got {error.got}. It is written anew."
                set_aside(file, why, replacement=intact)
            else:
                write_atomically(file, intact)
            return
        names = sorted(recorded.keys() | self.identity.keys())
        other = [name for name in names if recorded.get(name) != self.identity.get(name)]
        if other:
            mismatch = IdentityMismatchError(
                "continue",
                "the run",
                path=self.path,
                expected=", ".join(f"{name}={recorded.get(name)!r}" for name in other),
                got=", ".join(f"{name}={self.identity.get(name)!r}" for name in other),
                do="Use the recorded settings, or another --run-dir.",
            )
            mismatch.settings = tuple(other)
            raise mismatch


def attempts_of(run: Run) -> list[AttemptStart | AttemptEnd]:
    """Return the lines of `attempts.jsonl` that say where work on a run started and ended.

    Args:
        run: the run.
    """
    found: list[AttemptStart | AttemptEnd] = []
    for line in run.attempts():
        for event, kind in _ATTEMPT_EVENTS.items():
            if line.get("event") == event:
                names = [field.name for field in dataclasses.fields(kind)]
                found.append(kind(**{name: line[name] for name in names if name in line}))
    return found


def log_attempt(run: Run, line: AttemptStart | AttemptEnd) -> None:
    """Append such a line, without what is not known.

    Args:
        run: the run.
        line: what to write.
    """
    [event] = [event for event, kind in _ATTEMPT_EVENTS.items() if isinstance(line, kind)]
    run.log(event=event, **_without_none(vars(line)))


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


# By what a line of `attempts.jsonl` names as its event.
_ATTEMPT_EVENTS: dict[str, type[AttemptStart] | type[AttemptEnd]] = {
    "start": AttemptStart,
    "end": AttemptEnd,
}


def read_attempts(path: Path, name: str) -> tuple[list[dict[str, Any]], str | None]:
    """Read `attempts.jsonl` as far as its chain holds, and say what is wrong with it.

    Args:
        path: the run directory.
        name: the name of the run, which the chain begins with.

    Returns:
        The lines, and what is wrong with the next one or with there being none, or None.
    """
    lines, problem = read_lines(path / ATTEMPTS, name)
    if not (lines or problem) and (path / CHECKPOINTS).exists():
        problem = "it has no line, but there are checkpoints"
    return lines, problem


def read_result(path: str | os.PathLike[str]) -> Result:
    """Read a `result.json` or a copy of one, and check it against its own SHA-256.

    Args:
        path: the file.

    Returns:
        The result.

    Raises:
        ResultError: the file is missing, empty, cut short, altered, or something else.
    """
    path = Path(path)
    found = read_json(path, kind=ResultError)
    fields = {field.name for field in dataclasses.fields(Result)}
    if not isinstance(found, dict) or found.keys() != fields | {"format", "sha256"}:
        known = isinstance(found, dict)
        got = f"an object with {_some_settings(found)}" if known else "another value"
        expected = f"a result of format {RUN_FORMAT}, as `train --out` writes it"
        do = "Give a run directory or its result.json."
        raise ResultError("read", "a result", path=path, expected=expected, got=got, do=do)
    body = read_with_digest(path, ResultError)
    if body.pop("format") != RUN_FORMAT:
        expected, got = f"format {RUN_FORMAT}", "another"
        raise ResultError(
            "read", "a result", path=path, expected=expected, got=got, do=_OTHER_FORMAT
        )
    return Result(**body)


def write_result(path: str | os.PathLike[str], result: Result) -> None:
    """Write a result as indented JSON, in one move.

    Same bits: everywhere, for the same result.

    Args:
        path: the file.
        result: what to write.
    """
    write_atomically(Path(path), readable_json(result.to_json()))


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a run directory; it goes with the process, however that ends.

    Args:
        path: the run directory.
        shared: hold it together with others that only read.

    Raises:
        RunError: the lock file cannot be opened.
        RunLockedError: another process works on this run.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        file = open(path / LOCK, "rb" if shared else "ab")  # noqa: SIM115
    except OSError as error:
        raise _unusable(path, error) from error
    with file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError as error:
            raise RunLockedError(
                "work on",
                "a run",
                path=path,
                expected="no other process at work on it",
                got="a held lock",
                do="Wait for that process, or end it.",
            ) from error
        yield


def _some_settings(values: dict[str, Any]) -> str:
    return ", ".join(sorted(values)[:8]) or "nothing in it"


def is_leftover(entry: Path) -> bool:
    """Say whether a file in a run directory was being written by a process that was killed.

    Args:
        entry: a path in a run directory.
    """
    return bool(_LEFTOVER.fullmatch(entry.name)) and entry.is_file()


def _unusable(path: Path, error: OSError) -> RunError:
    return RunError(
        "work",
        "here",
        path=path,
        expected="a directory this process may write to",
        got=error.strerror or str(error),
        do="Choose another --run-dir, or fix the permissions.",
    )


def _claim(path: Path) -> None:
    """Refuse a path that is no place for a run; make the directory where there is none."""
    if path.exists() and not path.is_dir():
        raise _no_place(path, "a directory", "a file", "Choose another --run-dir.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        flush(path.parent)
        content = {entry.name for entry in path.iterdir() if not is_leftover(entry)} - {LOCK}
    except OSError as error:
        raise _unusable(path, error) from error
    if content and not content & {IDENTITY, ATTEMPTS}:
        expected, got = "an empty directory or a run", f"a directory that holds {min(content)}"
        raise _no_place(path, expected, got, "Choose another --run-dir; nothing was written.")


def _no_place(path: Path, expected: str, got: str, do: str) -> RunError:
    return RunError("start a run", "here", path=path, expected=expected, got=got, do=do)
