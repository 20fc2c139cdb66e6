"""Promises of `reproducibility.keys`."""

import hashlib
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproducibility import (
    ConfigError,
    KeyTypeError,
    check_ambient_settings,
    index_key,
    process_key,
    root_key,
    step_key,
    stream_key,
)

WORDS = st.integers(0, 2**32 - 1)
derandomised = settings(derandomize=True, deadline=None, max_examples=40)


def bits(key: jax.Array) -> tuple[int, int]:
    """Return the two words of a key."""
    first, second = np.asarray(jax.random.key_data(key)).tolist()
    return first, second


def threefry(key: tuple[int, int], counter: tuple[int, int]) -> tuple[int, int]:
    """Threefry-2x32 with 20 rounds, from the paper (Salmon et al., 2011), in plain integers."""
    mask = 2**32 - 1
    schedule = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x, y = (counter[0] + schedule[0]) & mask, (counter[1] + schedule[1]) & mask
    for block in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[block % 2]:
            x = (x + y) & mask
            y = ((y << rotation) | (y >> (32 - rotation))) & mask
            y ^= x
        x = (x + schedule[(block + 1) % 3]) & mask
        y = (y + schedule[(block + 2) % 3] + block + 1) & mask
    return x, y


def derived(parent: tuple[int, int], kind: str, *words: int) -> tuple[int, int]:
    """What a key function is specified to return: the tag, then the words, each folded in."""
    tag = int.from_bytes(hashlib.sha256(f"reproducibility/{kind}".encode()).digest()[:4], "big")
    for word in (tag, *words):
        parent = threefry(parent, (0, word))
    return parent


# Frozen: every run that was ever recorded depends on them. If one of these moves, all keys have
# moved, and with them all draws: a breaking release with an entry under "Changed bits".
GOLDEN = {
    "root": (0, 7),
    "stream": (357010178, 3448600820),
    "step": (4287318182, 4013554448),
    "index": (2522453080, 3539249827),
    "process": (3684628145, 2181101258),
}


def test_golden_keys() -> None:
    """The keys of seed 7 are the frozen ones."""
    k = root_key(7)
    found = {
        "root": k,
        "stream": stream_key(k, "dropout"),
        "step": step_key(k, 3),
        "index": index_key(k, 3),
        "process": process_key(k, process_index=3),
    }
    assert {name: bits(value) for name, value in found.items()} == GOLDEN


@derandomised
@given(seed=WORDS, number=WORDS)
def test_keys_follow_their_specification(seed: int, number: int) -> None:
    """Every derivation equals an independent Threefry of the tag, then of the number."""
    k = root_key(seed)
    assert bits(k) == (0, seed)
    assert bits(step_key(k, number)) == derived((0, seed), "step", number)
    assert bits(index_key(k, number)) == derived((0, seed), "index", number)
    assert bits(process_key(k, process_index=number)) == derived((0, seed), "process", number)


@derandomised
@given(name=st.text(min_size=1))
def test_names_are_folded_in_as_64_bits_of_their_sha256(name: str) -> None:
    """A stream's key depends on 64 bits of the SHA-256 of its name, high word first."""
    try:
        digest = hashlib.sha256(name.encode()).digest()
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            stream_key(root_key(7), name)
        return
    high, low = int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")
    assert bits(stream_key(root_key(7), name)) == derived((0, 7), "stream", high, low)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 7, 4096])
def test_kinds_are_kept_apart(number: int) -> None:
    """No two kinds of child, and no child and no split or plain fold_in, are the same key."""
    k = root_key(7)
    children = [
        bits(k),
        bits(step_key(k, number)),
        bits(index_key(k, number)),
        bits(process_key(k, process_index=number)),
        bits(stream_key(k, str(number))),
        *(bits(jax.random.fold_in(k, i)) for i in range(max(number, 8))),
        *(bits(child) for child in jax.random.split(jax.random.clone(k), 8)),
    ]
    plain_and_split_agree = 8  # split(k)[i] is fold_in(k, i): the trap the tags are there for
    assert len(set(children)) == len(children) - plain_and_split_agree


def test_many_children_are_all_different() -> None:
    """10,000 steps, indices and streams of one parent give 30,000 different keys."""
    k, n = root_key(7), 10_000
    numbers = jnp.arange(n, dtype=jnp.uint32)
    found = [jax.random.key_data(jax.vmap(f, (None, 0))(k, numbers)) for f in (step_key, index_key)]
    folds = np.array(
        [np.frombuffer(hashlib.sha256(f"s{i}".encode()).digest()[:8], ">u4") for i in range(n)]
    )
    tagged = derived((0, 7), "stream")
    parent = jax.random.wrap_key_data(jnp.array(tagged, jnp.uint32), impl="threefry2x32")
    two = jax.vmap(lambda w: jax.random.fold_in(jax.random.fold_in(parent, w[0]), w[1]))
    streams = jax.random.key_data(two(jnp.asarray(folds.astype(np.uint32))))
    assert len(np.unique(np.concatenate([*found, streams]), axis=0)) == 3 * n


