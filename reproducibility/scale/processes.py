"""The processes of a run: they find each other, agree before the first step, and end together.

The rule: what has to be equal on all processes is compared, not hoped for. JAX itself does not
check that its processes run the same program; where they do not, they wait for ever or go wrong.
Chapter: docs/scale/scaling_out.md
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import sys
import traceback
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from reproducibility.errors import (
    ConfigError,
    ExitCode,
    ProcessError,
    ProcessMismatchError,
    ReproducibilityError,
    first_line,
)
from reproducibility.same.hashing import leaf_digests
from reproducibility.scale.lifeline import Lifeline, connect, end_process

DEADLINE = 60.0  # seconds to wait for the other processes to start
AGREEMENT = 600.0  # seconds to wait for the others to come to a comparison
PATIENCE = 3600.0  # seconds to wait for work of process 0; if it dies, the lifeline says so
HEARTBEAT = 60  # seconds after which JAX gives up a machine that has vanished
NEWS_GRACE = 1.0  # seconds in which a death is known, when a sum has failed because of it

_lifeline: Lifeline | None = None
_calls = itertools.count()  # every process makes the same calls in the same order


def initialize(
    *,
    processes: int | None = None,
    process_index: int | None = None,
    coordinator: str | None = None,
    devices: int = 1,
    deadline: float = DEADLINE,
) -> int:
    """Join the other processes of a run, before JAX computes anything.

    Give all three settings, or none: JAX then finds them in what SLURM, Open MPI or Kubernetes
    tell a process. Where there is nothing to find, the run has one process.

    From then on the processes end together: when one is killed or fails, the others say which on
    stderr and end with exit code 4, instead of waiting for it. (A process that ends by `sys.exit`
    is no failure to them: raise an exception instead.)

    **Same bits:** everywhere; it computes nothing.

    Args:
        processes: how many processes there are.
        process_index: which of them this one is, from 0.
        coordinator: "host:port" of process 0, a port that is free there.
        devices: how many GPUs each process takes, where SLURM or Open MPI number the processes of
            a machine; JAX alone would take one.
        deadline: seconds to wait for the others.

    Returns:
        The number of processes.

    Raises:
        ConfigError: the settings do not fit together, or JAX has computed something already.
        ProcessError: a process did not come in time, and is named; or it came twice.
    """
    if processes == 1:
        return 1
    if _lifeline:
        raise ConfigError(
            "start",
            "with several processes",
            expected="to be asked once",
            got="a second time",
            do="Call initialize first, and once.",
        )
    mine = None
    if processes is None and process_index is None and coordinator is None:
        address, count, index, first = _detected(deadline)
        if count == 1:
            return 1
        mine = first and [first[0] * devices + i for i in range(devices)]
    else:
        count, index, address = _checked_settings(processes, process_index, coordinator)
    line = connect(address, index, count, deadline=deadline, ended=end_process)
    try:
        jax.distributed.initialize(
            address,
            count,
            index,
            mine,
            cluster_detection_method="deactivate",
            initialization_timeout=max(1, int(deadline)),
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except RuntimeError as error:
        raise ConfigError(
            "start",
            "with several processes",
            expected="JAX not to have begun",
            got=str(error).partition(". ")[0],
            do="Call initialize first, and once.",
        ) from error
    _stay(line)
    return count


def this_process() -> tuple[int, int]:
    """Return the index of this process and the number of all.

    As `jax.process_index()` and `jax.process_count()`, and without starting JAX's devices, whose
    number could not be chosen any more.
    """
    state = _state()
    return int(state.process_id), int(state.num_processes)


def stop_together(step: int) -> bool:
    """Say whether to stop after this step, because a process was told to: SIGTERM.

    Every process calls it after every step, and gets the same answer.

    Args:
        step: completed updates.
    """
    return bool(multihost_utils.reached_preemption_sync_point(step))


def await_the_cause() -> None:
    """Wait a moment before an error is shown: where another process has died, that is the cause."""
    if _lifeline:
        _lifeline.await_the_cause(NEWS_GRACE)


def end_together(error: BaseException, code: int) -> None:
    """End this process and, with it, the others; return where there are none.

    Args:
        error: why, for the others; this process has said it.
        code: the exit code of all.
    """
    if _lifeline:
        if isinstance(error, ProcessMismatchError):  # raised in all, which say it themselves
            _lifeline.close(last=True)
        else:
            ours = isinstance(error, ReproducibilityError)
            told = str(error) if ours else traceback.format_exception_only(error)[-1].strip()
            _lifeline.fail(told, code)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # JAX would wait for the others to end with it


def ticket() -> int:
    """Return the number of a message between the processes.

    Every process takes its tickets in the same order, in its main thread.
    """
    return next(_calls)


def on_first[T](
    work: Callable[[], T], *, deadline: float = PATIENCE, number: int | None = None
) -> T:
    """Do something in process 0 alone, and return in all when it is done.

    Every process calls it, in the same order.

    **Same bits:** what process 0 has, as JSON.

    Args:
        work: what to do; returns a JSON value.
        deadline: seconds that the others wait.
        number: a `ticket` taken before, where a thread calls this.

    Returns:
        What `work` returned in process 0, as JSON reads it back.

    Raises:
        ProcessError: in the others, when it failed in process 0, or took too long.
    """
    index, count = this_process()
    if count == 1:
        return work()
    name = f"reproducibility/{ticket() if number is None else number}"
    if index == 0:
        try:
            text = json.dumps({"value": work()})
        except BaseException as error:  # the others wait for it, whatever it is
            _state().client.key_value_set(name, json.dumps({"failed": str(error)}))
            raise
        _state().client.key_value_set(name, text)
    else:
        text = _get(name, 0, deadline)
    answer = json.loads(text)
    if "failed" in answer:
        raise ProcessError(
            "go on",
            "with process 0",
            expected="its part done",
            got=answer["failed"].rstrip("."),
            do="Mend that there.",
        )
    value: T = answer["value"]
    return value


def assert_same_on_all_processes(tree: PyTree, *, thing: str = "a tree") -> None:
    """Check that a tree has the same leaves, bit for bit, on all processes.

    What is computed once for all (parameters, the order of the data, a key that enters a program
    of all processes) has to be. Every process calls it, in the same order.

    **Same bits:** this is what it says.

    Args:
        tree: as for `tree_digest`.
        thing: what the message calls it.

    Raises:
        ProcessMismatchError: on every process, naming the first leaf and process that differ.
        ProcessError: a process did not call it in time.

    Examples:
        >>> assert_same_on_all_processes({"w": jax.numpy.ones(3)})
    """
    assert_same_facts(leaf_digests(tree), thing=thing)


def assert_same_facts(
    facts: Mapping[str, Any],
    *,
    thing: str,
    do: str = "Start all processes with the same versions and settings.",
) -> None:
    """Do what `assert_same_on_all_processes` does, with JSON values by name.

    **Same bits:** everywhere.

    Args:
        facts: the values.
        thing: what the message calls them.
        do: what to do if they differ.

    Raises:
        ProcessMismatchError: on every process, naming the first value and process that differ.
        ProcessError: a process did not call it.
    """
    index, count = this_process()
    if count == 1:
        return
    name = f"reproducibility/{ticket()}"
    if index:
        _state().client.key_value_set(f"{name}/{index}", json.dumps(facts))

    def judge() -> list[str]:
        ours = json.loads(json.dumps(facts))
        for process in range(1, count):
            theirs = json.loads(_get(f"{name}/{process}", process, AGREEMENT))
            for each in ours | theirs:  # in the order in which they were given
                one, other = (_fact(side, each) for side in (ours, theirs))
                if one != other:
                    return [f"{one}, as process 0 has", f"{other} on process {process}"]
        return []

    verdict = on_first(judge)
    if verdict:
        raise ProcessMismatchError("use", thing, expected=verdict[0], got=verdict[1], do=do)


def _checked_settings(
    processes: int | None, process_index: int | None, coordinator: str | None
) -> tuple[int, int, str]:
    """Refuse settings of processes that do not fit together."""
    if processes is None or process_index is None or coordinator is None:
        names = ("--processes", "--process-index", "--coordinator")
        values = (processes, process_index, coordinator)
        given = ", ".join(n for n, v in zip(names, values, strict=True) if v is not None)
        raise ConfigError(
            "start",
            "with several processes",
            expected=", ".join(names),
            got=f"only {given}",
            do="Give all three, or none where SLURM, Open MPI or Kubernetes tell.",
        )
    if not 0 <= process_index < processes:
        raise ConfigError(
            "use",
            "--process-index",
            expected=f"0 to {processes - 1}, of {processes} processes",
            got=process_index,
            do="Number the processes from 0.",
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigError(
            "use",
            "--coordinator",
            expected="host:port of process 0",
            got=repr(coordinator),
            do="For example 10.0.0.1:9876, a free port.",
        )
    return processes, process_index, coordinator


def _detected(deadline: float) -> tuple[str, int, int, Any]:
    """Let JAX find out from its surroundings where to meet and which process this is.

    It has no public name for that alone, and `jax.distributed.initialize` would go on at once to
    wait for the others, without naming who lacks.
    """
    from jax._src.clusters import ClusterEnv

    find: Any = ClusterEnv.auto_detect_unset_distributed_params
    try:
        address, count, index, first = find(None, None, None, None, None, int(deadline))
    except (RuntimeError, OSError) as error:
        problem = first_line(error)
    else:
        told = os.environ.get
        size = told("OMPI_COMM_WORLD_SIZE", "1")
        if count is not None:
            return told("JAX_COORDINATOR_ADDRESS", address), count, index, first
        if size == "1":
            return "", 1, 0, None
        if told("OMPI_COMM_WORLD_LOCAL_SIZE") == size and "PMIX_NAMESPACE" in os.environ:
            # Open MPI 5 on one machine, which JAX does not know: a port that belongs to the job.
            port = 61440 + zlib.crc32(os.environ["PMIX_NAMESPACE"].encode()) % 4096
            index = int(os.environ["OMPI_COMM_WORLD_RANK"])
            return f"127.0.0.1:{port}", int(size), index, [index]
        problem = f"Open MPI with {size} processes and no word on where they meet, as version 5"
    raise ConfigError(
        "find",
        "the other processes",
        expected="what JAX can read from its surroundings",
        got=problem,
        do="Give --processes, --process-index and --coordinator; or --processes 1.",
    )


def _stay(line: Lifeline) -> None:
    """Keep the connection to the others, and tell them how this process ends."""
    global _lifeline
    _lifeline = line
    atexit.register(line.close)  # runs before JAX's own, which waits for all
    show = sys.excepthook

    def tell(kind: type[BaseException], value: BaseException, frames: Any) -> None:
        await_the_cause()
        show(kind, value, frames)
        end_together(value, ExitCode.FAILED)

    sys.excepthook = tell


def _state() -> Any:
    """Return what JAX knows of the processes, and its client for messages between them.

    The client has no public name; Orbax uses the same. Programs over all devices, such as
    `multihost_utils.broadcast_one_to_all`, would do for messages, and have no deadline.
    """
    from jax._src.distributed import global_state

    return global_state


def _get(name: str, process: int, deadline: float) -> str:
    """Wait for a message of another process."""
    try:
        text: str = _state().client.blocking_key_value_get(name, int(deadline * 1000))
    except RuntimeError as error:  # JAX's own class of errors is one
        raise ProcessError(
            "go on",
            "with all processes",
            expected=f"process {process} within {deadline:g} s",
            got="nothing of it",
            do="Every process must make the same calls in the same order.",
        ) from error
    return text


def _fact(facts: Mapping[str, Any], name: str) -> str:
    return f"{name}={facts[name]!r}" if name in facts else f"no {name}"
