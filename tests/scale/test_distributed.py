"""Promises of `reproducibility.scale.distributed`: one digest, whatever the devices and processes.

What depends on a layout is computed in processes of their own, by tests/layouts.py: on each layout
once, for all tests. They have a deadline, and end when the process that runs the tests does.
"""

import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import (
    ConfigError,
    IdentityMismatchError,
    Layout,
    Run,
    TrainConfig,
    check,
    index_key,
    launch,
    root_key,
    shard_gradients,
    train,
    tree_digest,
)
from tests.layouts import (
    COUNTS,
    DATASETS,
    NETWORKS,
    SIZES,
    THOROUGH,
    TRAINED,
    batches,
    grown,
    mlp,
    numbers,
)
from tests.layouts import QUICK as QUICK_SIZES

pytestmark = pytest.mark.timeout(900)  # the first to ask for a layout waits until it is computed

LAYOUTS = ["1x1", "1x2", "1x4", "1x8", "2x1", "2x2", "2x4", "4x1"]  # processes x devices
QUICK = ("1x1", "1x2")  # each device compiles for itself: the others are for `make test-all`
NIGHTLY = ("1x8", "2x4", "4x1")
PROGRAM = [sys.executable, "-m", "tests.layouts"]
COMMAND = [sys.executable, "-m", "reproducibility"]
TRAIN = [
    "train",
    "--seed",
    "7",
    "--steps",
    "12",
    "--checkpoint-every",
    "4",
    "--batch-size",
    "64",
    "--shards",
    "8",
    "--hidden",
    "8",
    "--dropout",
    "0.25",
    "--run-dir",
]
Found = Callable[[str], dict[str, Any]]


def each(layouts: Iterable[str]) -> list[Any]:
    """Return layouts as parameters of a test, with a mark on those that take long."""
    long, nightly = pytest.mark.long, pytest.mark.nightly
    marks = dict.fromkeys(QUICK, ()) | dict.fromkeys(NIGHTLY, (long, nightly))
    return [pytest.param(name, marks=marks.get(name, long)) for name in layouts]


def sizes(layout: str) -> tuple[int, int]:
    """Return the numbers of processes and of devices of each."""
    processes, devices = layout.split("x")
    return int(processes), int(devices)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of this session, the same for all its workers."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def quick(pytestconfig: pytest.Config) -> bool:
    """Say whether the long tests are left out; what is computed for the others is less then."""
    return pytestconfig.getoption("markexpr") == "not long"


@pytest.fixture(scope="session")
def found(place: Path, quick: bool) -> Found:
    """Return a function of a layout: what tests/layouts.py computed on it, once in a session."""

    def compute(layout: str) -> dict[str, Any]:
        folder, (processes, devices) = place / f"layout-{layout}", sizes(layout)
        folder.mkdir(exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "found.json").exists():
                command = [str(folder), "--devices", str(devices), *["--quick"] * quick]
                assert launch(command, processes, program=PROGRAM) == 0
        values: dict[str, Any] = json.loads((folder / "found.json").read_text())
        return values

    return functools.cache(compute)


