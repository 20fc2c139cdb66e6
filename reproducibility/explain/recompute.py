"""The steps of a run, computed again in this process and compared with its ledger.

The rule: a step is confirmed by a whole line of the ledger, and by nothing less.
Chapter: docs/guide/flight_recorder.md

JAX is imported in the functions that compute, so that the process that only waits is ready at once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reproducibility.errors import LedgerError, ReplayError
from reproducibility.machine.environment import Environment
from reproducibility.recording.ledger import LEDGER, Ledger
from reproducibility.recording.lines import LOSS, STAGES, Entry, Header, differing, read_entry
from reproducibility.reference.config import identity_of
from reproducibility.reference.run import Run

if TYPE_CHECKING:
    from reproducibility.reference.step import Plan, Programs, TrainState

type LedgerLine = tuple[int, bytes, Header]
type ArrayName = tuple[str, str, str | None]  # stage, leaf, and the implementation of a PRNG key

_VALUES, _STATES = "values.npz", "states"  # in the folder that is handed on


@dataclasses.dataclass(frozen=True)
class StretchTask:
    """What a process that computes a stretch of a run is told. JSON values."""

    since: int
    """The step after which fingerprints are kept."""
    run: str
    """The run directory."""
    folder: str
    """Where state and arrays are handed on."""
    start: int
    """Updates that are complete when the stretch begins."""
    end: int
    """And when it ends."""
    first: bool
    """Whether its state comes from the run itself."""
    last: bool
    """Whether no stretch follows, so that nobody needs its state."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StretchAnswer:
    """What such a process answers. JSON values."""

    problem: str | None
    """What is wrong with the steps that were computed; None if nothing was found."""
    compared: int
    """How many lines of the ledger were compared."""
    programs: dict[str, str]
    """The digest of each program."""
    last: int | None = None
    """The step of the last line that was compared."""
    lacking: str | None = None
    """What the line that was looked at last does not tell of its step."""
    entries: dict[int, Entry] = dataclasses.field(default_factory=dict)
    """Fingerprints by step, of those that were kept."""
    names: list[ArrayName] = dataclasses.field(default_factory=list)
    """The arrays that are in the folder."""
    trace: dict[str, Any] | None = None
    """The trace of the last step, where one was asked for."""
    environment: Environment = dataclasses.field(default_factory=dict)
    """What surrounded the process; it is added on the way back."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> StretchAnswer:
        """Return the answer that a process wrote as JSON, where numbers by name became text.

        Same bits: everywhere.

        Args:
            value: the fields of an answer.
        """
        entries = {int(step): entry for step, entry in value["entries"].items()}
        names = [tuple(name) for name in value["names"]]
        return cls(**{**value, "entries": entries, "names": names})


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Compute a stretch of a run again, in this process, and compare it with its ledger.

    **Same bits:** as `train`, in this environment.

    Args:
        task: the fields of a `StretchTask`.

    Returns:
        The fields of a `StretchAnswer`.
    """
    asked = StretchTask(**task)
    print(f"computing step {asked.end} from {asked.start}", flush=True)
    steps = Steps(asked)
    entries: dict[int, Entry] = {}
    trees: dict[str, Any] = {}
    for step, trees, entry in steps:  # noqa: B007
        if step > asked.since:
            entries[step] = entry
    names = _save_arrays(Path(asked.folder) / _VALUES, trees)
    hand_on_state(asked, steps.state)
    answer = StretchAnswer(
        problem=steps.problem,
        compared=steps.compared,
        last=steps.last,
        lacking=steps.lacking,
        entries=entries,
        names=names,
        programs=steps.programs.digests(),
    )
    return vars(answer)


def hand_on_state(task: StretchTask, state: TrainState) -> None:
    """Save the state at the end of a stretch, if a further stretch begins with it.

    Args:
        task: which steps.
        state: the state after the last of them.
    """
    from reproducibility.storage.checkpoint import CheckpointStore

    if not task.last:
        with CheckpointStore(Path(task.folder) / _STATES) as store:
            store.save(task.end, state)


class Steps:
    """The steps of a stretch, computed again in this process and compared with the ledger.

    Iterate for (step, trees by stage, fingerprints by stage and leaf).

    Same bits: as `train`, in this environment.

    Args:
        task: which steps.

    Raises:
        ReplayError: this version of the package makes another run of the same settings.
    """

    def __init__(self, task: StretchTask) -> None:
        run, self._task = Run.read(task.run), task
        self.programs = recorded_programs(run)
        """The compiled programs of the run."""
        self.state: TrainState = self._begin(run)
        """The state after the last step."""
        self._plan: Plan | None = None
        self.problem: str | None = None
        """The first line of the ledger that was not confirmed."""
        self.differs: tuple[int, str, str] | None = None
        """Step, stage and leaf of it, where it came out different."""
        self.compared = 0
        """How many lines were looked at."""
        self.last: int | None = None
        """The step of the last of them."""
        self.lacking: str | None = None
        """What the line that was looked at last does not tell of its step."""
        self._lines = ledger_lines(run)
        self._line: LedgerLine | None = next(self._lines, None)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any], Entry]]:
        """Compute the next step. Same bits: as `train`."""
        first, end = self._task.start, self._task.end
        for step in range(first if first == 0 else first + 1, end + 1):
            trees, loss = self._step(step)
            entry = computed_entry(trees, loss)
            self._compare(step, entry)
            yield step, trees, entry
            if step and step % 100 == 0:
                print(f"step {step} of {end}", flush=True)

    def _step(self, step: int) -> tuple[dict[str, Any], Any]:
        from reproducibility.reference.step import advance

        stages = self.programs.stages
        if step == 0:
            return stages(self.state), None
        new = advance(self.programs, self.state, step, self._plan)
        self.state, self._plan = new.state, new.plan
        return stages(new.state, new.plan, new.gradient, self.programs.data), new.loss

    def _begin(self, run: Run) -> TrainState:
        import jax
        import jax.numpy as jnp

        from reproducibility.reference.resume import restore_state
        from reproducibility.storage.checkpoint import CheckpointStore

        start, step = self.programs.start, self._task.start
        state: TrainState
        if step == 0:
            state = jax.tree.map(jnp.copy, start)  # the steps donate it
        elif self._task.first:
            state = restore_state(run, step=step)
        else:
            with CheckpointStore(Path(self._task.folder) / _STATES) as store:
                state = store.restore(start, step=step)
        return state

    def _compare(self, step: int, entry: Entry) -> None:
        """Hold all that a line has against what was computed; only a whole line confirms."""
        self.lacking = None
        while self._line and self._line[0] < step:
            self._line = next(self._lines, None)
        if not self._line or self._line[0] != step:
            return
        line = read_entry(*self._line[1:])
        if not self.differs and (other := differing(line, entry)):
            stage, leaves = next(iter(other.items()))
            self.differs = step, stage, next(iter(leaves), "")
        self.problem = self.problem or _line_difference(step, line, entry)
        self.lacking = next((name for name in entry if name not in line), None)
        if not self.lacking:
            self.compared, self.last = self.compared + 1, step


