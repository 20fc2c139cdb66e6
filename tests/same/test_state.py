"""What is part of a state beside its bits: static data, sharing, weak types, copies."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import sparse
from jax.tree_util import register_pytree_node

from reproducibility import LeafError, describe, root_key, tree_digest
from reproducibility.same.state import (
    differences,
    map_leaves,
    shared_leaves,
    state_of,
    static_data,
    with_leaves,
)
from tests.same.test_hashing import X, Y, properties
from tests.same.test_static import DATA


class Box:
    """A container that can be written to, with static data."""

    def __init__(self, child: Any, data: Any = None) -> None:
        self.child, self.data = child, data


register_pytree_node(
    Box, lambda box: ((box.child,), box.data), lambda data, children: Box(children[0], data)
)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["w"], meta_fields=["epoch", "mode"]
)
@dataclasses.dataclass(frozen=True)
class Train:
    """A state with static fields."""

    w: Any
    epoch: int = 0
    mode: str = "train"


def found(a: Any, b: Any) -> list[str]:
    """Return the differences of two trees, in words."""
    return [str(difference) for difference in differences(state_of(a), state_of(b))]


# Static data


def test_static_fields_are_named() -> None:
    """The field that differs is named, with its two values; the digest does not see it."""
    one, other = Train(X, epoch=3), Train(X, epoch=0, mode="test")
    assert found({"a": one}, {"a": other}) == ["static field a.epoch: 3 against 0"]
    assert found(one, Train(X, 3, "test")) == ['static field mode: "train" against "test"']
    assert found(one, Train(Y, 3)) == []
    assert tree_digest(one) == tree_digest(other)


def test_sparse_shapes() -> None:
    """The same entries in a larger matrix are another matrix."""
    entries = jnp.ones(1), jnp.zeros((1, 2), jnp.int32)
    small, large = (sparse.BCOO(entries, shape=(n, n)) for n in (3, 9))
    assert found({"m": small}, {"m": large}) == ["static field m.shape: (3, 3) against (9, 9)"]


def test_nodes_of_other_classes() -> None:
    """Where only one tree has static data, or that of another class, the node is named."""
    assert found({"a": Box(X, 1)}, {"a": (X,)}) == [
        "static data of node a: Box with static data against none"
    ]
    names = {"w": X}
    assert found(names, collections.OrderedDict(names)) == []
    assert found(nnx.State(names), names) == []  # what it says are its children's names


class Hostile:
    """An object each of whose methods raises."""

    def __getattribute__(self, name: str) -> Any:
        """Raise."""
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        """Raise."""
        raise RuntimeError("equality")

    __hash__ = None  # type: ignore[assignment]


def test_no_code_of_static_data_is_asked() -> None:
    """A node whose equality raises is named as not compared, and compared by its class."""
    one, other = Box(X, (1, Hostile())), Box(X, (2, Hostile()))
    assert found(one, one) == []
    assert found(one, other) == [
        "static field data: (1, <Hostile, not compared>) against (2, <Hostile, not compared>)"
    ]
    assert "not compared in .: a Hostile" in describe(one)


def cyclic() -> list[Any]:
    """Return a list that contains itself."""
    data: list[Any] = []
    data.append(data)
    return data


def deep() -> Any:
    """Return a tuple in a tuple, and so on."""
    return functools.reduce(lambda inner, _: (inner,), range(2000), ())


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (cyclic, "a list that contains itself"),
        (lambda: [0] * 100_001, "more than 100,000 values"),
        (deep, "more than 100 containers in one another"),
    ],
)
def test_static_data_without_end(make: Callable[[], Any], got: str) -> None:
    """Cyclic or enormous static data is refused by the name of its node, in one sentence."""
    with pytest.raises(LeafError) as caught:
        state_of({"a": [Box(X, make())]})
    assert str(caught.value) == (
        "Cannot read the static data of node at a[0]: expected what can be written down, "
        f"got {got}. Put it into arrays, or leave it out."
    )


# Sharing


def test_tied_weights() -> None:
    """A Variable under two names is found, and is still one after its leaves are replaced."""
    tied, apart = nnx.Dict(), nnx.Dict()
    tied.a = tied.b = nnx.Param(jnp.ones(2))
    apart.a, apart.b = nnx.Param(jnp.ones(2)), nnx.Param(jnp.ones(2))
    assert found(tied, apart) == ["a and b: one object against several objects"]
    assert found(apart, tied) == ["a and b: several objects against one object"]
    assert tree_digest(tied) == tree_digest(apart)
    copied = map_leaves(jnp.copy, tied)
    assert copied.a is copied.b is not tied.a
    assert found(tied, jax.tree.map(jnp.copy, tied)) == found(tied, apart)


def test_with_leaves() -> None:
    """Values are put in by name, in whatever order the nodes flatten, and nodes are tied."""
    box = Box({"w": X})
    like = {"b": box, "a": [Box({"w": Y}), X]}
    values = {"a[0][0].w": Y, "a[1]": X, "b[0].w": Y}
    for tied in ((), (("a[0]", "b"),)):
        tree = with_leaves(like, values, tied)
        assert (tree["b"] is tree["a"][0]) == bool(tied)
        assert tree["b"] is not box
        assert (tree["a"][0].child["w"] is Y, tree["a"][1] is X) == (True, True)


def test_shared_arrays() -> None:
    """Arrays under several names are found; that counts where they can be written to."""
    w, a = jnp.ones(2), np.ones(2)
    assert shared_leaves({"w": w, "ema": w, "x": a, "y": [a], "n": 1, "m": 1}) == (
        ("ema", "w"),
        ("x", "y[0]"),
    )
    assert found({"a": a, "b": a}, {"a": a, "b": a.copy()}) == [
        "a and b: one object against several objects"
    ]
    assert found({"a": w, "b": w}, {"a": w, "b": jnp.copy(w)}) == []


def test_containers_of_jax_are_not_tied() -> None:
    """One dict under two names is two dicts to JAX, and no difference."""
    params = {"w": X}
    frozen = Train(X, 1)
    assert static_data({"params": params, "ema": params})[1] == ()
    assert static_data([frozen, frozen])[1] == ()
    assert static_data([Box(X), Box(X)])[1] == ()


# Weak types and kinds


def test_weak_types() -> None:
    """Two trees of the same bits differ where one dtype gives way to others."""
    weak, strong = jnp.asarray(0.5), jnp.float32(0.5)
    assert found({"rate": weak}, {"rate": strong}) == [
        "leaf rate: a weak type against a strong type"
    ]
    assert tree_digest(weak) == tree_digest(strong)
    assert found({"rate": strong}, {"rate": np.float32(0.5)}) == []


def test_describe() -> None:
    """All of it is said for a reader, leaves without a digest included."""
    tied = Box(jnp.asarray(0.5), ("a", lambda: 1))
    tree = {"n": 1, "s": np.int8(1), "x": X, "k": root_key(0), "t": [tied, tied]}
    assert describe(tree).splitlines() == [
        "leaf k: key<fry>[], JAX array, PRNG threefry2x32",
        "leaf n: Python int",
        "leaf s: int8[], NumPy scalar",
        "leaf t[0][0]: float32[], JAX array, weak type",
        "leaf t[1][0]: float32[], JAX array, weak type",
        "leaf x: float32[3], NumPy array",
        'static data of t[0]: Box, data=("a", <function test_describe.<locals>.<lambda>>)',
        'static data of t[1]: Box, data=("a", <function test_describe.<locals>.<lambda>>)',
        "one array: t[0][0] and t[1][0]",
        "one object: t[0] and t[1]",
        "not compared in t[0]: what function test_describe.<locals>.<lambda> holds and does",
        "not compared in t[1]: what function test_describe.<locals>.<lambda> holds and does",
    ]


# Any tree

LEAVES = st.sampled_from([X, Y, jnp.asarray(0.5), jnp.float32(0.5), np.int8(1), root_key(0)])
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
        | st.builds(Box, inner, DATA)
        | st.builds(lambda part: [part, part], inner)
    ),
    max_leaves=6,
)


@settings(properties)
@given(TREES)
def test_what_is_rebuilt_is_the_same(tree: Any) -> None:
    """A tree whose leaves are replaced by equal ones has the same state, and the same digest."""
    copied = map_leaves(lambda leaf: leaf.copy(), tree)
    assert found(tree, copied) == []
    assert tree_digest(tree) == tree_digest(copied)
    assert shared_leaves(tree) == shared_leaves(copied)


# Copies on several devices

COPIES = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from reproducibility import LeafError, tree_digest
devices = jax.devices()
mesh = Mesh(np.array(devices).reshape(2, 4), ("a", "b"))
def array(spec, flipped, dtype=np.float32):
    sharding, base = NamedSharding(mesh, spec), np.arange(16).reshape(8, 2).astype(dtype)
    parts = []
    for device, index in sharding.addressable_devices_indices_map(base.shape).items():
        part = base[index].copy()
        if device.id in flipped:
            part.view(np.uint8).reshape(-1)[0] ^= 1
        parts.append(jax.device_put(part, device))
    return jax.make_array_from_single_device_arrays(base.shape, sharding, parts)
for spec in (P(), P("a"), P(("a", "b")), P(None, "a")):
    for flipped in ([], [5], [2, 3, 6, 7, 1]):
        for dtype in (np.float32, jax.numpy.int4, np.complex64):
            try:
                found = tree_digest({"w": array(spec, flipped, dtype)})[:4]
            except LeafError as error:
                found = error.got
            name = str(spec).replace("PartitionSpec", "P")
            print(name, flipped, np.dtype(dtype).name, found, sep="|")
"""


def test_copies_that_differ() -> None:
    """One bit of one copy of a replicated or partly replicated array is found, with its device."""
    done = subprocess.run(
        [sys.executable, "-c", COPIES],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split("|") for line in done.stdout.splitlines()]
    said = {(spec, flipped): found for spec, flipped, _, found in lines if flipped != "[]"}
    assert len(lines) == 36
    assert all(len(found) == 4 for _, flipped, _, found in lines if flipped == "[]")
    one, many = "[5]", "[2, 3, 6, 7, 1]"
    assert said["P()", one] == "other bits on cpu:5 than on cpu:0"
    assert said["P('a',)", one] == "other bits on cpu:5 than on cpu:4"
    assert len(said["P(('a', 'b'),)", one]) == 4  # no copies: another value
    assert said["P()", many] == ("other bits on cpu:1, cpu:2, cpu:3 and 2 more than on cpu:0")
    wrong = [line for line in lines if line[1] != "[]" and line[3] != said[line[0], line[1]]]
    assert [line for line in wrong if "(('a', 'b')" not in line[0]] == []
