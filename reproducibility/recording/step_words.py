"""What a step comes to: the fingerprints of all it was made of, in one array.

The rule: fingerprints only read. Beside a loop they come from a program of their own; inside of a
program that is compiled whole they stand behind a barrier, and are one more output of it.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt32

from reproducibility.recording.given import HostWords, KeyWords, inside_of_a_program
from reproducibility.recording.lines import STAGES
from reproducibility.same.fingerprint import (
    checked_leaf,
    header_words,
    kind_name_of,
    leaf_fingerprint,
    words_fingerprint,
)
from reproducibility.same.joined import (
    Columns,
    SmallLeaf,
    added_up,
    chosen,
    joined_lanes,
    small_leaf,
)
from reproducibility.same.leaves import (
    BITS,
    LeafPath,
    NamedLeaves,
    is_key,
    key_implementation,
    named_leaves,
    path_string,
)

type Stages = dict[str, PyTree]
type View = Callable[..., Stages]
type LeafKinds = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["words"], meta_fields=["loss", "leaves"]
)
@dataclasses.dataclass(frozen=True)
class StepFingerprints:
    """What a step comes to: one array, as fetching two takes twice as long.

    Same bits: everywhere where what it is of has the same bits.
    """

    words: UInt32[Array, "*steps fingerprints 2"]
    """The fingerprint of each leaf; and behind them the bits of the loss, if there is one."""
    loss: Any
    """Dtype and number of its elements, or None."""
    leaves: LeafKinds
    """The names of the leaves of each stage, each with its dtype."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["words"],
    meta_fields=["columns", "loss", "leaves"],
)
@dataclasses.dataclass(frozen=True)
class JoinedFingerprints:
    """What a step comes to beside a loop on one device: its small leaves are still to be added up.

    Same bits: everywhere where what it is of has the same bits.
    """

    words: UInt32[Array, "2 columns"]
    """Of the small leaves, as `joined_lanes` returns them; and behind them, in columns of their
    own, the fingerprints of the other leaves, and the bits of the loss."""
    columns: Columns
    """Whose columns they are."""
    loss: Any
    """As of `StepFingerprints`."""
    leaves: LeafKinds
    """As of `StepFingerprints`."""

    def in_order(self, words: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return what `StepFingerprints` holds as words.

        Args:
            words: On the host, of several steps.
        """
        joined, end = list(self.columns.leaves), self.columns.end
        others = np.swapaxes(words[:, :, end:], 1, 2)
        many = len(joined) + others.shape[1]
        found = np.empty((len(words), many, 2), np.uint32)
        found[:, joined] = added_up(words[:, :, :end], self.columns)
        found[:, np.setdiff1d(np.arange(many), joined)] = others
        return found


def step_fingerprints(*, loss: Any = None, **stages: Any) -> StepFingerprints:
    """Fingerprint a step inside of a program: in `jit`, in the body of a `lax.scan`, under `vmap`.

    Return it from there, and hand it to `Recorder.record_scan`. It takes what `Recorder.record`
    takes, and the ledger will be the same.

    **Same bits:** of the fingerprints: everywhere where what they are of has the same bits. The
    program is another one with them than without, and its own bits may be others: compare once.

    Args:
        loss: A scalar array, or several losses in one.
        **stages: Pytrees of arrays, by what they are: `batch`, `key`, `gradients`, `opt_state`,
            `params`.

    Returns:
        A pytree of one array: two words for each leaf.

    Raises:
        ValueError: A stage has another name.
        LeafError: A leaf has no fingerprint.

    Examples:
        >>> def body(w, step):
        ...     w = w * 0.5
        ...     return w, step_fingerprints(params={"w": w})
        >>> _, seen = jax.lax.scan(body, jnp.ones(3), jnp.arange(1, 5))
        >>> seen.words.shape
        (4, 1, 2)
    """
    refuse_other_stages(stages)
    loss = None if loss is None else jnp.asarray(loss)
    leaves, structure = jax.tree.flatten(stages)
    barrier: Any = jax.lax.optimization_barrier  # so that nothing of the program changes for it
    taken = [_key_as_words(leaf) for leaf in inside_of_a_program(leaves, stages)]
    leaves, loss = barrier((taken, loss))
    found: StepFingerprints = _of_step(None, structure, leaves, loss)
    return found


@functools.lru_cache(maxsize=8)
def step_program(view: View | None) -> Callable[..., StepFingerprints | JoinedFingerprints]:
    """Return the program that fingerprints a step; recorders of one process share it.

    It takes the structure of what was recorded; the axis of each leaf along which each member has
    its part, or None; whether the small leaves may be joined, as on one device; the leaves; and
    the loss or None.

    Args:
        view: Takes what was recorded, by names, and returns the stages; or None.
    """

    def program(
        structure: Any, axes: Any, join: bool, leaves: Any, loss: Any
    ) -> StepFingerprints | JoinedFingerprints:
        one = functools.partial(_of_step, view, structure, join=join)
        found: StepFingerprints | JoinedFingerprints = (
            one(leaves, loss) if axes is None else jax.vmap(one, (list(axes), 0))(leaves, loss)
        )
        return found

    return jax.jit(program, static_argnums=(0, 1, 2))


def _key_as_words(leaf: Any) -> Any:
    # To look at a key is not to use it, for the checker of JAX.
    return KeyWords(jax.random.key_data(leaf), jax.random.key_impl(leaf)) if is_key(leaf) else leaf


def refuse_other_stages(stages: Mapping[str, Any]) -> None:
    """Refuse what has a name that is of no stage.

    Args:
        stages: By name.
    """
    unknown = sorted(stages.keys() - set(STAGES))
    if unknown:
        raise ValueError(
            f"Cannot record {unknown[0]}: expected stages out of {', '.join(STAGES)}. "
            "Put it into the one it belongs to."
        )


def _of_step(
    view: View | None, structure: Any, leaves: Sequence[Any], loss: Any, join: bool = False
) -> Any:
    arrays = [leaf.keys() if isinstance(leaf, KeyWords) else leaf for leaf in leaves]
    if view:
        stages = view(**jax.tree.unflatten(structure, arrays))
        refuse_other_stages(stages)
        named = {stage: named_leaves(tree) for stage, tree in stages.items()}
    else:
        numbered = jax.tree.unflatten(structure, range(structure.num_leaves))
        refuse_other_stages(numbered)
        names = {stage: named_leaves(tree) for stage, tree in numbered.items()}
        named = {s: [(path, arrays[n]) for path, n in pairs] for s, pairs in names.items()}
    named = {stage: named[stage] for stage in STAGES if stage in named}
    kinds = tuple(
        (stage, tuple((path_string(path), _kind(leaf)) for path, leaf in pairs))
        for stage, pairs in named.items()
    )
    return _fingerprints_of([pair for pairs in named.values() for pair in pairs], loss, kinds, join)


def _fingerprints_of(pairs: NamedLeaves, loss: Any, kinds: LeafKinds, join: bool) -> Any:
    small = chosen([_small(n, *pair) for n, pair in enumerate(pairs)]) if join else []
    alone = {*range(len(pairs))} - {leaf.number for leaf in small}
    words = [_one_fingerprint(*pairs[number]) for number in sorted(alone)]
    words += [] if loss is None else list(_loss_words(loss))
    stacked = jnp.stack(words) if words else jnp.zeros((0, 2), jnp.uint32)
    kind = None if loss is None else (loss.dtype, loss.size)
    if not small:
        return StepFingerprints(stacked, kind, kinds)
    lanes, columns = joined_lanes(small)
    return JoinedFingerprints(jnp.concatenate([lanes, stacked.T], 1), columns, kind, kinds)


def _small(number: int, path: LeafPath, leaf: Any) -> SmallLeaf:
    if isinstance(leaf, HostWords):
        one, other = header_words(path, *leaf.kind).tolist()
        return SmallLeaf(number, (one, other), tuple(jnp.asarray(plane) for plane in leaf.planes))
    return small_leaf(number, path, checked_leaf(path, leaf), kind_name_of(leaf))


def _one_fingerprint(path: LeafPath, leaf: Any) -> UInt32[Array, " 2"]:
    if isinstance(leaf, HostWords):
        return words_fingerprint(path, *leaf.kind, leaf.planes)
    return leaf_fingerprint(path, leaf)


def _kind(leaf: Any) -> str:
    """Return the dtype that a leaf has on the device, by which a change of it is noticed."""
    if not isinstance(leaf, HostWords):
        return f"key {key_implementation(leaf)}" if is_key(leaf) else str(leaf.dtype.name)
    name = leaf.kind[0]
    return jax.dtypes.canonicalize_dtype(name).name if name in BITS else name


def _loss_words(loss: Array) -> UInt32[Array, "losses 2"]:
    """Return the bytes of each loss, with zeros behind them, as two words."""
    if loss.dtype.itemsize == 4:  # the others take three loops
        words = jax.lax.bitcast_convert_type(loss.reshape(-1, 1), jnp.uint32)
        return jnp.pad(words, ((0, 0), (0, 1)))
    content = jax.lax.bitcast_convert_type(loss.reshape(-1), jnp.uint8).reshape(loss.size, -1)
    padded = jnp.pad(content, ((0, 0), (0, 8 - content.shape[1]))).reshape(loss.size, 2, 4)
    return jax.lax.bitcast_convert_type(padded, jnp.uint32)


def traced_refusal(what: str) -> ValueError:
    """Say that nothing can be recorded where JAX traces a program.

    Args:
        what: What showed it.
    """
    return ValueError(
        f"Cannot record from inside of a program: {what} is traced by JAX. Return "
        "step_fingerprints(...) from it, and give what comes out to record_scan."
    )
