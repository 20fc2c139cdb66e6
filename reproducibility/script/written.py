"""What two runs wrote into files, compared: known containers by their arrays, texts beside what
passes, all else byte by byte.

The rule: nothing that is read is executed, no pickle is opened, and no link is followed.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from reproducibility.machine.child import python, with_package
from reproducibility.script.printed import PASSES, masked, masked_lines
from reproducibility.storage.containers import arrays_in
from reproducibility.storage.found import ARRAY_FILES, ORBAX

TEXTS = (".txt", ".log", ".json", ".jsonl", ".csv", ".tsv", ".yaml", ".yml", ".toml", ".md", ".out")
# What holds times, or names of processes, and nothing that a script computed.
PASSING_FILES = re.compile(
    r"tfevents|\.py[co]$|\.lock$|/\.git/|/(_CHECKPOINT_METADATA|commit_success\.txt|_sharding)$"
)
_READ_ORBAX = (
    "import json, pathlib, sys; from reproducibility.storage.orbax import stored_digests; "
    "print(json.dumps(stored_digests(pathlib.Path(sys.argv[1]))))"
)

# Dates that a PDF has in it: when it was written is nothing that a script computed.
DATES_OF_PDF = re.compile(rb"/(?:CreationDate|ModDate)\s*\(D:[^)]*\)")
LARGEST_PDF = 1 << 26  # bytes; of a larger one the dates count

# The digest of each part of a file by the part's name; "" is the whole.
type Digests = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Contents:
    """What is in a file: digests, and the name of the file as people know it."""

    parts: Digests
    shown: str = dataclasses.field(compare=False)


def contents_of(paths: Iterable[Path], own: Sequence[str]) -> dict[str, Contents]:
    """Return what is in files, by the names of the files without what differs by intent.

    Args:
        paths: files, and folders with all that is in them.
        own: names that belong to a run, such as its directory.
    """
    found: dict[str, Contents] = {}
    for path in sorted({file for each in paths for file in _files(each)}):
        name = str(path)
        for each in own:
            name = name.replace(each, "{dir}")
        shown, name, number = name, masked(name), 2
        while name in found:  # two of a name, beside a date
            name, number = f"{name.partition(' (')[0]} ({number})", number + 1
        try:
            parts = _contents(path, own)
        except (OSError, ValueError):  # not what its name says
            parts = {"": _digest_of_bytes(path)}
        found[name] = Contents(parts, shown)
    return found


def written_remark(one: Mapping[str, Contents], other: Mapping[str, Contents]) -> str:
    """Say which files of two runs differ, and where; nothing if none does.

    Args:
        one: what `contents_of` a run returned.
        other: the same of another run.
    """
    differing = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    if not differing:
        return ""
    first = differing[0]
    more = f", and {len(differing) - 1:,} more files" if len(differing) > 1 else ""
    if first not in one or first not in other:
        run, wrote = ("first", one) if first in one else ("second", other)
        return f"only the {run} run wrote {wrote[first].shown}{more}"
    a, b = one[first].parts, other[first].parts
    parts = [part for part in (a | b) if part and a.get(part) != b.get(part)]
    within = f" in {', '.join(parts[:3])}" + ", …" * (len(parts) > 3) if parts else ""
    return f"the file {one[first].shown} differs{within}{more}"


def _files(path: Path) -> list[Path]:
    """Return a file, or what is in a folder; a folder of Orbax's arrays is one thing."""
    if path.is_symlink():
        return []
    if path.is_file():
        return [] if PASSING_FILES.search(str(path)) else [path]
    if not path.is_dir():
        return []
    if (path / ORBAX).is_file():
        return [path]
    return [file for each in path.iterdir() for file in _files(each)]


def _contents(path: Path, own: Sequence[str]) -> Digests:
    if path.is_dir():
        return _orbax(path)
    if path.suffix in ARRAY_FILES:
        return {name: _digest_of_array(array) for name, array in arrays_in(path)}
    if path.suffix in TEXTS:
        digest = hashlib.sha256()
        for line in masked_lines(path, own):
            digest.update(line.encode() + b"\n")
        return {"": digest.hexdigest()}
    if path.suffix == ".pdf" and path.stat().st_size <= LARGEST_PDF:
        return {"": hashlib.sha256(DATES_OF_PDF.sub(b"", path.read_bytes())).hexdigest()}
    return {"": _digest_of_bytes(path)}


def _digest_of_array(array: np.ndarray) -> str:
    kind = np.lib.format.dtype_to_descr(array.dtype)  # with the names and types of its fields
    facts = f"{kind} {array.dtype.name} {array.shape}".encode()
    return hashlib.sha256(facts + np.ascontiguousarray(array).tobytes()).hexdigest()


def _digest_of_bytes(path: Path) -> str:
    if not path.is_file():
        return PASSES
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _orbax(folder: Path) -> Digests:
    """Have a process of its own read them: it needs JAX, which may take a whole device."""
    command = [*python("-c", _READ_ORBAX), str(folder)]
    environment = with_package({**os.environ, "JAX_PLATFORMS": "cpu"})
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode == 0:
        found: Digests = json.loads(done.stdout.splitlines()[-1])
        return found
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    return {str(each.relative_to(folder)): _digest_of_bytes(each) for each in files}
