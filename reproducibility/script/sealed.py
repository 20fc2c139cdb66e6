"""The lines of a file of a record, each of whose bytes a digest covers.

The rule: a byte that no digest covers is not believed.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from pathlib import Path

from reproducibility.errors import RecordDamagedError

LINES_AT_ONCE = 10_000  # lines whose digest is computed in one go


def sealed_size(path: Path, whole: str | None) -> int:
    """Compare a file with the digests in it, and with that of the whole; return what they cover."""
    if path.is_symlink():
        raise damaged(path, "a link")
    digest, size, covered = hashlib.sha256(), 0, 0
    pending: list[bytes] = []
    with open(path, "rb") as file:
        for line in file:
            size += len(line)
            if line[:2] == b"# ":
                digest.update(b"".join(pending))
                pending.clear()
                if line[-1:] == b"\n":
                    if line[2:-1] != digest.hexdigest().encode():
                        raise damaged(path, "something else")
                    covered = size
            pending.append(line)
            if len(pending) > LINES_AT_ONCE:
                digest.update(b"".join(pending))
                pending.clear()
    digest.update(b"".join(pending))
    if whole is not None and (covered != size or whole != digest.hexdigest()):
        raise damaged(path, "something else")
    return covered if whole is None else size


def raw_lines(path: Path, size: int, offset: int = 0) -> Generator[tuple[int, bytes]]:
    """Give the lines of a file's first bytes, and where each begins."""
    if size:
        with open(path, "rb") as file:
            file.seek(offset)
            for line in file:
                if offset >= size:
                    return
                yield offset, line
                offset += len(line)


def text_lines(path: Path, size: int) -> Generator[str]:
    """Give the lines of a file's first bytes, as text."""
    for _, line in raw_lines(path, size):
        yield line.decode().rstrip("\n")


def without_seals(lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Leave out the lines that cover those before them."""
    return (each for each in lines if each[1][:2] != b"# ")


def damaged(path: Path, what: str) -> RecordDamagedError:
    """Return the error that a file is not as it was written."""
    return RecordDamagedError(
        "read",
        "a record",
        path=path,
        expected="what was written",
        got=what,
        do="Record the script again.",
    )
