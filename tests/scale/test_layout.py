"""Promises of `reproducibility.scale.layout`: one digest, whatever the devices and processes.

What depends on a layout is computed in processes of their own, by tests/layouts.py: on each layout
once, for all tests. They have a deadline, and end when the process that runs the tests does.
"""

import dataclasses
import hashlib
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from reproducibility import (
    IdentityMismatchError,
    Layout,
    Run,
    TrainConfig,
    check,
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
    mlp,
    numbers,
)
from tests.layouts import QUICK as QUICK_SIZES
from tests.scale.conftest import (
    COMMAND,
    LAYOUTS,
    TRAIN,
    Found,
    begun,
    each,
    refusal,
    sizes,
    started,
)

pytestmark = pytest.mark.timeout(900)  # the first to ask for a layout waits until it is computed


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


def test_what_moves_keeps_its_bits(found: Found) -> None:
    """`replicate` and `each` give what one device has, for keys and arrays of NumPy and of JAX;
    memory that was given away is used again."""
    here = found("1x1")
    x = numbers(20, 8, 3)
    forms = {"numpy": x, "jax": x, "key": root_key(3), "scalar": np.float32(2.5), "last": x}
    assert here["replicate"] == tree_digest(forms)
    assert here["memory is used again"] is True


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