def _line_difference(step: int, line: Entry, entry: Entry) -> str | None:
    """Say in what a line is not what was computed, of all that it holds."""
    if other := differing(line, entry):
        stage, leaves = next(iter(other.items()))
        what = f"{stage}, in {leaves[0]}" if leaves else stage
        return f"step {step} came out different, first in {what}"
    more = [name for name in line if name not in entry]
    return f"step {step} came out without {more[0]}, which its line has" if more else None


def computed_entry(trees: dict[str, Any], loss: Any = None) -> Entry:
    """Return what a ledger says of a step that was made of this.

    **Same bits:** everywhere, for the same arrays.

    Args:
        trees: by stage.
        loss: of the step, if it has one.
    """
    import jax

    from reproducibility.same.fingerprint import fingerprint_text

    words = jax.device_get(_stage_fingerprints(trees))
    entry = {s: {n: fingerprint_text(w) for n, w in words[s].items()} for s in STAGES if s in words}
    return entry if loss is None else {**entry, LOSS: {"": float(loss).hex()}}


def _stage_fingerprints(stages: dict[str, Any]) -> dict[str, dict[str, Any]]:
    # Each by itself: stages of one structure, and steps of fewer stages, share what is compiled.
    return {name: _fingerprint_program()(tree) for name, tree in stages.items()}


@functools.cache
def _fingerprint_program() -> Callable[[Any], dict[str, Any]]:
    import jax

    from reproducibility.same.fingerprint import leaf_fingerprints

    return jax.jit(leaf_fingerprints)


def recorded_programs(run: Run) -> Programs:
    """Return the programs of a run, made by the code that is installed here.

    **Same bits:** as `programs_of`.

    Args:
        run: the run.

    Raises:
        ReplayError: this version of the package makes another run of the same settings.
    """
    from reproducibility.reference.step import programs_of, settings_of

    programs = programs_of(identity_of(run.identity))
    settings = settings_of(programs)
    other = [name for name in settings if run.identity.get(name) != settings[name]]
    if other:
        raise ReplayError(
            "compute",
            "a step again",
            path=run.path,
            expected=f"{other[0]}={run.identity.get(other[0])!r}",
            got=repr(settings[other[0]]),
            do="Use the data and the version of this package that the run was made with.",
        )
    return programs


def _save_arrays(path: Path, trees: dict[str, Any]) -> list[ArrayName]:
    """Write the arrays of a step into a file; return what each is."""
    import jax
    import numpy as np

    from reproducibility.same.leaves import is_key, named_leaves, path_string

    names, arrays = [], []
    for stage, tree in trees.items():
        for leaf, value in named_leaves(tree):
            impl = str(jax.random.key_impl(value)) if is_key(value) else None
            names.append((stage, path_string(leaf), impl))
            arrays.append(np.asarray(jax.random.key_data(value) if impl else value))
    np.savez(path, *arrays)
    return names


def load_arrays(folder: Path, names: list[ArrayName]) -> dict[str, dict[str, Any]]:
    """Return the arrays of a step by stage and leaf, as `work` wrote them.

    **Same bits:** everywhere.

    Args:
        folder: that of the task.
        names: those of the answer.
    """
    import jax
    import numpy as np

    values: dict[str, dict[str, Any]] = {}
    with np.load(folder / _VALUES, allow_pickle=False) as arrays:
        for number, (stage, leaf, impl) in enumerate(names):
            value: Any = arrays[f"arr_{number}"]
            keys = jax.random.wrap_key_data(value, impl=impl) if impl else value
            values.setdefault(stage, {})[leaf] = keys
    return values


def recorded(run: Run, step: int) -> Entry | None:
    """Return what the ledger of a run says about a step.

    **Same bits:** everywhere.

    Args:
        run: the run.
        step: the step.

    Returns:
        Fingerprints by stage and leaf; None if there is no line.
    """
    for number, body, header in ledger_lines(run):
        if number == step:
            return read_entry(body, header)
    return None


def ledger_lines(run: Run) -> Iterator[LedgerLine]:
    """Yield the lines of a run's ledger that can be trusted, if there are any.

    **Same bits:** everywhere.

    Args:
        run: the run.
    """
    with suppress(LedgerError):
        ledger = Ledger(run.path / LEDGER, run.name)
        for step, body in ledger:
            yield step, body, ledger.header
