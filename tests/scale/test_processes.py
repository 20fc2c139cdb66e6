"""Promises of `reproducibility.scale.processes`, in processes of JAX that know each other."""

import contextlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from reproducibility import ConfigError, ProcessError, assert_same_on_all_processes, initialize
from reproducibility.scale.processes import assert_same_facts, end_together, on_first, this_process
from tests.scale.test_lifeline import free_address

ROOT = Path(__file__).parents[2]

LONG = 240  # seconds; a process that takes longer is stuck
SMALL = ["--batch-size", "32", "--shards", "2", "--hidden", "8", "--steps", "4"]

# Every script begins so: it knows which process it is, and prints what it is to tell as JSON.
BEGIN = """
import argparse, json, os, signal, sys, time
options = argparse.ArgumentParser()
options.add_argument("--processes", type=int)
options.add_argument("--process-index", type=int)
options.add_argument("--coordinator")
asked = vars(options.parse_args())
index = asked["process_index"]

def tell(**found):
    print(json.dumps(found), flush=True)

def error(work):
    try:
        work()
    except Exception as error:
        return [type(error).__name__, str(error).partition(chr(10))[0]]
"""

# Goes through all calls once. A process that got out of step would not come to the end.
TOGETHER = """
import atexit
index or atexit.register(time.sleep, 4)  # after all else: the other ends meanwhile
import jax, jax.numpy as jnp
from reproducibility.scale import processes
from reproducibility import assert_same_on_all_processes, initialize
from reproducibility.scale.processes import assert_same_facts, this_process, on_first, stop_together

tell(joined=[initialize(**asked), *this_process()])
jax.config.update("jax_num_cpu_devices", 3)  # refused where `here` has started JAX
tell(devices=[jax.process_index(), jax.process_count(), jax.local_device_count()])

def fail():
    raise OSError(f"No room on {index}.")

def wait():
    while not os.path.exists("late"):
        time.sleep(0.01)

tell(values=[on_first(lambda: [index, "größer"]), on_first(lambda: None)])
tell(failed=error(lambda: on_first(fail)))
tell(no_json=error(lambda: on_first(object, deadline=10)))
tell(late=error(lambda: on_first(wait, deadline=0.2)))
open("late", "w").close()

w = jnp.arange(3)
tell(same=error(lambda: assert_same_on_all_processes({"w": w, "b": [w, w]})))
tell(leaf=error(lambda: assert_same_on_all_processes({"w": w, "b": [w, w + index]})))
tell(more=error(lambda: assert_same_on_all_processes({"w": w} | ({"v": w} if index else {}))))
tell(less=error(lambda: assert_same_on_all_processes({"w": w} | ({} if index else {"v": w}))))
tell(thing=error(lambda: assert_same_on_all_processes({"w": w * index}, thing="params")))

def facts(**different):
    return error(lambda: assert_same_facts({"hidden": (8, 4), "rate": float("nan"), **different},
                                           thing="these settings"))

tell(facts=facts(), fact=facts(seed=index, zeal=index))
for step in range(1, 10_000):
    if step == 5 and index == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    if stop_together(step):
        break
    time.sleep(0.01)
tell(stopped=step, still=on_first(lambda: index))
processes.AGREEMENT = 0.3
tell(absent=None if index else facts())
"""

UNCAUGHT = """
from reproducibility import initialize
from reproducibility.scale.processes import on_first
initialize(**asked)
if index == 1:
    raise RuntimeError("Too hot.")
on_first(lambda: time.sleep(600))  # one works, the other waits for it
"""

BEGUN = """
import jax.numpy as jnp
from reproducibility import initialize
jnp.ones(3).block_until_ready()
tell(begun=error(lambda: initialize(**asked)))
"""

TRAIN = """
from importlib import metadata
from reproducibility import TrainConfig, initialize, train

def refused(place="run", **settings):
    small = {"seed": 7, "steps": 4, "batch_size": 32, "shards": 2, "hidden": (8,), **settings}
    return error(lambda: train(TrainConfig(**small), run_dir=place))

initialize(**asked)
tell(seed=refused(seed=7 + index), cadence=refused(checkpoint_every=2 + index))
tell(flag=refused())
version = metadata.version
if index:
    metadata.version = lambda name: "0.0.1" if name == "jax" else version(name)
tell(version=refused())
tell(written=os.path.exists("run"))
"""

CLI = """
from reproducibility.cli import main
which = [f"--{name}={value}".replace("_", "-") for name, value in asked.items()]
main(["train", "--run-dir", "run", "--seed", str(7 + index), *SMALL, *which])
"""

Ended = tuple[int, dict[str, Any], str]


