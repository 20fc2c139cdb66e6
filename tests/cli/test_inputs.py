"""Promises of the commands about whatever they are given: an answer, or one sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import save_file

from reproducibility import CheckpointStore, Recorder
from reproducibility.storage.files import canonical_json, file_table, with_digest
from tests.calling import Call, one_sentence

STATE: dict[str, Any] = {"w": np.arange(3, dtype=np.float32), "b": np.ones(2)}


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What people hand to a command."""
    folder = tmp_path_factory.mktemp("things")
    for name, last in {"store": 1.0, "other": 2.0}.items():
        with CheckpointStore(folder / name) as store:
            store.save(1, STATE)
            store.save(2, {**STATE, "b": np.full(2, last)})
    with ocp.StandardCheckpointer() as orbax:
        orbax.save(folder / "orbax", STATE)
    save_file(STATE, folder / "w.safetensors")
    np.savez(folder / "foreign.npz", x=np.ones(1))
    np.savez(folder / "names.npz", **{"a\x1b[31m\nb": np.ones(1)})
    (folder / "text").write_text("text")
    (folder / "text.npz").write_text("text")
    (folder / "empty").mkdir()
    (folder / "old.jsonl").write_text('{"format": 0}\n')
    (folder / "old_run").mkdir()
    (folder / "old_run/run.json").write_bytes(canonical_json(with_digest({"format": 0})))
    (folder / "old_record/process-1").mkdir(parents=True)
    (folder / "old_record/process-1/process.json").write_text('{"format": 0}')
    with Recorder(folder / "ledger.jsonl") as recorder:
        recorder.record(1, params={"w": STATE["w"]})
    return folder


ARRAYS = "expected a run directory, a store of checkpoints, an Orbax checkpoint or a file of arrays"
RUN = "expected a run directory with run.json, got "
NAME_ONE = "Name one of its checkpoints, such as store/00000002."
INPUTS = [
    ("digest text", 2, f"{ARRAYS}, got a file."),
    ("digest empty", 2, f"{ARRAYS}, got an empty directory."),
    ("digest ledger.jsonl", 2, f"{ARRAYS}, got a file."),
    ("digest old_run", 2, "expected run format 1, got 0. Use the version of this package that"),
    ("digest old_record", 2, f"{ARRAYS}, got a record of a script. Records are compared"),
    ("digest text.npz", 2, "Cannot read the arrays at text.npz: expected a .npz file of numbers"),
    ("digest store --step 9", 2, "expected a committed checkpoint, got step 1, step 2."),
    ("digest w.safetensors --step 1", 2, "expected a store of checkpoints, got a file of arrays."),
    ("digest w.safetensors", 0, "w.safetensors has no seal: these are the values that it has now."),
    ("check text", 2, f"{ARRAYS}, got a file."),
    ("check empty", 2, f"{ARRAYS}, got an empty directory."),
    ("check missing", 2, f"{ARRAYS}, got no such file."),
    ("check orbax", 3, "nothing vouches for its values: Orbax keeps no digest."),
    ("check w.safetensors", 3, "a .safetensors file keeps no digest."),
    ("check orbax --repair", 2, "expected a run, or a store that is no part of a run"),
    ("compare store other", 1, "agree at step 1 and differ at step 2, in b."),
    ("compare store/00000001 other/00000002", 1, "They differ, in b."),
    ("compare orbax w.safetensors", 0, ""),
    ("compare store orbax", 2, NAME_ONE),
    ("compare w.safetensors store", 2, NAME_ONE),
    ("compare store text", 2, "a result, or something with arrays in it, got a file."),
    ("compare orbax names.npz", 3, "names.npz has a\\x1b[31m\\x0ab."),
    ("compare empty store", 2, "something with arrays in it, got an empty directory."),
    ("compare store ledger.jsonl", 2, "expected arrays on both sides, or records on both, got a l"),
    ("compare old.jsonl store", 2, "expected a ledger of format 1, got format 0."),
    ("compare store old_run", 2, "expected run format 1, got 0."),
    ("compare store old_record", 2, "Cannot read a record at store"),
    ("compare orbax foreign.npz", 3, "No name of an array is in both: orbax has b and 1 more and"),
    ("compare store store --resumed", 2, "Cannot use --resumed: expected two records"),
    ("trace store --step 1", 2, f"{RUN}a store of checkpoints."),
    ("trace orbax --step 1", 2, f"{RUN}an Orbax checkpoint."),
    ("trace empty --step 1", 2, f"{RUN}an empty directory."),
    ("record store -- true", 2, "expected a new or empty directory, got one that holds 00000001."),
    ("record text -- true", 2, "expected a directory that can be made, got File exists."),
    ("twice -- store", 2, "Cannot run 'store': expected a command after --, got none of that"),
    ("sweep -- text", 2, "Cannot run 'text': expected a command after --, got none of that"),
    ("train --run-dir orbax --steps 1", 2, "expected an empty directory or a run, got a directory"),
]


@pytest.mark.parametrize(("arguments", "code", "said"), INPUTS)
def test_every_input_has_an_answer_or_a_sentence(
    call: Call,
    things: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    code: int,
    said: str,
) -> None:
    """Whatever stands where a run is meant is read, or refused in one sentence with its code, and
    nothing changes on disk."""
    monkeypatch.chdir(things)
    before = file_table(things)
    found, out, err = call(*arguments.split())
    assert found == code, err
    sentences = [f"{line}\n" for line in err.splitlines() if not line.endswith("…")]
    assert said in (one_sentence("".join(sentences)) if sentences else "")
    assert bool(out) == (code != 2)
    assert file_table(things) == before


def test_what_is_on_either_side_is_printed(call: Call, things: Path, tmp_path: Path) -> None:
    """A leaf of one side alone, and one of another dtype, have what they are in the table; JSON has
    the same. The page for people to send is written, too."""
    np.savez(tmp_path / "a.npz", w=STATE["w"], x=np.ones(1))
    np.savez(tmp_path / "b.npz", w=STATE["w"].astype(np.float64), y=np.ones(1, np.int8))
    code, out, _ = call("compare", "a.npz", "b.npz", "--html", "page.html")
    assert code == 1
    rows = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in out.splitlines() if line}
    assert rows["w"] == "float32[3] against float64[3]"
    assert (rows["x"], rows["y"]) == ("only a has it: float64[1]", "only b has it: int8[1]")
    assert "has no seal" in (tmp_path / "page.html").read_text()
    _, out, _ = call("compare", "a.npz", "b.npz", "--json")
    assert json.loads(out)["kinds"]["x"] == ["float64[1]", "none"]


def test_a_store_is_checked_and_digested(call: Call, things: Path) -> None:
    """`check` prints what was checked, and `digest` what each leaf has, as of a run."""
    code, out, err = call("check", things / "store")
    assert (code, err) == (0, "")
    assert "checkpoints  1, 2 (every byte as sealed)" in out
    code, out, err = call("digest", things / "store", "--leaves", "--step", 1)
    assert (code, err) == (0, "")
    assert [line.split("  ")[1] for line in out.splitlines()] == ["b", "w"]
    assert call("digest", things / "store")[1] != call("digest", things / "other")[1]
    assert call("digest", things / "store/00000001")[1] == call("digest", things / "orbax")[1]
