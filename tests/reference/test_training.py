"""Promises of `reference.training`: resumed equals uninterrupted, and can fail to."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reproducibility.reference.training as training
from reproducibility import (
    CheckpointStore,
    Recorder,
    TrainConfig,
    TrainState,
    root_key,
    train,
    tree_digest,
)
from reproducibility.errors import (
    CheckpointDamagedError,
    CheckpointMismatchError,
    ConfigError,
    IdentityMismatchError,
    NotReproducedError,
    ReplayError,
    RunDamagedError,
    RunError,
    SetAsideWarning,
)
from reproducibility.explain.replay import replay
from reproducibility.keys import index_key, step_key, stream_key
from reproducibility.reference.run import Run, read_result, write_result
from reproducibility.reference.step import PLANNED, Plan, Programs, programs_of
from reproducibility.reference.resume import restore_state
from reproducibility.scale.distributed import Layout
from tests.conftest import SMALL

Small = Callable[..., TrainConfig]


def interrupted(config: TrainConfig, folder: Path, *stops: int) -> str:
    """Train in stretches that end after `stops`, then to the end; return the digest."""
    for stop_after in stops:
        stretch = train(dataclasses.replace(config, stop_after=stop_after), run_dir=folder)
        assert (stretch.ended, int(stretch.state.step)) == ("stopped", stop_after)
    return train(config, run_dir=folder).digest


@pytest.mark.parametrize("dataset", ["synthetic", "digits"])
@pytest.mark.parametrize("stops", [(1,), (4,), (3, 5, 11)])
def test_resumed_equals_uninterrupted(
    small: Small, tmp_path: Path, dataset: str, stops: tuple[int, ...]
) -> None:
    """However often a run is interrupted, it ends with the digest of the uninterrupted one."""
    config = small(dataset=dataset)
    assert interrupted(config, tmp_path / "run", *stops) == train(config).digest


def gradient_of(programs: Programs, state: TrainState, shard: int) -> object:
    """Run program 1 for one shard."""
    plan, data = programs.plan(state), programs.data
    return programs.gradient(state.params, state.step, plan, data.x, data.y, jnp.uint32(shard))


def test_randomness_is_really_used(small: Small) -> None:
    """Dropout, the order of the data and the initial values each depend on the seed.

    So a run that forgot one of them when it resumed would end with another digest.
    """
    one, two = programs_of(small().identity), programs_of(small(seed=8).identity)
    assert tree_digest(one.start.params) != tree_digest(two.start.params)
    assert one.data.rows(0, 0, 32).tolist() != two.data.rows(0, 0, 32).tolist()
    assert train(small(dropout=0.0)).digest != train(small()).digest
    other_key = dataclasses.replace(one.start, key=root_key(8))
    gradients = [gradient_of(one, state, 0) for state in (one.start, other_key)]
    assert tree_digest(gradients[0]) != tree_digest(gradients[1])


def test_shards_have_their_own_data_and_dropout(small: Small) -> None:
    """Two shards train on other rows with other masks: with either made equal they still differ.

    The control: with rows and keys both made equal, so are the gradients. (It uses keys twice on
    purpose, so JAX's check is off.)
    """
    programs = programs_of(small(shards=2).identity)
    state, data, plan = programs.start, programs.data, programs.plan(programs.start)
    rows, dropout = plan.rows[:, jnp.array([0, 0])], plan.dropout[:, jnp.array([0, 0])]

    def equal(plan: Plan) -> bool:
        arguments = (state.params, state.step, plan, data.x, data.y)
        first, second = (programs.gradient(*arguments, shard) for shard in programs.shards)
        return tree_digest(first) == tree_digest(second)

    with jax.debug_key_reuse(False):
        assert not equal(plan)
        assert not equal(dataclasses.replace(plan, rows=rows))
        assert not equal(dataclasses.replace(plan, dropout=dropout))
        assert equal(Plan(rows, dropout))


def test_a_plan_is_what_the_keys_and_rows_say(small: Small) -> None:
    """A plan holds, for each step and shard of its stretch, the rows and the key by definition."""
    programs = programs_of(small().identity)
    step, count = 2 * PLANNED + 5, 16
    state = dataclasses.replace(programs.start, step=jnp.uint32(step))
    plan = programs.plan(state)
    assert plan.rows.shape == (PLANNED, 2, count)
    for at in (2 * PLANNED, step, 3 * PLANNED - 1):
        for shard in (0, 1):
            key = index_key(step_key(stream_key(state.key, "dropout"), at), shard)
            assert tree_digest(plan.dropout[at % PLANNED, shard]) == tree_digest(key)
            rows = programs.data.rows(at, shard * count, count)
            assert plan.rows[at % PLANNED, shard].tolist() == rows.tolist()


def test_a_run_longer_than_a_plan_resumes_anywhere(small: Small, tmp_path: Path) -> None:
    """Interrupted on and around the border of a plan, a run ends as the uninterrupted one."""
    config = small(steps=2 * PLANNED + 3, checkpoint_every=10**6)
    stops = (PLANNED - 1, PLANNED, PLANNED + 1, 2 * PLANNED)
    assert interrupted(config, tmp_path / "run", *stops) == train(config).digest


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """Return a list that gets an entry for each program that is compiled, or read from a cache."""
    events: list[str] = []

    def listen(event: str, seconds: float, **rest: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def _forget_programs() -> None:
    """Leave this process as one that has trained nothing yet."""
    for cache in (
        training._programs_of, training._network_of, training._optimiser_of, training._plan_of,
    ):  # fmt: skip
        cache.cache_clear()
    jax.clear_caches()


def test_a_new_seed_compiles_nothing(small: Small, compiled: list[str]) -> None:
    """All seeds share their compiled programs; only a setting that these depend on compiles some.

    The controls: with another learning rate there is another update, and with another width more.
    """
    _forget_programs()  # other tests of this process may have compiled any of these
    numbers = []
    for settings in ({}, {"seed": 8}, {"learning_rate": 0.0123}, {"hidden": (9,)}):
        compiled.clear()
        train(small(**settings, steps=2))
        numbers.append(len(compiled))
    assert numbers[1] == 0 < numbers[2] < numbers[3]


def test_programs_know_nothing_of_earlier_seeds(small: Small) -> None:
    """A run after one of another seed has the digest that it has in a process that ran nothing."""
    one, other = train(small(steps=3)).digest, train(small(steps=3, seed=8)).digest
    _forget_programs()
    assert train(small(steps=3, seed=8)).digest == other != one


def test_the_state_is_donated_and_nothing_is_fetched(small: Small) -> None:
    """A step reuses the memory of the state it was given, and returns arrays, not numbers."""
    programs = programs_of(small().identity)
    before = jax.tree.map(jnp.copy, programs.start)
    after, loss, _ = programs.step(before, programs.plan(before))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((before.params, before.opt_state)))
    assert isinstance(loss, jax.Array)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


def test_checkpoints_are_what_was_trained(small: Small, tmp_path: Path) -> None:
    """A checkpoint holds the state of its step, though training goes on while it is written."""
    config = small(keep=12, checkpoint_every=1)
    train(config, run_dir=tmp_path / "run")
    for step in (1, 5, 12):
        short = train(small(steps=step))
        assert tree_digest(restore_state(Run.read(tmp_path / "run"), step=step)) == short.digest


def test_stop_is_asked_after_every_step(small: Small, tmp_path: Path) -> None:
    """When `stop` answers True, training ends there with a checkpoint, and resumes from it."""
    seen: list[int] = []
    done = train(
        small(),
        run_dir=tmp_path / "run",
        progress=lambda step, loss: seen.append(step),
        stop=lambda: len(seen) == 7,
    )
    assert (done.ended, int(done.state.step), seen) == ("interrupted", 7, list(range(1, 8)))
    assert done.result is None
    assert train(small(), run_dir=tmp_path / "run").digest == train(small()).digest


def test_result_says_what_the_run_came_to(small: Small, tmp_path: Path) -> None:
    """result.json holds the digests of the final state and the metrics of the held-out set."""
    done = train(small(steps=300, checkpoint_every=300), run_dir=tmp_path / "run")
    result = read_result(tmp_path / "run" / "result.json")
    assert result == done.result
    assert (result.run, result.steps) == (Run.read(tmp_path / "run").name, 300)
    assert result.digest == tree_digest(done.state)
    assert result.params_digest == tree_digest(done.state.params)
    assert result.accuracy > 0.3  # a tenth is chance
    assert 0 < result.loss < np.log(10)


def test_a_run_can_grow(small: Small, tmp_path: Path) -> None:
    """A finished run goes on when more steps are asked for, to the digest of the long run."""
    train(small(steps=5), run_dir=tmp_path / "run")
    assert train(small(), run_dir=tmp_path / "run").digest == train(small()).digest
    assert read_result(tmp_path / "run" / "result.json").steps == 12


def test_a_finished_run_is_not_altered(small: Small, tmp_path: Path) -> None:
    """Training a finished run again changes no byte of it and returns the same result."""
    first = train(small(), run_dir=tmp_path / "run")

    def contents() -> dict[str, str]:
        files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
        return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    before = contents()
    second = train(small(), run_dir=tmp_path / "run")
    assert contents() == before
    assert (second.digest, second.result, second.ended) == (first.digest, first.result, "finished")


def test_without_a_directory_nothing_is_written(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train(config)` leaves no file behind."""
    monkeypatch.chdir(tmp_path)
    assert train(small()).result is None
    assert list(tmp_path.iterdir()) == []


def test_attempts_are_logged(small: Small, tmp_path: Path) -> None:
    """Each stretch of work leaves a line when it starts and one when it ends."""
    interrupted(small(), tmp_path / "run", 5)
    lines = Run.read(tmp_path / "run").attempts()
    assert [line["event"] for line in lines] == ["start", "end", "start", "end"]
    assert [line.get("from_step") for line in lines[::2]] == [0, 5]
    assert [(line["ended"], line["to_step"]) for line in lines[1::2]] == [
        ("stopped", 5),
        ("finished", 12),
    ]
    assert lines[0]["programs"] == lines[2]["programs"]
    assert lines[0]["programs"].keys() == {"gradient", "update"}
    assert lines[0]["layout"] == {"devices": 1, "processes": 1}
    assert lines[0]["environment"]["version.jax"] == jax.__version__


def test_a_crash_is_logged_and_resumed(small: Small, tmp_path: Path) -> None:
    """A run that died of an exception says so, and goes on from its last checkpoint."""

    def crash(step: int, loss: jax.Array) -> None:
        if step == 6:
            raise RuntimeError("a bug in someone's callback")

    with pytest.raises(RuntimeError, match="callback"):
        train(small(), run_dir=tmp_path / "run", progress=crash)
    assert Run.read(tmp_path / "run").attempts()[-1]["ended"] == "failed"
    assert train(small(), run_dir=tmp_path / "run").digest == train(small()).digest


def failing(real: Callable[..., Any], when: Callable[[], bool]) -> Callable[..., Any]:
    """Return a function that raises instead of doing its work, at some moment."""

    @functools.wraps(real)
    def fail(*args: Any, **kwargs: Any) -> Any:
        if when():
            raise RuntimeError("on purpose")
        return real(*args, **kwargs)

    return fail


# Where an exception is raised, after how many calls of the step, and what is complete then.
PLACES = {
    "the step": (Programs, "step", 5, 5),
    "the plan": (Programs, "plan", PLANNED, PLANNED),
    "the record": (Recorder, "record", 6, 6),
    "the progress": (None, "progress", 6, 6),
    "the question whether to stop": (None, "stop", 6, 6),
    "the save": (CheckpointStore, "save", 6, 6),
    "nowhere": (None, None, PLANNED + 2, PLANNED + 2),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_crash_is_logged_with_the_last_complete_update(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Wherever in a step an exception is raised, `to_step` is the last update with a new state.

    Nothing later is believed: `replay` refuses the step that was never computed. The run goes on
    to the digest of the uninterrupted one.
    """
    owner, name, calls, complete = PLACES[place]
    config = small(steps=PLANNED + 2, checkpoint_every=6)
    real, called = Programs.step, [0]

    def counted(self: Programs, *args: Any) -> Any:
        called[0] += 1
        return real(self, *args)

    callbacks = {}
    monkeypatch.setattr(Programs, "step", counted)
    if owner:
        broken = failing(getattr(owner, name), lambda: called[0] == calls)
        monkeypatch.setattr(owner, name, broken)
    elif name:
        callbacks[name] = failing(lambda *_: False, lambda: called[0] == calls)
    raised = pytest.raises(RuntimeError, match="purpose") if name else contextlib.nullcontext()
    with raised:
        train(config, run_dir=tmp_path / "run", **callbacks)
    monkeypatch.undo()
    assert called == [calls]
    end = Run.read(tmp_path / "run").attempts()[-1]
    assert (end["ended"], end["to_step"]) == ("failed" if name else "finished", complete)
    with pytest.raises(ReplayError, match=f"a step from 0 to {complete}, which are complete"):
        replay(tmp_path / "run", complete + 1)
    assert train(config, run_dir=tmp_path / "run").digest == train(config).digest


def test_a_computation_that_failed_is_no_complete_update(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the state itself cannot be had, no step is claimed: which one failed is not known.

    JAX reports such an error later than in the step that failed. The control: an exception beside
    a state that is there.
    """
    real, count = Programs.step, [0]

    def lost(self: Programs, state: TrainState, plan: Plan) -> Any:
        count[0] += 1
        state, loss, gradient = real(self, state, plan)
        if count[0] == 6:
            jax.tree.map(lambda leaf: leaf.delete(), state)  # as its error would leave it
        return state, loss, gradient

    def crash(step: int, loss: jax.Array) -> None:
        if step == 6:
            raise RuntimeError("on purpose")

    for name, step in {"whole": real, "lost": lost}.items():
        monkeypatch.setattr(Programs, "step", step)
        with pytest.raises(RuntimeError, match="on purpose"):
            train(small(record="off"), run_dir=tmp_path / name, progress=crash)
        end = Run.read(tmp_path / name).attempts()[-1]
        assert (end["ended"], end.get("to_step")) == ("failed", 6 if name == "whole" else None)
    monkeypatch.undo()
    with pytest.raises(ReplayError, match="a step from 0 to 4, which are complete"):
        replay(tmp_path / "lost", 6)
    assert train(small(), run_dir=tmp_path / "lost").digest == train(small()).digest


def test_another_identity_is_refused_by_name(small: Small, tmp_path: Path) -> None:
    """A directory of a run with other settings is refused, naming each, and left as it was."""
    train(small(stop_after=4), run_dir=tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    for name, value in {
        "seed": 8, "dataset": "digits", "batch_size": 64, "shards": 4, "hidden": (9,),
        "dropout": 0.5, "learning_rate": 0.1,
    }.items():  # fmt: skip
        with pytest.raises(IdentityMismatchError, match=name) as caught:
            train(small(**{name: value}), run_dir=tmp_path / "run")
        assert name in caught.value.settings
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_checkpoint_of_another_run_is_refused(small: Small, tmp_path: Path) -> None:
    """Checkpoints that were swapped for those of another run are refused by its name."""
    train(small(stop_after=4), run_dir=tmp_path / "a")
    train(small(stop_after=4, hidden=(9,)), run_dir=tmp_path / "b")
    shutil.rmtree(tmp_path / "a" / "checkpoints")
    shutil.copytree(tmp_path / "b" / "checkpoints", tmp_path / "a" / "checkpoints")
    name = Run.read(tmp_path / "b").name
    with pytest.raises(CheckpointMismatchError, match=f"got one of run {name}"):
        train(small(), run_dir=tmp_path / "a")


def test_resume_require_needs_a_checkpoint(small: Small, tmp_path: Path) -> None:
    """`resume="require"` with nothing to resume is refused."""
    with pytest.raises(RunError, match=r"Cannot resume the run .*expected a checkpoint, got none"):
        train(small(resume="require"), run_dir=tmp_path / "run")


def test_resume_never_overwrites_nothing(small: Small, tmp_path: Path) -> None:
    """`resume="never"` where there are checkpoints is refused, and they stay."""
    train(small(stop_after=4), run_dir=tmp_path / "run")
    with pytest.raises(RunError, match=r"expected no checkpoints, got one of step 4"):
        train(small(resume="never"), run_dir=tmp_path / "run")
    assert train(small(), run_dir=tmp_path / "run").digest == train(small()).digest


def test_a_run_cannot_shrink(small: Small, tmp_path: Path) -> None:
    """Fewer steps than are complete are refused."""
    train(small(), run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="steps: expected at least 12, which are complete, got 5"):
        train(small(steps=5), run_dir=tmp_path / "run")


def test_settings_that_change_draws_stop_a_run(small: Small, tmp_path: Path) -> None:
    """A run does not start under a JAX setting that changes its draws."""
    with jax.threefry_partitionable(False), pytest.raises(ConfigError, match="partitionable"):
        train(small(), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_sum_is_a_fixed_tree() -> None:
    """Program 2 adds neighbours first: ((a+b)+(c+d)) / 4, bit for bit.

    The controls: left to right, and halves onto halves, give two other numbers.
    """
    a, b, c, d = values = np.float32([1, 2**-24, 3 * 2**-24, -1])
    loss, _ = Layout.of(1).mean([(jnp.float32(value), {}) for value in values])
    tree, left_to_right, halves = (a + b) + (c + d), ((a + b) + c) + d, (a + c) + (b + d)
    assert len({float(tree), float(left_to_right), float(halves)}) == 3
    assert float(loss) == float(tree / np.float32(4))


def test_the_configuration_of_run_json_is_complete(small: Small, tmp_path: Path) -> None:
    """run.json holds every setting of the identity, what it is fixed to, and the data's digest."""
    config = small(stop_after=1)
    train(config, run_dir=tmp_path / "run")
    identity = json.loads((tmp_path / "run" / "run.json").read_bytes())
    for name, value in dataclasses.asdict(config.identity).items():
        assert identity[name] == (list(value) if isinstance(value, tuple) else value)
    others = identity.keys() - dataclasses.asdict(config.identity).keys()
    assert others == {"format", "data_digest", "model", "optimiser", "prng", "sha256"}


def test_a_diverged_run_has_a_result(small: Small, tmp_path: Path) -> None:
    """A loss that is not finite is no number in JSON: the result says None, and can be read."""
    done = train(small(learning_rate=1e30, steps=4), run_dir=tmp_path / "run")
    assert done.result.loss is None
    assert read_result(tmp_path / "run" / "result.json") == done.result


@pytest.mark.parametrize("name", ["digest", "run"])
def test_a_result_of_another_state_is_refused(small: Small, tmp_path: Path, name: str) -> None:
    """A finished run whose result is not that of its own checkpoint is not reported as done."""
    done = train(small(), run_dir=tmp_path / "run").result
    write_result(tmp_path / "run/result.json", dataclasses.replace(done, **{name: "d" * 64}))
    with pytest.raises(RunDamagedError, match="as of the checkpoint"):
        train(small(), run_dir=tmp_path / "run")


def test_a_finished_run_that_lost_its_end_does_not_shrink(small: Small, tmp_path: Path) -> None:
    """The result counts as well: with its last checkpoint damaged a run still has its length."""
    train(small(), run_dir=tmp_path / "run")
    (tmp_path / "run/checkpoints/00000012/seal.json").write_text("")
    with pytest.warns(SetAsideWarning), pytest.raises(ConfigError, match="at least 12"):
        train(small(steps=10), run_dir=tmp_path / "run")


def test_a_run_that_does_not_reproduce_itself_says_so(small: Small, tmp_path: Path) -> None:
    """Computed again from a checkpoint to another digest, a finished run keeps its result."""
    done = train(small(), run_dir=tmp_path / "run").result
    (tmp_path / "run/checkpoints/00000012/seal.json").write_text("")
    other = dataclasses.replace(done, digest="d" * 64)
    write_result(tmp_path / "run/result.json", other)
    with pytest.warns(SetAsideWarning), pytest.raises(NotReproducedError, match=done.digest):
        train(small(), run_dir=tmp_path / "run")
    assert read_result(tmp_path / "run/result.json") == other


@pytest.mark.parametrize("newest", [12, 8])
def test_a_damaged_checkpoint_is_set_aside(small: Small, tmp_path: Path, newest: int) -> None:
    """Training goes back to the newest intact checkpoint, says so, and ends with the same digest.

    Nothing is deleted. With none left it refuses, and renames nothing.
    """
    uninterrupted = train(small(), run_dir=tmp_path / "run").digest
    folder = tmp_path / "run" / "checkpoints"
    for step in (12, 8)[: (12, 8).index(newest) + 1]:
        seal = folder / f"{step:08d}" / "seal.json"
        seal.write_bytes(seal.read_bytes()[:-9])
    with pytest.warns(SetAsideWarning, match=f"Going on from step {newest - 4}"):
        assert train(small(), run_dir=tmp_path / "run").digest == uninterrupted
    assert (folder / f"damaged-{newest:08d}" / "arrays").is_dir()
    for path in folder.glob("0*/seal.json"):
        path.write_text("")
    before = sorted(folder.rglob("*"))
    with pytest.raises(CheckpointDamagedError, match=r"at least one intact, got damage in all"):
        train(small(), run_dir=tmp_path / "run")
    assert sorted(folder.rglob("*")) == before


def test_a_damaged_result_is_made_again(small: Small, tmp_path: Path) -> None:
    """Without its result a finished run computes it anew from its checkpoint, the same one."""
    first = train(small(), run_dir=tmp_path / "run").result
    (tmp_path / "run" / "result.json").write_text("{")
    with pytest.warns(SetAsideWarning, match=r"damaged-result\.json"):
        second = train(small(), run_dir=tmp_path / "run").result
    assert dataclasses.replace(second, seconds=first.seconds) == first


UNDER_OTHER_SETTINGS = """
import sys, jax
from reproducibility import TrainConfig, train
from tests.conftest import SMALL
settings = dict(steps=2, **SMALL)
if "first" in sys.argv:
    train(TrainConfig(seed=7, **settings)), train(TrainConfig(seed=8, **settings))
jax.config.update("jax_disable_most_optimizations", True)
print(*(train(TrainConfig(seed=seed, **settings)).digest for seed in (7, 8)))
"""


def test_nothing_compiled_under_other_settings_is_used() -> None:
    """A run computes with the settings of JAX that it records, whatever ran before in the process:
    the same seed, and another one. The control: the setting changes the bits."""
    code = [sys.executable, "-c", UNDER_OTHER_SETTINGS]
    alone, second = (
        subprocess.check_output([*code, *more], text=True).split() for more in ([], ["first"])
    )
    assert second == alone
    settings = {"steps": 2, **SMALL}
    plain = [train(TrainConfig(seed=seed, **settings)).digest for seed in (7, 8)]
    assert plain != alone