def start(
    script: str, count: int, folder: Path, *, env: dict[int, dict[str, str]] | None = None
) -> list[Ended]:
    """Run a script in several processes: the code, what was told and stderr of each."""
    address, children = free_address(), []
    with contextlib.ExitStack() as stack:
        for index in range(count):
            which = ["--processes", str(count), "--process-index", str(index)]
            child = subprocess.Popen(
                [sys.executable, "-c", BEGIN + script, *which, "--coordinator", address],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {}).get(index, {})},
            )
            children.append(stack.enter_context(child))
            stack.callback(child.kill)
        read = [
            stack.enter_context(ThreadPoolExecutor(1)).submit(child.communicate, timeout=LONG)
            for child in children
        ]
        said = [each.result() for each in read]
    lines = [
        [line for line in out.splitlines() if line[:1] == "{"] for out, _ in said
    ]  # not Gloo's
    told = [dict(i for line in each for i in json.loads(line).items()) for each in lines]
    return [(c.returncode, t, err) for c, t, (_, err) in zip(children, told, said, strict=True)]


def test_one_process_needs_nobody() -> None:
    """Asked for one process, and where there is one, everything is done here, at once."""
    assert initialize(processes=1) == 1
    assert initialize(processes=1, process_index=0, coordinator="nowhere:1") == 1
    assert this_process() == (0, 1)
    end_together("There is nobody to tell.", 9)
    assert_same_on_all_processes({"w": jnp.ones(3)})
    assert_same_facts({"seed": 1}, thing="these settings")
    value = object()
    assert on_first(lambda: value) is value
    with pytest.raises(ZeroDivisionError):
        on_first(lambda: 1 // 0)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "processes alone": (
        {"processes": 2},
        "Cannot start with several processes: expected --processes, --process-index, "
        "--coordinator, got only --processes. Give all three",
    ),
    "an index alone": ({"process_index": 0}, "got only --process-index. "),
    "a coordinator alone": ({"coordinator": "a:1"}, "got only --coordinator. "),
    "no coordinator": (
        {"processes": 2, "process_index": 0},
        "got only --processes, --process-index. ",
    ),
    "no number": (
        {"process_index": 0, "coordinator": "a:1"},
        "got only --process-index, --coordinator. ",
    ),
    "an index too high": (
        {"processes": 2, "process_index": 2, "coordinator": "a:1"},
        "Cannot use --process-index: expected 0 to 1, of 2 processes, got 2. Number the",
    ),
    "an index below 0": (
        {"processes": 2, "process_index": -1, "coordinator": "a:1"},
        "expected 0 to 1, of 2 processes, got -1. ",
    ),
    "no processes": (
        {"processes": 0, "process_index": 0, "coordinator": "a:1"},
        "of 0 processes, got 0. ",
    ),
    "processes below 0": (
        {"processes": -2, "process_index": 0, "coordinator": "a:1"},
        "of -2 processes, got 0. ",
    ),
}
NO_ADDRESS = [
    "",
    "here",
    "here:",
    ":9876",
    "here:0",
    "here:65536",
    "here:-1",
    "here:http",
    "here:²",
    "here:1.5",
    "9876",
    "http://here",
]


@pytest.mark.parametrize("what", REFUSED)
def test_settings_that_do_not_fit(what: str) -> None:
    """Settings that say too little, or a number there is not, are refused by name."""
    settings, said = REFUSED[what]
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        initialize(**settings, deadline=0.2)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("address", NO_ADDRESS)
def test_an_address_that_is_none(address: str) -> None:
    """A coordinator that is not host and port is refused, with an example of one."""
    said = f"Cannot use --coordinator: expected host:port of process 0, got {address!r}. For exam"
    with pytest.raises(ConfigError, match=re.escape(said)):
        initialize(processes=2, process_index=1, coordinator=address, deadline=0.2)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1"])
def test_nobody_there(address: str) -> None:
    """An address where nobody is gives a sentence in time, before JAX is asked for anything."""
    said = f"Cannot reach process 0 at {address.replace('[', '').replace(']', '')}: expected"
    with pytest.raises(ProcessError, match=re.escape(said)):
        initialize(processes=2, process_index=1, coordinator=address, deadline=0.2)
    assert this_process() == (0, 1)


def test_nothing_to_find_is_one_process(tmp_path: Path) -> None:
    """Without settings, and with nothing that tells of others, there is one process.

    Also where JAX has computed something already, as in a notebook. An Open MPI that does not say
    where to meet is refused, and not taken for many runs of one process.
    """
    script = """
import jax.numpy as jnp
from reproducibility import initialize
from reproducibility.scale.processes import this_process
tell(mpi=error(initialize))
del os.environ["OMPI_COMM_WORLD_SIZE"]
tell(alone=[initialize(), *this_process()])
jnp.ones(3).block_until_ready()
tell(begun=error(initialize))
"""
    ((code, told, err),) = start(script, 1, tmp_path, env={0: {"OMPI_COMM_WORLD_SIZE": "2"}})
    assert code == 0, err
    kind, said = told["mpi"]
    assert kind == "ConfigError"
    assert said.startswith(
        "Cannot find the other processes: expected what JAX can read from its surroundings, got "
        "Open MPI with 2 processes and no word on where they meet"
    )
    assert told["alone"] == [1, 0, 1]
    assert told["begun"] is None


