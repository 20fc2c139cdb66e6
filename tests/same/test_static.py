"""The text of what is no array: the same in every process, and another for another value."""

from __future__ import annotations

import dataclasses
import enum
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproducibility import root_key
from reproducibility.same.static import static_text
from tests.same.test_hashing import X, Y, properties


@dataclasses.dataclass(frozen=True)
class Settings:
    """Something static with fields."""

    rate: float
    mode: str = "train"


class Mode(enum.Enum):
    """Something static."""

    TRAIN = 1
    TEST = 2


TEXTS: list[tuple[Any, str]] = [
    (None, "None"),
    (True, "True"),
    (1, "1"),
    (1.0, "1.0"),
    (-0.0, "-0.0"),
    ("1", '"1"'),
    (b"1", "b'1'"),
    ((1, "a"), '(1, "a")'),
    ([1, "a"], '[1, "a"]'),
    ((), "()"),
    ({"b": 1, "a": 2}, '{"a": 2, "b": 1}'),
    ({3, 1, 2}, "set{1, 2, 3}"),
    (Mode.TEST, "Mode.TEST"),
    (np.float32(0.1), "np.float32(0.10000000149011612)"),
    (np.dtype("float32"), 'dtype("<f4")'),
    (Settings(0.5), 'Settings(rate=0.5, mode="train")'),
    (jax.nn.relu, "<function relu>"),
    (jnp.tanh, "<function tanh>"),
    (len, "<function len>"),
    (Mode, "<class Mode>"),
    (functools.partial(max, 1, key=abs), 'partial(<function max>, (1,), {"key": <function abs>})'),
    (np, "<module numpy>"),
    (object(), "<object, not compared>"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS)
def test_static_text(value: Any, text: str) -> None:
    """Static data is written in a form that is the same in every process."""
    assert static_text(value) == (text, ["a object"] if type(value) is object else [])


def test_static_texts_differ() -> None:
    """No two of these values have one text."""
    assert len({static_text(value)[0] for value, _ in TEXTS}) == len(TEXTS)


def test_arrays_as_static_data() -> None:
    """An array counts with all of its bits, whoever holds it."""
    texts = [static_text(leaf)[0] for leaf in (X, jnp.asarray(X), Y, -X, root_key(0), root_key(1))]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 5


def test_functions_that_hold_something() -> None:
    """Of functions the name is compared; that what they hold is not is said."""
    one, other = (lambda rate: lambda x: x * rate), (lambda: 1)
    for function in (one(0.1), other):
        assert static_text(function)[1] == [f"what function {function.__qualname__} holds and does"]


def test_long_texts_are_cut() -> None:
    """Of a long text the beginning and the digest are kept: it stays another text."""
    one, other = (static_text("x" * 10_000 + end)[0] for end in "ab")
    assert one != other
    assert max(map(len, (one, other))) < 400


DATA = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2).map(tuple) | st.dictionaries(st.text("ab"), inner),
    max_leaves=4,
)


@settings(properties)
@given(DATA, DATA)
def test_static_data_differs_as_python_has_it(one: Any, other: Any) -> None:
    """Two values have one text exactly if they are equal and of the same types."""
    texts = [static_text(value)[0] for value in (one, other)]
    as_typed = [repr(_sorted(value)) for value in (one, other)]
    assert (texts[0] == texts[1]) == (as_typed[0] == as_typed[1])


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return tuple(map(_sorted, value)) if isinstance(value, tuple) else value
