"""Any step of a run, computed again in the environment that the run recorded for it.

The rule: what was computed again is compared with the ledger. Without that it would only be
another run; where the environment cannot be had, the answer is "cannot be told".
Chapter: docs/guide/flight_recorder.md

XLA reads its flags and the size of its thread pool once in a process. So the step is computed in a
child process that is started with them. A step far from any checkpoint is reached in stretches, one
for each attempt that had an environment of its own. `child` has
the processes; which environment a step had is found here.

JAX is imported in the functions that compute, so that the process that only waits is ready at once.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reproducibility.errors import CheckpointError, LedgerError, ReplayError
from reproducibility.explain.child import Say, in_environment
from reproducibility.machine.environment import (
    CODE,
    DEVICE_COUNTS,
    Difference,
    Environment,
    environment_differences,
    facts_of,
)
from reproducibility.recording.ledger import LEDGER, Ledger
from reproducibility.recording.lines import LOSS, STAGES, Entry, Header, differing, read_entry
from reproducibility.reference.config import identity_of
from reproducibility.reference.run import ATTEMPTS, Run
from reproducibility.storage.files import saved_steps

if TYPE_CHECKING:
    from reproducibility.reference.step import Plan, Programs, TrainState

type Answer = Literal["confirmed", "refuted", "cannot be told"]
type LedgerLine = tuple[int, bytes, Header]

VALUES, STATES = "values.npz", "states"  # in the folder that is handed on


@dataclasses.dataclass(frozen=True)
class Replay:
    """What `replay` found.

    Same bits: "confirmed" means that what was computed again has the recorded fingerprints.
    """

    step: int
    """Completed updates after the step that was computed."""
    start: int
    """The checkpoint that it began with; 0 is the start of the run."""
    answer: Answer
    """ "confirmed", "refuted" (same environment, other bits) or "cannot be told"."""
    reason: str
    """The answer in one sentence."""
    entries: dict[int, Entry]
    """Fingerprints by step, stage and leaf, as they were computed now."""
    values: dict[str, dict[str, Any]]
    """Arrays of the step by stage and leaf; none where an earlier step came out different."""
    environment: tuple[Difference, ...]
    """In what the child process differed from the record, and may have had other bits for it."""


def replay(
    run: str | os.PathLike[str], step: int, *, since: int | None = None, progress: Say | None = None
) -> Replay:
    """Compute a step of a run again, in the environment that was recorded, and check it.

    **Same bits:** those of the recorded step, if the answer is "confirmed".

    Args:
        run: a run directory of `train`.
        step: which step, by completed updates after it; 0 is the state before the first.
        since: keep the fingerprints of all steps after this one; by default only of the last.
        progress: called with what is being done.

    Returns:
        The answer, and the arrays of the step.

    Raises:
        RunError: there is no run.
        ReplayError: the step was never computed; or the child process failed.

    Examples:
        >>> import tempfile
        >>> from reproducibility import TrainConfig, train
        >>> folder = Path(tempfile.mkdtemp()) / "run"
        >>> _ = train(TrainConfig(seed=7, steps=3, shards=1), run_dir=folder)
        >>> replay(folder, 2).answer
        'confirmed'
    """
    since = step - 1 if since is None else min(since, step - 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        done = compute(Run.read(run), step, folder, {"since": since}, progress=progress)
        reached = step in done.entries
        values = _values(folder / VALUES, done.answer["names"]) if reached else {}
    return Replay(
        step, done.start, *_judge_replay(done, step), done.entries, values, done.environment
    )


@dataclasses.dataclass(frozen=True)
class Stretches:
    """What a child process, or several in a row, came back with."""

    start: int
    """The checkpoint that the first of them began with."""
    answer: dict[str, Any]
    """What the last of them returned."""
    compared: int
    """Lines of the ledger that all of them compared."""
    entries: dict[int, Entry]
    """Fingerprints by step, of those that all of them kept."""
    environment: tuple[Difference, ...]
    """In what a process differed from the record, and may have had other bits for it."""


def compute(
    run: Run,
    step: int,
    folder: Path,
    task: Mapping[str, Any],
    *,
    module: str = __name__,
    progress: Say | None = None,
) -> Stretches:
    """Compute a run up to a step, each stretch in a process with its recorded environment.

    **Same bits:** those of the run, as far as its environment can be had.

    Args:
        run: the run.
        step: where to end.
        folder: where state and arrays are handed on.
        task: what the processes are to know beyond where to begin and end, JSON values; "since",
            the step after which fingerprints are kept, by default the one before the last.
        module: whose function `work` does the last stretch.
        progress: called with what is being done.

    Raises:
        ReplayError: the step was never computed; or a process failed.
    """
    task = {"since": step - 1, **task}
    stretches = _stretches(run, step, task["since"])
    compared, start = 0, stretches[0][1]
    entries: dict[int, Entry] = {}
    other: list[Difference] = []
    for environment, begin, end in stretches:
        last = end == step
        full = {
            **task,
            "run": str(run.path.absolute()),
            "folder": str(folder),
            "start": begin,
            "end": end,
            "first": begin == start,
            "last": last,
        }
        found = in_environment(environment, module if last else __name__, full, progress)
        compared += found["compared"]
        entries |= {int(number): entry for number, entry in found.get("entries", {}).items()}
        other += _relevant(environment, found["environment"])
        if found["problem"]:
            break
    return Stretches(start, found, compared, entries, tuple(dict.fromkeys(other)))


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Compute a stretch of a run again, in this process, and compare it with its ledger.

    **Same bits:** as `train`, in this environment.

    Args:
        task: JSON values: "run", "folder", "start" and "end"; "first" (whether the state comes
            from the run itself), "last" (whether no stretch follows, so that
            nobody needs the state), "since" (the step after which entries are kept).

    Returns:
        JSON values: what is wrong ("problem", or None), how many lines of the ledger were
        "compared" and the step of the "last" of them, what a line was "lacking", "entries", and
        the "names" of the arrays that are left in the folder.
    """
    from reproducibility.storage.checkpoint import CheckpointStore

    print(f"computing step {task['end']} from {task['start']}", flush=True)
    steps = Steps(task)
    entries: dict[int, Entry] = {}
    trees: dict[str, Any] = {}
    for step, trees, entry in steps:  # noqa: B007
        if step > task["since"]:
            entries[step] = entry
    names = _keep(Path(task["folder"]) / VALUES, trees)
    if not task["last"]:  # another stretch begins with it
        with CheckpointStore(Path(task["folder"]) / STATES) as store:
            store.save(task["end"], steps.state)
    return {
        "problem": steps.problem,
        "compared": steps.compared,
        "last": steps.last,
        "lacking": steps.lacking,
        "entries": entries,
        "names": names,
        "programs": steps.programs.digests(),
    }


