"""What a leaf is: how it is called, and which values have no exact bytes."""

from __future__ import annotations

import collections
import dataclasses
import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import DictKey, register_pytree_with_keys

from reproducibility import LeafError, tree_digest
from reproducibility.same.leaves import PathEntry, named_leaves, path_string
from tests.same.test_hashing import X, Y, as_list, properties

NAMES = st.text(alphabet='a._[]"0-ky \\/é', max_size=3) | st.text(max_size=3)
ENTRIES = st.one_of(
    st.builds(PathEntry, st.just("name"), NAMES),
    st.builds(PathEntry, st.just("key"), st.integers(-2, 11)),
    st.builds(PathEntry, st.just("index"), st.integers(0, 11)),
)


def nested(path: tuple[PathEntry, ...]) -> Any:
    """Build the tree whose one leaf has this path."""
    tree: Any = X
    for kind, value in reversed(path):
        tree = [None] * value + [tree] if kind == "index" else {value: tree}
    return tree


@settings(properties, max_examples=500)
@given(st.lists(ENTRIES, max_size=3), st.lists(ENTRIES, max_size=3))
def test_paths_are_injective(one: list[PathEntry], two: list[PathEntry]) -> None:
    """Different paths have different texts and different digests, and survive flattening."""
    paths = [tuple(one), tuple(two)]
    trees = [nested(path) for path in paths]
    assert [named_leaves(tree)[0][0] for tree in trees] == paths
    same = paths[0] == paths[1]
    assert (path_string(paths[0]) == path_string(paths[1])) == same
    assert (tree_digest(trees[0]) == tree_digest(trees[1])) == same


def test_path_order() -> None:
    """Paths sort by kind, then integers by value and names by code point."""
    mixed = collections.OrderedDict([("a", X), (10, X), (9, X), ("Z", X), (-1, X), ("aa", [X, X])])
    assert as_list(mixed) == ["[key -1]", "[key 9]", "[key 10]", "Z", "a", "aa[0]", "aa[1]"]
    assert as_list([X] * 11) == [f"[{i}]" for i in range(11)]


def test_path_string() -> None:
    """Paths are written for people: attributes with dots, the rest in brackets."""
    tree = {"params": {"hidden_0": {"kernel": X}, "a.b": X, "é": X}, "list": [X, {7: X}]}
    assert as_list(tree) == [
        "list[0]",
        "list[1][key 7]",
        'params["a.b"]',
        "params.hidden_0.kernel",
        'params["\\u00e9"]',
    ]
    assert as_list(X) == ["."]


ARRAY = "a JAX or NumPy array or a typed key"
DTYPE = "a number or bool dtype"
STATE = "State its dtype, for example np.float32(value)."
CONVERT = "Convert it to an array or leave it out."
CAST = "Convert it with astype or leave it out."

REFUSED_LEAVES = [
    (0.1, ARRAY, "a Python float", STATE),
    (1, ARRAY, "a Python int", STATE),
    (True, ARRAY, "a Python bool", STATE),
    (1j, ARRAY, "a Python complex", STATE),
    ("adam", ARRAY, "a value of type str", CONVERT),
    (b"adam", ARRAY, "a value of type bytes", CONVERT),
    (jnp.dtype("float32"), ARRAY, "a value of type Float32DType", CONVERT),
    (jax.ShapeDtypeStruct((2,), jnp.float32), ARRAY, "a value of type ShapeDtypeStruct", CONVERT),
    (np.ma.masked_array([1]), ARRAY, "a masked array", "Put its data and its mask into the tree."),
    (np.array([None]), DTYPE, "dtype object", CAST),
    (np.array(["a"]), DTYPE, "dtype str32", CAST),
    (np.str_("a"), DTYPE, "dtype str32", CAST),
    (np.array([b"a"]), DTYPE, "dtype bytes8", CAST),
    (np.array(["2026-01-01"], "datetime64[D]"), DTYPE, "dtype datetime64[D]", CAST),
    (np.zeros(1, [("x", "f4"), ("y", "i4")]), DTYPE, "dtype void64", CAST),
    (np.zeros(1, jax.dtypes.float0), DTYPE, "dtype void", CAST),
]


