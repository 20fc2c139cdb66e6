"""A function returns the same bits twice in this process, and once in a fresh one.

The rule: what a process has set up is no part of a result.
Chapter: docs/guide/testing_your_code.md
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax  # noqa: F401, for a part of it alone would not wait for a thread that imports it
from jaxtyping import PyTree

from reproducibility.machine.environment import capture_environment, environment_differences
from reproducibility.testing.equal import Account, account_of, copy_of, state_difference
from reproducibility.testing.fresh import (
    Where,
    answer_of,
    asking_fresh_process,
    find_function,
    importable,
)


def assert_reproducible(fn: Callable[[], PyTree], *, timeout: float = 120) -> None:
    """Fail unless a function returns the same bits twice here and once in a fresh process.

    The fresh process is this Python with these environment variables, another `PYTHONHASHSEED`,
    and nothing else of what this process has set up: no compiled programs, no `jax.config` that
    your code changed, no globals. It imports the function's file by name where this process's
    `sys.path` leads to it, by path otherwise, and hands back digests as JSON.

    **Same bits:** that is what is tested: on this machine, in these two processes.

    Args:
        fn: takes nothing, returns any pytree that has a digest. A function at module level of a
            file, so that another process finds it; not a lambda, not one inside another.
        timeout: seconds after which the fresh process is killed.

    Raises:
        AssertionError: the results differ, *within this process* or *in a fresh process*; in the
            second case with the settings that differ between the two, as possible explanations.
            Or nothing was returned that could differ; or the fresh process failed or took too long.
        LeafError: the function returned something that has no digest.
        ValueError: another process could not find this function.

    Examples:
        >>> import jax.numpy as jnp
        >>> from reproducibility.testing import assert_reproducible
        >>> assert_reproducible(lambda: jnp.zeros(3))
        Traceback (most recent call last):
        ValueError: Cannot call <lambda> in a fresh process: expected a function at module level \
of a file, got one that no import finds. Define it with def in a file, and test it in a test \
function.
    """
    where = importable(fn)
    result = fn()
    # Now: the second call may write into the result.
    ours, first = account_of(result), copy_of(result)
    if not ours.record:
        raise AssertionError(f"{fn.__qualname__} returned no array: there is nothing to compare.")
    if found := state_difference(first, fn()):
        raise AssertionError(f"Not reproducible within this process: {found}")
    failed = "Not reproducible in a fresh process"
    with asking_fresh_process(failed, f"{__name__}:call_once", where) as asked:
        written, environment = answer_of(asked, timeout)
    if found := ours.difference(Account.from_json(written)):
        why = [
            f"  {d.name}: {d.a} here, {d.b} there. {d.why}"
            for d in environment_differences(capture_environment(), environment)
            if d.effect != "not known to change bits"
        ]
        about = "The processes differ in (PYTHONHASHSEED on purpose):"
        raise AssertionError("\n".join([f"{failed}: {found}", about, *why]))


def call_once(where: Where) -> list[Any]:
    """Call a function in the fresh process; return what came of it, and the environment."""
    return [account_of(find_function(where)()).to_json(), capture_environment()]
