"""Batch i is a function of (seed, step): there is no iterator state to lose.

The rule: the data position is the step. Which examples a batch holds is computed, not remembered.
Chapter: docs/components/data_explained.md

The shuffle is *swap-or-not* (Hoang, Morris, Rogaway, "An enciphering scheme based on a card
shuffle", CRYPTO 2012). A round pairs every position v with the position k - v (mod n) for a random
k, and swaps the two if a hash of the larger of them is odd. Each round is its own inverse, so any
number of rounds is a permutation of exactly 0 … n-1, for every n, whatever the hash. Where one
position goes is computed without the others: any slice of any batch of any epoch in the same time,
in integer arithmetic that gives the same numbers on every machine.

Not `jax.random.permutation`: it sorts the whole epoch to answer for one batch, and JAX promises
only its distribution, not its bits, from release to release. Here JAX draws only the words of a
round, with `jax.random.bits`; "everywhere" below ends where a release of JAX moves those.

Where the data come from a Grain pipeline there is an iterator state to lose. `from_grain` seals it.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree, UInt, UInt8

from reproducibility.errors import CheckpointMismatchError, ConfigError
from reproducibility.keys import index_key, root_key, stream_key
from reproducibility.same.hashing import tree_digest
from reproducibility.storage.files import canonical_json

SHUFFLE_ROUNDS = 32  # each round leaves a position where it is with probability 1/2
SYNTHETIC_FEATURES = 32
SYNTHETIC_CLASSES = 10
SYNTHETIC_TRAIN = 2048
SYNTHETIC_TEST = 512
DIGITS_TRAIN = 1437  # the first four fifths; the rest was written by other people
# Bytes. A checkpoint restores into shapes that are known before it is read, so JSON is padded. The
# longest state measured (Grain 0.2.18): 326 for a mix of 16 sources, times 8 worker processes.
GRAIN_BYTES = 8192
type _Examples = tuple[np.ndarray, np.ndarray, int]  # inputs, labels, how many to train on
_UNSTATED = (
    "The settings agree and the data does not: look for a source, transformation or version that "
    "changed, or a draw without a seed."
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples on the device, and the order in which each epoch visits them.

    A pytree, so it can be an argument of a jitted function.

    **Same bits:** the examples and the order, everywhere.

    Examples:
        >>> data = load_dataset("synthetic", seed=7, batch_size=64)
        >>> x, y = data.batch(1000)
        >>> x.shape, y.shape
        ((64, 32), (64,))
    """

    x: Float[Array, "n features"]
    """Training inputs."""
    y: Int[Array, " n"]
    """Training labels, int32, 0 to `classes` - 1."""
    x_test: Float[Array, "m features"]
    """Held-out inputs, never trained on."""
    y_test: Int[Array, " m"]
    """Held-out labels."""
    shuffle: Key[Array, ""]
    """The key of the order: each epoch derives its own from it."""
    batch_size: int = dataclasses.field(metadata={"static": True})
    """Examples a batch."""
    classes: int = dataclasses.field(metadata={"static": True})
    """Number of labels."""

    def rows(self, step: int | Array, start: int | Array, count: int) -> UInt[Array, " count"]:
        """Return which training examples stand at places start … start+count-1 of a batch.

        Batch `step` covers places `step * batch_size` onwards of one endless sequence: epoch 0,
        epoch 1, … each a fresh permutation. Where the batch size does not divide the number of
        examples, a batch ends one epoch and begins the next: every batch has the same shape and
        every epoch visits every example once.

        **Same bits:** everywhere.

        Args:
            step: completed updates, 0 ≤ step < 2**32; may be traced.
            start: first place within the batch; may be traced.
            count: how many places, a Python integer.

        Returns:
            Row numbers of `x` and `y`, uint32, shape `(count,)`.

        Raises:
            ValueError: examples times batch size leave 32 bits.
        """
        n, size = len(self.x), self.batch_size
        if n * size >= 2**32:
            raise ValueError(
                f"Cannot find rows of {n} examples in batches of {size}: expected a product below "
                f"2**32, got {n * size}. Use smaller batches, or several data sets."
            )
        places: Array = _shuffled_rows(
            self.shuffle, jnp.uint32(step), jnp.uint32(start), n=n, size=size, count=count
        )
        return places

    def batch(
        self, step: int | Array, *, part: slice | None = None
    ) -> tuple[Float[Array, "part features"], Int[Array, " part"]]:
        """Return the inputs and labels of one batch, or of a slice of it.

        **Same bits:** everywhere; `part` gives the rows that the whole batch has there.

        Args:
            step: completed updates, 0 ≤ step < 2**32; may be traced.
            part: places of the batch, a slice with step 1; by default all of them.

        Returns:
            Inputs, float32, and labels, int32.

        Raises:
            ValueError: `part` is empty, skips places or leaves the batch.

        Examples:
            >>> data = load_dataset("synthetic", seed=7, batch_size=64)
            >>> x, _ = data.batch(5)
            >>> half, _ = data.batch(5, part=slice(32, 64))
            >>> bool((x[32:] == half).all())
            True
        """
        places = range(self.batch_size)[part if part is not None else slice(None)]
        if not places or places.step != 1 or (part and (part.stop or 0) > self.batch_size):
            raise ValueError(
                "Cannot take a part of a batch: expected one or more places in a row within "
                f"0 … {self.batch_size}, got {part}. Use slice(start, stop)."
            )
        rows = self.rows(step, places.start, len(places))
        return self.x[rows], self.y[rows]


