"""Promises of `reproducibility.storage.checkpoint`."""

import errno
import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import (
    CheckpointDamagedError,
    CheckpointError,
    CheckpointMismatchError,
    CheckpointReadError,
    CheckpointSaveError,
    CheckpointStore,
    LeafError,
    SetAsideWarning,
    root_key,
    tree_digest,
)
from reproducibility.storage.checkpoint import THREADS_AT_EXIT, saved_steps
from reproducibility.storage.orbax import ArrayFiles
from tests.scale.test_start import start

ROOT = Path(__file__).parents[2]


def test_only_the_newest_stay(tmp_path: Path) -> None:
    """Of many checkpoints the newest `keep` are on disk; restore takes the newest of them."""
    with CheckpointStore(tmp_path, keep=2) as store:
        for step in (5, 10, 99_999_999, 100_000_000):
            store.save(step, {"step": np.int64(step)})
        store.wait()
        assert store.steps() == [99_999_999, 100_000_000]
        assert store.restore({"step": np.int64(0)})["step"] == 100_000_000


def test_saving_is_safe_from_what_comes_next(tmp_path: Path) -> None:
    """Donating or overwriting what was given to `save` does not change what is saved.

    Also where the caller is done with it before the background has begun to hash.
    """
    advance = jax.jit(lambda x: x * 2 + 1, donate_argnums=0)
    fold = jax.jit(lambda k: jax.random.fold_in(k, 1), donate_argnums=0)
    device, host, key = jnp.full(2**20, 3.0), np.full(2**20, 3.0), root_key(1)
    tree = {"device": device, "host": host, "key": key}
    like, digest, begin = jax.eval_shape(lambda: tree), tree_digest(tree), threading.Event()
    with CheckpointStore(tmp_path) as store:
        store._commits.submit(begin.wait)
        store.save(0, tree)
        for _ in range(5):
            device, key = advance(device), fold(key)
        host[:] = 0
        begin.set()
        restored = store.restore({**like, "host": host})
    assert tree_digest(restored) == digest


def aligned(size: int) -> np.ndarray:
    """Return float32 zeros that JAX takes over without a copy."""
    raw = np.zeros(4 * size + 64, np.uint8)
    begin = -raw.ctypes.data % 64
    return raw[begin : begin + 4 * size].view(np.float32)


def test_memory_that_is_shared_is_saved_as_it_was(tmp_path: Path) -> None:
    """What is written into a buffer after `save` is not saved, whoever shares its memory."""
    buffer, size = aligned(2**16), 2**16
    mapped = np.memmap(tmp_path / "mapped", np.float32, "w+", shape=(size,))
    tree = {
        "put": jax.device_put(buffer, jax.devices()[0]),
        "dlpack": jax.dlpack.from_dlpack(buffer),
        "mapped": mapped,
        "of mapped": jnp.asarray(mapped),
        "numpy": buffer,
        "part": buffer[10:20],
    }
    assert {tree[name].unsafe_buffer_pointer() for name in ("put", "dlpack")} == {
        buffer.ctypes.data
    }
    buffer[:] = mapped[:] = np.arange(size)
    digest, begin = tree_digest(tree), threading.Event()
    with CheckpointStore(tmp_path / "store") as store:
        store._commits.submit(begin.wait)
        store.save(0, tree)
        buffer[:] = mapped[:] = -1.0
        begin.set()
        store.wait()
        assert store.verify(0)["digest"] == digest
        assert tree_digest(store.restore(tree)) == digest


def test_what_was_not_renamed_never_happened(tmp_path: Path) -> None:
    """A temporary directory of a killed process is neither listed nor read, and is cleared."""
    tree = {"w": jnp.ones(3)}
    with CheckpointStore(tmp_path) as store:
        store.save(1, tree)
        store.wait()
        shutil.copytree(tmp_path / "00000001", tmp_path / ".tmp-00000002")
        (tmp_path / "notes.txt").write_text("not a checkpoint")
        (tmp_path / "000000003").mkdir()
        (tmp_path / "\N{FULLWIDTH DIGIT ONE}2345678").mkdir()
        (tmp_path / "latest").symlink_to("00000001")
        (tmp_path / "00000003").symlink_to("00000001")
        assert store.steps() == [1]
        store.save(2, tree)
    assert saved_steps(tmp_path) == [1, 2]
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_step_is_written_once(tmp_path: Path) -> None:
    """A committed checkpoint is never overwritten."""
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"w": jnp.ones(3)})
        with pytest.raises(CheckpointError, match="step 1: expected a step that is not there yet"):
            store.save(1, {"w": jnp.zeros(3)})
        assert store.restore({"w": jnp.zeros(3)})["w"].tolist() == [1, 1, 1]


