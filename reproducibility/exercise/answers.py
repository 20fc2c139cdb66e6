"""What a program returns, written so that a different process reads the same bits.

The rule: data only, no code; arrays keep dtype, shape and every byte.
Chapter: docs/guide/exercises.md
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from typing import Any

import numpy as np


def to_answer(value: Any) -> Any:
    """Write a value as JSON values: arrays, keys, numbers, texts, lists, dictionaries.

    **Same bits:** everywhere.

    Args:
        value: what a function has returned.

    Raises:
        TypeError: it is something else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return {"plain": value}
    if isinstance(value, list | tuple):
        return {"list": [to_answer(each) for each in value]}
    if isinstance(value, dict):
        pairs = [[str(key), to_answer(each)] for key, each in value.items()]
        return {"dict": sorted(pairs, key=lambda pair: str(pair[0]))}
    if isinstance(value, set | frozenset):
        return {"list": sorted((to_answer(each) for each in value), key=json.dumps)}
    if isinstance(value, bytes):
        return {"plain": value.hex()}
    if not hasattr(value, "dtype"):
        raise TypeError(f"it returned a {type(value).__name__}; arrays or numbers were expected")
    return _array_answer(value)


def _array_answer(value: Any) -> Any:
    """Write an array; a typed key by its words, a number that NumPy lacks as float32."""
    jax = sys.modules.get("jax")
    if jax and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    named = array.dtype.name
    if array.dtype.kind not in "biufcSU":
        array = array.astype(np.float32)
    content = base64.b64encode(array.tobytes()).decode()
    return {"array": [named, array.dtype.str, list(array.shape), content]}


def from_answer(answer: Any) -> Any:
    """Read what `to_answer` wrote: arrays of NumPy, numbers, texts, lists, dictionaries.

    **Same bits:** everywhere.

    Args:
        answer: JSON values.
    """
    [(kind, content)] = answer.items()
    if kind == "list":
        return [from_answer(each) for each in content]
    if kind == "dict":
        return {key: from_answer(each) for key, each in content}
    if kind == "array":
        _, dtype, shape, text = content
        return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)
    return content


def answer_digest(value: Any) -> str:
    """Return eight digits by which values are told apart on a screen.

    **Same bits:** everywhere.

    Args:
        value: as for `to_answer`.
    """
    return hashlib.sha256(json.dumps(to_answer(value)).encode()).hexdigest()[:8]


def equal_answers(first: Any, second: Any) -> bool:
    """Say whether two values have the same bits, shapes, types and names.

    **Same bits:** everywhere.

    Args:
        first: as for `to_answer`.
        second: likewise.
    """
    return bool(json.dumps(to_answer(first)) == json.dumps(to_answer(second)))