def load_dataset(
    name: Literal["synthetic", "digits"] | str, *, seed: int, batch_size: int
) -> Dataset:
    """Load a data set by name and give it the shuffling order of a seed.

    The examples do not depend on the seed, only their order does.

    **Same bits:** everywhere. The synthetic inputs are integers times a power of two, drawn with
    integer arithmetic: `jax.random.normal` would differ with the CPU's instruction set.

    Args:
        name: `"synthetic"`: 2,048 + 512 examples of 10 classes, 32 features, a centroid plus
            noise; `"digits"`: 1,437 + 360 images of handwritten digits, 8x8 grey levels in
            sixteenths, from scikit-learn, which ships them.
        seed: 0 ≤ seed < 2**32, moves the order.
        batch_size: examples a batch, at most as many as there are.

    Returns:
        A `Dataset`.

    Raises:
        ConfigError: the name is unknown, or the batch is larger than the data set.

    Examples:
        >>> load_dataset("digits", seed=7, batch_size=32).x.shape
        (1437, 64)
    """
    loaders: dict[str, Callable[[], _Examples]] = {"synthetic": _synthetic, "digits": _digits}
    if name not in loaders:
        raise ConfigError(
            "load",
            "a data set",
            expected=f"one of {', '.join(loaders)}",
            got=repr(name),
            do="Spell it as one of those.",
        )
    x, y, train = loaders[name]()
    if not 1 <= batch_size <= train:
        raise ConfigError(
            "use",
            "batch_size",
            expected=f"1 to {train}, the examples of {name!r}",
            got=batch_size,
            do="Use a smaller batch: no example stands in a batch twice.",
        )
    return Dataset(
        x=jnp.asarray(x[:train]),
        y=jnp.asarray(y[:train]),
        x_test=jnp.asarray(x[train:]),
        y_test=jnp.asarray(y[train:]),
        shuffle=stream_key(root_key(seed), "shuffle"),
        batch_size=batch_size,
        classes=int(y.max()) + 1,
    )


