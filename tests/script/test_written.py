"""Files are compared by what is in them: arrays, texts beside what passes, or bytes."""

import json
import os
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import orbax.checkpoint as ocp
import pytest

from reproducibility.script import written
from reproducibility.script.written import contents_of, written_remark


def safetensors(path: Path, arrays: dict[str, np.ndarray], note: str) -> None:
    """Write the format by hand."""
    header: dict[str, Any] = {"__metadata__": {"note": note}}
    data = b""
    for name, array in arrays.items():
        places = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": places}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def npz(path: Path, arrays: dict[str, np.ndarray], note: str) -> None:
    """Write an archive that holds a time, in another order."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(arrays, reverse=bool(note)):
            with archive.open(
                zipfile.ZipInfo(f"{name}.npy", (1980 + len(note), 1, 1, 0, 0, 0)), "w"
            ) as file:
                np.lib.format.write_array(file, arrays[name])


def orbax(path: Path, arrays: dict[str, np.ndarray], note: str) -> None:
    """Write a folder."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, arrays)


def text(path: Path, arrays: dict[str, np.ndarray], note: str) -> None:
    """Write a log, with times and the name of the folder."""
    head = f"2026-11-3{len(note)} 11:22:33,{len(note)} INFO {path.parent} 1{note}2.5 steps/s loss "
    path.write_text(head + " ".join(f"{array.sum():.3f}" for array in arrays.values()))


def pdf(path: Path, arrays: dict[str, np.ndarray], note: str) -> None:
    """Write what a plot begins with: when it was made."""
    head = b"%PDF-1.4 /CreationDate (D:2026113011223" + str(len(note)).encode() + b"Z) "
    path.write_bytes(head + b"".join(array.tobytes() for array in arrays.values()))


WRITERS: dict[str, tuple[str, Callable[..., None], str]] = {
    "safetensors": ("w.safetensors", safetensors, " in b"),
    "npz": ("w.npz", npz, " in b"),
    "orbax": ("step_1", orbax, " in b"),
    "text": ("train.log", text, ""),
    "pdf": ("plot.pdf", pdf, ""),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_in_it_counts(tmp_path: Path, kind: str) -> None:
    """Bytes that say when and where are no difference; a value is one, and is named."""
    name, write, where = WRITERS[kind]
    values = {"a": np.ones(3, np.float32), "b": np.zeros((2, 2), np.float32)}
    wrong = {**values, "b": np.full((2, 2), 0.5, np.float32)}
    found = []
    for run, (arrays, note) in enumerate([(values, ""), (values, "5"), (wrong, "")]):
        folder = tmp_path / f"dir-{run}-x"
        folder.mkdir()
        write(folder / name, arrays, note)
        found.append(contents_of([folder], [str(tmp_path / f"dir-{i}-x") for i in range(3)]))
    assert written_remark(found[0], found[1]) == ""
    assert written_remark(found[0], found[2]) == f"the file {{dir}}/{name} differs{where}"


def test_what_only_one_run_wrote(tmp_path: Path) -> None:
    """A file without its counterpart differs, whatever is in it; more of them are counted."""
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_bytes(b"1")
    found = contents_of([tmp_path], [str(tmp_path)])
    remark = "only the first run wrote {dir}/a.bin, and 1 more files"
    assert written_remark(found, {}) == remark


def test_what_no_file_says(tmp_path: Path) -> None:
    """Events of TensorBoard hold times, a link leads away, a name may hold the date."""
    (tmp_path / "events.out.tfevents.17").write_bytes(b"1")
    os.symlink("/etc/hostname", tmp_path / "link.bin")
    assert contents_of([tmp_path], []) == {}
    for name in ("run_20261130_112233.bin", "run_20261130_112234.bin"):
        (tmp_path / name).write_bytes(b"1")
    names = list(contents_of([tmp_path], [str(tmp_path)]))
    assert names == ["{dir}/run_….bin", "{dir}/run_….bin (2)"]


def test_a_name_that_passes_is_shown(tmp_path: Path) -> None:
    """Which name a temporary file has does not count, and yet people have to know which it is."""
    found = []
    for run in (b"1", b"2"):
        path = Path(tempfile.gettempdir(), f"tmp{run.decode()}", "plot.bin")
        content = {"": run.decode()}
        with (
            mock.patch.object(written, "_files", lambda each: [each]),
            mock.patch.object(written, "_contents", lambda path, own, it=content: it),
        ):
            found.append(contents_of([path], []))
    assert list(found[0]) == list(found[1])
    assert written_remark(*found) == f"the file {tempfile.gettempdir()}/tmp1/plot.bin differs"


def test_what_is_not_what_its_name_says(tmp_path: Path) -> None:
    """A pickle in an array's file is not opened, and a damaged archive is bytes."""
    opened = tmp_path / "opened"

    class Evil:
        """Leaves a trace when it is unpickled."""

        def __reduce__(self) -> Any:
            return (Path.touch, (opened,))

    np.save(tmp_path / "evil.npy", np.array([Evil()], object), allow_pickle=True)
    (tmp_path / "w.npz").write_bytes(b"PK")
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", 1 << 60))
    assert all(list(each.parts) == [""] for each in contents_of([tmp_path], []).values())
    assert not opened.exists()
