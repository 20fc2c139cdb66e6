"""A line in the ledger for every step of a training loop, yours or ours, off the critical path.

The rule: recording only reads. Fingerprints come from a program of their own, so no program of the
training is compiled in another way for them, and their bits stay.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import dataclasses
import operator
import os
import warnings
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from reproducibility.errors import (
    ConfigError,
    DtypeDriftWarning,
    ReproducibilityError,
)
from reproducibility.recording.given import HandedOver, kind_name
from reproducibility.recording.lines import LEVELS
from reproducibility.recording.losses import losses_of
from reproducibility.recording.new_lines import NewLines, Recorded
from reproducibility.recording.static_facts import note_static, static_facts
from reproducibility.recording.step_words import (
    JoinedFingerprints,
    LeafKinds,
    StepFingerprints,
    View,
    step_program,
    traced_refusal,
)
from reproducibility.recording.surroundings import note_surroundings, surroundings
from reproducibility.recording.writer import Writer
from reproducibility.same.leaves import check_copies, named_leaves

STEPS_AT_ONCE = 64  # steps whose fingerprints are fetched together


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
        level: "leaf" for a fingerprint of each array, "group" for one of each stage; "brief" for
            that and 4 digits of each array, by which the one that differs is named; "auto" for
            "leaf" if the parameters are up to 16 arrays, else "brief".
        every: record steps that are a multiple of this.
        first: the first step that will be recorded: of a resumed run, the one after its
            checkpoint. Lines from there on are compared; lines before it stay.
        view: takes what `record` was given and returns the stages; compiled with the
            fingerprints, for what a loop has only inside of its own programs.
        members: how many trainings stand side by side along the first axis of every leaf, as
            under `vmap` over seeds: each has a ledger of its own, `0.jsonl` and so on in the
            folder `path`, as if it had been alone.
        shared: names, of what `record` is given, of what all members have in common.
        environment: whether to write what is known of the environment, and of static data, beside
            the ledger, for `compare`.

    Raises:
        ConfigError: a setting is not one of the above.
        LedgerError: the file is a ledger of another run or format.

    Examples:
        >>> import tempfile
        >>> import jax.numpy as jnp
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
        members: int | None = None,
        shared: Sequence[str] = (),
        environment: bool = True,
    ) -> None:
        _check_choice(level, every, members, shared)
        self.every, self._view = every, view
        self._members, self._shared = members, frozenset(shared)
        path = Path(path).absolute()  # the loop may go elsewhere
        self._path = path
        paths = [path] if members is None else [path / f"{n}.jsonl" for n in range(members)]
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        # Of several processes one writes; all of them compute, as some arrays lie on all.
        self._writers = [Writer(p, run, first) for p in paths] if jax.process_index() == 0 else []
        last = [-1 if writer.last is None else writer.last for writer in self._writers]
        self._last = max(last, default=-1)
        self._one_device = jax.device_count() == 1
        self._given = HandedOver(view is not None)
        self._kinds: LeafKinds = ()
        self._known: dict[tuple[str, str], str] = {}  # the dtype of each leaf of each stage
        self._lines = NewLines(level, every, members or 1)
        self._steps: list[Recorded] = []
        self._computed = 0
        self._structure: Any = None
        self._beside = environment
        self._environment = environment  # still to be noted
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
                or NumPy scalar as 64 bits. Up to 64 losses in one array are kept as well.
            **stages: any pytrees of arrays, by what they are: `batch`, `key`, `gradients`,
                `opt_state`, `params`; leave out what you do not have. NumPy arrays, Python
                numbers and text count with all their bits. Leaves may come and go.

        Raises:
            ValueError: a stage has another name, or the step is not after the last one; or this
                is a program that JAX traces, where nothing can be written.
            LeafError: a leaf is nothing that can be recorded.
            RunSaveError: earlier lines could not be written.

        Warns:
            DtypeDriftWarning: a leaf has another dtype than in the step before.
        """
        step = self._checked(step)
        if step % self.every:
            return
        self._check_order(step, self._last)
        losses, on_device = losses_of(step, loss, self._members)
        self._put((step,), losses, self._compute(step, stages, on_device))

    def record_scan(self, steps: Any, found: StepFingerprints) -> None:
        """Record the steps of a loop that is compiled whole, from what it returned.

        Same bits: it reads what is computed.

        Args:
            steps: the number of each step, as for `record`: a range, a list, an array.
            found: what `step_fingerprints` came to in each of them, one after the other, as
                `lax.scan` stacks it; with members, of each member.

        Raises:
            ValueError: the steps are not after the last one, or not as many as there are.
            RunSaveError: earlier lines could not be written.
        """
        numbers = tuple(self._checked(step) for step in np.asarray(steps).tolist())
        if not isinstance(found, StepFingerprints):
            raise ValueError(
                f"Cannot record {len(numbers)} steps: expected what step_fingerprints came to, got "
                f"a value of type {kind_name(found)}. Return step_fingerprints from the body of "
                "the scan."
            )
        shape = found.words.shape[:-2]
        expected = (len(numbers),) if self._members is None else (self._members, len(numbers))
        if shape != expected:
            raise ValueError(
                f"Cannot record {len(numbers)} steps: expected fingerprints of shape "
                f"{(*expected, '...')}, got {(*shape, '...')}. Return step_fingerprints from the "
                "body of the scan."
            )
        kept = [n for n, step in enumerate(numbers) if step % self.every == 0]
        last = self._last
        for n in kept:
            self._check_order(numbers[n], last)
            last = numbers[n]
        self._notice_drift(numbers[0] if numbers else 0, found.leaves)
        if kept:
            picked = found.words[..., np.array(kept), :, :]
            found = dataclasses.replace(found, words=picked)
            self._put(tuple(numbers[n] for n in kept), None, found)

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
            for writer in self._writers:
                writer.close()

    def __exit__(self, kind: object, *raised: object) -> None:
        try:
            self.close()
        except ReproducibilityError:
            if kind is None:  # what the loop has run into says more
                raise

    def _checked(self, step: Any) -> int:
        if self._closed:
            raise ValueError(f"Cannot record step {step}: the Recorder is closed. Make another.")
        if isinstance(step, jax.core.Tracer):
            raise traced_refusal("the step")
        return operator.index(step)  # the ledger knows no NumPy integers

    def _check_order(self, step: int, last: int) -> None:
        if step <= last:
            raise ValueError(
                f"Cannot record step {step}: expected one after {last}, which is recorded. "
                "Give a resumed run `first`, the step after its checkpoint."
            )
        begins = self._writers[0].begins if self._writers else None
        if last < 0 and begins is not None and step - step % self.every > begins:
            raise ValueError(
                f"Cannot record step {step}: {self._path} has lines from step {begins} on. "
                f"Give `first={step}` to go on after those before it, or another path."
            )

    def _put(
        self, steps: tuple[int, ...], losses: Any, found: StepFingerprints | JoinedFingerprints
    ) -> None:
        if self._environment:
            self._environment = False
            facts = surroundings()  # of this thread, not of the one that writes
            for writer in self._writers:
                self._thread.submit(note_surroundings, writer.path, steps[0], facts)
        self._steps.append(Recorded(steps, losses, found))
        self._last = steps[-1]
        if len(self._steps) >= STEPS_AT_ONCE or len(steps) > 1:
            self._hand_over()

    def _compute(
        self, step: int, stages: dict[str, Any], loss: Any
    ) -> StepFingerprints | JoinedFingerprints:
        """Start computing the fingerprints of a step."""
        try:
            leaves, structure = jax.tree.flatten(stages)
        except Exception:
            named_leaves(stages)  # says what is wrong with the tree
            raise
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            raise traced_refusal("an array")
        if self._computed % STEPS_AT_ONCE == 0:  # it waits for the step, and reads every copy
            for path, leaf in named_leaves(stages):
                check_copies("record", path, leaf)
        self._computed += 1
        self._note_static(step, stages, structure)
        axes = None if self._members is None else self._axes(stages)
        taken, wait = self._given.take(
            [*leaves, *([] if loss is None else [loss])], stages, axes or ()
        )
        loss = None if loss is None else taken.pop()
        join = axes is None and (self._one_device or all(map(_is_on_one_device, leaves)))
        found = step_program(self._view)(structure, axes, join, taken, loss)
        if wait:
            found.words.block_until_ready()
        self._notice_drift(step, found.leaves)
        return found

    def _note_static(self, step: int, stages: dict[str, Any], structure: Any) -> None:
        """Note what the stages hold beside arrays, if it is not as in the step before."""
        try:
            if not self._beside or structure == self._structure:
                return
        except Exception:  # equality of a foreign class
            pass
        self._structure = structure
        facts = static_facts(stages)
        for writer in self._writers:
            self._thread.submit(note_static, writer.path, step, facts)

    def _axes(self, stages: dict[str, Any]) -> tuple[int | None, ...]:
        """Say of each leaf whether each member has its part; refuse one that cannot be cut."""
        axes: list[int | None] = []
        for stage in sorted(stages):  # as JAX flattens a dictionary
            leaves = jax.tree.leaves(stages[stage])
            shared = stage in self._shared
            if not shared and any(np.shape(leaf)[:1] != (self._members,) for leaf in leaves):
                raise ValueError(
                    f"Cannot record {stage}: expected {self._members} members along the first axis "
                    f'of each leaf. If all members have it in common, give shared=("{stage}",).'
                )
            axes += [None if shared else 0] * len(leaves)
        return tuple(axes)

    def _notice_drift(self, step: int, kinds: LeafKinds) -> None:
        """Warn of a leaf that has another dtype than when it was last recorded."""
        if kinds is self._kinds or kinds == self._kinds:
            return
        self._kinds = kinds
        now = {(stage, name): kind for stage, leaves in kinds for name, kind in leaves}
        drifted = [leaf for leaf, kind in now.items() if self._known.get(leaf, kind) != kind]
        before = {leaf: self._known[leaf] for leaf in drifted}
        self._known |= now
        if drifted:
            (stage, name), more = drifted[0], len(drifted) - 1
            of_stage = stage if name == "." else f"{name} of {stage}"
            warnings.warn(
                f"From step {step} on {of_stage} is {now[drifted[0]]}, before it was "
                f"{before[drifted[0]]}{f'; so with {more} more leaves' if more else ''}.",
                DtypeDriftWarning,
                stacklevel=4,
            )

    def _hand_over(self) -> None:
        if self._failed:
            raise self._failed
        steps = self._steps.copy()
        self._steps.clear()
        if steps and self._writers:
            self._thread.submit(self._write, steps)

    def _write(self, recorded: list[Recorded]) -> None:
        """Fetch fingerprints and write their lines, in the background."""
        try:
            lines = self._lines.of(recorded)
            if not self._failed:
                for writer, its in zip(self._writers, lines, strict=True):
                    writer.write(its)
        except Exception as error:  # for the thread that records to raise
            self._failed = error

    def _flushed(self) -> str:
        if self._failed:
            raise self._failed
        return "\n".join([writer.flush() for writer in self._writers])


def _is_on_one_device(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or bool(leaf.sharding.num_devices == 1)


def _warn_of_lost_steps(path: Path, steps: list[Recorded]) -> None:
    """Say what a recorder that was never closed takes with it."""
    if steps:
        warnings.warn(
            f"{len(steps)} recorded step{'s are' if steps[1:] else ' is'} not in {path}: its "
            "Recorder was not closed. Use it in a `with`, or call close().",
            RuntimeWarning,
            stacklevel=2,
        )


def _check_choice(level: str, every: int, members: Any, shared: Any) -> None:
    if level not in ("auto", *LEVELS):
        raise ConfigError(
            "use",
            "level",
            expected="auto, leaf, brief or group",
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
    if members is not None and (type(members) is not int or members < 1):
        raise ConfigError(
            "use",
            "members",
            expected="a whole number from 1",
            got=repr(members),
            do="Leave it out where there is one training.",
        )
    if isinstance(shared, str) or (shared and members is None):
        raise ConfigError(
            "use",
            "shared",
            expected="names of stages, with members",
            got=repr(shared),
            do='Write shared=("batch",), and members.',
        )