def fixed(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what may differ."""
    return {name: value for name, value in values.items() if not name.startswith("control")}


@pytest.mark.parametrize("layout", each(LAYOUTS[1:]))
def test_one_digest_on_every_layout(found: Found, layout: str, quick: bool) -> None:
    """Trainings on both data sets, of an MLP with 8 examples in a shard, and of a convolution and
    attention with 1, 8 and 64, end with the bits they have on one device; the ledgers too.

    Without the long tests: on one data set, and with one size of a shard for each network."""
    alone, here = fixed(found("1x1")), fixed(found(layout))
    processes, devices = sizes(layout)
    few = {f"mean {count}" for count in COUNTS if count % (processes * devices)}
    if layout in THOROUGH:
        assert here.keys() == alone.keys() - few
    assert here == {name: alone[name] for name in here}
    shards, datasets = (QUICK_SIZES, DATASETS[:1]) if quick else (SIZES, DATASETS)
    networks = {f"{network} {size}" for network in NETWORKS for size in shards[network]}
    trainings = {f"{what} {name}" for what in ("train", "ledger") for name in datasets}
    assert networks | trainings <= here.keys()


@pytest.mark.parametrize("layout", each(LAYOUTS))
def test_a_run_of_any_layout_is_whole(found: Found, place: Path, layout: str, quick: bool) -> None:
    """A run directory that several processes wrote has one writer, one line of each event, and
    passes `check`; it says on which layout it was computed."""
    found(layout)
    processes, devices = sizes(layout)
    for dataset in DATASETS[:1] if quick else DATASETS:
        folder = place / f"layout-{layout}" / dataset
        report = check(folder)
        assert report.findings == ()
        assert report.checkpoints == (4, 8, 12)
        start, end = Run.read(folder).attempts()
        assert start["layout"] == {"devices": devices, "processes": processes}
        assert (end["ended"], end["to_step"]) == ("finished", 12)


@pytest.mark.parametrize("layout", each(["1x2", "1x4"]))
def test_one_program_cut_over_the_devices_has_other_bits(found: Found, layout: str) -> None:
    """The control: the usual data-parallel step depends on the layout, so this test would see it
    if ours did."""
    assert found(layout)["control: ordinary"] != found("1x1")["control: ordinary"]


@pytest.mark.parametrize("layout", each(THOROUGH[1:]))
def test_keys_by_process_or_place_have_other_bits(found: Found, layout: str) -> None:
    """The control: dropout keyed by the process and the shard's number on its device differs on
    every other layout, so the keys of `shard_gradients` are by something else."""
    assert found(layout)["control: keys by place"] != found("1x1")["control: keys by place"]


def pairwise(trees: Sequence[Any]) -> Any:
    """Add neighbours, then their sums, and divide: the tree, written out."""
    count = len(trees)
    trees = [jax.tree.map(floating, tree) for tree in trees]
    if count == 1:
        return trees[0]
    while len(trees) > 1:
        trees = [
            jax.tree.map(lambda a, b: np.asarray(a + b), *trees[i : i + 2])
            for i in range(0, len(trees), 2)
        ]
    with np.errstate(under="ignore"):
        return jax.tree.map(lambda total: halved(total, count), trees[0])


def floating(leaf: np.ndarray) -> np.ndarray:
    """Give booleans and whole numbers the dtype of their mean, before they are added."""
    return leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf.astype(np.float32)


def halved(total: np.ndarray, count: int) -> np.ndarray:
    """Divide by a power of two."""
    return np.asarray(total / np.asarray(count, total.dtype))


@pytest.mark.parametrize("count", COUNTS)
def test_the_mean_is_the_tree_written_out(found: Found, count: int) -> None:
    """The mean of 1 to 16 shards adds neighbours first, in each dtype, and divides exactly.

    The control: adding from left to right gives other bits.
    """
    trees = [grown(shard) for shard in range(count)]
    expected = {name: tree_digest(leaf) for name, leaf in pairwise(trees).items()}
    got = found("1x1")[f"mean {count}"]
    # On the CPU, XLA takes subnormal numbers as zero, on every layout; NumPy does not.
    assert {**got, "tiny": ""} == {**expected, "tiny": ""}
    if count > 2:
        in_order = functools.reduce(np.add, [tree["float32"] for tree in trees])
        assert tree_digest(halved(in_order, count)) != got["float32"]


def test_what_moves_keeps_its_bits(found: Found) -> None:
    """`replicate` and `each` give what one device has, for keys and arrays of NumPy and of JAX;
    memory that was given away is used again."""
    here = found("1x1")
    x = numbers(20, 8, 3)
    forms = {"numpy": x, "jax": x, "key": root_key(3), "scalar": np.float32(2.5), "last": x}
    assert here["replicate"] == tree_digest(forms)
    assert here["memory is used again"] is True


@pytest.mark.parametrize("layout", each(THOROUGH))
def test_every_way_to_hand_a_batch_gives_the_same(found: Found, layout: str) -> None:
    """A batch may lie on the host, on the device or on both; parameters on the host too."""
    ways = ("batch of the host", "batch of JAX", "batch of both", "parameters of the host")
    assert len({found(layout)[way] for way in ways}) == 1


def test_shard_gradients_are_what_the_words_say() -> None:
    """The gradient is that of a loop over the shards, each with its key by its global number, added
    as a tree; the control: with keys that are not folded it is another."""
    params, batch, key = NETWORKS["mlp"][1], batches(8)[0], root_key(5)
    found = shard_gradients(mlp, shards=8)(params, batch, key)

    def by_hand(key_of: Callable[[int], jax.Array]) -> str:
        program = jax.jit(jax.value_and_grad(mlp))
        pieces = [jax.tree.map(lambda x: x[i * 8 : i * 8 + 8], batch) for i in range(8)]  # noqa: B023
        parts = [program(params, piece, key_of(i)) for i, piece in enumerate(pieces)]
        return tree_digest(pairwise(jax.device_get(parts)))

    assert tree_digest(found) == by_hand(functools.partial(index_key, key))
    with jax.debug_key_reuse(False):
        assert tree_digest(found) != by_hand(lambda shard: key)


def test_has_aux_means_the_tree_as_well() -> None:
    """With `has_aux`, the tree that a loss returns is averaged over the shards; the gradient is the
    one without it."""

    def loss_fn(w: jax.Array, x: jax.Array) -> jax.Array:
        return ((x @ w) ** 2).mean()

    def more(w: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
        return loss_fn(w, x), {"largest": x.max(), "count": (x > 0).sum()}

    w, x = numbers(1, 3), numbers(2, 8, 3)
    (loss, aux), gradient = shard_gradients(more, shards=4, has_aux=True)(w, x)
    plain = shard_gradients(loss_fn, shards=4)(w, x)
    assert tree_digest((loss, gradient)) == tree_digest(plain)
    pieces = x.reshape(4, 6)
    expected = {"largest": pieces.max(1).mean(), "count": np.float32((x > 0).sum() / 4)}
    assert tree_digest(aux) == tree_digest(expected)


AUX_DTYPES = {
    "bool": "float32",
    "int8": "float32",
    "uint8": "float32",
    "int32": "float32",
    "uint32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float32": "float32",
    "complex64": "complex64",
}


@pytest.mark.parametrize("dtype", AUX_DTYPES)
def test_aux_has_one_dtype_and_one_mean(dtype: str) -> None:
    """What every shard gives alike comes back with the same values and the same firm dtype for any
    number of shards, one included: nothing wraps around, and booleans are averaged, not joined.

    The value is the largest that the dtype has, where a sum of two would not fit.
    """
    most = {"bool": True, "int8": 127, "uint8": 255, "int32": 2**30, "uint32": 2**31}.get(dtype, 3)

    def loss_fn(w: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
        leaf = jnp.asarray(most, dtype)
        return (w * x).sum(), {"nested": [leaf, {"row": jnp.full((2, 3), leaf)}], "weak": 1.5}

    w, x, found = jnp.ones(()), np.ones(8, np.float32), {}
    for shards in (1, 2, 4, 8):
        (_, aux), _ = shard_gradients(loss_fn, shards=shards, has_aux=True)(w, x)
        found[shards] = tree_digest(aux)
        assert not any(leaf.weak_type for leaf in jax.tree.leaves(aux))
    scalar = np.asarray(most, jnp.dtype(AUX_DTYPES[dtype]))
    expected = {"nested": [scalar, {"row": np.full((2, 3), scalar)}], "weak": np.float32(1.5)}
    assert found == dict.fromkeys(found, tree_digest(expected))


def test_aux_that_differs_from_shard_to_shard_is_averaged() -> None:
    """Booleans and small integers that the shards do not share have the mean that NumPy has."""

    def loss_fn(w: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
        return (w * x).sum(), {"flag": x[0] > 1, "byte": (100 * x[0]).astype(jnp.uint8)}

    w, x = jnp.ones(()), np.array([2, 1, 2, 2], np.float32)
    (_, aux), _ = shard_gradients(loss_fn, shards=4, has_aux=True)(w, x)
    assert tree_digest(aux) == tree_digest({"flag": np.float32(0.75), "byte": np.float32(175)})


def test_another_number_of_shards_is_another_run() -> None:
    """The control: cut into other shards, the same batch has other bits."""
    params, batch, key = NETWORKS["mlp"][1], batches(8)[0], root_key(5)
    digests = {
        tree_digest(shard_gradients(mlp, shards=shards)(params, batch, key)) for shards in (4, 8)
    }
    assert len(digests) == 2


@pytest.mark.long
def test_a_run_moves_from_layout_to_layout(found: Found, place: Path, tmp_path: Path) -> None:
    """A run that is interrupted again and again and goes on on another layout, with other processes
    and devices, ends with the digest and the ledger of the uninterrupted one."""
    config, folder = TrainConfig(**TRAINED), tmp_path / "run"
    train(dataclasses.replace(config, stop_after=3), run_dir=folder)
    for layout, stop in (("2x2", 6), ("1x4", 9), ("2x1", 11)):
        processes, devices = sizes(layout)
        command = [*TRAIN, str(folder), "--devices", str(devices), "--stop-after", str(stop)]
        assert launch(command, processes) == 0
    assert train(config, run_dir=folder).digest == found("1x1")["train synthetic"]
    ledger = (folder / "ledger.jsonl").read_bytes()
    assert hashlib.sha256(ledger).hexdigest() == found("1x1")["ledger synthetic"]
    starts = [line for line in Run.read(folder).attempts() if line["event"] == "start"]
    assert [(s["layout"]["processes"], s["layout"]["devices"], s["from_step"]) for s in starts] == [
        (1, 1, 0),
        (2, 2, 3),
        (1, 4, 6),
        (2, 1, 9),
        (1, 1, 11),
    ]
    assert check(folder).findings == ()


def test_another_number_of_shards_is_refused(tmp_path: Path) -> None:
    """A run directory takes any layout and no other number of shards: that is another run."""
    config = TrainConfig(**{**TRAINED, "stop_after": 1})
    train(config, run_dir=tmp_path / "run")
    with pytest.raises(IdentityMismatchError, match="expected shards=8, got shards=4") as refused:
        train(dataclasses.replace(config, shards=4), run_dir=tmp_path / "run")
    assert refused.value.settings == ("shards",)


# What a process of a cluster finds in its environment: the words that JAX reads.
ON_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
from reproducibility import Layout, shard_gradients, tree_digest

def everything(layout):
    # Shards of which some give a NaN of the other sign; and a number without a firm dtype.
    def loss_fn(w, x):
        return (w * x).sum(), {"scale": jnp.asarray(1.0) / 3}
    gradients = shard_gradients(loss_fn, shards=4, layout=layout, has_aux=True)
    update = layout.each(lambda w, aux: w - aux["scale"] * w)
    w = layout.replicate(jnp.ones(2, jnp.bfloat16))
    nan = np.array([[1, 1], [np.nan, -np.nan], [-np.nan, np.nan], [np.nan, 2]], np.float32)
    (loss, aux), gradient = gradients(w, nan)
    found = [tree_digest({"loss": loss, "gradient": gradient, "w": update(w, aux)})]
    layout.assert_same_on_all_devices(gradient, step=1)
    # A pipeline that writes each batch where the last one was.
    batch, losses = np.empty((4, 2**16), np.float32), []
    w = layout.replicate(jnp.ones(2**16))
    for step in range(20):
        batch[:] = step
        losses.append(gradients(w, batch)[0][0])
    return found + [float(loss) for loss in losses]

one, two, four = (everything(Layout(tuple(jax.devices()[:count]))) for count in (1, 2, 4))
assert one[1:] == [2.0**16 * step for step in range(20)], one
print("same", one == two == four)
"""


def test_nothing_else_differs_between_devices() -> None:
    """The bits of a NaN, a dtype that is weak and a batch that is written over are as on one."""
    [(printed, _)] = started([begun([sys.executable, "-c", ON_DEVICES])])
    assert printed == "same True\n"


TOGETHER = """
import sys, time, warnings
from pathlib import Path
flags, place = sys.argv[2:], Path(sys.argv[1])
import jax, jax.numpy as jnp
from reproducibility import CheckpointStore, TrainConfig, train
from reproducibility.storage import seal
from reproducibility.recording import writer
from reproducibility import Layout, ReproducibilityError, initialize
initialize(processes=2, process_index=int(flags[3]), coordinator=flags[5])
warnings.simplefilter("error")

layout, with_digest = Layout.of(1), seal.with_digest
seal.with_digest = lambda found: (time.sleep(1), with_digest(found))[1]
with CheckpointStore(place / "store") as store:
    for step in (1, 2):
        tree = layout.replicate({"w": jnp.full(3, step, jnp.float32)})
        store.save(step, tree)
        store.wait()
        assert store.steps()[-1] == step, store.steps()
        assert (store.restore(tree)["w"] == step).all()
seal.with_digest = with_digest

config = TrainConfig(**eval((place / "settings").read_text()), record="off")
# The first is done with it when the second, which had looked, begins.
set_rest_aside = writer.Writer.set_rest_aside
writer.Writer.set_rest_aside = lambda *given: (
    time.sleep(1 + jax.process_index()), set_rest_aside(*given))
warnings.simplefilter("ignore")
print("digest", train(config, run_dir=place / "run").digest)
mine = place / ("run" if jax.process_index() == 0 else "local")
try:
    train(TrainConfig(**eval((place / "settings").read_text())), run_dir=mine)
except ReproducibilityError as error:
    print("refused", error)
"""


@pytest.mark.long
def test_processes_go_on_together(tmp_path: Path) -> None:
    """A save is over when it is committed, for all; one process alone mends the ledger; and one
    that sees another directory is refused."""
    settings = {
        "seed": 7,
        "steps": 12,
        "checkpoint_every": 4,
        "batch_size": 32,
        "shards": 2,
        "hidden": (8,),
    }
    (tmp_path / "settings").write_text(repr(settings))
    config = TrainConfig(**settings)
    digest = train(config, run_dir=tmp_path / "run").digest
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "00000012")
    train(dataclasses.replace(config, stop_after=4), run_dir=tmp_path / "local")
    with socket.create_server(("127.0.0.1", 0)) as server:
        coordinator = f"127.0.0.1:{server.getsockname()[1]}"
    said = started(
        begun(
            [
                sys.executable,
                "-c",
                TOGETHER,
                str(tmp_path),
                "--processes",
                "2",
                "--process-index",
                str(i),
                "--coordinator",
                coordinator,
            ]
        )
        for i in (0, 1)
    )
    for printed, _ in said:
        assert f"digest {digest}\n" in printed
        assert (
            "refused Cannot use the run directory: expected checkpoints=[4, 8, 12], as" in printed
        )
    assert len(list((tmp_path / "run").glob("damaged-*"))) == 1