def test_what_processes_do_together(tmp_path: Path) -> None:
    """Two processes know each other, agree, differ, fail and stop, and each says the same."""
    (code, first, err), (other_code, other, other_err) = start(TOGETHER, 2, tmp_path)
    assert (code, other_code) == (0, 0), err + other_err
    assert (first["joined"], other["joined"]) == ([2, 0, 2], [2, 1, 2])
    assert (first["devices"], other["devices"]) == ([0, 2, 3], [1, 2, 3])

    # What process 0 did, and what became of it, is known to both.
    assert first["values"] == other["values"] == [[0, "größer"], None]
    assert first["failed"] == ["OSError", "No room on 0."]
    assert other["failed"] == [
        "ProcessError",
        "Cannot go on with process 0: expected its part done, got No room on 0. Mend that there.",
    ]
    assert first["no_json"][0] == "TypeError"
    assert "got Object of type object is not JSON serializable" in other["no_json"][1]
    assert first["late"] is None
    assert other["late"][0] == "ProcessError"
    assert "expected process 0 within 0.2 s, got nothing of it." in other["late"][1]

    # What differs is named on both, with the process that has it.
    assert (first["same"], first["facts"]) == (other["same"], other["facts"]) == (None, None)
    digest = "'[0-9a-f]{64}'"
    for name, said in {
        "leaf": rf"use a tree: expected b\[1\]={digest}, as process 0 has, got b\[1\]={digest} on",
        "more": rf"use a tree: expected no v, as process 0 has, got v={digest} on",
        "less": rf"use a tree: expected v={digest}, as process 0 has, got no v on",
        "thing": rf"use params: expected w={digest}, as process 0 has, got w={digest} on",
        "fact": "use these settings: expected seed=0, as process 0 has, got seed=1 on",
    }.items():
        kind, sentence = first[name]
        assert [kind, sentence] == other[name]
        assert kind == "ProcessMismatchError"
        assert re.fullmatch(f"Cannot {said} process 1. Start all .* settings.", sentence)

    assert first["stopped"] == other["stopped"]
    assert 5 <= first["stopped"] < 9_999
    assert (first["still"], other["still"]) == (0, 0)

    # Who does not make the same call is not waited for.
    kind, sentence = first["absent"]
    assert kind == "ProcessError"
    assert "expected process 1 within 0.3 s, got nothing of it." in sentence


def test_an_uncaught_exception_ends_all(tmp_path: Path) -> None:
    """A process that fails says so with its traceback; the others, at work or waiting, name it."""
    first, failed, last = start(UNCAUGHT, 3, tmp_path)
    assert failed[0] != 0
    assert failed[2].startswith("Traceback")
    assert failed[2].endswith("RuntimeError: Too hot.\n")
    said = "Process 1 ended: RuntimeError: Too hot.\n"
    assert [first[0], last[0]] == [4, 4]
    assert [first[2], last[2]] == [said, said]


def test_jax_has_begun(tmp_path: Path) -> None:
    """After JAX has computed something it is too late to join others, and that is what is said."""
    for code, told, err in start(BEGUN, 2, tmp_path):
        assert code == 0, err
        kind, said = told["begun"]
        assert kind == "ConfigError"
        assert said.startswith(
            "Cannot start with several processes: expected JAX not to have begun, got "
            "jax.distributed.initialize() must be called before any JAX calls"
        )
        assert said.endswith("Call initialize first, and once.")


@pytest.mark.long
def test_a_training_is_the_same_everywhere(tmp_path: Path) -> None:
    """Another seed, cadence, version or flag on one process is named on all.

    Nothing is written then.
    """
    flags = {1: {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}}
    ended = start(TRAIN, 2, tmp_path, env={0: {"XLA_FLAGS": ""}, **flags})
    for code, told, err in ended:
        assert code == 0, err
        said = {name: each[1] for name, each in told.items() if name != "written"}
        assert "expected seed=7, as process 0 has, got seed=8 on process 1." in said["seed"]
        assert (
            "expected checkpoint_every=2, as process 0 has, got checkpoint_every=3 on"
            in said["cadence"]
        )
        flag = "xla_flags.xla_cpu_enable_fast_math"
        assert f"expected no {flag}, as process 0 has, got {flag}='true' on" in said["flag"]
        version = re.escape(metadata.version("jax"))
        assert re.search(
            f"expected version.jax='{version}', as process 0 has, got version.jax='0.0.1' on",
            said["version"],
        )
        assert not told["written"]


@pytest.mark.long
def test_the_command_line_refuses_it_on_all(tmp_path: Path) -> None:
    """Processes that are started with different settings all say which, and end with code 2."""
    said = (
        "Cannot use these settings: expected seed=7, as process 0 has, got seed=8 on process 1. "
        "Start all processes with the same versions and settings."
    )
    for code, told, err in start(f"SMALL = {SMALL}\n{CLI}", 2, tmp_path):
        assert (code, told) == (2, {})
        assert said in err
        assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