class GrainBatches(Iterator[PyTree]):
    """The batches of a Grain pipeline, with a state that knows which pipeline it belongs to.

    `from_grain` makes it. It is an iterator over batches; `state` goes into a checkpoint.
    """

    def __init__(self, dataset: Iterable[PyTree], settings: np.ndarray, probes: int) -> None:
        self._dataset, self._settings, self._probes = dataset, settings, probes
        self._batches: Any = iter(dataset)
        # What was read and not yet handed out: each batch, with Grain's state before it.
        self._ahead: deque[tuple[np.ndarray, PyTree]] = deque()

    def __next__(self) -> PyTree:
        return self._ahead.popleft()[1] if self._ahead else next(self._batches)

    def state(self) -> dict[str, UInt8[np.ndarray, " bytes"]]:
        """Return the position, sealed with the settings and the digest of the batches that follow.

        Reads those early and hands them out afterwards: no batch is read twice or skipped.

        **Same bits:** one version of Grain, for a pipeline that repeats its batches.

        Returns:
            "position", Grain's own state, and "settings", both as JSON padded with spaces, uint8
            of shape `(8192,)`; "probes", a SHA-256, uint8 of shape `(32,)`.

        Raises:
            ValueError: Grain's state is no JSON, or longer than that.
            LeafError: a batch has a leaf without a digest, such as text.
        """
        for _ in range(self._probes - len(self._ahead)):
            before = self._position()
            self._ahead += [(before, b) for b in itertools.islice(self._batches, 1)]  # 0 at the end
        position = self._ahead[0][0] if self._ahead else self._position()
        digest = bytes.fromhex(tree_digest([batch for _, batch in self._ahead]))
        probes = np.frombuffer(digest, np.uint8)
        return {"position": position, "settings": self._settings, "probes": probes}

    def restore(self, state: Mapping[str, UInt8[np.ndarray, " bytes"]]) -> None:
        """Go to a saved position; refuse one of another pipeline, and stay where it was.

        **Same bits:** the next batches are compared with those that were saved. Those after them
        are the same as far as the pipeline repeats itself.

        Args:
            state: what `state` returned, in this process or another.

        Raises:
            CheckpointMismatchError: a setting differs, and is named; or the settings agree and
                the batches do not, or Grain cannot take the position.
        """
        saved, ours = (_settings_text(each) for each in (state["settings"], self._settings))
        other = sorted(name for name in saved | ours if saved.get(name) != ours.get(name))
        if other:
            expected, got = (", ".join(t.get(n, f"no {n}") for n in other) for t in (saved, ours))
            raise _mismatch(expected, got, "Use the recorded settings, or begin another run.")
        # Not this iterator: what it has read ahead, or its end, stays out of the one that goes on.
        resumed = GrainBatches(self._dataset, self._settings, self._probes)
        try:
            resumed._batches.set_state(json.loads(bytes(state["position"])))
        except Exception as error:  # each of Grain's iterators raises another
            got = f"{type(error).__name__}: {error}".rstrip(".")
            raise _mismatch("a position this pipeline can take", got, _UNSTATED) from error
        expected, got = (bytes(each["probes"]).hex() for each in (state, resumed.state()))
        if got != expected:
            raise _mismatch(f"batches with digest {expected[:16]}…", f"{got[:16]}…", _UNSTATED)
        self._batches.close()
        self._batches, self._ahead = resumed._batches, resumed._ahead

    def _position(self) -> np.ndarray:
        return _padded(self._batches.get_state(), "Grain's state")


def from_grain(
    dataset: Iterable[PyTree], *, settings: Mapping[str, Any], probes: int = 3
) -> GrainBatches:
    """Iterate over the batches of a Grain pipeline, with a state that refuses another pipeline.

    Grain's own state is a position and nothing else: a pipeline with another seed, source or batch
    size accepts it.

    **Same bits:** as the pipeline. The batches are those of `iter(dataset)`.

    Args:
        dataset: a Grain `MapDataset` or `IterDataset` that ends in batches, which are trees of
            arrays; it may be infinite.
        settings: what determines the batches, JSON values by name: seed, batch size, source, its
            number of examples, number of workers. `probes` is added to them.
        probes: how many batches after the position a state is sealed with, at least 1. They are
            read early, not twice; `state` waits for them and takes their SHA-256.

    Returns:
        An iterator whose `state()` goes into a checkpoint and whose `restore(state)` takes it.

    Raises:
        ValueError: `dataset` is no such pipeline, `settings` is no JSON or longer than 8,192
            bytes, or `probes` is less than 1.

    Examples:
        >>> import grain
        >>> numbers = grain.MapDataset.range(100).seed(7).shuffle().repeat().batch(32)
        >>> batches = from_grain(numbers, settings={"seed": 7, "batch_size": 32})
        >>> state = batches.state()
        >>> first = next(batches)
        >>> batches.restore(state)
        >>> bool((next(batches) == first).all())
        True
    """
    # By what they do: Grain itself need not be imported here.
    if isinstance(dataset, Iterator) or not hasattr(iter(dataset), "set_state"):
        raise ValueError(
            "Cannot read a Grain pipeline: expected a MapDataset or an IterDataset, got "
            f"a value of type {type(dataset).__name__}. Give the data set, not its iterator."
        )
    if probes < 1:
        raise ValueError(
            f"Cannot seal a pipeline with {probes} probes: expected at least 1, got {probes}. "
            "Settings say what the batches should be, probes what they are."
        )
    return GrainBatches(dataset, _padded({**settings, "probes": probes}, "settings"), probes)