@pytest.mark.parametrize(("leaf", "expected", "got", "do"), REFUSED_LEAVES)
def test_refused_leaf(leaf: Any, expected: str, got: str, do: str) -> None:
    """A leaf without exact bytes is refused by its path, with what to do about it."""
    message = f"Cannot digest the leaf at opt[0].lr: expected {expected}, got {got}. {do}"
    with pytest.raises(LeafError) as caught:
        tree_digest({"opt": [{"lr": leaf}]})
    assert str(caught.value) == message
    assert (caught.value.path, caught.value.got) == ("opt[0].lr", got)


def test_longdouble() -> None:
    """A dtype that is wider on some platforms than on others has no digest where it is wider."""
    leaf = np.zeros(2, np.longdouble)
    if leaf.itemsize == 8:
        assert tree_digest(leaf) == tree_digest(np.zeros(2))
        return
    with pytest.raises(LeafError, match=r"got dtype float\d+\. Convert it with astype"):
        tree_digest(leaf)


def test_refused_traced() -> None:
    """Inside jit there are no bits yet."""
    with pytest.raises(LeafError) as caught:
        jax.jit(lambda x: tree_digest({"x": x}))(X)
    assert str(caught.value) == (
        f"Cannot digest the leaf at x: expected {ARRAY}, got a traced value. "
        "Digest outside of jit, grad and vmap: what they return."
    )


@pytest.mark.parametrize("make", [lambda: jnp.arange(3), lambda: jax.random.key(0)])
def test_refused_deleted(make: Any) -> None:
    """A donated array is gone, and the error says so."""
    leaf = make()
    leaf.delete()
    with pytest.raises(LeafError) as caught:
        tree_digest([leaf])
    assert str(caught.value) == (
        "Cannot digest the leaf at [0]: expected an array that still exists, got a deleted "
        "(donated) array. Digest before the call that donates it, or digest what that call returns."
    )


class Name(str):
    """A string that prints itself as something else."""

    def __str__(self) -> str:
        """Return another name."""
        return "b"


class Mode(enum.IntEnum):
    """Numbers with names."""

    TRAIN = 1
    TEST = 2


class Pair(NamedTuple):
    """A tuple with names."""

    a: int
    b: str


@dataclasses.dataclass(frozen=True, order=True)
class Place:
    """A key of a class of its own."""

    layer: int


# Every pair of these is a different key, though some are equal to Python, and some print alike.
ODD_KEYS = {
    "[key 1]": 1,
    "[key True]": True,
    "[key 1.0]": 1.0,
    "[key (1+0j)]": 1 + 0j,
    "[key np.int64(1)]": np.int64(1),
    "[key np.uint8(1)]": np.uint8(1),
    "[key np.float32(1.0)]": np.float32(1),
    "[key Mode.TRAIN]": Mode.TRAIN,
    "[key Mode.TEST]": Mode.TEST,
    '["Mode.TRAIN"]': "Mode.TRAIN",
    "[key None]": None,
    "None": "None",
    "[key b'a']": b"a",
    "[\"b'a'\"]": "b'a'",
    "a": "a",
    '[key Name("a")]': Name("a"),
    '[key np.str_("a")]': np.str_("a"),
    '[key "\\ud800"]': "\ud800",
    "[key ()]": (),
    "[key (1,)]": (1,),
    "[key (1, 2)]": (1, 2),
    "[key (True, 2)]": (True, 2),
    "[key ((1, 2),)]": ((1, 2),),
    '[key ("a, b",)]': ("a, b",),
    '[key ("a", "b")]': ("a", "b"),
    '["(\\"a\\", \\"b\\")"]': '("a", "b")',
    '[key Pair(1, "b")]': Pair(1, "b"),
    '[key (1, "b")]': (1, "b"),
    "[key Place(layer=1)]": Place(1),
    "[key frozenset{1, 2}]": frozenset({1, 2}),
}