def open_mpi(rank: int, number: int) -> dict[str, str]:
    """Return what Open MPI 4 tells the process of a rank, of two."""
    uri = f"{number * 2**12}.0;tcp://127.0.0.1:1"
    return {
        "OMPI_MCA_orte_hnp_uri": uri,
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
    }


def open_mpi_5(rank: int, number: int) -> dict[str, str]:
    """Return what version 5 of it tells, on one machine: no address, but the name of the job."""
    return {
        "PMIX_NAMESPACE": f"prterun-{number}@1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(rank),
    }


def slurm(rank: int, number: int) -> dict[str, str]:
    """Return what SLURM's `srun` tells the process of a rank, of two."""
    return {
        "SLURM_JOB_ID": str(number),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": "0",
    }


def started(processes: Iterable[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    """Wait for processes; return what each printed."""
    processes, said = list(processes), []
    try:
        for process in processes:
            said.append(process.communicate(timeout=300))
            assert process.returncode == 0, said[-1]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return said


def begun(command: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    """Start a process."""
    return subprocess.Popen(
        command,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def free_number() -> int:
    """Return a number of a job for which JAX's port is free."""
    for number in random.SystemRandom().sample(range(2**12), 100):
        with socket.socket() as server:
            if server.connect_ex(("127.0.0.1", 2**16 - 2**12 + number)):
                return number
    raise AssertionError("no port is free")


@pytest.mark.parametrize(
    "cluster",
    [*(pytest.param(mpi, marks=pytest.mark.long) for mpi in (open_mpi, open_mpi_5)), slurm],
)
def test_a_cluster_tells_who_there_is(cluster: Callable[[int, int], dict[str, str]]) -> None:
    """Without settings, two processes find each other by what Open MPI or SLURM tells them."""
    script = (
        "import jax; from reproducibility import Layout, initialize\n"
        "print('found', initialize(), jax.process_index(), Layout.of(1).processes)"
    )
    number = free_number()
    said = started(begun([sys.executable, "-c", script], **cluster(i, number)) for i in (0, 1))
    for rank, (printed, _) in enumerate(said):
        assert f"found 2 {rank} 2\n" in printed


@pytest.mark.long
def test_mpirun_starts_one_run(found: Found, tmp_path: Path) -> None:
    """Started by `mpirun -n 2`, without flags, `train` is one run of two processes: one result,
    the digest of one process."""
    mpirun = [str(shutil.which("mpirun")), "--oversubscribe", "-n", "2"]
    command = [*mpirun, *COMMAND, *TRAIN, str(tmp_path / "run")]
    # As root it wants to be told so twice: in a container everyone is.
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    [(printed, _)] = started([begun(command, **root)])
    digests = re.findall(r"^digest +(\w+)$", printed, re.MULTILINE)
    assert digests == [found("1x1")["train synthetic"]]
    [start, _] = Run.read(tmp_path / "run").attempts()
    assert start["layout"] == {"devices": 1, "processes": 2}


if not shutil.which("mpirun"):  # no test rather than a green one: the list of tests shows it
    del test_mpirun_starts_one_run


@dataclasses.dataclass(frozen=True)
class Device:
    """What a `Layout` knows of a device, where there are not as many."""

    process_index: int
    id: int
    platform: str = "cpu"


def devices_of(processes: int, each: int) -> list[Device]:
    """Return the devices of some processes, in the order of their numbers."""
    return [Device(p, 1000 * p + i) for p in range(processes) for i in range(each)]


@pytest.mark.parametrize("layout", [*LAYOUTS, "8x1", "4x2"])
def test_shards_and_places_are_dealt_out_in_order(
    monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """Each process computes a block of the shards and the same block of the batch; together they
    are all of it, in order, once."""
    processes, each = sizes(layout)
    shards, places = [], []
    for process in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda p=process: p)
        layout_here = Layout(tuple(devices_of(processes, each)))
        assert layout_here.local == tuple(devices_of(processes, each)[process * each :][:each])
        shards += layout_here.shards(8)
        places += range(64)[layout_here.part(64)]
        assert (layout_here.processes, layout_here.single) == (processes, layout == "1x1")
    assert shards == list(range(8))
    assert places == list(range(64))


def test_devices_are_taken_of_each_process_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Layout.of` sorts devices by process, then number, however JAX lists them, and takes as many
    of each process as it is asked for."""
    there = devices_of(4, 4)
    shuffled = random.Random(1).sample(there, len(there))
    monkeypatch.setattr(jax, "devices", lambda: shuffled)
    assert Layout.of().devices == tuple(there)
    assert Layout.of(1).devices == tuple(devices_of(4, 1))
    assert Layout.of(2).devices == tuple(devices_of(4, 2))


def refusal(function: Callable[..., Any], *arguments: Any) -> str:
    """Return the sentence with which a setting is refused."""
    with pytest.raises(ConfigError) as refused:
        function(*arguments)
    return str(refused.value)


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """More devices than a process has, once JAX has begun, is refused and the process named."""
    jax.devices()  # JAX begins
    count = len(jax.local_devices())
    assert refusal(Layout.of, count + 1) == (
        f"Cannot use devices: expected at most the {count} of process 0, got {count + 1}. Ask for "
        "fewer. On the CPU, JAX must not have begun when they are asked for."
    )
    assert refusal(Layout.of, 0) == ("Cannot use devices: expected 1 or more, got 0. Ask for one.")
    monkeypatch.setattr(jax, "devices", lambda: [*devices_of(2, 2), Device(2, 2000)])
    assert refusal(Layout.of, 2).startswith(
        "Cannot use devices: expected at most the 1 of process 2, got 2."
    )


@pytest.mark.parametrize("count", [0, -2, 3, 6, 12])
def test_shards_are_a_power_of_two(count: int) -> None:
    """Another number of shards has no tree of pairs, and is refused."""
    sentence = f"Cannot use shards: expected a power of two, got {count}. Use 1, 2, 4, 8 or 16."
    assert refusal(Layout.of(1).shards, count) == sentence
    assert refusal(lambda: shard_gradients(mlp, shards=count)) == sentence


def test_devices_divide_the_shards_and_the_batch() -> None:
    """Devices that would not get as many shards, or examples, as the others are refused."""
    three, sixteen = Layout(tuple(devices_of(1, 3))), Layout(tuple(devices_of(4, 4)))
    assert refusal(three.shards, 8) == (
        "Cannot use devices: expected in all a divisor of the number of shards, 8, got 1 x 3 = 3. "
        "Use 1, 2, 4, … of them; other shards would be another run."
    )
    assert refusal(sixteen.shards, 8) == (
        "Cannot use devices: expected in all a divisor of the number of shards, 8, got 4 x 4 = 16. "
        "Use 1, 2, 4, … of them; other shards would be another run."
    )
    assert refusal(three.part, 64) == (
        "Cannot use a batch: expected a multiple of the 3 devices, got 64 examples. "
        "Use another size."
    )


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        (np.ones((6, 2)), "6"),
        ((np.ones((8, 2)), np.ones(4)), "4, 8"),
        ((np.ones((8, 2)), np.float32(1)), "0, 8"),
        (np.ones((0, 2)), "0"),
        ((), "none"),
    ],
)
def test_a_batch_is_cut_evenly_or_not_at_all(batch: Any, got: str) -> None:
    """A batch whose arrays cannot be cut into the shards of this process is refused."""
    gradients = shard_gradients(lambda w, x: (w * x[0]).sum(), shards=4)
    assert refusal(gradients, jnp.ones(2), batch) == (
        "Cannot cut a batch: expected a multiple of 4 examples in each array, for the 4 shards of "
        f"this process, got {got}. Give each process its part of the batch: layout.part(size)."
    )


def test_the_command_line_refuses_devices_that_do_not_divide(tmp_path: Path) -> None:
    """`train --devices 3` is refused in that sentence, with exit code 2, and nothing is written."""
    command = [*COMMAND, *TRAIN, str(tmp_path / "run"), "--devices", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr == (
        "Cannot use devices: expected in all a divisor of the number of shards, 8, got 1 x 3 = 3. "
        "Use 1, 2, 4, … of them; other shards would be another run.\n"
    )
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()