SAVED = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32)}


def test_no_checkpoint_is_said(tmp_path: Path) -> None:
    """Restoring from nothing, or from a step that is not there, says what there is."""
    with CheckpointStore(tmp_path / "none") as store:
        with pytest.raises(CheckpointError, match=r"newest checkpoint .*expected at least one"):
            store.restore({})
        store.save(3, {})
        with pytest.raises(
            CheckpointError, match="step 4: expected a committed checkpoint, got step 3"
        ):
            store.restore({}, step=4)


def alter(path: Path, position: float = 0.5) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 4
    path.write_bytes(content)


def largest(folder: Path) -> Path:
    """Return the file that holds most of the arrays."""
    return max((folder / "arrays").rglob("d/*"), key=lambda path: path.stat().st_size)


def piped(path: Path) -> None:
    """Put a pipe in the place of a file: who reads it waits for ever."""
    path.unlink()
    os.mkfifo(path)


DAMAGE = {
    "no seal": lambda folder: (folder / "seal.json").unlink(),
    "empty seal": lambda folder: (folder / "seal.json").write_text(""),
    "altered seal": lambda folder: alter(folder / "seal.json"),
    "a seal of another shape": lambda folder: (folder / "seal.json").write_text("[1]"),
    "a linked seal": lambda folder: [
        (folder / "seal.json").rename(folder.parent / "seal"),
        (folder / "seal.json").symlink_to(folder.parent / "seal"),
    ],
    "no arrays": lambda folder: shutil.rmtree(folder / "arrays"),
    "arrays cut short": lambda folder: [
        file.write_bytes(file.read_bytes()[:10]) for file in (folder / "arrays").rglob("*.ocdbt")
    ],
    "one bit": lambda folder: alter(largest(folder)),
    "one more file": lambda folder: (folder / "arrays" / "notes.txt").write_text("mine"),
    "a link in the place of a file": lambda folder: [
        largest(folder).rename(folder.parent / "elsewhere"),
        (folder / "arrays" / "link").symlink_to(folder.parent / "elsewhere"),
    ],
    "a pipe in the place of a file": lambda folder: piped(largest(folder)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused(tmp_path: Path, damage: str) -> None:
    """Whatever is missing, altered, cut short or added gives one error, with exit code 1."""
    with CheckpointStore(tmp_path) as store:
        store.save(0, SAVED)
        store.wait()
        DAMAGE[damage](tmp_path / "00000000")
        for use in (lambda: store.restore(SAVED), lambda: store.verify(0)):
            with pytest.raises(CheckpointDamagedError, match="Cannot use a checkpoint") as caught:
                use()
            assert caught.value.exit_code == 1
            assert caught.value.files
    assert saved_steps(tmp_path) == [0]


def misread(store: CheckpointStore) -> None:
    """Have intact files read with another value of one leaf."""
    read = store.arrays.read
    store.arrays.read = lambda *where: {**read(*where), "b": SAVED["b"] + np.float32(1)}


def failing(error: Exception) -> Callable[[CheckpointStore], None]:
    """Have the reading of intact files fail."""

    def fail(*where: Any) -> Any:
        raise error

    return lambda store: setattr(store.arrays, "read", fail)


NO_DAMAGE = {
    "another value": (misread, "others in b"),
    "Orbax": (failing(ValueError("Sharding?\nLong story.")), "ValueError: Sharding?"),
    "tensorstore": (failing(OSError(24, "Too many open files")), "OSError: .*Too many open files"),
    "memory": (failing(MemoryError()), "MemoryError"),
    "Python": (failing(AttributeError("moved")), "AttributeError: moved"),
}


@pytest.mark.parametrize("what", NO_DAMAGE)
def test_nothing_is_damage_when_every_byte_was_verified(tmp_path: Path, what: str) -> None:
    """What goes wrong after all bytes matched their seal is told as what it is, with exit code 4.

    `resume` renames nothing and does not go back to an earlier checkpoint; restored in a better
    moment, the checkpoint is there.
    """
    spoil, got = NO_DAMAGE[what]
    with CheckpointStore(tmp_path) as store, CheckpointStore(tmp_path) as later:
        store.save(4, SAVED)
        store.save(8, SAVED)
        store.wait()
        before = sorted(tmp_path.rglob("*"))
        spoil(store)
        for use in (store.restore, store.resume):
            with pytest.raises(CheckpointReadError, match=f"files that are intact, got {got}") as e:
                use(SAVED)
            assert e.value.exit_code == 4
            assert e.value.leaves == (("b",) if what == "another value" else ())
        assert sorted(tmp_path.rglob("*")) == before
        assert tree_digest(later.resume(SAVED)) == tree_digest(SAVED)


# Orbax ends its loop while a read that failed is still under way, which then complains to nobody.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("what", NO_DAMAGE)
def test_bytes_that_change_after_they_were_verified_are_damage(tmp_path: Path, what: str) -> None:
    """The control: where a byte changes between the check and the reading, whatever the reading
    then fails with, the checkpoint is damaged, and `resume` sets it aside."""
    with CheckpointStore(tmp_path) as store:
        store.save(4, SAVED)
        store.save(8, SAVED)
        store.wait()
        NO_DAMAGE[what][0](store)
        read = store.arrays.read

        def alter_and_read(folder: Path, wanted: Any) -> Any:
            if folder.name == "00000004":
                return ArrayFiles.read(store.arrays, folder, wanted)
            alter(largest(folder))
            return read(folder, wanted)

        store.arrays.read = alter_and_read
        with pytest.raises(CheckpointDamagedError, match="altered, and with it"):
            store.restore(SAVED)
        alter(largest(tmp_path / "00000008"))  # as it was
        with pytest.warns(SetAsideWarning, match="Going on from step 4"):
            assert tree_digest(store.resume(SAVED)) == tree_digest(SAVED)
    assert saved_steps(tmp_path) == [4]


def test_an_interruption_is_none_of_these(tmp_path: Path) -> None:
    """Ctrl-C while a checkpoint is read stays Ctrl-C."""
    with CheckpointStore(tmp_path) as store:
        store.save(4, SAVED)
        failing(KeyboardInterrupt())(store)
        with pytest.raises(KeyboardInterrupt):
            store.resume(SAVED)
    assert saved_steps(tmp_path) == [4]


@pytest.mark.parametrize("error", [errno.EACCES, errno.EMFILE, errno.ENOMEM, errno.ESTALE])
@pytest.mark.parametrize("file", ["seal.json", "manifest.ocdbt"])
def test_a_file_that_cannot_be_opened_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, file: str
) -> None:
    """Without permission, or with too many files open, nothing is said of the bytes: nothing is
    renamed, and the error has exit code 4. What the disk has lost is damage, as before."""
    start = {"step": np.int64(0)}
    with CheckpointStore(tmp_path) as store:
        for step in (4, 8):
            store.save(step, {"step": np.int64(step)})
        store.wait()
        opened = io.open

        def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
            if "00000008" in str(path) and file in str(path):
                raise OSError(number, os.strerror(number))
            return opened(path, *args, **kwargs)

        monkeypatch.setattr("builtins.open", refuse)
        monkeypatch.setattr("io.open", refuse)
        number = error
        for use in (
            lambda: store.verify(8),
            lambda: store.restore(start),
            lambda: store.resume(start),
        ):
            with pytest.raises(CheckpointReadError, match=os.strerror(error)) as caught:
                use()
            assert caught.value.exit_code == 4
        assert saved_steps(tmp_path) == [4, 8]
        number = errno.EIO
        with pytest.warns(SetAsideWarning):
            assert store.resume(start) == {"step": 4}


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """A store with a run's name refuses what another run sealed; one without takes anything."""
    with CheckpointStore(tmp_path, run="mine") as store:
        store.save(0, SAVED)
    expected = pytest.raises(CheckpointMismatchError, match="expected one of run yours, got one of")
    with CheckpointStore(tmp_path, run="yours") as store, expected:
        store.restore(SAVED)
    with CheckpointStore(tmp_path) as store:
        store.restore(SAVED)


def test_resume_begins_and_goes_on(tmp_path: Path) -> None:
    """Without a checkpoint `resume` returns what it was given; with some, the newest."""
    start = {"step": np.int64(0)}
    with CheckpointStore(tmp_path) as store:
        assert store.resume(start) is start
        for step in (4, 8):
            store.save(step, {"step": np.int64(step)})
        assert store.resume(start) == {"step": 8}
    assert start == {"step": 0}


def test_resume_goes_back_to_the_newest_intact_one(tmp_path: Path) -> None:
    """Damaged checkpoints are set aside, one warning each; nothing is deleted."""
    start = {"step": np.int64(0)}
    with CheckpointStore(tmp_path, keep=4) as store:
        for step in (4, 8, 12, 16):
            store.save(step, {"step": np.int64(step)})
        store.wait()
        for step in (4, 12, 16):
            alter(tmp_path / f"{step:08d}" / "seal.json")
        (tmp_path / "damaged-00000016").mkdir()
        with pytest.warns(SetAsideWarning) as caught:
            assert store.resume(start) == {"step": 8}
        assert ["Going on from step 8" in str(one.message) for one in caught] == [True, True]
        assert store.steps() == [4, 8]  # what is older than the intact one is not looked at
        assert (tmp_path / "damaged-00000012" / "arrays").is_dir()
        assert (tmp_path / "damaged-00000016-2" / "arrays").is_dir()
        store.save(12, {"step": np.int64(12)})


def test_resume_with_none_intact_refuses(tmp_path: Path) -> None:
    """Where all checkpoints are damaged, training does not quietly begin anew."""
    with CheckpointStore(tmp_path) as store:
        store.save(4, SAVED)
        store.wait()
        alter(tmp_path / "00000004" / "seal.json")
        before = sorted(tmp_path.rglob("*"))
        for _ in range(2):
            with pytest.raises(CheckpointDamagedError, match="got damage in all 1; the newest: "):
                store.resume(SAVED)
    assert sorted(tmp_path.rglob("*")) == before


def test_resume_of_another_tree_refuses(tmp_path: Path) -> None:
    """An intact checkpoint of another tree is not damage: it is refused, and stays."""
    with CheckpointStore(tmp_path) as store:
        store.save(4, SAVED)
        with pytest.raises(CheckpointMismatchError, match="leaf b"):
            store.resume({"w": SAVED["w"]})
        assert store.steps() == [4]


def test_a_checkpoint_half_deleted_is_not_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies while it deletes an old checkpoint leaves no damaged one behind."""
    with CheckpointStore(tmp_path, keep=1) as store:
        store.save(4, SAVED)
        store.wait()
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", lambda path: (path / "seal.json").unlink())
            store.save(8, SAVED)
            store.wait()
        assert saved_steps(tmp_path) == [8]
        assert len(list(tmp_path.glob(".tmp-*"))) == 1
        store.resume(SAVED)
        assert [entry.name for entry in tmp_path.iterdir()] == ["00000008"]


def test_a_failed_save_is_raised_and_nothing_is_lost(tmp_path: Path) -> None:
    """A save that fails in the background raises at the next call; earlier ones are intact."""
    store = CheckpointStore(tmp_path, keep=1)
    store.save(0, SAVED)
    store.wait()

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", full)
        store.save(2, SAVED)
        with pytest.raises(CheckpointSaveError, match="No space left") as caught:
            store.close()
    assert caught.value.exit_code == 4
    assert saved_steps(tmp_path) == [0]


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """Where no directory can be made, saving says so as it does for a full disk."""
    (tmp_path / "file").touch()
    store = CheckpointStore(tmp_path / "file" / "store")
    with pytest.raises(CheckpointSaveError, match=r"step 3: .*NotADirectoryError") as caught:
        store.save(3, SAVED)
    assert caught.value.step == 3
    store.close()


def test_names_must_be_names(tmp_path: Path) -> None:
    """A tree whose leaves cannot be named is refused before anything is written."""
    with CheckpointStore(tmp_path) as store, pytest.raises(LeafError, match="says"):
        store.save(0, {object(): np.zeros(3)})
    assert list(tmp_path.iterdir()) == []


def test_leaves_must_be_arrays(tmp_path: Path) -> None:
    """A Python number, whose dtype nobody stated, is refused by its name, at save and restore."""
    with CheckpointStore(tmp_path) as store:
        store.save(1, SAVED)
        for use in (lambda tree: store.save(2, tree), store.restore):
            with pytest.raises(
                LeafError, match=r"leaf (at )?opt\.rate: .*got a (value of type|Python) float"
            ):
                use({"opt": {"rate": 0.1}})
    assert saved_steps(tmp_path) == [1]


def test_keep_is_at_least_one(tmp_path: Path) -> None:
    """The newest checkpoint always stays: keeping none is refused."""
    with pytest.raises(ValueError, match="Cannot keep 0 checkpoints"):
        CheckpointStore(tmp_path, keep=0)


def test_a_leftover_may_be_a_file(tmp_path: Path) -> None:
    """Whatever bears a temporary name is removed, directory or not."""
    tmp_path.joinpath(".tmp-00000004").touch()
    with CheckpointStore(tmp_path) as store:
        store.resume(SAVED)
    assert list(tmp_path.iterdir()) == []


# Each process tells what came of each attempt. One that waits for the other is stuck, and ends.
IN_PROCESSES = """
import faulthandler
faulthandler.dump_traceback_later(150, exit=True)
import warnings
from pathlib import Path
from reproducibility import Layout, initialize
initialize(**asked)
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 2)
from jax.sharding import SingleDeviceSharding
from reproducibility import CheckpointStore, root_key, tree_digest
from reproducibility.scale.agree import on_first

