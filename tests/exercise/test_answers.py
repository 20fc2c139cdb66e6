"""Promises of `reproducibility.exercise.answers`: no bit is lost on the way, and none is added."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility.exercise.answers import answer_digest, equal_answers, from_answer, to_answer


def test_values_come_back() -> None:
    """Arrays, numbers, texts, lists and dictionaries come back as they were, through JSON."""
    value = {"w": np.array([[1, -0.0], [np.nan, 3]], np.float32), "n": [1, 2.5, "a", None, True]}
    back = from_answer(json.loads(json.dumps(to_answer(value))))
    assert equal_answers(back, value)
    assert back["w"].tobytes() == value["w"].tobytes()
    assert back["n"] == value["n"]


def test_what_differs_is_told_apart() -> None:
    """One bit, a sign of zero, a dtype, a shape, a name: each makes two values differ."""
    one = np.zeros(4, np.float32)
    others = [-one, one.astype(np.float64), one.reshape(2, 2), {"a": one}, [one]]
    assert len({answer_digest(each) for each in [one, *others]}) == len(others) + 1
    assert equal_answers((one, 1), [one.copy(), 1])
    assert equal_answers({"a": 1, "b": 2}, {"b": 2, "a": 1})


def test_arrays_of_jax() -> None:
    """Keys and numbers that NumPy lacks are answers, too; what has no bits is none."""
    key = jax.random.key(3)
    assert equal_answers(from_answer(to_answer(key)), np.asarray(jax.random.key_data(key)))
    half = jnp.array([1.5, 2], jnp.bfloat16)
    assert from_answer(to_answer(half)).tolist() == [1.5, 2]
    assert not equal_answers(half, half.astype(jnp.float32))
    with pytest.raises(TypeError, match="it returned a object"):
        to_answer(object())
