"""A resumed loop ends with the bits of one that never stopped, and each part of its state counts.

The rule: after a real checkpoint; and see the proof fail once for each part that is forgotten.
Chapter: docs/guide/testing_your_code.md
"""

from __future__ import annotations

import inspect
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
from jaxtyping import PyTree

from reproducibility.same.leaves import is_key, leaves_by_name, named_leaves, path_string
from reproducibility.same.state import State, state_of, with_leaves
from reproducibility.storage.generators import is_of_generator
from reproducibility.testing.equal import (
    Account,
    account_of,
    copy_of,
    state_difference,
    tree_difference,
)
from reproducibility.testing.fresh import (
    Where,
    answer_of,
    asking_fresh_process,
    find_function,
    importable,
)

_OTHER_STATE = "Saved after {stop} updates, the checkpoint gave back another state: {found}"


def assert_resumable(
    advance: Callable[[PyTree, int], PyTree],
    start: PyTree | Callable[[], PyTree],
    *,
    steps: int = 6,
    stop: int = 3,
    fresh_process: bool = False,
    timeout: float = 120,
) -> None:
    """Fail unless resuming from a checkpoint gives the state of never having stopped.

    Compared are the bits of all leaves, and what the tree is beside them: static data, weak types,
    and which names lead to one object. What the checkpoint gives back is compared with what was
    saved, and the end of the resumed run with that of the uninterrupted one.

    Then this test is tested. For each top-level part of the state it pretends that the resume
    forgot that part: its leaves get their values from `start`. Typed keys are a part of their own
    wherever they stand, and are exchanged for others if they never change. The end must then be
    another; and if keys were forgotten, in more than those keys, since a chain of keys from which
    nobody draws ends elsewhere too. What never changes and is no key cannot be lost, and is
    skipped.

    With `fresh_process=True` the uninterrupted run, the part before the stop and the part after it
    are three processes, as when a run is really interrupted. What a process keeps in memory (a
    global, a cache, a statistic that is fitted once, Python's `hash`) does not come along. It takes
    about as long as starting your program three times, twice of it at once.

    **Same bits:** that is what is tested: through a checkpoint on this disk, in this process, or in
    three on this machine.

    Args:
        advance: `advance(state, n)` returns the state after `n` more updates. It may donate or
            overwrite its argument: it is given copies, in which what is one object is one object.
        start: the state before the first update: any pytree of arrays and typed keys; or a function
            that makes it, which is called instead of copying.
        steps: how many updates the uninterrupted run has.
        stop: after how many of them the other one is saved and restored, 0 < stop < steps.
        fresh_process: save in one process and resume in another. `advance` and `start` are then
            functions at module level of a file, so that other processes find them.
        timeout: seconds after which a fresh process is killed.

    Raises:
        AssertionError: the restored or the resumed state differs, at the leaf that is named; or
            nothing depends on some part, or no part could be forgotten: then the test could not
            have failed. Or `advance` changed `start` itself, or a fresh process failed.
        CheckpointMismatchError: the state after `stop` updates is no state that a program which
            begins with `start` could read.
        LeafError: a leaf of the state is no array, or its copies on several devices differ.
        ValueError: `stop` is not between 0 and `steps`, or another process could not find a
            function.

    Examples:
        >>> import jax.numpy as jnp
        >>> from reproducibility import root_key
        >>> from reproducibility.testing import assert_resumable
        >>> def advance(state, n):
        ...     for _ in range(n):
        ...         state = {**state, "w": state["w"] + 1.0}
        ...     return state
        >>> assert_resumable(advance, {"w": jnp.zeros(2)})
        >>> assert_resumable(advance, {"w": jnp.zeros(2), "key": root_key(7)})
        Traceback (most recent call last):
        AssertionError: Nothing depends on part key: a resume that forgets it would \
pass this test. Run it with settings under which the part is read, or take it out of the state.
    """
    if not 0 < stop < steps:
        raise ValueError(f"Cannot resume after {stop} of {steps} updates: choose 0 < stop < steps.")
    if fresh_process:
        if not inspect.isfunction(start):
            raise ValueError(
                "Cannot make the state in a fresh process: expected a function that returns it, "
                f"got a {type(start).__name__}. Give the function instead of what it returns."
            )
        _check_in_processes([importable(start), importable(advance)], steps, stop, timeout)
    else:
        _check_in_this_process(advance, start, steps, stop)


