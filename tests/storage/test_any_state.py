"""Digest, store, recorder and assertions agree on any state: whatever it is made of.

States are drawn from all dtypes, kinds of leaves and PRNG implementations, with sharing, static
data and weak types. Each promise has its control: one bit, one tie, one weak type, one field more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reproducibility import (
    CheckpointMismatchError,
    CheckpointStore,
    Recorder,
    tree_digest,
)
from reproducibility.same.leaves import as_weak, is_key, leaves_by_name
from reproducibility.same.state import map_leaves
from reproducibility.testing import assert_bitwise_equal
from reproducibility.testing.equal import account_of, copy_of, state_difference
from tests.same.test_hashing import DTYPE_BITS, JAX_DTYPES, dtype_of, properties
from tests.same.test_state import Box
from tests.same.test_static import DATA

few = settings(properties, max_examples=8, suppress_health_check=list(HealthCheck))
many = settings(few, max_examples=100)

IMPLEMENTATIONS = ("threefry2x32", "rbg", "unsafe_rbg")
MAY_BE_WEAK = ("int32", "float32", "complex64")
KINDS = [
    *(("NumPy array", name) for name in DTYPE_BITS),
    *(("NumPy scalar", name) for name in DTYPE_BITS),
    *(("JAX array", name) for name in JAX_DTYPES),
    *(("weak", name) for name in MAY_BE_WEAK),
    *(("key", name) for name in IMPLEMENTATIONS),
]


@st.composite
def leaves(draw: Any, shapes: Any = ((), (3,), (0, 2), (2, 2))) -> Any:
    """Draw a leaf with any of its value bits."""
    kind, name = draw(st.sampled_from(KINDS))
    shape = draw(st.sampled_from(shapes))
    if kind == "key":
        key = jax.random.key(draw(st.integers(0, 9)), impl=name)
        return jax.random.split(key, shape) if shape else key
    shape = () if kind == "NumPy scalar" else shape
    size = int(np.prod(shape)) * dtype_of(name).itemsize
    content = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    mask = (1 << DTYPE_BITS[name]) - 1 if DTYPE_BITS[name] < 8 else 0xFF
    array = (content & mask).view(dtype_of(name)).reshape(shape)
    if kind == "JAX array":
        return jnp.asarray(array)
    if kind == "weak":
        return as_weak(jnp.asarray(array))
    return array[()] if kind == "NumPy scalar" else array


TREES = st.recursive(
    leaves(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b"]), inner)
        | st.dictionaries(st.sampled_from([("c", 1), ("c", 2)]), inner)
        | st.builds(Box, inner, DATA)
        | st.builds(lambda part: [part, part], inner)
    ),
    max_leaves=5,
)


@st.composite
def states(draw: Any) -> Any:
    """Draw a state in which a bit, a tie, a weak type and a static field can be changed."""
    tree = {"any": draw(TREES), "one": draw(leaves(((3,),)))}
    tree["number"] = jnp.asarray(draw(st.integers(-9, 9)))
    if draw(st.booleans()):
        tree["number"] = jnp.asarray(np.asarray(tree["number"]))  # strong
    tree["static"] = Box(draw(leaves()), draw(DATA))
    memory = np.array(draw(st.lists(st.floats(width=32), min_size=4, max_size=4)), np.float32)
    tree["views"] = [memory[:-1], memory[1:]]
    pair = Box(draw(leaves()))
    return {**tree, "pair": [pair, pair if draw(st.booleans()) else copy_of(pair)]}


def flipped(leaf: Any) -> Any:
    """Return a leaf of which the lowest bit of the first element is another."""
    if is_key(leaf):
        words = flipped(np.array(jax.random.key_data(leaf)))
        return jax.random.wrap_key_data(words, impl=str(jax.random.key_impl(leaf)))
    array = np.array(leaf)
    array.reshape(-1).view(np.uint8)[0] ^= 1
    if isinstance(leaf, jax.Array):
        return as_weak(jnp.asarray(array)) if leaf.weak_type else jnp.asarray(array)
    return array[()] if isinstance(leaf, np.generic) else array


def changed(state: Any, what: str) -> Any:
    """Return a copy of a state in which one thing is another."""
    other = copy_of(state)
    if what == "bit":
        return {**other, "one": flipped(other["one"])}
    if what == "weak":
        number = other["number"]
        strong = jnp.asarray(np.asarray(number))
        return {**other, "number": strong if number.weak_type else as_weak(strong)}
    if what == "view":
        return {**other, "views": [view.copy() for view in other["views"]]}
    if what == "tie":
        one, two = other["pair"]
        return {**other, "pair": [one, copy_of(one) if one is two else one]}
    data = [other["static"].data, "another"]
    return {**other, "static": Box(other["static"].child, data)}


def agrees(folder: Path, state: Any) -> None:
    """Check that a copy, and what is restored, is the state, to all that compares states."""
    digest, copied = tree_digest(state), copy_of(state)
    with CheckpointStore(folder) as store:
        store.save(0, state)
        restored = store.restore(map_leaves(_other_values, state))
        assert store.verify(0)["digest"] == digest
        for same in (copied, restored):
            assert tree_digest(same) == digest
            assert state_difference(state, same) == ""
            assert account_of(state).difference(account_of(same)) == ""
            assert_bitwise_equal(state, same)
        plain, named = store.restore(), leaves_by_name(state)
        assert plain.keys() == named.keys()
        for what in ("bit", "tie", "weak", "static", "view"):
            other = changed(state, what)
            found = state_difference(state, other)
            assert found, what
            assert found == state_difference(copied, other)
            assert account_of(state).difference(account_of(other))
            assert (tree_digest(other) == digest) == (what != "bit")
            if what in ("tie", "static"):
                with pytest.raises(CheckpointMismatchError):
                    store.restore(other)
            else:  # what was saved comes back, whatever is given
                assert state_difference(state, store.restore(other)) == ""


def _other_values(leaf: Any) -> Any:
    """Return a leaf of the same kind, dtype and shape, with other bits."""
    return flipped(leaf) if leaf.size else leaf


@few
@given(states())
def test_all_agree_on_any_state(tmp_path_factory: Any, state: Any) -> None:
    """A state is the same to digest, seal, restore and assertions, or the same is noticed by all.

    One bit is another digest; a tie, a weak type, a static field is another state of one digest.
    """
    agrees(tmp_path_factory.mktemp("any"), state)


@pytest.mark.long
@pytest.mark.nightly
@many
@given(states())
def test_all_agree_on_many_states(tmp_path_factory: Any, state: Any) -> None:
    """The same, of many more states."""
    agrees(tmp_path_factory.mktemp("many"), state)


def test_all_bits_of_wide_arrays_count(tmp_path: Path) -> None:
    """An array of 64 bits comes back with all of them, where only this thread has such arrays."""
    with jax.enable_x64(True):
        state = {"n": jnp.arange(3, dtype="int64") + 2**40, "x": jnp.asarray(0.1, "float64")}
        assert {leaf.dtype.itemsize for leaf in state.values()} == {8}
        agrees(tmp_path, {**state, **small_state()})


def small_state() -> Any:
    """Return what `changed` changes."""
    box = Box(jnp.ones(2))
    made = {"one": jnp.ones(3), "number": jnp.asarray(1), "static": box, "pair": [box, box]}
    memory = np.arange(3.0)
    return {**made, "views": [memory[:2], memory[1:]]}


def records_alike(folder: Path, state: Any) -> None:
    """Check that a copy of a state has one ledger with it, and that one bit has another."""
    ledgers = []
    for number, stage in enumerate((state, copy_of(state), changed(state, "bit"))):
        path = folder / f"{number}.jsonl"
        with Recorder(path, level="leaf", environment=False) as recorder:
            recorder.record(1, params=stage)
        ledgers.append(path.read_bytes())
    assert ledgers[0] == ledgers[1] != ledgers[2]


@settings(few, max_examples=3)
@given(states())
def test_the_recorder_agrees(tmp_path_factory: Any, state: Any) -> None:
    """States that are the same have one ledger, whatever they are made of; one bit has another."""
    records_alike(tmp_path_factory.mktemp("ledgers"), state)


@pytest.mark.long
@pytest.mark.nightly
@settings(many, max_examples=30)
@given(states())
def test_the_recorder_agrees_on_many(tmp_path_factory: Any, state: Any) -> None:
    """The same, of many more states."""
    records_alike(tmp_path_factory.mktemp("ledgers"), state)