layout = Layout.of()
def make():
    return {"w": jnp.arange(4096.0), "key": root_key(3), "none": jnp.zeros((0, 2)),
            "int2": jnp.array([1, -1], jnp.int2)}
like, alone = jax.eval_shape(make), make()
state = layout.replicate(alone)
store = CheckpointStore("s", keep=9)
store.save(1, state)

shapes = store.restore(like)
tell(shapes=tree_digest(shapes) == tree_digest(alone),
     everywhere=[leaf.sharding.device_set == set(jax.devices()) and leaf.is_fully_replicated
                 for leaf in jax.tree.leaves(shapes)])
store.save(2, shapes)
tell(again=tree_digest(store.restore(state)) == tree_digest(alone))
here = store.restore(alone)
tell(here=tree_digest(here) == tree_digest(alone),
     local=[leaf.devices() == {jax.local_devices()[0]} for leaf in jax.tree.leaves(here)])
tell(save_alone=error(lambda: store.save(3, alone)))
tell(numpy=store.restore({**like, "w": np.zeros(4096, np.float32)})["w"].tolist()[-1])
plain = store.restore()
part = store.restore({"w": like["w"]}, part=True)["w"]
tell(plain=[type(leaf).__name__ for leaf in plain.values()], last=plain["w"].tolist()[-1],
     part=part.is_fully_replicated and part.sharding.device_set == set(jax.devices()))
