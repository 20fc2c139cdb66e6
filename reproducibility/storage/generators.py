"""Generators of NumPy and Python as a part of the state: to arrays, and back.

The rule: all that decides the next draws, in uint32 words, so that no setting makes them narrower.
Chapter: docs/guide/bring_your_own_state.md
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np

from reproducibility.same.leaves import LeafPath

# By the name under which each calls itself.
_BIT_GENERATORS: dict[str, type[np.random.BitGenerator]] = {
    kind.__name__: kind
    for kind in (
        np.random.PCG64,
        np.random.PCG64DXSM,
        np.random.MT19937,
        np.random.Philox,
        np.random.SFC64,
    )
}
# The integers of their states that need more than 32 bits, in words.
_WORDS = {"state": 4, "inc": 4, "n_children_spawned": 2}
_PYTHON_VERSION = 3  # of what `random.Random.getstate` returns

type _Words32 = np.ndarray[Any, np.dtype[np.uint32]]
type GeneratorTree = dict[str, Any]


def generator_state(generator: Any) -> GeneratorTree:
    """Return all that decides what a generator of NumPy or Python draws next, as arrays.

    The draws to come follow from it: what the generator holds back of a draw that is made already
    (the second of two gaussians, half of a 64-bit number) and what `spawn` gives next are part of
    it. Put it into the tree that you save, and `generator_from_state` makes the generator again.

    **Same bits:** everywhere; it is integers. What a generator of NumPy draws from them may change
    with a release of NumPy, where that says so.

    Args:
        generator: a `numpy.random.Generator`, `RandomState` or bit generator (`PCG64`, `PCG64DXSM`,
            `MT19937`, `Philox`, `SFC64`), a `random.Random`; or the module `numpy.random` or
            `random`, for the generator that its functions share.

    Returns:
        Dictionaries of uint32 arrays, which say by their names what kind of generator it is. For
        one kind, seeded with up to 128 bits, always the same names and shapes.

    Raises:
        ValueError: it is no such generator, or of a class that may hold more than NumPy's or
            Python's own.

    Examples:
        >>> import numpy as np
        >>> from reproducibility import generator_from_state, generator_state
        >>> generator = np.random.default_rng(7)
        >>> state = generator_state(generator)
        >>> list(state), list(state["Generator"])
        (['Generator'], ['PCG64', 'seed_sequence'])
        >>> drawn = generator.random(3)
        >>> bool((generator_from_state(state).random(3) == drawn).all())
        True
    """
    found: Any = _shared(generator)
    kind = type(found)
    if kind is random.Random:
        version, internal, gauss = found.getstate()
        if version != _PYTHON_VERSION:
            expected = f"version {_PYTHON_VERSION} of a state of Python's"
            raise _refusal("take apart", expected, f"version {version}")
        *key, position = internal
        words = {"key": _words_of(key), "pos": _words_of(position)}
        return {"Random": {"MT19937": words, **_gauss(gauss is not None, gauss or 0.0)}}
    if kind is np.random.RandomState:
        state = found.get_state(legacy=False)
        return {"RandomState": {**_bits(state), **_gauss(state["has_gauss"], state["gauss"])}}
    if kind is np.random.Generator:
        return {"Generator": _with_seed(found.bit_generator)}
    if _BIT_GENERATORS.get(kind.__name__) is kind:
        return {"BitGenerator": _with_seed(found)}
    expected = "one of numpy.random or random itself, which holds nothing else"
    raise _refusal("take apart", expected, f"a {kind.__module__}.{kind.__qualname__}")


def generator_from_state(state: GeneratorTree, *, into: Any = None) -> Any:
    """Make a generator that draws what the one drew of which this is the state; or put one back.

    **Same bits:** the generator's next draws are those that followed when the state was taken,
    with the same version of NumPy or Python.

    Args:
        state: from `generator_state`, in NumPy's arrays or in JAX's.
        into: a generator of the same kind, which is changed, so that all who hold it draw from the
            state; or the module `numpy.random` or `random`. By default a new one is made.

    Returns:
        The new generator, or the one of `into`.

    Raises:
        ValueError: `state` is no such tree, or `into` is of another kind.

    Examples:
        >>> import random
        >>> from reproducibility import generator_from_state, generator_state
        >>> state = generator_state(random)
        >>> drawn = random.random()
        >>> generator_from_state(state, into=random).random() == drawn
        True
    """
    try:
        [(kind, parts)] = state.items()
        made = _MAKERS[kind](parts)
        whole = _same_words(generator_state(made), state)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise _refusal("read", "a tree of generator_state", type(error).__name__) from error
    if not whole:  # a name too many, another dtype, a word that fits nowhere
        raise _refusal("read", "a tree of generator_state", "other names, shapes, dtypes or values")
    return made if into is None else _put_into(into, made, state)


def is_of_generator(path: LeafPath) -> bool:
    """Say whether a leaf of this path is a word of a generator's state, from `generator_state`.

    Args:
        path: as from `named_leaves`.
    """
    parts = {*_BIT_GENERATORS, "seed_sequence", "has_gauss", "gauss"}
    return any(a.value in _MAKERS and b.value in parts for a, b in pairwise(path))


def _shared(generator: Any) -> Any:
    """Return the generator that the functions of a module share."""
    if isinstance(generator, ModuleType):
        for name in ("getstate", "get_state"):
            function = getattr(generator, name, None)
            if generator in (random, np.random) and function is not None:
                return function.__self__
    return generator


def _put_into(into: Any, made: Any, state: GeneratorTree) -> Any:
    """Give a generator, which others may hold, the state of another."""
    found, (expected, got) = _shared(into), (_kinds(generator_state(into)), _kinds(state))
    if expected != got:
        raise _refusal("put back", f"a state of {expected}, as its generator is", got)
    if isinstance(made, random.Random):
        found.setstate(made.getstate())
    elif isinstance(made, np.random.RandomState):
        found.set_state(made.get_state(legacy=False))
    else:
        of = [getattr(each, "bit_generator", each) for each in (found, made)]
        of[0].__setstate__((of[1].state, of[1].seed_seq))  # as for pickle: with what it spawns from
    return into


def _kinds(state: GeneratorTree) -> str:
    [(kind, parts)] = state.items()
    return f"{kind} with {', '.join(set(parts) & set(_BIT_GENERATORS))}"


def _same_words(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return set(a) == set(b) and all(_same_words(a[name], b[name]) for name in a)
    return np.asarray(b).dtype == a.dtype and np.array_equal(a, np.asarray(b))


def _refusal(verb: str, expected: str, got: str) -> ValueError:
    return ValueError(f"Cannot {verb} a generator: expected {expected}, got {got}.")


def _with_seed(generator: Any) -> GeneratorTree:
    """Return the state of a bit generator, and what `spawn` makes of its seed."""
    seed = generator.seed_seq
    tree = _bits(generator.state)
    if type(seed) is np.random.SeedSequence:
        # With zeros up to the size of its pool, which a seed has anyway.
        entropy = _entropy(seed.entropy)
        words = np.pad(entropy, (0, max(0, seed.pool_size - len(entropy))))
        parts = {**seed.state, "entropy": words, "spawn_key": _entropy(seed.spawn_key)}
        tree["seed_sequence"] = {name: _as_words(name, value) for name, value in parts.items()}
    elif seed is not None:
        expected = "one seeded by a number or a numpy.random.SeedSequence"
        raise _refusal("take apart", expected, f"one seeded by a {type(seed).__name__}")
    return tree


def _bits(state: Any) -> GeneratorTree:
    kind = state["bit_generator"]
    if kind not in _BIT_GENERATORS:
        expected = f"one of {', '.join(_BIT_GENERATORS)}"
        raise _refusal("take apart", expected, f"the bit generator {kind}")
    fields = _BIT_GENERATORS[kind](0).state  # without those of a RandomState
    return {kind: _as_words("", {n: state[n] for n in fields if n != "bit_generator"})}


def _as_words(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_words(key, inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"))
        return little.view("<u4").astype(np.uint32)
    return _words_of(value, _WORDS.get(name, 1))


def _words_of(value: Any, count: int = 1) -> _Words32:
    """Return an integer as so many words, the lowest first; or a list of small ones as it is."""
    if not isinstance(value, int | np.integer):
        return np.array(value, np.uint32)
    return np.frombuffer(int(value).to_bytes(4 * count, "little"), "<u4").astype(np.uint32)


def _gauss(held: Any, value: float) -> GeneratorTree:
    bits = np.array([value if held else 0.0], "<f8").view("<u4")
    return {"has_gauss": _words_of(int(held)), "gauss": bits.astype(np.uint32)}


def _entropy(entropy: Any) -> _Words32:
    """Return a seed as NumPy reads it: the words of each of its integers, one after the other."""
    if isinstance(entropy, str):
        entropy = int(entropy, 16 if entropy.startswith("0x") else 10)
    if isinstance(entropy, int | np.integer):
        value = int(entropy)
        return _words_of(value, max(1, -(-value.bit_length() // 32)))
    if isinstance(entropy, np.ndarray) and entropy.dtype == np.uint32:
        return entropy.ravel().copy()
    return np.concatenate([np.zeros(0, np.uint32), *map(_entropy, entropy)])


def _integer_of(words: Any) -> int:
    return int.from_bytes(np.asarray(words).astype("<u4").tobytes(), "little")


def _value(words: Any, like: Any) -> Any:
    """Return words as what they were: as in a state of the same kind."""
    if isinstance(like, dict):
        return {name: _value(words[name], inner) for name, inner in like.items()}
    if isinstance(like, np.ndarray):
        little = np.asarray(words).astype("<u4").view(like.dtype.newbyteorder("<"))
        return little.astype(like.dtype).reshape(like.shape)
    return _integer_of(words)


def _bit_generator(parts: GeneratorTree) -> Any:
    [kind] = set(parts) & set(_BIT_GENERATORS)
    seed = parts.get("seed_sequence")
    made = _BIT_GENERATORS[kind](0 if seed is None else _seed_sequence(seed))
    like = {name: value for name, value in made.state.items() if name != "bit_generator"}
    made.state = {**_value(parts[kind], like), "bit_generator": kind}
    return made


def _seed_sequence(parts: GeneratorTree) -> np.random.SeedSequence:
    words, pool = np.asarray(parts["entropy"]), _integer_of(parts["pool_size"])
    exact = len(words) == pool or words[-1] != 0  # the integer that they make has these words
    return np.random.SeedSequence(
        entropy=_integer_of(words) if exact else [int(word) for word in words],
        spawn_key=[int(word) for word in np.asarray(parts["spawn_key"])],
        pool_size=pool,
        n_children_spawned=_integer_of(parts["n_children_spawned"]),
    )


def _random_state(parts: GeneratorTree) -> np.random.RandomState:
    made = np.random.RandomState(_bit_generator(parts))
    held = _integer_of(parts["has_gauss"])
    made.set_state({**made.get_state(legacy=False), "has_gauss": held, "gauss": _double(parts)})
    return made


def _random(parts: GeneratorTree) -> random.Random:
    made, words = random.Random(0), parts["MT19937"]
    internal = (*(int(word) for word in np.asarray(words["key"])), _integer_of(words["pos"]))
    gauss = _double(parts) if _integer_of(parts["has_gauss"]) else None
    made.setstate((_PYTHON_VERSION, internal, gauss))
    return made


def _double(parts: GeneratorTree) -> float:
    return float(np.asarray(parts["gauss"]).astype("<u4").view("<f8")[0])


_MAKERS: dict[str, Callable[[GeneratorTree], Any]] = {
    "Generator": lambda parts: np.random.Generator(_bit_generator(parts)),
    "BitGenerator": _bit_generator,
    "RandomState": _random_state,
    "Random": _random,
}
