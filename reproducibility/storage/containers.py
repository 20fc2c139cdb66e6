"""Files of arrays that others write, such as `.npz` and `.safetensors`, read array by array.

The rule: the libraries of their formats read them; nothing in them is executed, and no pickle is
opened. JAX is not needed.
Chapter: docs/reference/cli.md
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

type Array = np.ndarray[Any, Any]


class ChecksumError(ValueError):
    """An array of a file does not have the checksum that was written with it."""


_END = b"PK\x05\x06"  # before what stands at the end of an archive
_LONGEST_END = 22 + 0xFFFF  # with a comment

# What `safe_open` does not hand out as arrays of NumPy, by the names that the format has for it.
_OF_ML_DTYPES = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}


def arrays_in(path: Path) -> Iterator[tuple[str, Array]]:
    """Yield the arrays of a file by their names; the one of a `.npy` has the name "".

    **Same bits:** those in the file.

    Args:
        path: a file that ends in `.npz`, `.npy` or `.safetensors`.

    Raises:
        ValueError: it is no such file, or an array of it is of a kind that only a pickle can hold.
        ChecksumError: an array of a `.npz` does not have its CRC-32; no other file has checksums.
        OSError: it cannot be read.
    """
    readers = {".npz": _npz, ".npy": _npy, ".safetensors": _safetensors}
    try:
        yield from readers[path.suffix](path)
    except zipfile.BadZipFile as error:
        kind = ChecksumError if "CRC" in f"{error}" else ValueError
        raise kind(f"{error}") from error
    except (zlib.error, EOFError, KeyError, struct.error) as error:
        raise ValueError(f"{error}") from error
    except RuntimeError as error:  # of an archive that is encrypted, or packed otherwise
        raise ValueError(f"{error}") from error
    except AttributeError as error:  # of a dtype that is no number of NumPy, or less than a byte
        raise ValueError(f"{error}") from error


def _npz(path: Path) -> Iterator[tuple[str, Array]]:
    """Read each array to the end of its entry: only there does the archive compare its CRC-32."""
    if not zipfile.is_zipfile(path):  # NumPy would take it for a pickle
        raise ValueError("no zip archive")
    with zipfile.ZipFile(path) as archive:
        entries = archive.namelist()
        if len(entries) != (written := _written_entries(path)):
            raise ChecksumError(f"{len(entries)} arrays are listed, and {written} were written")
        names = [entry.removesuffix(".npy") for entry in entries]
        if len(set(names)) < len(names):
            raise ValueError("two arrays of one name")
        for entry, name in zip(entries, names, strict=True):
            with archive.open(entry) as file:
                yield name, _npz_entry(file)


def _written_entries(path: Path) -> int:
    """Return how many entries an archive says at its end to have; `zipfile` does not ask.

    A bit that flips in the length of an entry's comment hides those that follow it in the list.
    """
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _LONGEST_END))
        tail = file.read()
    (written,) = struct.unpack_from("<H", tail, tail.rfind(_END) + 10)
    return int(written)


def _npz_entry(file: IO[bytes]) -> Array:
    """Return the array of an entry; what is none is its bytes, as NumPy has it."""
    begin = file.read(len(np.lib.format.MAGIC_PREFIX))
    if begin != np.lib.format.MAGIC_PREFIX:
        return np.asarray(begin + file.read())
    file.seek(0)
    return _whole_array(file)


def _whole_array(file: IO[bytes]) -> Array:
    array = np.lib.format.read_array(file, allow_pickle=False)
    if file.read(1):
        raise ValueError("more bytes than its header says")
    return np.asarray(array)


def _npy(path: Path) -> Iterator[tuple[str, Array]]:
    with open(path, "rb") as file:
        array = _whole_array(file)
    yield "", array


def _safetensors(path: Path) -> Iterator[tuple[str, Array]]:
    """Read one array at a time; those of eight bits are in no library but in all their bytes."""
    import safetensors

    try:
        opened = safetensors.safe_open(path, framework="np")
    except safetensors.SafetensorError as error:
        raise ValueError(f"{error}".removeprefix("Error while deserializing header: ")) from error
    with opened as file:
        names = sorted(file.keys())
        kinds = {name: file.get_slice(name).get_dtype() for name in names}
        raw = {}
        if set(kinds.values()) & _OF_ML_DTYPES.keys():
            deserialize: Any = safetensors.deserialize  # without types in its stubs
            raw = dict(deserialize(path.read_bytes()))
        for name in names:
            if name in raw and kinds[name] in _OF_ML_DTYPES:
                array = np.frombuffer(raw[name]["data"], _OF_ML_DTYPES[kinds[name]])
                yield name, array.reshape(raw[name]["shape"])
            else:
                yield name, np.asarray(file.get_tensor(name))