first = SingleDeviceSharding(jax.devices()[0])
w = jax.ShapeDtypeStruct((4096,), jnp.float32, sharding=first)
tell(elsewhere=error(lambda: store.resume({**like, "w": w})))
tell(mismatch=error(lambda: store.resume({"w": like["w"], "q": like["key"]})))

def fail(*where):
    raise MemoryError("all of it")
read = store.arrays.read
store.arrays.read = fail if index else read
tell(one_fails=error(lambda: store.resume(like)))
store.arrays.read = fail
tell(all_fail=error(lambda: store.resume(like)))
store.arrays.read = read
tell(steps=store.steps())

def damage():
    file = max(Path("s/00000002/arrays").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
on_first(damage)
tell(damaged=error(lambda: store.restore(like)))
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    resumed = store.resume(like)
tell(resumed=tree_digest(resumed) == tree_digest(alone), left=store.steps())
store.close()
"""


def test_processes_restore_together(tmp_path: Path) -> None:
    """In two processes with two devices each, what one finds both say, and both end.

    Leaves of `jax.eval_shape` come back on every device and can be saved again. A failure of one
    process alone is raised in both, and is no damage. The control: what is damaged is called so in
    both, and set aside once.
    """
    ended = start(IN_PROCESSES, 2, tmp_path)
    for index, (code, told, err) in enumerate(ended):
        assert code == 0, err
        assert (told["shapes"], told["again"], told["here"], told["resumed"]) == (True,) * 4
        assert told["everywhere"] == told["local"] == [True] * 4
        assert told["numpy"] == 4095
        assert (told["plain"], told["last"], told["part"]) == (["ndarray"] * 4, 4095, True)
        kind, said = told["save_alone"]
        assert kind == "LeafError"
        assert (
            "Cannot save leaf int2: expected an array on devices of all processes, got one" in said
        )
        kind, said = told["elsewhere"]
        assert kind == "ProcessMismatchError"
        assert "expected found='its leaves', as process 0 has, got found='ValueError: " in said
        assert told["mismatch"][0] == "CheckpointMismatchError"
        kind, said = told["one_fails"]
        assert kind == "ProcessMismatchError"
        assert "got found='MemoryError: all of it' on process 1." in said
        kind, said = told["all_fail"]
        assert kind == "CheckpointReadError"
        assert "files that are intact, got MemoryError: all of it." in said
        assert told["steps"] == [1, 2], index
        kind, said = told["damaged"]
        assert kind == "CheckpointDamagedError"
        assert "altered, and with it w." in said
        assert told["left"] == [1]
    assert (tmp_path / "s" / "damaged-00000002").is_dir()
    assert not (tmp_path / "s" / "damaged-00000002-2").exists()


def test_processes_that_end_wait_for_their_save(tmp_path: Path) -> None:
    """Two processes that save and simply end leave an intact checkpoint, with exit code 0."""
    script = """
from reproducibility import Layout, initialize
initialize(**asked)
import jax.numpy as jnp
from reproducibility import CheckpointStore
CheckpointStore("s").save(1, Layout.of().replicate({"w": jnp.zeros(2**22)}))
"""
    for code, _, err in start(script, 2, tmp_path):
        assert code == 0, err
    assert saved_steps(tmp_path / "s") == [1]
    CheckpointStore(tmp_path / "s").verify(1)


ENDINGS = {
    "save(1, 2); fork()": 0,
    "save(1, 2); raise KeyError('mine')": 1,
    "save(1, 2); sys.exit(3)": 3,
    "full(); save(2)": int(sys.version_info < THREADS_AT_EXIT),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_script_that_ends_waits_for_its_save(tmp_path: Path, ending: str) -> None:
    """A script that forgets `close` and ends, however it ends, leaves what it saved, intact.

    Its exit code stays its own. A save that fails then is told on stderr in one sentence. A child
    that was forked meanwhile, which has no thread that saves, has nothing to wait for.
    """
    script = f"""
import os, sys, warnings
from pathlib import Path
import jax.numpy as jnp
from reproducibility import CheckpointStore
from reproducibility.storage import checkpoint

def save(*steps):  # the store is forgotten when this returns
    store = CheckpointStore("s")
    for step in steps:
        store.save(step, {{"w": jnp.zeros(2**22)}})

def fork():
    with warnings.catch_warnings(action="ignore"):  # JAX's, of its threads
        child = os.fork()
    if child == 0:
        os._exit(len(checkpoint._unfinished))
    assert os.waitpid(child, 0)[1] == 0
    assert len(checkpoint._unfinished) == (sys.version_info >= checkpoint.THREADS_AT_EXIT)

def full():
    rename = Path.rename
    def refuse(self, target):
        if "arrays" not in str(self):  # Orbax renames, too
            raise OSError(28, "No space left on device")
        return rename(self, target)
    Path.rename = refuse

{ending}
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == ENDINGS[ending], ended.stderr
    late = sys.version_info >= THREADS_AT_EXIT  # before, `save` itself fails
    if "full" in ending:
        assert "got OSError: [Errno 28] No space left on device. Free some space" in ended.stderr
        assert ("Traceback" not in ended.stderr) == late, ended.stderr
    else:
        assert "raise" in ending or ended.stderr == ""
        assert "after" not in ended.stderr  # cannot schedule new futures after …
        assert saved_steps(tmp_path / "s") == [1, 2]
        CheckpointStore(tmp_path / "s").verify(2)
