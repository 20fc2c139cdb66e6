"""A run on disk, format 1: identity, attempts, lock, result.

The rule: what determines the bits is written once and never changed; what does not, is logged.
Chapter: docs/guide/using_the_project.md

    RUN/
      run.json         the identity, canonical JSON; its SHA-256 is the name of the run
      attempts.jsonl   a line when work on the run starts and one when it ends
      checkpoints/     see `checkpoint`
      result.json      when finished: digests, loss, accuracy, and its own SHA-256
      lock             held (flock) while a process works here; it dies with the process
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reproducibility.errors import IdentityMismatchError, ResultError, RunError, RunLockedError

FORMAT = 1
IDENTITY = "run.json"
ATTEMPTS = "attempts.jsonl"
RESULT = "result.json"
LOCK = "lock"
CHECKPOINTS = "checkpoints"


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
    loss: float
    """Mean cross-entropy over the held-out examples, in nats."""
    accuracy: float
    """Share of held-out examples that are classified correctly, 0 to 1."""
    seconds: float
    """Wall time of the training loop, all attempts together."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields, the format and the SHA-256 over both.

        Same bits: everywhere.
        """
        body = {"format": FORMAT, **dataclasses.asdict(self)}
        return {**body, "sha256": _sha256(canonical_json(body))}


def canonical_json(value: Any) -> bytes:
    """Encode a value as the one JSON text that digests are taken of.

    **Same bits:** everywhere: keys sorted, no white space, ASCII only, floats as the shortest
    text that reads back to the same value.

    Args:
        value: dicts with string keys, lists, strings, numbers, booleans, None.

    Returns:
        The text as bytes, without a newline.

    Raises:
        ValueError: a float is infinite or not a number: JSON has no such thing.

    Examples:
        >>> canonical_json({"b": [1, 0.1], "a": None})
        b'{"a":null,"b":[1,0.1]}'
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


class Run:
    """A run directory. `Run.read` looks at one; `Run.work` makes or continues one.

    Same bits: reading and writing are exact; nothing here computes.

    Args:
        path: the directory.
        identity: the content of its `run.json`.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = dict(identity)
        self.name = _sha256(canonical_json(self.identity))
        self.checkpoints = path / CHECKPOINTS

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Run:
        """Open an existing run for reading, without its lock.

        Same bits: not a computation.

        Args:
            path: a run directory.

        Returns:
            The run.

        Raises:
            RunError: there is no run at `path`, or its `run.json` is damaged or of another format.
        """
        path = Path(path)
        file = path / IDENTITY
        if not file.is_file():
            raise RunError(
                "read", "a run", path=path, expected=f"a run directory with {IDENTITY}",
                got="a file" if path.is_file() else "no such file",
                do="Make one: reproducibility train --run-dir DIR.",
            )  # fmt: skip
        identity = read_json(file)
        if not isinstance(identity, dict) or identity.get("format") != FORMAT:
            got = identity.get("format") if isinstance(identity, dict) else type(identity).__name__
            raise RunError(
                "read", "a run", path=file, expected=f"run format {FORMAT}", got=f"{got!r}",
                do="Use the version of this package that wrote it.",
            )  # fmt: skip
        return cls(path, identity)

    @classmethod
    @contextlib.contextmanager
    def work(cls, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> Iterator[Run]:
        """Lock a run directory for work: make it, or continue one of the same identity.

        Same bits: not a computation.

        Args:
            path: a run directory, an empty directory, or none yet.
            settings: what determines the bits, JSON values by name.

        Yields:
            The run. The lock is released at the end, also by a crash.

        Raises:
            RunError: the path is a file, cannot be written, or holds something else.
            RunLockedError: another process works on this run.
            IdentityMismatchError: the run there has other settings; `settings` names them.
        """
        path, identity = Path(path), {"format": FORMAT, **settings}
        _claim(path)
        with _locked(path):
            if (path / IDENTITY).exists():
                _check_identity(cls.read(path), identity)
            else:
                write_atomically(path / IDENTITY, canonical_json(identity))
            yield cls(path, identity)

    def log(self, **event: Any) -> None:
        """Append a line to `attempts.jsonl` and flush it to the disk.

        Same bits: not a computation.

        Args:
            **event: JSON values by name.
        """
        with open(self.path / ATTEMPTS, "a+b") as file:
            file.seek(-1 if file.tell() else 0, os.SEEK_END)
            torn = file.read() not in (b"", b"\n")  # by a process that was killed
            file.write(b"\n" * torn + canonical_json(event) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def attempts(self) -> list[dict[str, Any]]:
        """Return the lines of `attempts.jsonl`; a torn last line is left out.

        Same bits: not a computation.
        """
        lines = []
        with contextlib.suppress(FileNotFoundError):
            for line in (self.path / ATTEMPTS).read_bytes().splitlines():
                with contextlib.suppress(ValueError):  # a process was killed while it wrote
                    lines.append(json.loads(line))
        return [line for line in lines if isinstance(line, dict)]

    def result(self) -> Result | None:
        """Return the result, or None while the run is not finished.

        Same bits: not a computation.

        Raises:
            ResultError: `result.json` is damaged.
        """
        file = self.path / RESULT
        return read_result(file) if file.exists() else None

    def finish(self, result: Result) -> None:
        """Write `result.json`, replacing one of fewer steps in one move.

        Same bits: not a computation.
        """
        write_result(self.path / RESULT, result)


def read_result(path: str | os.PathLike[str]) -> Result:
    """Read a `result.json` or a copy of one, and check it against its own SHA-256.

    Same bits: not a computation.

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
    expected = f"a result of format {FORMAT}, as `train --out` writes it"
    if not isinstance(found, dict) or found.keys() != fields | {"format", "sha256"}:
        got = f"an object with {_names(found)}" if isinstance(found, dict) else "another value"
        raise ResultError(
            "read", "a result", path=path, expected=expected, got=got,
            do="Give a run directory or its result.json.",
        )  # fmt: skip
    recorded, body = found["sha256"], {k: v for k, v in found.items() if k != "sha256"}
    if body["format"] != FORMAT or recorded != _sha256(canonical_json(body)):
        raise ResultError(
            "trust", "a result", path=path, expected=f"format {FORMAT} and SHA-256 {recorded}",
            got=f"format {body['format']} and SHA-256 {_sha256(canonical_json(body))}",
            do="It was altered after it was written: take it from its run directory again.",
        )  # fmt: skip
    return Result(**{name: body[name] for name in fields})