class Steps:
    """The steps of a stretch, computed again in this process and compared with the ledger.

    Iterate for (step, trees by stage, fingerprints by stage and leaf).

    Same bits: as `train`, in this environment.

    Args:
        task: as for `work`.

    Raises:
        ReplayError: this version of the package makes another run of the same settings.
    """

    def __init__(self, task: Mapping[str, Any]) -> None:
        run, self._task = Run.read(task["run"]), task
        self.programs = _programs(run)
        """The compiled programs of the run."""
        self.state: TrainState = self._begin(run)
        """The state after the last step."""
        self._plan: Plan | None = None
        self.problem: str | None = None
        """The first line of the ledger that was not confirmed."""
        self.compared = 0
        """How many lines were looked at."""
        self.last: int | None = None
        """The step of the last of them."""
        self.lacking: str | None = None
        """What the line that was looked at last does not tell of its step."""
        self._lines = _ledger_lines(run)
        self._line: LedgerLine | None = next(self._lines, None)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any], Entry]]:
        """Compute the next step. Same bits: as `train`."""
        import jax

        from reproducibility.same.fingerprint import fingerprint_text

        first, end = self._task["start"], self._task["end"]
        for step in range(first if first == 0 else first + 1, end + 1):
            trees, loss = self._step(step)
            words = jax.device_get(_stage_fingerprints(trees))
            entry = {
                s: {n: fingerprint_text(w) for n, w in words[s].items()}
                for s in STAGES
                if s in words
            }
            if loss is not None:
                entry[LOSS] = {"": float(loss).hex()}
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

        start, step = self.programs.start, self._task["start"]
        state: TrainState
        if step == 0:
            state = jax.tree.map(jnp.copy, start)  # the steps donate it
        elif self._task["first"]:
            state = restore_state(run, step=step)
        else:
            with CheckpointStore(Path(self._task["folder"]) / STATES) as store:
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


def _stage_fingerprints(stages: dict[str, Any]) -> dict[str, dict[str, Any]]:
    # Each by itself: stages of one structure, and steps of fewer stages, share what is compiled.
    return {name: _fingerprint_program()(tree) for name, tree in stages.items()}


@functools.cache
def _fingerprint_program() -> Callable[[Any], dict[str, Any]]:
    import jax

    from reproducibility.same.fingerprint import leaf_fingerprints

    return jax.jit(leaf_fingerprints)


def _programs(run: Run) -> Programs:
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


def recorded(run: Run, step: int) -> Entry | None:
    """Return what the ledger of a run says about a step.

    **Same bits:** everywhere.

    Args:
        run: the run.
        step: the step.

    Returns:
        Fingerprints by stage and leaf; None if there is no line.
    """
    for number, body, header in _ledger_lines(run):
        if number == step:
            return read_entry(body, header)
    return None


