"""What the processes of a run agree on: what has to be equal, what process 0 did, when to stop.

The rule: what has to be equal on all processes is compared, not hoped for. JAX itself does not
check that its processes run the same program; where they do not, they wait for ever or go wrong.
Chapter: docs/scale/scaling_out.md
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax  # noqa: F401, for a part of it alone would not wait for a thread that imports it
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from reproducibility.errors import ProcessError, ProcessMismatchError
from reproducibility.same.hashing import leaf_digests
from reproducibility.scale.start import message_client, this_process

AGREEMENT = 600.0  # seconds to wait for the others to come to a comparison
PATIENCE = 3600.0  # seconds to wait for work of process 0; if it dies, the lifeline says so

_calls = itertools.count()  # every process makes the same calls in the same order


def stop_together(step: int) -> bool:
    """Say whether to stop after this step, because a process was told to: SIGTERM.

    Every process calls it after every step, and gets the same answer.

    Args:
        step: completed updates.
    """
    return bool(multihost_utils.reached_preemption_sync_point(step))


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
            message_client().key_value_set(name, json.dumps({"failed": str(error)}))
            raise
        message_client().key_value_set(name, text)
    else:
        text = _message(name, 0, deadline)
    answer = json.loads(text)
    if "failed" in answer:
        got = answer["failed"].rstrip(".")
        raise _cannot_go_on("with process 0", "its part done", got, do="Mend that there.")
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
        >>> import jax.numpy as jnp
        >>> from reproducibility import assert_same_on_all_processes
        >>> assert_same_on_all_processes({"w": jnp.ones(3)})
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
        message_client().key_value_set(f"{name}/{index}", json.dumps(facts))

    def first_mismatch() -> list[str]:
        ours = json.loads(json.dumps(facts))
        for process in range(1, count):
            theirs = json.loads(_message(f"{name}/{process}", process, AGREEMENT))
            for each in ours | theirs:  # in the order in which they were given
                one, other = (_fact(side, each) for side in (ours, theirs))
                if one != other:
                    return [f"{one}, as process 0 has", f"{other} on process {process}"]
        return []

    mismatch = on_first(first_mismatch)
    if mismatch:
        raise ProcessMismatchError("use", thing, expected=mismatch[0], got=mismatch[1], do=do)


def _message(name: str, process: int, deadline: float) -> str:
    """Wait for a message of another process."""
    try:
        text: str = message_client().blocking_key_value_get(name, int(deadline * 1000))
    except RuntimeError as error:  # JAX's own class of errors is one
        expected = f"process {process} within {deadline:g} s"
        do = "Every process must make the same calls in the same order."
        raise _cannot_go_on("with all processes", expected, "nothing of it", do=do) from error
    return text


def _fact(facts: Mapping[str, Any], name: str) -> str:
    return f"{name}={facts[name]!r}" if name in facts else f"no {name}"


def _cannot_go_on(thing: str, expected: str, got: str, *, do: str) -> ProcessError:
    return ProcessError("go on", thing, expected=expected, got=got, do=do)
