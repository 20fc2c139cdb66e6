"""A line in the ledger for every step of a training loop, yours or ours, off the critical path.

The rule: recording only reads. Fingerprints come from a program of their own, so no program of the
training is compiled in another way for them, and their bits stay.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import os
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt32

from reproducibility.errors import ConfigError, LeafError, ReproducibilityError
from reproducibility.recording.lines import FINGERPRINT_DIGITS, STAGES, Header
from reproducibility.recording.writer import Writer
from reproducibility.same.fingerprint import combine, leaf_fingerprints
from reproducibility.same.leaves import (
    BITS,
    check_copies,
    check_on_device,
    is_numpy,
    leaf_error,
    may_share_memory,
    named_leaves,
    private_copies,
)

FEW_LEAVES = 16  # leaves of the parameters, up to which "auto" records each
STEPS_AT_ONCE = 64  # steps whose fingerprints are fetched together

type Stages = dict[str, PyTree]
type View = Callable[..., Stages]
type Line = dict[str, Any]
type _Words = dict[str, dict[str, UInt32[Array, " 2"]]]  # fingerprints by stage and leaf


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["words"], meta_fields=["loss", "leaves"]
)
@dataclasses.dataclass
class _StepFingerprints:
    """What the program of a step returns: one array, as fetching two takes twice as long."""

    words: UInt32[Array, "fingerprints 2"]
    """The fingerprints; and the bits of the loss, if it comes from the device."""
    loss: Any
    """Its dtype then, else None."""
    leaves: tuple[tuple[str, tuple[str, ...]], ...]
    """The names of the leaves of each stage."""


class Recorder(AbstractContextManager["Recorder"]):
    """Writes a ledger: call `record` once a step, and `compare` two ledgers later.

    `record` returns before the step is computed. A thread fetches fingerprints of 64 steps at a
    time, a few words each, and writes their lines. A kill loses the lines of at most those steps.

    If the file is there already, the steps are compared with its lines as they are computed: run
    a script twice with one path, and a `SetAsideWarning` names the first step that did not
    repeat.

    With several processes, all of them record, with arrays that lie on the devices of all; only
    process 0 writes.

    **Same bits:** the ledger: everywhere where the training has the same bits. The training: has
    the same bits with a recorder and without.

    Args:
        path: the file, by convention `ledger.jsonl`. Its directory is made.
        run: what the chain of lines begins with, for example a digest of your settings: a ledger
            that begins otherwise is refused.
        level: "leaf" for a fingerprint of each array, "group" for one of each stage, "auto" for
            "leaf" if the parameters are up to 16 arrays.
        every: record steps that are a multiple of this.
        first: the first step that will be recorded: of a resumed run, the one after its
            checkpoint. Lines from there on are compared; lines before it stay.
        view: takes what `record` was given and returns the stages; compiled with the
            fingerprints, for what a loop has only inside of its own programs.

    Raises:
        ConfigError: a setting is not one of the above.
        LedgerError: the file is a ledger of another run or format.

    Examples:
        >>> import tempfile
        >>> from reproducibility import compare
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, rate in {"a": 0.5, "b": 0.25}.items():
        ...     with Recorder(folder / name) as recorder:
        ...         w = jnp.ones(3)
        ...         for step in range(1, 4):
        ...             w = w - rate * w
        ...             recorder.record(step, params={"w": w})
        >>> found = compare(folder / "a", folder / "b")
        >>> found.verdict, found.step, found.stage, found.leaves
        ('different', 1, 'params', ('w',))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        run: str = "",
        level: str = "auto",
        every: int = 1,
        first: int = 0,
        view: View | None = None,
    ) -> None:
        _check_choice(level, every)
        self.level, self.every, self._view = level, every, view
        path = Path(path).absolute()  # the loop may go elsewhere
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        # Of several processes one writes; all of them compute, as some arrays lie on all.
        self._writer = Writer(path, run, first) if jax.process_index() == 0 else None
        last = self._writer.last if self._writer else None
        self._last = -1 if last is None else last
        self._leaves: dict[str, tuple[str, ...]] = {}
        self._headers: dict[Any, Header] = {}  # one for each set of leaves
        self._steps: list[tuple[int, Any, _StepFingerprints]] = []
        self._computed = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._failed: Exception | None = None
        self._closed = False
        self._finalizer = weakref.finalize(self, _warn_of_lost_steps, path, self._steps)

    def record(self, step: int, *, loss: Any = None, **stages: Any) -> None:
        """Record one step: what went into it and what came out of it.

        Same bits: none of what it is given is changed.

        Args:
            step: completed updates after this step; more than at the last call. 0 is the state
                before the first step.
            loss: a scalar, kept exactly: of 16 or 32 bits in the ledger as it is, a Python float
                or NumPy scalar as 64 bits.
            **stages: any pytrees of arrays, by what they are: `batch`, `key`, `gradients`,
                `opt_state`, `params`; leave out what you do not have. Python numbers and NumPy
                arrays are recorded as JAX takes them: int64 as int32, unless x64 is on.

        Raises:
            ValueError: a stage has another name, or the step is not after the last one.
            TypeError: a leaf is nothing that JAX takes.
            LeafError: the leaves are not those of the steps before.
            RunSaveError: earlier lines could not be written.
        """
        if self._closed:
            raise ValueError(f"Cannot record step {step}: the Recorder is closed. Make another.")
        step = operator.index(step)  # the ledger knows no NumPy integers
        if step % self.every:
            return
        if step <= self._last:
            raise ValueError(
                f"Cannot record step {step}: expected one after {self._last}, which is recorded. "
                "Give a resumed run `first`, the step after its checkpoint."
            )
        begins = self._writer.begins if self._writer else None
        if self._last < 0 and begins is not None and step - step % self.every > begins:
            raise ValueError(
                f"Cannot record step {step}: {self._path} has lines from step {begins} on. "
                f"Give `first={step}` to go on after those before it, or another path."
            )
        if np.shape(loss) != ():
            raise ValueError(
                f"Cannot record step {step}: expected a scalar loss, got one of shape "
                f"{np.shape(loss)}. Give its mean."
            )
        self._steps.append((step, loss, self._compute(stages, loss)))
        self._last = step
        if len(self._steps) >= STEPS_AT_ONCE:
            self._hand_over()

    def flush(self) -> Future[str]:
        """Begin to write all that was recorded; do not wait.

        Returns:
            What is done when it is on the disk: its `result()` is the chain so far.

        Raises:
            RunSaveError: earlier lines could not be written.
        """
        self._hand_over()
        return self._thread.submit(self._flushed)

    def close(self) -> None:
        """Write what was recorded, wait until it is on the disk; a second time, do nothing.

        Raises:
            RunSaveError: lines could not be written.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.flush().result()
        finally:
            self._steps.clear()
            self._thread.shutdown()
            if self._writer:
                self._writer.close()

    def __exit__(self, kind: object, *raised: object) -> None:
        try:
            self.close()
        except ReproducibilityError:
            if kind is None:  # what the loop has run into says more
                raise

    def _compute(self, stages: dict[str, Any], loss: Any) -> _StepFingerprints:
        """Start computing the fingerprints of a step."""
        if self._computed % STEPS_AT_ONCE == 0:  # it waits for the step, and reads every copy
            for path, leaf in named_leaves(stages):
                check_copies("record", path, leaf)
        self._computed += 1
        try:
            return self._fingerprints(stages, loss)
        except (TypeError, ValueError):  # of JAX, in words for its own arguments
            _refuse_what_is_no_array(stages)
            raise

    def _fingerprints(self, stages: dict[str, Any], loss: Any) -> _StepFingerprints:
        wide: _Words = {}
        if any(is_numpy(leaf) for leaf in jax.tree.leaves(stages)):
            # JAX may read a NumPy array later, when the loop has written something else into it.
            stages = jax.tree.map(_copy_of_numpy, stages)
            wide = {} if self._view else _words_of_narrowed(stages)
        if self.level == "auto":
            self.level = _level_for(jax.eval_shape(self._view or dict, **stages))
        # The bits of the loss too: the loop may donate it before it is fetched.
        on_device = loss if isinstance(loss, jax.Array) else None
        (stages, on_device), wait = _as_of_now((stages, on_device))
        entry: _StepFingerprints = _step_program(self.level, self._view)(stages, on_device, wide)
        if wait:
            entry.words.block_until_ready()
        for stage, names in entry.leaves:
            if self._leaves.setdefault(stage, names) != names:
                raise LeafError(
                    "record",
                    stage,
                    expected="the leaves of the steps before it",
                    got="others",
                    do="Use a Recorder for each model.",
                )
        return entry

    def _hand_over(self) -> None:
        if self._failed:
            raise self._failed
        steps = self._steps.copy()
        self._steps.clear()
        if steps and self._writer:
            self._thread.submit(self._write, steps)

    def _write(self, steps: list[tuple[int, Any, _StepFingerprints]]) -> None:
        """Fetch fingerprints and write their lines, in the background."""
        try:
            for step, _, entry in steps:
                _refuse_other_copies(step, entry, self.level)
            fetched = jax.device_get([entry for _, _, entry in steps])
            lines = [self._line(*step[:2], got) for step, got in zip(steps, fetched, strict=True)]
            if self._writer and not self._failed:
                self._writer.write(lines)
        except Exception as error:  # for the thread that records to raise
            self._failed = error

    def _line(self, step: int, loss: Any, entry: _StepFingerprints) -> tuple[Header, Line]:
        words: Any = entry.words
        if entry.loss is not None:
            loss = np.frombuffer(words[-1].tobytes()[: entry.loss.itemsize], entry.loss).item()
        texts = words.astype(">u4").tobytes().hex()
        line: Line = {"step": step} if loss is None else {"step": step, "loss": float(loss).hex()}
        for stage, names in entry.leaves:
            size = FINGERPRINT_DIGITS * (len(names) if self.level == "leaf" else 1)
            line[stage], texts = texts[:size], texts[size:]
        header = self._headers.get(entry.leaves)
        if header is None:
            leaves = {stage: list(names) for stage, names in entry.leaves}
            header = Header("", self.level, self.every, step, leaves)
            self._headers[entry.leaves] = header
        return header, line

    def _flushed(self) -> str:
        if self._failed:
            raise self._failed
        return self._writer.flush() if self._writer else ""


@functools.lru_cache(maxsize=8)
def _step_program(
    level: str, view: View | None
) -> Callable[[dict[str, Any], Any, _Words], _StepFingerprints]:
    """Return the program that fingerprints a step; recorders of one process share it."""

    def program(parts: dict[str, Any], loss: Any, wide: _Words) -> _StepFingerprints:
        stages = view(**parts) if view else parts
        unknown = sorted(stages.keys() - set(STAGES))
        if unknown:
            raise ValueError(
                f"Cannot record {unknown[0]}: expected stages out of {', '.join(STAGES)}. "
                "Put it into the one it belongs to."
            )
        found = {
            name: leaf_fingerprints(stages[name]) | wide.get(name, {})
            for name in STAGES
            if name in stages
        }
        if level == "leaf":
            words = [word for stage in found.values() for word in stage.values()]
        else:
            words = [combine(stage) for stage in found.values()]
        words += [] if loss is None else [_loss_words(loss)]
        return _StepFingerprints(
            jnp.stack(words) if words else jnp.zeros((0, 2), jnp.uint32),
            None if loss is None else loss.dtype,
            tuple((stage, tuple(leaves)) for stage, leaves in found.items()),
        )

    return jax.jit(program)


def _copy_of_numpy(leaf: Any) -> Any:
    # In the machine's byte order, as JAX takes no other.
    return leaf.astype(leaf.dtype.newbyteorder("=")) if isinstance(leaf, np.ndarray) else leaf


def _words_of_narrowed(stages: dict[str, Any]) -> _Words:
    """Return the fingerprints of what JAX would narrow on its way to the device: of all its bits.

    Where JAX has no 64 bits, float64 becomes float32, and int64 loses its upper half: runs that
    differ there only would be the same. What does not change when it is narrowed is no case of it.
    """
    found: _Words = {}
    for stage, tree in stages.items():
        if any(map(_loses_bits, jax.tree.leaves(tree))):
            only = jax.tree.map(lambda leaf: leaf if _loses_bits(leaf) else None, tree)
            found[stage] = leaf_fingerprints(only)
    return found


def _refuse_what_is_no_array(stages: dict[str, Any]) -> None:
    """Name the first leaf of which there is no fingerprint."""
    for path, leaf in named_leaves(stages):
        if isinstance(leaf, np.ma.MaskedArray):
            do = "Put its data and its mask into the tree."
            raise leaf_error("record", path, ("an array or a typed key", "a masked array", do))
        if not isinstance(leaf, bool | int | float | complex):  # these JAX takes
            check_on_device(path, leaf)


def _loses_bits(leaf: Any) -> bool:
    if not is_numpy(leaf) or leaf.dtype.name not in BITS:
        return False
    narrow = jax.dtypes.canonicalize_dtype(leaf.dtype)
    if narrow == leaf.dtype:
        return False
    with np.errstate(all="ignore"):
        back = np.asarray(leaf).astype(narrow).astype(leaf.dtype)
    return back.tobytes() != np.asarray(leaf).tobytes()


def _as_of_now(tree: PyTree) -> tuple[PyTree, bool]:
    """Return a tree whose values are those of the call, and whether its reader must be waited for.

    JAX may read memory that it shares with NumPy later, when the loop has written something else
    into it. What is still being computed shares none; what is there already may.
    """
    leaves, structure = jax.tree.flatten(tree)
    numbers = [n for n, leaf in enumerate(leaves) if may_share_memory(leaf)]
    pending: list[bool] = [not getattr(leaf, "is_ready", lambda: True)() for leaf in leaves]
    ready = [n for n in numbers if not pending[n]]
    if not any(pending):
        return tree, bool(numbers)  # nothing to wait for but the reader itself
    for number, copy in zip(ready, private_copies([leaves[n] for n in ready]), strict=True):
        leaves[number] = copy
    return jax.tree.unflatten(structure, leaves), False


def _refuse_other_copies(step: int, entry: _StepFingerprints, level: str) -> None:
    """Refuse a step of which the copies on several devices have other fingerprints.

    Each device computes them from the copy that it has.
    """
    kept: dict[str, Any] = {}
    for shard in entry.words.addressable_shards if entry.words.sharding.num_devices > 1 else ():
        words = np.asarray(shard.data)
        first, device = kept.setdefault(str(shard.index), (words, shard.device))
        differ = np.flatnonzero((words != first).any(axis=-1))
        if differ.size:
            names = [stage for stage, _ in entry.leaves]
            if level == "leaf":
                names = [f"leaf {leaf} of {stage}" for stage, many in entry.leaves for leaf in many]
            raise LeafError(
                "record",
                [*names, "the loss"][differ[0]],
                step=step,
                expected="copies with the same bits on all devices",
                got=f"other bits on {shard.device} than on {device}",
                do="Add or average over the devices where the program forgot to (psum, pmean).",
            )


def _warn_of_lost_steps(path: Path, steps: list[tuple[int, Any, _StepFingerprints]]) -> None:
    """Say what a recorder that was never closed takes with it."""
    if steps:
        warnings.warn(
            f"{len(steps)} recorded step{'s are' if steps[1:] else ' is'} not in {path}: its "
            "Recorder was not closed. Use it in a `with`, or call close().",
            RuntimeWarning,
            stacklevel=2,
        )


def _loss_words(loss: Array) -> UInt32[Array, " 2"]:
    """Return the bytes of a scalar, with zeros behind them, as two words."""
    content = jax.lax.bitcast_convert_type(loss, jnp.uint8).reshape(-1)
    padded = jnp.pad(content, (0, 8 - content.size)).reshape(2, 4)
    return jax.lax.bitcast_convert_type(padded, jnp.uint32)


def _level_for(stages: Stages) -> str:
    """Choose what a fingerprint is of, where that is left to us."""
    return "leaf" if len(jax.tree.leaves(stages.get("params", stages))) <= FEW_LEAVES else "group"


def _check_choice(level: str, every: int) -> None:
    if level not in ("auto", "leaf", "group"):
        raise ConfigError(
            "use",
            "level",
            expected="auto, leaf or group",
            got=repr(level),
            do="To record nothing, make no Recorder.",
        )
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ConfigError(
            "use",
            "every",
            expected="a whole number from 1",
            got=repr(every),
            do="1 records every step.",
        )
