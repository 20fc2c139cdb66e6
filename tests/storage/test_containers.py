"""Promises of `reproducibility.storage.containers`: the arrays in a file, bit by bit, or none."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from reproducibility.storage.containers import ChecksumError, arrays_in

ARRAYS: dict[str, Any] = {
    "float": np.array([0.0, -0.0, np.nan], np.float32),
    "bfloat16": np.ones(3, ml_dtypes.bfloat16),
    "float8": np.ones((2, 1), ml_dtypes.float8_e4m3fn),
    "exponents": np.ones(2, ml_dtypes.float8_e8m0fnu),
    "complex": np.array([1j], np.complex64),
    "scalar": np.array(3, np.int64),
    "empty": np.zeros((0, 2), np.float32),
    "bool": np.array([True]),
}


def test_arrays_of_safetensors_come_as_they_are(tmp_path: Path) -> None:
    """Every dtype, shape and bit of a `.safetensors` file comes back, by name."""
    save_file(ARRAYS, tmp_path / "w.safetensors", metadata={"format": "pt"})
    found = dict(arrays_in(tmp_path / "w.safetensors"))
    assert found.keys() == ARRAYS.keys()
    for name, array in found.items():
        expected = ARRAYS[name]
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape), name
        assert array.tobytes() == expected.tobytes(), name


def test_arrays_of_numpy_come_as_they_are(tmp_path: Path) -> None:
    """The same of `.npz`, and of `.npy`, whose one array has no name."""
    arrays = {name: a for name, a in ARRAYS.items() if a.dtype.kind != "V"} | {
        "text": np.array("a")
    }
    np.savez(tmp_path / "w.npz", **arrays)
    np.save(tmp_path / "w.npy", arrays["float"])
    for file, expected in (("w.npz", arrays), ("w.npy", {"": arrays["float"]})):
        found = dict(arrays_in(tmp_path / file))
        assert found.keys() == expected.keys()
        assert all(found[n].tobytes() == expected[n].tobytes() for n in found)


def cut(content: bytes) -> bytes:
    """Lose the end."""
    return content[:-3]


def flip(content: bytes) -> bytes:
    """Flip a bit of the array."""
    at = content.index(np.arange(9.0).tobytes())
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def grow(content: bytes) -> bytes:
    """Add a byte behind the end."""
    return content + b"x"


SPOILT: dict[str, tuple[str, Callable[[bytes], bytes], type[Exception], str]] = {
    "npz cut short": ("w.npz", cut, ValueError, "no zip archive"),
    "npz with a bit flipped": ("w.npz", flip, ChecksumError, "Bad CRC-32 for file 'a.npy'"),
    "text": ("w.npz", lambda content: b"text", ValueError, "no zip archive"),
    "npy cut short": ("w.npy", cut, ValueError, "Failed to read all data"),
    "npy that goes on": ("w.npy", grow, ValueError, "more bytes than its header says"),
    "safetensors cut short": ("w.safetensors", cut, ValueError, "not fully covered"),
    "safetensors that goes on": ("w.safetensors", grow, ValueError, "not fully covered"),
    "nothing": ("w.safetensors", lambda content: b"", ValueError, "header too small"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_no_such_file_is_refused(tmp_path: Path, what: str) -> None:
    """A file that is cut short, goes on, or is something else is refused; so is a flipped bit,
    where the format has a checksum."""
    arrays = {"a": np.arange(9.0)}
    np.savez(tmp_path / "w.npz", **arrays)
    np.save(tmp_path / "w.npy", arrays["a"])
    save_file(arrays, tmp_path / "w.safetensors")
    name, spoil, kind, said = SPOILT[what]
    path = tmp_path / name
    assert len(list(arrays_in(path))) == 1
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(kind, match=said):
        list(arrays_in(path))


def test_no_pickle_is_opened(tmp_path: Path) -> None:
    """What only a pickle can hold is refused, in a file of either kind."""
    objects = np.array([{}], object)
    np.savez(tmp_path / "w.npz", o=objects)
    np.save(tmp_path / "w.npy", objects)
    for name in ("w.npz", "w.npy"):
        with pytest.raises(ValueError, match="allow_pickle=False"):
            list(arrays_in(tmp_path / name))


def test_no_flipped_bit_of_an_archive_hides_an_array(tmp_path: Path) -> None:
    """Whichever bit of its list of entries flips, all arrays are read, or it is refused."""
    path = tmp_path / "a.npz"
    np.savez(path, w=np.arange(3.0), v=np.arange(2))
    whole = path.read_bytes()
    for place in range(whole.index(b"PK\x01\x02"), len(whole)):
        for bit in (0, 5):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            with contextlib.suppress(ValueError, OSError):
                assert sorted(name for name, _ in arrays_in(path)) == ["v", "w"], (place, bit)