def write_result(path: str | os.PathLike[str], result: Result) -> None:
    """Write a result as indented JSON, in one move.

    Same bits: everywhere, for the same result.

    Args:
        path: the file.
        result: what to write.
    """
    write_atomically(Path(path), json.dumps(result.to_json(), indent=1).encode() + b"\n")


def read_json(path: Path, kind: type[RunError] = RunError) -> Any:
    """Read a JSON file; refuse duplicate keys, NaN and infinities.

    Same bits: not a computation.

    Args:
        path: the file.
        kind: the error to raise.

    Returns:
        Its value.

    Raises:
        RunError: or `kind`: the file cannot be read or holds no such JSON.
    """
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (OSError, ValueError, RecursionError) as error:
        empty = isinstance(error, ValueError) and path.stat().st_size == 0
        got = "an empty file" if empty else str(error) if isinstance(error, ValueError) else None
        raise kind(
            "read", path.name, path=path, expected="a readable JSON file",
            got=got or getattr(error, "strerror", None) or type(error).__name__,
            do="Check the path, or take an intact copy.",
        ) from error  # fmt: skip


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut.

    Same bits: everywhere.

    Args:
        path: the file, replaced if it exists.
        content: its bytes.

    Raises:
        RunError: it cannot be written.
    """
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunError(
            "write", path.name, path=path, expected="a place this process may write to",
            got=error.strerror or str(error), do="Choose another place, or free some space.",
        ) from error  # fmt: skip


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _names(values: dict[str, Any]) -> str:
    return ", ".join(sorted(values)[:8]) or "nothing in it"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("an object with duplicate keys")
    return values


def _no_constant(name: str) -> Any:
    raise ValueError(f"the constant {name}, which is no JSON")


def _claim(path: Path) -> None:
    """Refuse a path that is no place for a run; make the directory where there is none."""
    if path.exists() and not path.is_dir():
        raise RunError(
            "start a run", "here", path=path, expected="a directory", got="a file",
            do="Choose another --run-dir.",
        )  # fmt: skip
    try:
        path.mkdir(parents=True, exist_ok=True)
        content = {entry.name for entry in path.iterdir()} - {LOCK}
        (path / LOCK).touch()
    except OSError as error:
        raise RunError(
            "start a run", "here", path=path, expected="a directory this process may write to",
            got=error.strerror or str(error), do="Choose another --run-dir.",
        ) from error  # fmt: skip
    foreign = sorted(name for name in content if not name.startswith(".tmp-"))
    if foreign and IDENTITY not in content:
        (path / LOCK).unlink()
        raise RunError(
            "start a run", "here", path=path, expected="an empty directory or a run",
            got=f"a directory that holds {foreign[0]}",
            do="Choose another --run-dir; nothing was written.",
        )  # fmt: skip


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path / LOCK, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunLockedError(
                "work on", "a run", path=path, expected="no other process at work on it",
                got="a held lock", do="Wait for that process, or end it.",
            ) from error  # fmt: skip
        yield


def _check_identity(run: Run, identity: Mapping[str, Any]) -> None:
    names = sorted(run.identity.keys() | identity.keys())
    other = [name for name in names if run.identity.get(name) != identity.get(name)]
    if other:
        error = IdentityMismatchError(
            "continue", "the run", path=run.path,
            expected=", ".join(f"{name}={run.identity.get(name)!r}" for name in other),
            got=", ".join(f"{name}={identity.get(name)!r}" for name in other),
            do="Use the recorded settings, or another --run-dir.",
        )  # fmt: skip
        error.settings = tuple(other)
        raise error
