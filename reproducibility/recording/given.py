"""What a loop hands over, as a program can read it later: of this moment, and with all its bits.

The rule: what is recorded is what was there at the call. Nothing is narrowed, and what has no bits
of its own is refused by its name.
Chapter: docs/guide/flight_recorder.md

JAX may read memory that it shares with NumPy when the loop has long written something else into it.
What is still being computed shares none, nor does what once was; of the rest nothing tells.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import weakref
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from reproducibility.errors import LeafError
from reproducibility.same.fingerprint import host_words
from reproducibility.same.leaves import (
    BITS,
    HOST_ONLY,
    LeafPath,
    is_numpy,
    is_weak,
    key_words,
    leaf_error,
    may_share_memory,
    named_leaves,
    private_copies,
)

AS_BYTES = 2**15  # bytes of an array up to which two are compared as bytes
FLOAT0 = np.dtype(jax.dtypes.float0)
_CAN = "an array, a typed key, a number or text"


@functools.partial(jax.tree_util.register_dataclass, data_fields=["planes"], meta_fields=["kind"])
@dataclasses.dataclass(frozen=True)
class HostWords:
    """A leaf that JAX would narrow, or does not know: its bits as words."""

    planes: tuple[Any, ...]
    """One array for each 32 bits of an element."""
    kind: tuple[str, tuple[int, ...]]
    """The name of its dtype, or what it is; and its shape."""


@functools.partial(jax.tree_util.register_dataclass, data_fields=["words"], meta_fields=["kind"])
@dataclasses.dataclass(frozen=True)
class KeyWords:
    """Typed keys, as the array that they are made of: JAX takes that several times as fast."""

    words: Any
    kind: Any
    """The PRNG implementation."""

    def keys(self) -> Any:
        """Return the typed keys."""
        return jax.random.wrap_key_data(self.words, impl=self.kind)


class HandedOver:
    """Takes what a loop hands over in each step; remembers which arrays are JAX's own.

    Args:
        computes: Whether a view computes with it: then there is nothing but what JAX takes.
    """

    def __init__(self, computes: bool) -> None:
        self._computes = computes
        self._own: list[Any] = []  # by place: arrays that were seen while they were computed
        self._copies: dict[int, _Copy] = {}  # by place
        self._implementations: dict[Any, Any] = {}

    def take(
        self, leaves: Sequence[Any], tree: PyTree, axes: Sequence[int | None] = ()
    ) -> tuple[list[Any], bool]:
        """Return the leaves as a program can read them later.

        Args:
            leaves: Of the tree.
            tree: To name one that is refused.
            axes: Of each leaf, the axis along which each member has its part; or nothing.

        Returns:
            The leaves, and whether the reader must be waited for before the loop may go on.

        Raises:
            LeafError: A leaf has no bits that could be recorded.
        """
        taken, ready, pending = list(leaves), [], False
        if len(self._own) != len(leaves):
            self._own = [None] * len(leaves)
        for number, leaf in enumerate(leaves):
            if not isinstance(leaf, jax.Array):
                taken[number] = known = _from_host(leaf)
                divided = bool(axes) and axes[number] is not None
                if known is None or (isinstance(known, HostWords) and (self._computes or divided)):
                    raise _cannot_record(_path(number, tree), leaf, known, self._computes)
                continue
            array: Any = leaf
            if not isinstance(leaf.dtype, np.dtype):  # keys: `is_key` takes 20 times as long
                taken[number] = KeyWords(array := key_words(leaf), self._implementation(leaf))
            own = self._own[number]
            if not array.is_ready():
                pending = True
                self._own[number] = weakref.ref(array)
            elif own is None or own() is not array:
                ready.append((number, array))
        if not pending:  # nothing to wait for but the reader itself
            return taken, any(may_share_memory(array) for _, array in ready)
        for number, array in ready:
            if not may_share_memory(array):
                continue
            copy = self._copy(number, array)
            before = taken[number]
            is_words = isinstance(before, KeyWords)
            taken[number] = dataclasses.replace(before, words=copy) if is_words else copy
        return taken, False

    def _implementation(self, keys: Any) -> Any:
        found = self._implementations.get(keys.dtype)
        if found is None:
            found = self._implementations[keys.dtype] = jax.random.key_impl(keys)
        return found

    def _copy(self, number: int, array: Any) -> Any:
        """Copy an array that is there; one that was copied before and is the same, not again."""
        known = self._copies.get(number)
        if known is None or known.of() is not array:
            # Of NumPy, JAX would make something else where a weak type or 64 bits are to be kept.
            if is_weak(array) or array.dtype.itemsize > 4 or array.sharding.num_devices > 1:
                return private_copies([array])[0]
            of = weakref.ref(array, lambda _: self._copies.pop(number, None))
            self._copies[number] = known = _Copy(of, array)
        elif not known.is_of_now(array):
            self._copies[number] = known = _Copy(known.of, array)
        elif not known.again:
            known.keep(private_copies([array])[0])
        return known.copy


def inside_of_a_program(leaves: Sequence[Any], tree: PyTree) -> list[Any]:
    """Return what a program that is traced now has, with all bits of what comes from the host.

    Args:
        leaves: Of the tree.
        tree: To name one that is refused.

    Raises:
        LeafError: A leaf has no bits that could be recorded.
    """
    taken = [leaf if isinstance(leaf, jax.Array) else _from_host(leaf) for leaf in leaves]
    for number, known in enumerate(taken):
        if known is None:
            raise _cannot_record(_path(number, tree), leaves[number], None, computes=False)
    return taken


class _Copy:
    """A copy of an array that was handed over, to be used again while the array is the same.

    Args:
        of: A weak reference to the array.
        array: It.
    """

    __slots__ = ("again", "content", "copy", "of")

    def __init__(self, of: Any, array: Any) -> None:
        self.of, self.again = of, False
        self.copy: Any = np.array(array)
        self.content = _content_of(self.copy)

    def is_of_now(self, array: Any) -> bool:
        """Say whether the array still has the bits of the copy."""
        same = self.content == _content_of(np.asarray(array))
        return same if isinstance(same, bool) else bool(same.all())

    def keep(self, copy: Any) -> None:
        """Keep a copy on the device, which a program takes without copying it in each call."""
        self.copy, self.again = copy, True
        self.content = _content_of(np.asarray(copy))  # and no longer of the first copy


def _content_of(array: np.ndarray[Any, Any]) -> Any:
    """Return what two arrays of one shape and dtype are compared by, whichever is quicker."""
    if array.nbytes < AS_BYTES:
        return array.tobytes()
    unit = np.uint64 if array.nbytes % 8 == 0 else np.uint8  # eight at once, where it is possible
    return array.reshape(-1).view(unit)


def _from_host(leaf: Any) -> Any:
    """Return a leaf that is no array of JAX as JAX takes it, or its words; None if it has none."""
    kind = type(leaf)
    if kind in (bool, int, float, complex):
        number = None if kind is int and not -(2**63) <= leaf < 2**64 else _as_numpy(leaf)
        if kind is bool or (number is not None and not _loses_bits(number)):
            return leaf
        return _host_words_of(str(leaf) if number is None else number)
    if is_numpy(leaf) and leaf.dtype.name in BITS and not isinstance(leaf, np.ma.MaskedArray):
        # In the machine's byte order, as JAX takes no other.
        copy = np.array(leaf, leaf.dtype.newbyteorder("="))
        return _host_words_of(copy) if _loses_bits(copy) else copy
    return _host_words_of(leaf)


def _cannot_record(path: LeafPath, leaf: Any, words: HostWords | None, computes: bool) -> LeafError:
    if isinstance(leaf, np.ma.MaskedArray):
        do = "Put its data and its mask into the tree."
        return leaf_error("record", path, (_CAN, "a masked array", do))
    kind = f"{leaf.dtype.name} values" if is_numpy(leaf) else f"a value of type {kind_name(leaf)}"
    if words is None:
        return leaf_error("record", path, (_CAN, kind, "Give its text, or leave it out."))
    why = "a view computes with it" if computes else "each member has its part of it"
    do = "Give an array of JAX, or leave it out."
    return leaf_error("record", path, (f"what JAX takes whole, as {why}", kind, do))


def kind_name(leaf: Any) -> str:
    """Return the name of a value's type.

    Args:
        leaf: Anything.
    """
    return type(leaf).__name__


def _path(number: int, tree: PyTree) -> LeafPath:
    structure: Any = jax.tree.structure(tree)
    numbered = jax.tree.unflatten(structure, range(structure.num_leaves))
    return next(path for path, n in named_leaves(numbered) if n == number)


def _as_numpy(number: Any) -> Any:
    if type(number) is int:
        return np.int64(number) if number < 2**63 else np.uint64(number)
    return np.float64(number) if type(number) is float else np.complex128(number)


def _loses_bits(array: Any) -> bool:
    """Say whether JAX would take other bits than there are.

    Where it has no 64 bits, float64 becomes float32, and int64 loses its upper half. Of some
    dtypes its programs read none.
    """
    if array.dtype.name in HOST_ONLY:
        return True
    narrow = jax.dtypes.canonicalize_dtype(array.dtype)
    if narrow == array.dtype:
        return False
    with np.errstate(all="ignore"):
        back = np.asarray(array).astype(narrow).astype(array.dtype)
    return bool(back.tobytes() != np.asarray(array).tobytes())


def _host_words_of(leaf: Any) -> HostWords | None:
    """Return the words of what JAX would narrow, or does not know; None where it has none."""
    if isinstance(leaf, str | bytes):
        return _of_texts([leaf], "text" if isinstance(leaf, str) else "bytes", ())
    if not is_numpy(leaf) or isinstance(leaf, np.ma.MaskedArray):
        return None
    name, shape = leaf.dtype.name, tuple(leaf.shape)
    if name in BITS:
        return HostWords(tuple(host_words(np.asarray(leaf), BITS[name])), (name, shape))
    if leaf.dtype == FLOAT0:
        return HostWords((), ("float0", shape))
    if leaf.dtype.kind in "Mm":
        return HostWords(tuple(host_words(np.asarray(leaf).view("<i8"), 64)), (name, shape))
    texts = np.asarray(leaf).reshape(-1).tolist() if leaf.dtype.kind in "USO" else [None]
    for kind, known in (("text", str), ("bytes", bytes)):
        if all(type(text) is known for text in texts) and (texts or leaf.dtype.kind != "O"):
            return _of_texts(texts, kind, shape)
    return None


def _of_texts(texts: Sequence[Any], kind: str, shape: tuple[int, ...]) -> HostWords:
    whole = hashlib.sha256()
    for text in texts:
        content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        whole.update(len(content).to_bytes(8, "little") + content)
    return HostWords((np.frombuffer(whole.digest(), "<u4").astype(np.uint32),), (kind, shape))
