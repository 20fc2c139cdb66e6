"""What is on disk is whole, and says by itself whether it is still what was written.

The rule: a file is moved into place when all its bytes are on the disk, and it carries its own
digest. Three forms of that: a JSON file with a digest of its content, a list of lines each of
which continues a chain, and a table of the size and SHA-256 of every file in a directory.
Chapter: docs/components/checkpoint_explained.md
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reproducibility.errors import RunError, RunSaveError, SetAsideWarning

TEMPORARY = ".tmp-"
SET_ASIDE = "damaged-"
_CHAIN = b'"chain":'  # no text in canonical JSON looks so: there, its quotes would be escaped
_LINK = len(_CHAIN) + 64 + len('"",')  # bytes of that entry
BYTES_AT_ONCE = 1 << 20  # bytes of lines
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_STEP = re.compile(r"[0-9]{8}|[1-9][0-9]{8,}")  # a checkpoint's directory


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
    return _CANONICAL.encode(value).encode("ascii")


def readable_json(value: Any) -> bytes:
    """Encode a value as indented JSON with a newline at its end, for files that people read.

    Same bits: everywhere, for the same value with its keys in the same order.

    Args:
        value: as for `canonical_json`.
    """
    return json.dumps(value, indent=1, allow_nan=False).encode("ascii") + b"\n"


def with_digest(body: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON object together with its own digest, under the name "sha256".

    **Same bits:** everywhere; the digest is of the canonical JSON of `body`.

    Args:
        body: an object that has no such entry.

    Examples:
        >>> with_digest({"steps": 40})["sha256"][:16]
        'a1f069d579c79f88'
    """
    return {**body, "sha256": sha256(canonical_json(body))}


def read_with_digest(path: Path, kind: type[RunError] = RunError) -> dict[str, Any]:
    """Read an object that `with_digest` made, and check that no byte of the file has changed.

    Args:
        path: the file, in canonical or readable JSON.
        kind: the error to raise.

    Returns:
        The object without its digest.

    Raises:
        RunError: or `kind`: the file cannot be read, is no such object, or was altered.
    """
    found = read_json(path, kind)
    recorded = found.pop("sha256", None) if isinstance(found, dict) else None
    if not isinstance(recorded, str):
        expected, do = "an object that carries its own SHA-256", "Take an intact copy."
        raise _distrust(path, kind, expected, "one without", do)
    # The bytes as well as the value: 1e-05 and 1E-05 are one value.
    written = {**found, "sha256": recorded}
    actual = sha256(canonical_json(found))
    if recorded != actual or path.read_bytes() not in (
        canonical_json(written),
        readable_json(written),
    ):
        got = "other bytes of the same value" if recorded == actual else f"SHA-256 {actual}"
        do = "It was altered after it was written: take an intact copy."
        raise _distrust(path, kind, f"SHA-256 {recorded}, as it says", got, do)
    body: dict[str, Any] = found
    return body


def _distrust(path: Path, kind: type[RunError], expected: str, got: str, do: str) -> RunError:
    return kind("trust", path.name, path=path, expected=expected, got=got, do=do)


