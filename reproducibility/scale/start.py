"""A process joins the others of its run before JAX starts, and they end together.

The rule: a process is one of several from `initialize` to its end. A process that does not come is
named; how one ends, by an exception as well, the others are told.
Chapter: docs/scale/scaling_out.md

This is the only file of a run that makes JAX one of several processes, and asks it which.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import traceback
import zlib
from typing import Any

import jax

from reproducibility.errors import (
    ConfigError,
    ExitCode,
    ProcessMismatchError,
    ReproducibilityError,
    first_line,
)
from reproducibility.scale.lifeline import Lifeline, connect, end_process

DEADLINE = 60.0  # seconds to wait for the other processes to start
HEARTBEAT = 60  # seconds after which JAX gives up a machine that has vanished
NEWS_GRACE = 1.0  # seconds in which a death is known, when a sum has failed because of it

_lifeline: Lifeline | None = None


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
        raise _cannot_start("to be asked once", "a second time")
    local_ids = None
    if processes is None and process_index is None and coordinator is None:
        address, count, index, first = _detected(deadline)
        local_ids = first and [first[0] * devices + i for i in range(devices)]
    else:
        count, index, address = _checked_settings(processes, process_index, coordinator)
    if count == 1:
        return 1
    line = connect(address, index, count, deadline=deadline, ended=end_process)
    try:
        jax.distributed.initialize(
            address,
            count,
            index,
            local_ids,
            cluster_detection_method="deactivate",
            initialization_timeout=max(1, int(deadline)),
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except RuntimeError as error:
        raise _cannot_start("JAX not to have begun", str(error).partition(". ")[0]) from error
    _hook_the_end(line)
    return count


def this_process() -> tuple[int, int]:
    """Return the index of this process and the number of all.

    As `jax.process_index()` and `jax.process_count()`, and without starting JAX's devices, whose
    number could not be chosen any more.
    """
    state = _jax_state()
    return int(state.process_id), int(state.num_processes)


def message_client() -> Any:
    """Return JAX's client for messages between the processes.

    It has no public name; Orbax uses the same. Programs over all devices, such as
    `multihost_utils.broadcast_one_to_all`, would do for messages, and have no deadline.
    """
    return _jax_state().client


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
            reason = str(error) if ours else traceback.format_exception_only(error)[-1].strip()
            _lifeline.fail(reason, code)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # JAX would wait for the others to end with it


def _checked_settings(
    processes: int | None, process_index: int | None, coordinator: str | None
) -> tuple[int, int, str]:
    """Refuse settings of processes that do not fit together."""
    if processes is None or process_index is None or coordinator is None:
        names = ("--processes", "--process-index", "--coordinator")
        values = (processes, process_index, coordinator)
        given = ", ".join(n for n, v in zip(names, values, strict=True) if v is not None)
        do = "Give all three, or none where SLURM, Open MPI or Kubernetes tell."
        raise _cannot_start(", ".join(names), f"only {given}", do=do)
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
    """Let JAX find out from its surroundings where process 0 is and which process this is.

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
        variable = os.environ.get
        size = variable("OMPI_COMM_WORLD_SIZE", "1")
        if count is not None:
            return variable("JAX_COORDINATOR_ADDRESS", address), count, index, first
        if size == "1":
            return "", 1, 0, None
        if variable("OMPI_COMM_WORLD_LOCAL_SIZE") == size and "PMIX_NAMESPACE" in os.environ:
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


def _hook_the_end(line: Lifeline) -> None:
    """Keep the connection to the others, and tell them by it how this process ends.

    Python calls `sys.excepthook` with an exception that nothing has caught: there is no other way
    to hear of it in a script that somebody else wrote.
    """
    global _lifeline
    _lifeline = line
    atexit.register(line.close)  # runs before JAX's own, which waits for all
    show = sys.excepthook

    def show_and_end(kind: type[BaseException], value: BaseException, frames: Any) -> None:
        await_the_cause()
        show(kind, value, frames)
        end_together(value, ExitCode.FAILED)

    sys.excepthook = show_and_end


def _jax_state() -> Any:
    from jax._src.distributed import global_state

    return global_state


def _cannot_start(
    expected: str, got: str, *, do: str = "Call initialize first, and once."
) -> ConfigError:
    return ConfigError("start", "with several processes", expected=expected, got=got, do=do)