def _padded(value: Any, thing: str) -> UInt8[np.ndarray, " GRAIN_BYTES"]:
    """Encode a value as JSON of a length that does not depend on it."""
    try:
        text = canonical_json(value)
        got = f"{len(text)} bytes"
    except (TypeError, ValueError) as error:
        text, got = b"", str(error)
    if not 0 < len(text) <= GRAIN_BYTES:
        raise ValueError(
            f"Cannot seal {thing}: expected JSON of at most {GRAIN_BYTES} bytes, got {got}. "
            "Use plain Python values, and a digest for what is long."
        )
    return np.frombuffer(text.ljust(GRAIN_BYTES), np.uint8)


def _settings_text(settings: UInt8[np.ndarray, " GRAIN_BYTES"]) -> dict[str, str]:
    # As text, because 1, 1.0 and True are equal in Python and three different settings.
    return {name: f"{name}={value!r}" for name, value in json.loads(bytes(settings)).items()}


def _mismatch(expected: str, got: str, do: str) -> CheckpointMismatchError:
    return CheckpointMismatchError("resume", "the data", expected=expected, got=got, do=do)


def _synthetic() -> _Examples:
    """Draw class centroids plus bell-shaped noise, in integers; scale by a power of two."""
    n = SYNTHETIC_TRAIN + SYNTHETIC_TEST

    words = _synthetic_words(stream_key(root_key(0), "synthetic data set"))
    centroids, noise = map(_bell, words)
    labels = np.arange(n, dtype=np.int32) % SYNTHETIC_CLASSES  # the shuffle mixes them
    # One part centroid, two parts noise: a task that is learnt, but not at once.
    x = (centroids[labels] + 2 * noise).astype(np.float32) / 2**16
    return x, labels, SYNTHETIC_TRAIN


@jax.jit  # one program: called op by op, each of its operations would be compiled alone
def _synthetic_words(key: Key[Array, ""]) -> tuple[Array, Array]:
    n, each = SYNTHETIC_TRAIN + SYNTHETIC_TEST, (SYNTHETIC_FEATURES, 2)
    return (
        jax.random.bits(stream_key(key, "centroids"), (SYNTHETIC_CLASSES, *each), "uint32"),
        jax.random.bits(stream_key(key, "noise"), (n, *each), "uint32"),
    )


def _bell(words: Array) -> np.ndarray:
    """Sum the four 16-bit halves of two words: nearly normal, mean 0, exact on every machine."""
    host = np.asarray(words)
    halves = np.stack([host & 0xFFFF, host >> 16]).astype(np.int32)
    total: np.ndarray = halves.sum(axis=(0, -1), dtype=np.int32) - 2 * 0xFFFF
    return total


@functools.lru_cache  # a file of text, the same whatever is set
def _digits() -> _Examples:
    """Read the digits that ship with scikit-learn; grey levels 0 … 16 become sixteenths."""
    from sklearn.datasets import load_digits  # a second to import: only for those who use it

    digits = load_digits()
    x, y = digits.data.astype(np.float32) / 16, digits.target.astype(np.int32)
    x.flags.writeable = y.flags.writeable = False  # all who ask get these
    return x, y, DIGITS_TRAIN


@functools.partial(jax.jit, static_argnames=("n", "size", "count"))  # outside of jit: compile once
def _shuffled_rows(
    shuffle: Key[Array, ""], step: Array, start: Array, *, n: int, size: int, count: int
) -> UInt[Array, " count"]:
    # step * size leaves 32 bits in a long run: split step by n first, and no product does.
    turns, rest = jnp.divmod(step, jnp.uint32(n))
    epoch = turns * size + rest * size // n
    place = rest * size % n + start + jnp.arange(count, dtype=jnp.uint32)
    this, following = (_permute(index_key(shuffle, e), place % n, n) for e in (epoch, epoch + 1))
    return jnp.where(place < n, this, following)


def _permute(key: Key[Array, ""], place: UInt[Array, " k"], n: int) -> UInt[Array, " k"]:
    """Say where a keyed permutation of 0 … n-1 sends each place (see the top of this file)."""
    words = jax.random.bits(key, (SHUFFLE_ROUNDS, 2), "uint32")

    def swap_or_not(r: Array, v: Array) -> Array:
        pivot, salt = words[r, 0] % n, words[r, 1]
        partner = (pivot + n - v) % n
        return jnp.where(_hash(jnp.maximum(v, partner) ^ salt) & 1, partner, v)

    moved: Array = jax.lax.fori_loop(0, SHUFFLE_ROUNDS, swap_or_not, place)
    return moved


def _hash(word: UInt[Array, " k"]) -> UInt[Array, " k"]:
    """Mix all bits of a word into all others (the 32-bit finaliser of MurmurHash3)."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)