def _check_in_this_process(advance: Any, start: Any, steps: int, stop: int) -> None:
    makes = inspect.isfunction(start)
    before = None if makes else account_of(start)

    def begin() -> PyTree:
        return start() if makes else copy_of(start)

    whole = _updated(advance, begin(), steps)
    with tempfile.TemporaryDirectory() as folder:
        saved = _saved(folder, advance, begin(), stop)
        restored = _restored(folder, begin())
    if found := state_difference(saved, restored):
        raise AssertionError(_OTHER_STATE.format(stop=stop, found=found))
    if found := state_difference(whole, _updated(advance, copy_of(restored), steps - stop)):
        raise AssertionError(f"Resumed after {stop} of {steps} updates, the end differs: {found}")
    ends = (
        (part, account_of(_updated(advance, copy_of(state), steps - stop)), keys)
        for part, state, keys in _each_part_forgotten(begin(), restored)
    )
    _check_parts(account_of(whole), ends, stop)
    if before and (found := before.difference(account_of(start))):
        raise AssertionError(
            f"The loop changed the state to start with, though it was given copies: {found} "
            "Give a function that makes the state instead."
        )


def _updated(advance: Any, state: PyTree, n: int) -> PyTree:
    return copy_of(advance(state, n))  # the next call may write into what this one returned


def _saved(folder: str, advance: Any, state: PyTree, stop: int) -> PyTree:
    """Save a run at its stop, and return what was saved."""
    # Not at the top: it imports Orbax, for which no fresh process should wait.
    from reproducibility.storage.checkpoint import CheckpointStore

    state = advance(state, stop)
    with CheckpointStore(folder) as store:
        store.save(stop, state)
        return copy_of(state)


def _restored(folder: str, like: PyTree) -> PyTree:
    from reproducibility.storage.checkpoint import CheckpointStore

    with CheckpointStore(folder) as store:
        return store.restore(like)


def _check_parts(whole: Account, ends: Iterable[tuple[str, Account, set[str]]], stop: int) -> None:
    """Fail if a resume that forgets a part comes to the same end, or if there is no part."""
    expected, count = _by_name(whole), 0
    for part, account, keys in ends:
        end, count = _by_name(account), count + 1
        if all(end.get(n) == expected.get(n) for n in {**end, **expected} if n not in keys):
            raise AssertionError(
                f"Nothing depends on part {part}: a resume that forgets it would pass this test. "
                "Run it with settings under which the part is read, or take it out of the state."
            )
    if not count:
        raise AssertionError(
            f"No part of the state changed in {stop} updates, and none holds keys: "
            "a resume that forgets everything would pass this test."
        )


def _by_name(account: Account) -> dict[str, tuple[str, str]]:
    return {path_string(path): facts for path, facts in account.record.items()}


