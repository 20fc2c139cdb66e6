"""Every random number is a function of (seed, stream, step, index).

The rule: derive keys, never carry a chain of splits; one parent, one kind of child.
Chapter: docs/fundamentals/prng_pattern.md

Each function folds in a tag of its own kind before its number. So `step_key(k, 3)`,
`index_key(k, 3)`, `process_key(k, process_index=3)` and `stream_key(k, "3")` are four different
keys, and none of them is a `jax.random.split` or a plain `jax.random.fold_in` of `k`: under
partitionable threefry `split(k)[i]` *is* `fold_in(k, i)`, and two helpers that both fold small
integers into one parent hand out the same key twice.

"Everywhere" below means on every machine, backend and layout. JAX itself promises the bits of a
key from release to release no more than those of a draw; with 0.10.2 and 0.12.0.1 they agree, and
the golden keys in the tests show the first release with which they do not.
"""

from __future__ import annotations

import hashlib
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from reproducibility.errors import ConfigError, KeyTypeError

PRNG_IMPL = "threefry2x32"  # counter-based: same bits on every backend and under any sharding
_LIMIT = 2**32  # a number is folded in as one 32-bit word


def _word(text: str) -> int:
    """Return the first 32 bits of a text's SHA-256, big-endian."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


_TAGS = {kind: _word(f"reproducibility/{kind}") for kind in ("stream", "step", "index", "process")}


def root_key(seed: int | Array) -> Key[Array, ""]:
    """Make the one key from which all others of a run are derived.

    **Same bits:** everywhere. The implementation is pinned to threefry2x32, and neither
    `jax_default_prng_impl` nor `jax_random_seed_offset` moves it.

    Args:
        seed: an integer, 0 ≤ seed < 2**32, or a traced integer (taken as `uint32`: nothing
            raises inside `jit`). `jax.random.key` drops the high bits of a larger seed silently;
            here it is refused.

    Returns:
        A typed key, shape `()`.

    Raises:
        ConfigError: the seed is no integer or is out of range.

    Examples:
        >>> jax.random.key_data(root_key(7)).tolist()
        [0, 7]

    References:
        Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    word = _number(seed, "a root key", "seed")
    # NumPy for a plain seed: no program has to be compiled to stack two numbers.
    words = (jnp if isinstance(word, jax.Array) else np).stack([np.uint32(0), word])
    key: Key[Array, ""] = jax.random.wrap_key_data(words, impl=PRNG_IMPL)
    return key