@pytest.mark.parametrize("derive", [step_key, index_key])
def test_traced_and_plain_numbers_agree(derive: object) -> None:
    """A Python integer, a NumPy one, a traced one and a mapped one derive one key."""
    k = root_key(7)
    number = 2**31 + 5
    expected = bits(derive(k, number))
    assert bits(derive(k, np.uint32(number))) == expected
    assert bits(jax.jit(derive)(k, jnp.uint32(number))) == expected
    assert bits(jax.vmap(derive, (None, 0))(k, jnp.uint32([0, number]))[1]) == expected


def test_a_traced_seed_gives_the_same_root() -> None:
    """`root_key` of a traced seed is that of the plain one."""
    assert bits(jax.jit(root_key)(jnp.uint32(7))) == GOLDEN["root"]


AMBIENT = {
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_RANDOM_SEED_OFFSET": "1",
    "PYTHONHASHSEED": "123",
}


def test_nothing_ambient_moves_a_key() -> None:
    """Another default implementation, seed offset and hash seed leave our keys where they are.

    The control in the same process: `jax.random.key` does move.
    """
    code = """
import jax
from reproducibility import root_key, stream_key
data = lambda k: jax.random.key_data(k).ravel().tolist()
print(data(stream_key(root_key(7), "dropout")), data(jax.random.key(7)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | AMBIENT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    ours, theirs = done.stdout.strip().split("] [")
    assert ours == f"[{GOLDEN['stream'][0]}, {GOLDEN['stream'][1]}"
    assert theirs != "0, 7]"


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True, "7", None])
def test_a_bad_seed_is_refused(seed: object) -> None:
    """A seed that is negative, too large or no integer is refused with what to pass."""
    with pytest.raises(ConfigError, match=r"root key from this seed: expected an integer from 0 "):
        root_key(seed)


@pytest.mark.parametrize("derive", [step_key, index_key])
@pytest.mark.parametrize("number", [-1, 2**32, 0.5, np.array([3])])
def test_a_bad_number_is_refused(derive: object, number: object) -> None:
    """A step or index out of range would lose its high bits: it is refused."""
    with pytest.raises(ConfigError, match="expected an integer from 0 to"):
        derive(root_key(7), number)


def test_a_float_array_is_no_number() -> None:
    """A device array of floats is refused, not rounded."""
    with pytest.raises(ConfigError, match=r"got float32\[\]"):
        step_key(root_key(7), jnp.float32(3))


def test_a_legacy_key_is_refused() -> None:
    """A raw uint32[2] key is refused by name, with the way out."""
    with pytest.raises(KeyTypeError, match=r"got uint32\[2\] \(a legacy key\)\. .*wrap_key_data"):
        step_key(jnp.array([0, 7], jnp.uint32), 3)


def test_several_keys_are_refused() -> None:
    """An array of keys is refused, with the way to derive from each."""
    with pytest.raises(KeyTypeError, match=r"keys of shape \(3,\)\. Use jax\.vmap"):
        index_key(jax.random.split(root_key(7), 3), 0)


@pytest.mark.parametrize("name", ["", 3, None])
def test_a_stream_needs_a_name(name: object) -> None:
    """A stream without a name, or with a number for one, is refused."""
    with pytest.raises(ValueError, match="Cannot derive a stream key: expected a non-empty string"):
        stream_key(root_key(7), name)


@pytest.mark.parametrize(("setting", "value"), [("threefry_partitionable", False), ("x64", True)])
def test_settings_that_change_draws_are_refused(setting: str, value: bool) -> None:
    """A JAX setting that changes every draw and that no key can pin is refused by name."""
    check_ambient_settings()
    manager = {"threefry_partitionable": jax.threefry_partitionable, "x64": jax.enable_x64}[setting]
    with manager(value), pytest.raises(ConfigError, match=setting):
        check_ambient_settings()


def test_process_key_takes_the_process_it_runs_on() -> None:
    """Without an index, `process_key` uses `jax.process_index()`."""
    k = root_key(7)
    assert bits(process_key(k)) == bits(process_key(k, process_index=jax.process_index()))
