"""Promises of `reproducibility.scale.start`, in processes of JAX that know each other."""

import contextlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from reproducibility import ConfigError, ProcessError, Run, assert_same_on_all_processes, initialize
from reproducibility.scale.agree import assert_same_facts, on_first
from reproducibility.scale.start import end_together, this_process
from tests.scale.conftest import COMMAND, TRAIN, Found, begun, started
from tests.scale.test_lifeline import free_address

ROOT = Path(__file__).parents[2]
LONG = 240  # seconds; a process that takes longer is stuck
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
UNCAUGHT = """
from reproducibility import initialize
from reproducibility.scale.agree import on_first
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
from reproducibility.scale.start import this_process
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