def _check_in_processes(where: list[Where], steps: int, stop: int, timeout: float) -> None:
    names = ("the uninterrupted run", f"the run up to its stop after {stop}", "the resumed run")
    failed = [f"Cannot tell whether it resumes in a fresh process: {name} failed" for name in names]
    with tempfile.TemporaryDirectory() as folder:
        with (
            asking_fresh_process(failed[0], f"{__name__}:run_whole", *where, steps) as first,
            asking_fresh_process(
                failed[1], f"{__name__}:run_to_stop", *where, stop, folder, salt=2
            ) as second,
        ):
            whole, saved = (Account.from_json(answer_of(each, timeout)) for each in (first, second))
        left = steps - stop
        job = f"{__name__}:run_resumed"
        with asking_fresh_process(failed[2], job, *where, left, folder, salt=3) as third:
            *accounts, parts = answer_of(third, timeout)
    restored, end, again = map(Account.from_json, accounts)
    if found := saved.difference(restored):
        raise AssertionError(_OTHER_STATE.format(stop=stop, found=found))
    if found := whole.difference(end):
        raise AssertionError(
            f"Resumed in a fresh process after {stop} of {steps} updates, the end differs: {found} "
            "What the first process kept in memory is not in the state; or two processes differ "
            "anyway, which assert_reproducible tells."
        )
    if found := end.difference(again):
        raise AssertionError(
            f"Resumed twice in one process, the second end differs: {found} "
            "Something that the first one left in memory changed the second."
        )
    ends = ((part, Account.from_json(account), set(keys)) for part, account, keys in parts)
    _check_parts(whole, ends, stop)


def run_whole(start: Where, advance: Where, steps: int) -> Any:
    """Be the process that is never interrupted: return what its run comes to."""
    return account_of(find_function(advance)(find_function(start)(), steps)).to_json()


def run_to_stop(start: Where, advance: Where, stop: int, folder: str) -> Any:
    """Be the process that is interrupted: save, and return what was saved."""
    return account_of(
        _saved(folder, find_function(advance), find_function(start)(), stop)
    ).to_json()


def run_resumed(start: Where, advance: Where, left: int, folder: str) -> list[Any]:
    """Be the process that resumes: what was restored, the end, the end again, without each part."""
    update, begin = find_function(advance), find_function(start)
    restored = _restored(folder, begin())
    found = [account_of(restored).to_json()]
    found += [account_of(update(copy_of(restored), left)).to_json() for _ in range(2)]
    parts = [
        (part, account_of(update(state, left)).to_json(), sorted(keys))
        for part, state, keys in _each_part_forgotten(begin(), restored)
    ]
    return [*found, parts]


def _each_part_forgotten(start: PyTree, restored: PyTree) -> Iterator[tuple[str, PyTree, set[str]]]:
    """Yield each part that can be forgotten, the state without it, and the names of its keys."""
    old, new = leaves_by_name(start), leaves_by_name(restored)  # what was restored has the same
    known, parts = state_of(restored), defaultdict[tuple[Any, bool], list[str]](list)
    done: set[str] = set()  # what is one object under two names is one part
    for path, leaf in named_leaves(start):
        parts[path[:1], is_key(leaf) or is_of_generator(path)].append(path_string(path))
    for (top, keys), own in parts.items():
        names = [name for name in _names_of_one(own, known, new) if name not in done]
        done |= set(names)
        lost = {**new, **{name: old[name] for name in names}}
        if not tree_difference(lost, new):  # it never changed
            if not any(is_key(old[name]) for name in names):
                continue
            others = {n: _other_keys(old[n]) if is_key(old[n]) else old[n] for n in names}
            lost = {**new, **others}
        part = path_string(top) + (" (its keys)" if keys and (top, False) in parts else "")
        yield part, copy_of(with_leaves(restored, lost, known.tied)), set(names) if keys else set()


def _names_of_one(names: list[str], known: State, leaves: dict[str, Any]) -> list[str]:
    """Return the names of leaves, and all others that lead to the same objects."""
    found = set(names)
    for name in names:
        for group in known.tied:
            for node in group:
                if name.startswith((f"{node}.", f"{node}[")):
                    found |= {other + name.removeprefix(node) for other in group}
        for group in known.shared:
            found |= {*group} if name in group else set()
    return [name for name in leaves if name in found]


def _other_keys(keys: Any) -> Any:
    return jax.random.wrap_key_data(~jax.random.key_data(keys), impl=jax.random.key_impl(keys))