def read_json(path: Path, kind: type[RunError] = RunError) -> Any:
    """Read a JSON file; refuse duplicate keys, NaN and infinities.

    Args:
        path: the file.
        kind: the error to raise.

    Returns:
        Its value.

    Raises:
        RunError: or `kind`: the file cannot be read or holds no such JSON.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be read for ever
            raise OSError(errno.EINVAL, "something that is not a plain file")
        return _parse_json(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        empty = isinstance(error, ValueError) and path.stat().st_size == 0
        got = "an empty file" if empty else str(error) if isinstance(error, ValueError) else None
        raise kind(
            "read",
            path.name,
            path=path,
            expected="a readable JSON file",
            got=got or getattr(error, "strerror", None) or type(error).__name__,
            do="Check the path, or take an intact copy.",
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut.

    Same bits: everywhere.

    Args:
        path: the file, replaced if it exists.
        content: its bytes.

    Raises:
        RunSaveError: it cannot be written.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunSaveError(
            "write",
            path.name,
            path=path,
            expected="room and permission to write",
            got=error.strerror or str(error),
            do="Free some space, or choose another place.",
        ) from error


def flush(path: Path) -> None:
    """Wait until a file, or a directory's list of names, has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Chain:
    """The lines of a file, as far as each of them continues the chain of those before it.

    A line is canonical JSON with an entry "chain": the SHA-256 of the chain so far and of the line
    without that entry. Iterate over it for those lines, without their chain and newline, one at a
    time however long the file is; what there is to know afterwards stands in the attributes.

    Args:
        path: the file; one that is not there has no lines.
        origin: what the first line's chain continues: the name of the run.
    """

    def __init__(self, path: Path, origin: str) -> None:
        self.path = path
        self.head = origin
        """The chain so far."""
        self.number = 0
        """How many lines hold."""
        self.size = 0
        """Their bytes together."""
        self.problem: str | None = None
        """What is wrong with the next line, or None."""
        self.torn = False
        """Whether that is the last line and has no end: what a kill leaves behind."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield each line that holds, from where it stands."""
        for bodies in self.blocks(1):
            yield from bodies

    def blocks(self, size: int) -> Iterator[list[bytes]]:
        """Yield the lines that hold, some at a time.

        Args:
            size: how many bytes of lines to read at a time; 1 for one line.
        """
        if not self.path.is_file():
            self.problem = "it is not a plain file" if os.path.lexists(self.path) else None
            return
        with open(self.path, "rb") as file:
            file.seek(self.size)
            while not self.problem and (lines := file.readlines(size)):
                yield self.follow(lines)

    def follow(self, lines: list[bytes]) -> list[bytes]:
        """Take the next lines of the file as far as they hold.

        Args:
            lines: with chain and newline.

        Returns:
            Those that hold, without.
        """
        bodies: list[bytes] = []
        head, size = self.head.encode(), self.size
        digest_of, begins = hashlib.sha256, len(_CHAIN)
        for raw in lines:  # a million times and more: no call that can be spared
            at = raw.find(_CHAIN)
            end = at + _LINK
            body, link = raw[:at] + raw[end:-1], raw[at + begins : end]
            after = digest_of(head + body).hexdigest().encode()
            if link != b'"%b",' % after or raw[-1:] != b"\n":
                self.head, self.size = head.decode(), size
                self.number += len(bodies)
                self._refuse(raw)
                return bodies
            head, size = after, size + len(raw)
            bodies.append(body)
        self.head, self.size = head.decode(), size
        self.number += len(bodies)
        return bodies

    def _refuse(self, raw: bytes) -> None:
        """Say what is wrong with a line that does not hold."""
        self.torn = not raw.endswith(b"\n")
        known = _CHAIN in raw
        what = "does not continue the chain" if known else "is no line of this file"
        self.problem = f"line {self.number + 1} {'was cut short' if self.torn else what}"


def in_common(a: Chain, b: Chain) -> Iterator[list[bytes]]:
    """Yield the lines with which two files begin alike, many at a time; both stand behind them.

    Args:
        a: a chain of which nothing was read yet.
        b: another one.
    """
    if a.head != b.head or not (a.path.is_file() and b.path.is_file()):
        return
    with open(a.path, "rb") as one, open(b.path, "rb") as other:
        while lines := one.readlines(BYTES_AT_ONCE):
            others = other.readlines(BYTES_AT_ONCE)
            pairs = enumerate(zip(lines, others, strict=False))
            alike = min(len(lines), len(others))
            if lines != others:
                alike = next((n for n, (x, y) in pairs if x != y), alike)
            bodies = a.follow(lines[:alike])
            b.head, b.number, b.size = a.head, a.number, a.size
            b.problem, b.torn = a.problem, a.torn
            yield bodies
            if len(bodies) < max(len(lines), len(others)):
                return


def append_line(path: Path, origin: str, body: dict[str, Any]) -> None:
    """Append a line to a file of chained lines, and wait until it has reached the disk.

    Same bits: everywhere.

    Args:
        path: the file; it is made if it is not there.
        origin: what the first line's chain continues: the name of the run.
        body: the line, JSON values by name.

    Raises:
        OSError: it cannot be written; the lines before it are as they were.
    """
    append_bytes(path, next_line(read_lines(path, origin)[0], origin, body))


def append_bytes(path: Path, content: bytes, *, wait: bool = True) -> None:
    """Append to a file: all of it, or nothing and an error.

    Same bits: everywhere.

    Args:
        path: the file; it is made if it is not there.
        content: what to append.
        wait: return when it has reached the disk.

    Raises:
        OSError: it cannot be written; the file is as it was.
    """
    with open(path, "ab", buffering=0) as file:
        size = file.tell()
        try:
            if file.write(content) != len(content):
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            if wait:
                os.fsync(file.fileno())
            if size == 0:
                flush(path.parent)
        except OSError:
            file.truncate(size)
            raise


def next_line(lines: list[dict[str, Any]], origin: str, body: dict[str, Any]) -> bytes:
    """Return the bytes of a line that continues the chain of others.

    **Same bits:** everywhere.

    Args:
        lines: what `read_lines` returns.
        origin: what the first line's chain continues.
        body: the line, JSON values by name.
    """
    return chained(lines[-1]["chain"] if lines else origin, body)[0]


