"""Assertions and fixtures for your own test suite.

The rule: compare bits, in another process, after a real checkpoint; and see each proof fail once.
Chapter: docs/guide/testing_your_code.md

Nothing here knows how you train: a result is any pytree that has a digest, a loop any function.
No other module of the package imports this one, and this one alone needs pytest.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import pytest
from jaxtyping import Array, Key, PyTree

from reproducibility.keys import root_key, stream_key
from reproducibility.machine.child import end_python, start_python
from reproducibility.machine.environment import capture_environment, environment_differences
from reproducibility.same.distance import distance
from reproducibility.same.hashing import leaf_digests
from reproducibility.same.leaves import (
    LeafPath,
    PathEntry,
    is_key,
    kind_text,
    named_leaves,
    path_string,
)

# What the leaf of a path is, such as "float32[3]", and its digest.
type Record = dict[LeafPath, tuple[str, str]]

# Set in the processes that are started here, so that they start none themselves.
_TESTING_CHILD = "REPRODUCIBILITY_TESTING_CHILD"
_PROGRAM = """
import json, sys
*task, sys.path[:] = json.loads(sys.argv[1])
from reproducibility.testing import _answer_parent
_answer_parent(*task)
"""


def assert_bitwise_equal(a: PyTree, b: PyTree) -> None:
    """Fail unless two trees have one digest; say where they differ first, and by how much.

    Distances are counted in ULP: steps on the line on which all values of a float type stand in
    order. -0.0 and 0.0 are neighbours on it, one step apart, so no difference counts as 0. A NaN
    has no place on it: NaN against a number, or against a NaN with other bits, is said in words.
    Of complex numbers each part counts by itself. There is no tolerance, and no way to ask for one.

    **Same bits:** it passes exactly if `tree_digest` gives both trees one digest, everywhere.

    Args:
        a: any pytree of JAX arrays, NumPy arrays and scalars, and typed keys.
        b: another.

    Raises:
        AssertionError: naming the first leaf that differs, in the order of `named_leaves`: which
            side lacks it; both dtypes and shapes (a key's dtype names its implementation); or how
            many elements differ and the largest distance; and how many other leaves differ.
        LeafError: a leaf has no digest.

    Examples:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from reproducibility.testing import assert_bitwise_equal
        >>> close = np.float32([1.0, np.nextafter(np.float32(2.0), np.float32(3.0))])
        >>> assert_bitwise_equal({"w": np.float32([1, 2])}, {"w": jnp.array([1.0, 2.0])})
        >>> assert_bitwise_equal({"w": np.float32([1, 2])}, {"w": close})
        Traceback (most recent call last):
        AssertionError: Not the same bits: leaf w: 1 of 2 elements differ, by up to 1 ULP.

    References:
        Goldberg, "What every computer scientist should know about floating-point arithmetic",
        ACM Computing Surveys 23(1), 1991 (the unit in the last place).
    """
    if found := _tree_difference(a, b):
        raise AssertionError(f"Not the same bits: {found}")


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
    where = _importable(fn)
    result = fn()
    # Now: the second call may write into the result.
    ours, first = _tree_record(result), _copy(result)
    if not ours:
        raise AssertionError(f"{fn.__qualname__} returned no array: there is nothing to compare.")
    if found := _tree_difference(first, fn()):
        raise AssertionError(f"Not reproducible within this process: {found}")
    theirs, environment = _records_of_a_fresh_process(where, timeout)
    if found := _first_difference(ours, theirs, lambda path: f"{ours[path][0]} with other bits"):
        why = [
            f"  {d.name}: {d.a} here, {d.b} there. {d.why}"
            for d in environment_differences(capture_environment(), environment)
            if d.effect != "not known to change bits"
        ]
        about = "The processes differ in (PYTHONHASHSEED on purpose):"
        found = "\n".join([f"Not reproducible in a fresh process: {found}", about, *why])
        raise AssertionError(found)


def assert_resumable(
    advance: Callable[[PyTree, int], PyTree], start: PyTree, *, steps: int = 6, stop: int = 3
) -> None:
    """Fail unless resuming from a checkpoint gives the bits of never having stopped.

    Then this test is tested. For each top-level part of the state it pretends that the resume
    forgot that part: its leaves get their values from `start`. Typed keys are a part of their own
    wherever they stand, and are exchanged for others if they never change. The end must then be
    another; and if keys were forgotten, in more than those keys, since a chain of keys from which
    nobody draws ends elsewhere too. What never changes and is no key cannot be lost, and is
    skipped.

    **Same bits:** that is what is tested: in this process, through a checkpoint on this disk.

    Args:
        advance: `advance(state, n)` returns the state after `n` more updates. It may donate or
            overwrite its argument: it is given copies.
        start: the state before the first update: any pytree of arrays and typed keys.
        steps: how many updates the uninterrupted run has.
        stop: after how many of them the other one is saved and restored, 0 < stop < steps.

    Raises:
        AssertionError: the resumed state differs, at the leaf that is named; or nothing depends
            on some part, or no part could be forgotten: then the test could not have failed.
        CheckpointMismatchError: the state after `stop` updates has not the names, shapes and
            dtypes of `start`, so that no resume could read it.
        LeafError: a leaf of the state is no array.
        ValueError: `stop` is not between 0 and `steps`.

    Examples:
        >>> import jax.numpy as jnp
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
    # Not at the top: it imports Orbax, for which no fresh process should wait.
    from reproducibility.storage.checkpoint import CheckpointStore

    if not 0 < stop < steps:
        raise ValueError(f"Cannot resume after {stop} of {steps} updates: choose 0 < stop < steps.")

    def run(state: PyTree, n: int) -> PyTree:
        return _copy(advance(_copy(state), n))

    uninterrupted = run(start, steps)
    with tempfile.TemporaryDirectory() as folder, CheckpointStore(folder) as store:
        store.save(stop, run(start, stop))
        restored = store.restore(_copy(start))
    if found := _tree_difference(uninterrupted, run(restored, steps - stop)):
        raise AssertionError(f"Resumed after {stop} of {steps} updates, the end differs: {found}")
    expected, parts = leaf_digests(uninterrupted), list(_each_part_forgotten(start, restored))
    for part, state, keys in parts:
        end = leaf_digests(run(state, steps - stop))
        if all(end.get(n) == expected.get(n) for n in {**end, **expected} if n not in keys):
            raise AssertionError(
                f"Nothing depends on part {part}: a resume that forgets it would pass this test. "
                "Run it with settings under which the part is read, or take it out of the state."
            )
    if not parts:
        raise AssertionError(
            f"No part of the state changed in {stop} updates, and none holds keys: "
            "a resume that forgets everything would pass this test."
        )


@pytest.fixture
def strict_jax() -> Iterator[None]:
    """Make raw uint32 keys, reused keys and silent broadcasting errors for one test.

    For a whole suite, put `usefixtures = ["strict_jax"]` into the settings of pytest.

    Same bits: what passes has the bits that it has without the fixture.
    """
    with (
        jax.legacy_prng_key("error"),
        jax.debug_key_reuse(True),
        jax.numpy_rank_promotion("raise"),
    ):
        yield


@pytest.fixture
def item_key(request: pytest.FixtureRequest) -> Key[Array, ""]:
    """Give each test a typed key of its own, derived from its node id.

    **Same bits:** everywhere and in any order of the tests, until the test, its file or one of
    its parameters gets another name.
    """
    return stream_key(root_key(0), request.node.nodeid)


def _copy(tree: PyTree) -> PyTree:
    return jax.tree.map(copy.copy, tree)


def _tree_record(tree: PyTree) -> Record:
    digests = leaf_digests(tree)
    return {
        path: (kind_text(leaf.dtype.name, leaf.shape), digests[path_string(path)])
        for path, leaf in named_leaves(tree)
    }


def _tree_difference(a: PyTree, b: PyTree) -> str:
    one, other = dict(named_leaves(a)), dict(named_leaves(b))
    return _first_difference(
        _tree_record(a), _tree_record(b), lambda path: str(distance(one[path], other[path]))
    )


def _first_difference(a: Record, b: Record, how_far: Callable[[Any], str]) -> str:
    """Name the first leaf that differs, how, and how many others do; "" if none does."""
    paths = [path for path in sorted({**a, **b}) if a.get(path) != b.get(path)]
    if not paths:
        return ""
    one, other = (side.get(paths[0], ("nothing", ""))[0] for side in (a, b))
    what = how_far(paths[0]) if one == other else f"{one} against {other}"
    n = len(paths) - 1
    more = f"; {n} other {'leaf differs' if n == 1 else 'leaves differ'}" if n else ""
    return f"leaf {path_string(paths[0])}: {what}{more}."


def _each_part_forgotten(start: PyTree, restored: PyTree) -> Iterator[tuple[str, PyTree, set[str]]]:
    """Yield each part that can be forgotten, the state without it, and the names of its keys."""
    old, structure = jax.tree.flatten(start)  # what was restored has the same
    new = jax.tree.leaves(restored)
    parts: dict[tuple[Any, bool], dict[int, str]] = defaultdict(dict)
    for path, n in named_leaves(jax.tree.unflatten(structure, range(len(old)))):
        parts[path[:1], is_key(old[n])][n] = path_string(path)
    for (top, keys), names in parts.items():
        lost = [old[n] if n in names else leaf for n, leaf in enumerate(new)]
        if not _tree_difference(lost, new):  # it never changed
            if not keys:
                continue
            lost = [_other_keys(leaf) if n in names else leaf for n, leaf in enumerate(new)]
        part = path_string(top) + (" (its keys)" if keys and (top, False) in parts else "")
        yield part, jax.tree.unflatten(structure, lost), set(names.values()) if keys else set()


def _other_keys(keys: Any) -> Any:
    return jax.random.wrap_key_data(~jax.random.key_data(keys), impl=jax.random.key_impl(keys))


def _importable(fn: Callable[[], PyTree]) -> tuple[str, str, str]:
    """Return how another process imports a function: module, file and name."""
    module: Any = sys.modules.get(getattr(fn, "__module__", None) or "")
    name = getattr(fn, "__qualname__", repr(fn))
    file = Path(getattr(module, "__file__", None) or "")
    found = getattr(module, name, None) is fn and file.suffix == ".py" and file.is_file()
    if not found or _TESTING_CHILD in os.environ:
        got = "a test while that file is imported" if found else "one that no import finds"
        raise ValueError(
            f"Cannot call {name} in a fresh process: expected a function at module level of a "
            f"file, got {got}. Define it with def in a file, and test it in a test function."
        )
    spec = module.__spec__  # of a script there is none; with python -m it knows the name
    return spec.name if spec else file.stem, str(file.absolute()), name


def _records_of_a_fresh_process(
    where: tuple[str, str, str], timeout: float
) -> tuple[Record, dict[str, Any]]:
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    variables = {**os.environ, "PYTHONHASHSEED": seed, _TESTING_CHILD: "1"}
    failed = "Not reproducible in a fresh process: it"
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        task = json.dumps([*where, str(answer), [str(entry) for entry in sys.path]])
        process = start_python(_PROGRAM, task, variables=variables)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{failed} was killed after {timeout} seconds.") from None
        finally:
            end_python(process)
        if code or not answer.exists():
            raise AssertionError(f"{failed} ended with exit code {code}; its output says why.")
        leaves, environment = json.loads(answer.read_text())
    return {
        tuple(PathEntry(*e) for e in path): (kind, sha) for path, kind, sha in leaves
    }, environment


def _answer_parent(module: str, file: str, function: str, answer: str) -> None:
    """Do in the fresh process what it was started for."""
    record = _tree_record(_load(module, file)[function]())
    leaves = [(path, *facts) for path, facts in record.items()]
    Path(answer).write_text(json.dumps([leaves, capture_environment()]))


def _load(name: str, file: str) -> dict[str, Any]:
    # By name where that leads to this file, so that relative imports work. The folder where the
    # name begins may not be in sys.path: pytest imports tests without it.
    sys.path += map(str, list(Path(file).parents)[name.count(".") :][:1])
    with suppress(ImportError):
        if getattr(importlib.import_module(name), "__file__", None) == file:
            return vars(sys.modules[name])
    return runpy.run_path(file, run_name=name)