def stream_key(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """Derive the key of a named purpose: `"dropout"`, `"shuffle"`, a layer's name.

    The name is folded in as 64 bits of its SHA-256, so adding, removing or reordering streams
    moves no other stream. (Python's `hash` of a string differs from process to process.)

    **Same bits:** everywhere, for one parent key and one name.

    Args:
        key: a typed key, shape `()`.
        name: a non-empty string.

    Returns:
        A typed key, shape `()`.

    Raises:
        KeyTypeError: `key` is not one typed key.
        ValueError: `name` is not a non-empty string.

    Examples:
        >>> k = root_key(7)
        >>> bool(stream_key(k, "dropout") == stream_key(k, "shuffle"))
        False
    """
    if not isinstance(name, str) or not name:
        raise ValueError(
            f"Cannot derive a stream key: expected a non-empty string, got {name!r}. "
            "Name what the key is for, or use index_key for a number."
        )
    digest = hashlib.sha256(name.encode()).digest()
    high, low = (int.from_bytes(digest[i : i + 4], "big") for i in (0, 4))
    return _fold(_fold(_tagged(key, "stream"), high), low)


def step_key(key: Key[Array, ""], step: int | Array) -> Key[Array, ""]:
    """Derive the key of one training step: step n is the step after n completed updates.

    **Same bits:** everywhere; the same for a Python integer and for a traced one.

    Args:
        key: a typed key, shape `()`.
        step: an integer, 0 ≤ step < 2**32, or a traced or device integer, shape `()`, taken
            modulo 2**32.

    Returns:
        A typed key, shape `()`.

    Raises:
        KeyTypeError: `key` is not one typed key.
        ConfigError: `step` is no integer or is out of range.

    Examples:
        >>> k = root_key(7)
        >>> bool(step_key(k, 3) == jax.jit(step_key)(k, 3))
        True
    """
    return _fold(_tagged(key, "step"), _number(step, "a step key", "step"))


def index_key(key: Key[Array, ""], index: int | Array) -> Key[Array, ""]:
    """Derive the key of one element of a numbered set: a global shard, example, epoch, trial.

    Use the *global* index. An index local to a device or process gives another run as soon as
    the layout changes.

    **Same bits:** everywhere; `jax.vmap(index_key, (None, 0))` gives the same keys as a loop.

    Args:
        key: a typed key, shape `()`.
        index: an integer, 0 ≤ index < 2**32, or a traced or device integer, shape `()`, taken
            modulo 2**32.

    Returns:
        A typed key, shape `()`.

    Raises:
        KeyTypeError: `key` is not one typed key.
        ConfigError: `index` is no integer or is out of range.

    Examples:
        >>> k = root_key(7)
        >>> keys = jax.vmap(index_key, (None, 0))(k, jnp.arange(4))
        >>> bool(keys[2] == index_key(k, 2))
        True
    """
    return _fold(_tagged(key, "index"), _number(index, "an index key", "index"))


def process_key(key: Key[Array, ""], *, process_index: int | None = None) -> Key[Array, ""]:
    """Derive a key that differs on every process, for work that is local to one process.

    Never use it for initialisation, or for any key that enters a program that runs on all
    processes: there the key must be equal everywhere. Prefer `index_key` with a global index.

    **Same bits:** everywhere for one `process_index`; another number of processes is another run.

    Args:
        key: a typed key, shape `()`.
        process_index: 0 ≤ index < 2**32; by default `jax.process_index()`.

    Returns:
        A typed key, shape `()`.

    Raises:
        KeyTypeError: `key` is not one typed key.
        ConfigError: `process_index` is no integer or is out of range.

    Examples:
        >>> k = root_key(7)
        >>> bool(process_key(k, process_index=0) == k)
        False
    """
    index = jax.process_index() if process_index is None else process_index
    return _fold(_tagged(key, "process"), _number(index, "a process key", "process_index"))


def check_ambient_settings() -> None:
    """Refuse the JAX settings that change draws and that no key can pin.

    `train` calls it first. The PRNG implementation and the seed offset need no check: `root_key`
    pins them.

    **Same bits:** what passes here draws the same bits from the same key.

    Raises:
        ConfigError: `jax_threefry_partitionable` is off (other bits for the same key), or
            `jax_enable_x64` is on (64-bit draws where 32-bit ones are meant).

    Examples:
        >>> check_ambient_settings()
    """
    for name, wanted in (("jax_threefry_partitionable", True), ("jax_enable_x64", False)):
        got = getattr(jax.config, name, wanted)  # a release may drop a flag whose default won
        if got is not wanted:
            raise ConfigError(
                "start a run",
                "with this JAX setting",
                expected=f"{name}={wanted}",
                got=f"{name}={got}",
                do=f"Unset {name.upper()} in the environment and in jax.config: "
                "it changes what every key draws.",
            )


def _tagged(key: Any, kind: str) -> Key[Array, ""]:
    """Fold in the tag of a kind, after checking that `key` is one typed key."""
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        got = f"{key.dtype}{list(key.shape)}" if hasattr(key, "dtype") else type(key).__name__
        legacy = " (a legacy key)" if got == "uint32[2]" else ""
        raise KeyTypeError(
            "derive",
            f"{'an' if kind == 'index' else 'a'} {kind} key",
            expected="one typed JAX key",
            got=got + legacy,
            do="Make keys with root_key(seed), or wrap this one: jax.random.wrap_key_data(key).",
        )
    if key.shape != ():
        raise KeyTypeError(
            "derive",
            f"{'an' if kind == 'index' else 'a'} {kind} key",
            expected="one typed JAX key, shape ()",
            got=f"keys of shape {key.shape}",
            do="Use jax.vmap to derive from many keys at once.",
        )
    return _fold(key, _TAGS[kind])


def _fold(key: Key[Array, ""], word: int | Array | np.uint32) -> Key[Array, ""]:
    # np.uint32, so that a Python integer over 2**31 does not overflow int32 on its way in.
    child: Array = jax.random.fold_in(key, np.uint32(word) if isinstance(word, int) else word)
    return child


def _number(value: Any, thing: str, name: str) -> Array | np.uint32:
    """Return `value` as one uint32 word; check what can be checked without waiting for a device."""
    if isinstance(value, jax.Array):
        if jnp.issubdtype(value.dtype, jnp.integer) and value.shape == ():
            word: Array = value.astype(jnp.uint32)
            return word
        got = f"{value.dtype}{list(value.shape)}"
    elif isinstance(value, bool | np.ndarray) or not hasattr(value, "__index__"):
        got = repr(value)
    elif 0 <= operator.index(value) < _LIMIT:
        return np.uint32(operator.index(value))
    else:
        got = str(value)
    raise ConfigError(
        "make",
        f"{thing} from this {name}",
        expected="an integer from 0 to 2**32-1",
        got=got,
        do="Choose a number in that range: one outside of it could only be cut to 32 bits.",
    )