def chained(head: str, body: dict[str, Any]) -> tuple[bytes, str]:
    """Return the bytes of a line that continues a chain, and the chain with it.

    **Same bits:** everywhere.

    Args:
        head: the chain so far.
        body: the line, JSON values by name, some name of which sorts after "chain".
    """
    before = {name: value for name, value in body.items() if name < "chain"}
    after = {name: value for name, value in body.items() if name >= "chain"}
    one, other = canonical_json(before)[1:-1], canonical_json(after)[1:]
    first = b"{" + one + b"," * bool(before)  # the entry belongs behind it
    head = _link(head, first + other)
    return b'%b%b"%b",%b\n' % (first, _CHAIN, head.encode(), other), head


def read_lines(path: Path, origin: str) -> tuple[list[dict[str, Any]], str | None]:
    """Read a file of chained lines as far as the chain holds.

    Args:
        path: the file; one that is not there has no lines.
        origin: what the first line's chain continues.

    Returns:
        The lines, "chain" included, and what is wrong with the next one, or None.
    """
    chain, lines = Chain(path, origin), []
    for body in chain:
        try:
            lines.append({**_parse_json(body), "chain": chain.head})
        except (ValueError, TypeError, RecursionError):
            return lines, f"line {chain.number} is no line of this file"
    return lines, chain.problem


def file_table(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file below a directory, by its path in it.

    **Same bits:** everywhere, for the same files.

    Args:
        folder: a directory.

    Returns:
        `{"bytes": …, "sha256": …}` by path, with `/`; what is no plain file, such as a link, has
        `{"bytes": 0, "sha256": "not a plain file"}`; what the disk fails to read says so there.
    """
    return {path.relative_to(folder).as_posix(): _file_record(path) for path in files_below(folder)}


def files_below(folder: Path) -> Iterator[Path]:
    """Yield everything below a directory that is no directory, sorted; follow no link.

    Same bits: everywhere.

    Args:
        folder: a directory.
    """
    for parent, folders, files in os.walk(folder):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        yield from (Path(parent, name) for name in sorted(files + links))


def set_aside(path: Path, why: str, *, replacement: bytes | None = None) -> Path:
    """Rename something damaged so that nothing reads it again; nothing is deleted. Say so.

    Args:
        path: a file or directory.
        why: what is wrong with it; part of the warning.
        replacement: what stands under the old name afterwards, without a moment of nothing.

    Returns:
        Its new path.
    """
    target, number = path.with_name(f"{SET_ASIDE}{path.name}"), 1
    while os.path.lexists(target):
        number += 1
        target = path.with_name(f"{SET_ASIDE}{path.name}-{number}")
    if replacement is not None and path.is_file():
        write_atomically(target, path.read_bytes())
    else:
        path.rename(target)
        flush(path.parent)
    if replacement is not None:
        write_atomically(path, replacement)
    warnings.warn(f"Set aside {path} as {target.name}: {why}", SetAsideWarning, stacklevel=2)
    return target


def discard(path: Path) -> None:
    """Delete a file or directory that never became part of anything."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes as 64 hexadecimal digits.

    **Same bits:** everywhere.

    References:
        NIST, Secure Hash Standard, FIPS 180-4, 2015.
    """
    return hashlib.sha256(content).hexdigest()


def _file_record(path: Path) -> dict[str, Any]:
    if not stat.S_ISREG(path.lstat().st_mode):
        return {"bytes": 0, "sha256": "not a plain file"}
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"bytes": file.tell(), "sha256": digest}
    except OSError as error:
        if error.errno != errno.EIO:
            raise  # no permission, too many open files: elsewhere it may be found intact
        return {"bytes": 0, "sha256": f"unreadable: {error.strerror}"}


def _link(head: str, body: bytes) -> str:
    return sha256(head.encode() + body)


def _parse_json(raw: bytes) -> Any:
    return json.loads(
        raw, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("an object with duplicate keys")
    return values


def _no_constant(name: str) -> Any:
    raise ValueError(f"the constant {name}, which is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text}, which is too large")
    return value


def saved_steps(path: Path) -> list[int]:
    """Return the steps of the checkpoints committed in a directory, oldest first.

    Args:
        path: a checkpoint directory; one that does not exist has none.
    """
    entries = path.iterdir() if path.is_dir() else ()
    return sorted(int(entry.name) for entry in entries if _is_step(entry))


def _is_step(entry: Path) -> bool:
    return bool(_STEP.fullmatch(entry.name)) and entry.is_dir() and not entry.is_symlink()