def _ledger_lines(run: Run) -> Iterator[LedgerLine]:
    """Yield the lines of a run's ledger that can be trusted, if there are any."""
    with suppress(LedgerError):
        ledger = Ledger(run.path / LEDGER, run.name)
        for step, body in ledger:
            yield step, body, ledger.header


def _stretches(run: Run, step: int, since: int) -> list[tuple[Environment, int, int]]:
    """Say in which environments to compute what, from the last intact checkpoint up to `since`."""
    attempts = _attempts(run)
    ends = [attempt["to_step"] for attempt in attempts if "to_step" in attempt]
    done = max([0, *ends, *saved_steps(run.checkpoints)])
    if step > done:  # the process may have been killed
        done = max([done, *(line[0] for line in _ledger_lines(run))])
    if not 0 <= step <= done:
        raise ReplayError(
            "compute",
            "a step again",
            path=run.path,
            step=step,
            expected=f"a step from 0 to {done}, which are complete",
            got=step,
            do="Name one of those.",
        )
    at = _checkpoint(run, since + 1)
    stretches: list[tuple[Environment, int, int]] = []
    while at < step or not stretches:
        environment = _environment_of(run, attempts, min(at + 1, step))
        bounds = [*(attempt["from_step"] for attempt in attempts), *ends]
        end = min((bound for bound in bounds if at < bound < step), default=step)
        if stretches and not _relevant(stretches[-1][0], environment):
            stretches[-1] = (environment, stretches[-1][1], end)
        else:
            stretches.append((environment, at, end))
        at = end
    return stretches


def _attempts(run: Run) -> list[dict[str, Any]]:
    """Return the start of each attempt, with the step that it came to unless it was killed."""
    attempts: list[dict[str, Any]] = []
    for line in run.attempts():
        if line.get("event") == "start":
            attempts.append(line)
        elif line.get("event") == "end" and "to_step" in line and attempts:
            attempts[-1] = {**attempts[-1], "to_step": line["to_step"]}
    return attempts


def _environment_of(run: Run, attempts: list[dict[str, Any]], step: int) -> Environment:
    """Return the environment of the last attempt that computed a step."""
    before = max(step - 1, 0)  # the first attempt computed step 0, too
    for attempt in reversed(attempts):
        if attempt["from_step"] <= before and step <= attempt.get("to_step", step):
            return facts_of(attempt)
    raise ReplayError(
        "compute",
        "a step again",
        path=run.path,
        step=step,
        expected=f"a line in {ATTEMPTS} that says in which environment it was computed",
        got="none",
        do="Nothing can be told about it.",
    )


def _checkpoint(run: Run, step: int) -> int:
    """Return the newest intact checkpoint before a step; 0 is the start of the run."""
    before = [saved for saved in saved_steps(run.checkpoints) if saved < step]
    if not before:
        return 0
    from reproducibility.storage.checkpoint import (
        CheckpointStore,  # with Orbax, which takes its time
    )

    with CheckpointStore(run.checkpoints, run=run.name) as store:
        for saved in reversed(before):
            with suppress(CheckpointError):
                store.verify(saved)
                return saved
    return 0


def _relevant(then: Environment, now: Environment) -> list[Difference]:
    # How many devices there are is not: no program of a run sees more than one. Nor is the script
    # that called `train`: what is computed again is the programs, which have digests of their own.
    found = [d for d in environment_differences(then, now) if d.name not in (*DEVICE_COUNTS, *CODE)]
    return [d for d in found if d.effect != "not known to change bits"]


def _judge_replay(done: Stretches, step: int) -> tuple[Answer, str]:
    problem, lines = done.answer["problem"], f"{done.compared} of its lines were"
    if done.compared == 1:
        lines = "1 of its lines was"
    if not problem and done.answer["last"] == step:
        return "confirmed", f"It has the recorded fingerprints; {lines} compared."
    if not problem:
        so_far = f"; {lines} compared, and agreed" if done.compared else ""
        of_it = f" with its {done.answer['lacking']}" if done.answer["lacking"] else ""
        return "cannot be told", f"The ledger has no line of step {step}{of_it}{so_far}."
    if done.environment:
        first = done.environment[0]
        had = f"{first.name} was {first.a} then and is {first.b} here"
        return "cannot be told", f"Computed again, {problem}; but {had}."
    return "refuted", f"Computed again in the recorded environment, {problem}."


def _keep(path: Path, trees: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    """Leave the arrays of a step in a file; return stage, leaf and PRNG implementation of each."""
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


def _values(path: Path, names: list[tuple[str, str, str | None]]) -> dict[str, dict[str, Any]]:
    import jax
    import numpy as np

    values: dict[str, dict[str, Any]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for number, (stage, leaf, impl) in enumerate(names):
            value: Any = arrays[f"arr_{number}"]
            keys = jax.random.wrap_key_data(value, impl=impl) if impl else value
            values.setdefault(stage, {})[leaf] = keys
    return values