def test_every_key_has_a_name() -> None:
    """Keys of any kind name their leaf, so that no two of them have one name or one digest."""
    assert {as_list({key: X})[0]: key for key in ODD_KEYS.values()} == ODD_KEYS
    assert len({tree_digest({key: X}) for key in ODD_KEYS.values()}) == len(ODD_KEYS)
    assert as_list({(2, "b"): X, (1, "a"): Y}) == ['[key (1, "a")]', '[key (2, "b")]']


class Mute:
    """A key that prints its address."""


class Raises:
    """A key that cannot be printed, and no code of which may be asked for equality."""

    def __repr__(self) -> str:
        """Raise."""
        raise RuntimeError("no")

    def __hash__(self) -> int:
        """Be a key."""
        return 1

    def __eq__(self, other: object) -> bool:
        """Raise."""
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("key", "got"),
    [
        (Mute(), "one that does not say what it is, of type Mute"),
        (Raises(), "one that raises RuntimeError, of type Raises"),
        ((1, Mute()), "one that does not say what it is, of type tuple"),
    ],
)
def test_refused_key(key: Any, got: str) -> None:
    """A key that does not say what it is names no leaf."""
    with pytest.raises(LeafError) as caught:
        tree_digest({"a": {key: X}})
    assert str(caught.value) == (
        f"Cannot name a leaf at a: expected a key that says what it is, got {got}. "
        "Let the key be a string, a number, an enum, or a tuple of those."
    )


class Alike:
    """A key that is another one and prints like it."""

    def __repr__(self) -> str:
        """Return the same for all."""
        return "alike"


def test_refused_keys_that_print_alike() -> None:
    """Two keys that print alike are not told apart by their order."""
    with pytest.raises(LeafError, match="expected one leaf of this name, got two"):
        tree_digest(collections.OrderedDict([(Alike(), X), (Alike(), Y)]))


@pytest.mark.long
def test_refused_tree_without_end() -> None:
    """A list that contains itself is refused in one sentence."""
    endless: list[Any] = [X]
    endless.append(endless)
    with pytest.raises(LeafError) as caught:
        tree_digest(endless)
    assert str(caught.value) == (
        "Cannot flatten the tree: expected a tree with an end, got one that contains itself or is "
        "too deep. Give each part a place of its own."
    )


class Twins:
    """A container that gives both its children one name."""


register_pytree_with_keys(
    Twins,
    lambda _: (((DictKey("x"), X), (DictKey("x"), Y)), None),
    lambda _, children: Twins(),
)


class Named:
    """A container whose children are called by what is no key of JAX."""


register_pytree_with_keys(
    Named,
    lambda _: ((("x", X), (7, X), (("a", 1), X)), None),
    lambda _, children: Named(),
)


def test_children_of_registered_classes() -> None:
    """What a registered class calls its children may be anything that says what it is."""
    assert as_list(Named()) == ["[key 7]", "x", '[key ("a", 1)]']


def test_refused_twins() -> None:
    """Two leaves of one name would be told apart by nothing."""
    with pytest.raises(LeafError) as caught:
        tree_digest({"a": Twins()})
    assert str(caught.value) == (
        "Cannot digest the leaf at a.x: expected one leaf of this name, got two. "
        "Let the key paths of the custom container differ."
    )


def test_refused_unsortable() -> None:
    """A dictionary that JAX cannot flatten is refused in the same words as the rest."""
    with pytest.raises(LeafError) as caught:
        tree_digest({0: X, "0": X})
    assert str(caught.value).startswith(
        "Cannot flatten the tree: expected dictionaries whose keys can be sorted, got "
    )
    assert str(caught.value).endswith("Let the keys of each dictionary be all str or all int.")
