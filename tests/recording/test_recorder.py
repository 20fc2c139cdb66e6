"""Promises of `reproducibility.recording.recorder`: it changes nothing, and nothing escapes it."""

import copy
import dataclasses
import errno
import gc
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from reproducibility import (
    ConfigError,
    DtypeDriftWarning,
    LeafError,
    Ledger,
    LedgerError,
    Plan,
    Programs,
    Recorder,
    RunSaveError,
    SetAsideWarning,
    TrainConfig,
    TrainState,
    compare,
    fingerprint,
    fingerprint_text,
    leaf_fingerprints,
    programs_of,
    read_entry,
    root_key,
    step_key,
    stream_key,
    train,
    tree_digest,
)
from reproducibility.recording import recorder as recorder_module
from reproducibility.recording import writer
from reproducibility.recording.lines import STAGES
from reproducibility.recording.recorder import STEPS_AT_ONCE
from reproducibility.reference.loop import run_attempt
from reproducibility.same.leaves import named_leaves, path_string
from tests.storage.test_checkpoint import aligned

Small = Callable[..., TrainConfig]
Tree = Any

# Planted faults: in the real training loop, at a random step, stage, leaf, element and bit.

STEPS = 9
PLANTS = 35  # of each, so 210 in all
FAULTS = {
    "nothing": None,
    "a bit of the batch": "batch",
    "two examples": "batch",
    "a key": "key",
    "a bit of the gradient": "gradients",
    "a bit of the optimiser": "opt_state",
    "a bit of the parameters": "params",
}


class Several:
    """Recorders that are given the same steps."""

    def __init__(self, *recorders: Recorder) -> None:
        self.recorders = recorders

    def record(self, step: int, **parts: Any) -> None:
        """Record a step with each."""
        for recorder in self.recorders:
            recorder.record(step, **parts)


class Faulty:
    """The programs of a run, of which one step goes wrong; what follows inherits it.

    Args:
        programs: the right ones.
        fault: one of `FAULTS`.
        step: which step goes wrong.
        chance: chooses where.
    """

    def __init__(self, programs: Programs, fault: str, step: int, chance: random.Random) -> None:
        self._right, self._wrong = programs, copy.copy(programs)
        self._fault, self._step, self._chance = fault, step, chance
        self._now = 0
        self.leaves: tuple[str, ...] = ()
        """The leaves that were made wrong."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrong, name)

    def plan(self, state: TrainState) -> Plan:
        """Plan the steps; in one of them two examples change places, or an old key comes again."""
        plan, at = self._right.plan(state), self._step - 1
        if self._fault == "two examples":
            rows = np.array(plan.rows)
            batch = rows[at].reshape(-1)
            one, other = self._chance.sample(range(len(batch)), 2)
            labels = self._right.data.y[batch[[one, other]]]
            self.leaves = ("x",) if labels[0] == labels[1] else ("x", "y")
            batch[[one, other]] = batch[[other, one]]
            return dataclasses.replace(plan, rows=jnp.asarray(rows))
        if self._fault == "a key":
            self.leaves = ("dropout",)
            return dataclasses.replace(plan, dropout=plan.dropout.at[at].set(plan.dropout[at - 1]))
        return plan

    def step(self, state: TrainState, plan: Plan) -> tuple[TrainState, Tree, Tree]:
        """Do a step, by the real code; one of its programs is another in the one that fails."""
        self._now += 1
        wrong, right = self._wrong, self._right
        wrong.data, wrong.total, wrong.update = right.data, right.total, right.update
        if self._now == self._step:
            if self._fault == "a bit of the batch":
                wrong.data = self._wrong_data(plan)
            elif self._fault == "a bit of the gradient":
                wrong.total = self._wrong_total
            elif self._fault.startswith("a bit of"):
                wrong.update = self._wrong_update
        return wrong.step(state, plan)

    def _wrong_data(self, plan: Plan) -> Tree:
        data, name = self._right.data, self._chance.choice(["x", "x", "y"])
        row = self._chance.choice(plan.rows[self._step - 1].reshape(-1).tolist())
        self.leaves = (name,)
        part = flip(getattr(data, name)[row], self._chance)
        return dataclasses.replace(data, **{name: getattr(data, name).at[row].set(part)})

    def _wrong_total(self, parts: Tree) -> Tree:
        loss, gradient = self._right.total(parts)
        return loss, self._flipped(gradient)

    def _wrong_update(self, state: TrainState, gradient: Tree) -> TrainState:
        state = self._right.update(state, gradient)
        name = "params" if self._fault.endswith("parameters") else "opt_state"
        return dataclasses.replace(state, **{name: self._flipped(getattr(state, name))})

    def _flipped(self, tree: Tree) -> Tree:
        path, chosen = self._chance.choice(named_leaves(tree))
        self.leaves = (path_string(path),)
        return jax.tree.map(lambda leaf: flip(leaf, self._chance) if leaf is chosen else leaf, tree)


def flip(array: Tree, chance: random.Random) -> jax.Array:
    """Return an array with one random bit of it flipped."""
    content = bytearray(np.asarray(array).tobytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return jnp.asarray(np.frombuffer(bytes(content), array.dtype).reshape(array.shape))


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a ledger of steps, without their chain."""
    found = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [{k: v for k, v in line.items() if k != "chain"} for line in found if "step" in line]


LEDGERS = {"leaf": {}, "group": {"level": "group"}, "thirds": {"every": 3}}


def recorded(folder: Path, config: TrainConfig, programs: Any) -> Path:
    """Train by the loop of the package, with three recorders; return where their ledgers are."""
    each = [
        Recorder(folder / name, view=Programs.stages, **settings)
        for name, settings in LEDGERS.items()
    ]
    run_attempt(config, programs, None, None, Several(*each), programs.start, None, None)
    for recorder in each:
        recorder.close()
    return folder


@pytest.mark.parametrize(("fault", "stage"), FAULTS.items())
def test_a_planted_fault_is_named(
    small: Small, tmp_path: Path, fault: str, stage: str | None
) -> None:
    """The right step, stage and leaf are named, every time; by groups the step and the stage.

    Where only every third step is recorded, the right three steps, unless the fault is gone by the
    third. The control: without a fault there is nothing to name.
    """
    config = small(steps=STEPS)
    programs = programs_of(config.identity)
    right = recorded(tmp_path / "right", config, programs)
    chance = random.Random(fault)
    in_time = 0
    for number in range(PLANTS):
        step = chance.randint(2, STEPS)
        faulty = Faulty(programs, fault, step, chance)
        wrong = recorded(tmp_path / str(number), config, faulty)
        by_leaf, by_group, thirds = (compare(right / name, wrong / name) for name in LEDGERS)
        if stage is None:
            assert {found.verdict for found in (by_leaf, by_group, thirds)} == {"same"}
            return
        assert (by_leaf.step, by_leaf.stage, by_leaf.leaves) == (step, stage, faulty.leaves)
        assert (by_group.step, by_group.stage, by_group.leaves) == (step, stage, ())
        pairs = zip(lines(right / "leaf"), lines(wrong / "leaf"), strict=True)
        differ = [one["step"] for one, other in pairs if one != other]
        assert thirds.step == next((late for late in differ if late % 3 == 0), STEPS)
        if thirds.verdict == "different":
            span = range(thirds.step - 2, thirds.step + 1)
            assert f"diverge at a step from {span[0]} to {span[-1]}, first in " in thirds.reason
            in_time += step in span
    assert in_time >= 0.9 * PLANTS


# Recording changes nothing.


def dropped(x: jax.Array, key: jax.Array) -> jax.Array:
    """Drop a quarter of the units."""
    return jnp.where(jax.random.bernoulli(key, 0.75, x.shape), x / 0.75, 0)


def convolution(params: Tree, x: jax.Array, key: jax.Array) -> jax.Array:
    """A layer of convolutions with stride 2."""
    x = x.reshape(-1, 8, 8, 1)
    form = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, params["kernel"], (2, 2), "SAME", dimension_numbers=form)
    return dropped(jax.nn.relu(x).reshape(len(x), -1), key) @ params["out"]


def attention(params: Tree, x: jax.Array, key: jax.Array) -> jax.Array:
    """A layer of attention over 8 tokens, and layer norm."""
    x = x.reshape(-1, 8, 8)
    q, k, v = (x @ params[name] for name in "qkv")
    weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) / 8**0.5)
    x = x + dropped(weights @ v, key)
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * params["scale"][None, None]
    return x.reshape(len(x), -1) @ params["out"]


def perceptron(params: Tree, x: jax.Array, key: jax.Array) -> jax.Array:
    """Two layers."""
    return dropped(jnp.tanh(x @ params["in"]), key) @ params["out"]


SHAPES = {
    convolution: {"kernel": (3, 3, 1, 4), "out": (64, 3)},
    attention: {**dict.fromkeys("qkv", (8, 8)), "scale": (8,), "out": (64, 3)},
    perceptron: {"in": (64, 16), "out": (16, 3)},
}
OPTIMISERS = {
    convolution: optax.sgd(0.1, momentum=0.9),
    attention: optax.adamw(1e-2),
    perceptron: optax.lion(1e-2),
}


@pytest.mark.parametrize("network", SHAPES)
def test_recording_changes_no_bit(tmp_path: Path, network: Callable[..., jax.Array]) -> None:
    """With no recorder, by group and by leaf, a loop of your own ends in the same state.

    It donates its state, the loss included. The control: with one other key it ends in another.
    """
    key, optimiser = root_key(7), OPTIMISERS[network]
    params = {
        name: jax.random.normal(stream_key(key, name), shape) / 4
        for name, shape in SHAPES[network].items()
    }
    x = jax.random.normal(stream_key(key, "x"), (32, 64))
    y = jnp.arange(32) % 3

    def update(state: Tree, batch: Tree, key: jax.Array) -> tuple[Tree, Tree]:
        def mean_loss(params: Tree) -> jax.Array:
            logits = network(params, batch["x"], key)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()

        loss, gradients = jax.value_and_grad(mean_loss)(state["params"])
        change, memory = optimiser.update(gradients, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], change)
        seen = 0.9 * state["loss"] + 0.1 * loss
        return {"params": params, "opt_state": memory, "loss": seen}, gradients

    program = jax.jit(update, donate_argnums=0)

    def trained(recorder: Recorder | None, odd: int = 0) -> str:
        state = {"params": params, "opt_state": optimiser.init(params), "loss": jnp.float32(0)}
        state = jax.tree.map(jnp.copy, state)
        for step in range(1, 6):
            batch = {"x": x.at[:, 0].add(step), "y": y}
            here = step_key(key, step + 100 * (step == odd))
            state, gradients = program(state, batch, here)
            if recorder:
                recorder.record(
                    step,
                    loss=state["loss"],
                    batch=batch,
                    key=step_key(key, step),
                    gradients=gradients,
                    opt_state=state["opt_state"],
                    params=state["params"],
                )
        return tree_digest(state)

    alone = trained(None)
    for level in ("leaf", "group"):
        with Recorder(tmp_path / level, level=level) as recorder:
            assert trained(recorder) == alone
        written = lines(tmp_path / level)
        assert [line["step"] for line in written] == [1, 2, 3, 4, 5]
        assert all(set(line) == {*STAGES, "loss", "step"} for line in written)
    assert trained(None, odd=3) != alone


def test_recording_changes_no_bit_of_train(small: Small, tmp_path: Path) -> None:
    """By leaf, by group, now and then and not at all, `train` ends with one digest."""
    digests = {train(small()).digest}
    for record in ("auto", "leaf", "group", "off"):
        for every in (1, 5):
            config = small(record=record, record_every=every)
            folder = tmp_path / f"{record}{every}"
            digests.add(train(config, run_dir=folder).digest)
            assert (folder / "ledger.jsonl").exists() == (record != "off")
    assert len(digests) == 1
    leaf, group, auto = ((tmp_path / f"{n}1/ledger.jsonl") for n in ("leaf", "group", "auto"))
    assert leaf.read_bytes() == auto.read_bytes()
    assert b'"level":"group"' in group.read_bytes()
    assert compare(leaf, group).verdict == "same"
    assert train(small(steps=11)).digest not in digests


def test_a_ledger_is_small(small: Small, tmp_path: Path) -> None:
    """By groups, a step takes at most 400 bytes, headers included."""
    train(small(record="group", steps=100), run_dir=tmp_path)
    assert (tmp_path / "ledger.jsonl").stat().st_size <= 400 * 100


def test_the_ledger_says_what_was_trained(small: Small, tmp_path: Path) -> None:
    """Fingerprints in the ledger are those of the state; the loss is the exact one."""
    losses: dict[int, float] = {}
    done = train(
        small(), run_dir=tmp_path, progress=lambda step, loss: losses.update({step: float(loss)})
    )
    read = Ledger(tmp_path / "ledger.jsonl")
    entries = {step: read_entry(body, read.header) for step, body in read}
    program = jax.jit(lambda state: [leaf_fingerprints(x) for x in (state.opt_state, state.params)])
    for step, state in {0: programs_of(small().identity).start, 12: done.state}.items():
        for stage, words in zip(("opt_state", "params"), program(state), strict=True):
            assert entries[step][stage] == {
                name: fingerprint_text(word) for name, word in words.items()
            }
    written = {line["step"]: line.get("loss") for line in lines(tmp_path / "ledger.jsonl")}
    assert written == {0: None, **{step: loss.hex() for step, loss in losses.items()}}


# A recorder in your own hands.


def record_all(
    path: Path, steps: Iterator[int] | range = range(1, 5), wrong: int = -1, **settings: Any
) -> Path:
    """Record steps of something that is halved in each, but for one element in a wrong step."""
    with Recorder(path, **settings) as recorder:
        for step in steps:
            w = jnp.full(3, 0.5**step).at[1].add(step == wrong)
            recorder.record(step, loss=0.5**step, params={"w": w})
    return path


def test_what_is_recorded_is_what_was_given(tmp_path: Path) -> None:
    """Each stage has the fingerprint of its tree, or one of each leaf, by name."""
    trees = {"params": {"b": jnp.zeros(2), "w": [jnp.ones(3)]}, "batch": jnp.arange(4)}
    for level in ("leaf", "group"):
        with Recorder(tmp_path / level, level=level) as recorder:
            recorder.record(1, **trees)
        read = Ledger(tmp_path / level)
        [(step, body)] = list(read)
        assert step == 1
        entry = read_entry(body, read.header)
        assert list(entry) == ["batch", "params"]
        for stage, tree in trees.items():
            words = {"": fingerprint(tree)} if level == "group" else leaf_fingerprints(tree)
            assert entry[stage] == {name: fingerprint_text(word) for name, word in words.items()}


@pytest.mark.parametrize(("count", "level"), [(16, "leaf"), (17, "brief")])
def test_auto_is_by_leaf_while_there_are_few(tmp_path: Path, count: int, level: str) -> None:
    """ "auto" records each array of the parameters up to 16 of them, whatever else there is.

    Of more, it keeps as much of each as names the one that differs.
    """
    params = {f"w{number}": jnp.ones(2) for number in range(count)}
    with Recorder(tmp_path / "a") as recorder:
        recorder.record(1, params=params, opt_state=params)
    with Recorder(tmp_path / "b", view=lambda all: {"params": all["of it"]}) as recorder:
        recorder.record(1, all={"of it": params, "else": [params]})
    with Recorder(tmp_path / "c") as recorder:  # no parameters: everything counts
        recorder.record(1, gradients=params)
        recorder.record(2, gradients=params, params={"w": jnp.ones(2)})
    assert [Ledger(tmp_path / name).header.level for name in "abc"] == [level] * 3


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (0.1, (0.1).hex()),
        (np.float64(0.1), (0.1).hex()),
        (np.float32(0.1), float(np.float32(0.1)).hex()),
        (jnp.float32(0.1), float(np.float32(0.1)).hex()),
        (jnp.float32(-0.0), "-0x0.0p+0"),
        (jnp.float32(1e-45), float(np.float32(1e-45)).hex()),
        (jnp.bfloat16(0.1), float(ml_dtypes.bfloat16(0.1)).hex()),
        (np.asarray(0.1, ml_dtypes.bfloat16), float(ml_dtypes.bfloat16(0.1)).hex()),
        (jnp.float16(0.1), float(np.float16(0.1)).hex()),
        (jnp.float8_e4m3fn(0.1), float(ml_dtypes.float8_e4m3fn(0.1)).hex()),
        (jnp.int32(2**31 - 1), float(2**31 - 1).hex()),
        (3, "0x1.8000000000000p+1"),
        (jnp.float32(jnp.nan), "nan"),
        (jnp.bfloat16(-jnp.inf), "-inf"),
        (float("inf"), "inf"),
        (None, None),
    ],
)
def test_a_loss_is_exact(tmp_path: Path, loss: Any, text: str | None) -> None:
    """Whatever a loss is, the ledger has all of its bits; NaN and infinities as words."""
    with Recorder(tmp_path / "ledger") as recorder:
        recorder.record(1, loss=loss)
    assert lines(tmp_path / "ledger")[0].get("loss") == text


def test_a_loss_in_double_precision(tmp_path: Path) -> None:
    """With x64 a loss on the device is exact as well."""
    with jax.enable_x64(True), Recorder(tmp_path / "ledger") as recorder:
        recorder.record(1, loss=jnp.float64(0.1))
    assert lines(tmp_path / "ledger")[0]["loss"] == (0.1).hex()


def test_arrays_of_numpy(tmp_path: Path) -> None:
    """NumPy arrays are recorded as JAX takes them, so a loop may hold its data there."""
    for name, array in {"a": np.arange(3), "b": jnp.arange(3)}.items():
        with Recorder(tmp_path / name) as recorder:
            recorder.record(1, batch={"x": array}, key=root_key(7), params=np.float32(1))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_nothing_at_all(tmp_path: Path) -> None:
    """A stage without arrays, a step without stages, and no step at all can be recorded."""
    with Recorder(tmp_path / "some") as recorder:
        recorder.record(1)
        recorder.record(2, opt_state=(), params=jnp.ones(2))
    with Recorder(tmp_path / "group", level="group") as recorder:
        recorder.record(1)
        recorder.record(2, opt_state=(), params=jnp.ones(2))
    assert lines(tmp_path / "some")[1]["opt_state"] == ""
    assert compare(tmp_path / "some", tmp_path / "group").verdict == "same"
    Recorder(tmp_path / "none").close()
    assert not (tmp_path / "none").exists()


def test_every_so_many_steps(tmp_path: Path) -> None:
    """Only multiples of `every` are recorded; the others cost nothing and need not be right."""
    record_all(tmp_path / "ledger", range(20), every=6)
    assert [line["step"] for line in lines(tmp_path / "ledger")] == [0, 6, 12, 18]
    with Recorder(tmp_path / "other", every=6) as recorder:
        recorder.record(7, nonsense="of any kind")
    assert not (tmp_path / "other").exists()


def test_steps_may_be_integers_of_any_kind(tmp_path: Path) -> None:
    """A step that was counted by NumPy or JAX is recorded as the number it is."""
    record_all(tmp_path / "a", range(1, 4))
    record_all(tmp_path / "b", iter([1, np.int64(2), jnp.uint32(3)]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with Recorder(tmp_path / "c") as recorder, pytest.raises(TypeError, match="float"):
        recorder.record(1.0, params=jnp.ones(1))


@pytest.mark.parametrize(
    "stop", [1, STEPS_AT_ONCE - 1, STEPS_AT_ONCE, STEPS_AT_ONCE + 1, 2 * STEPS_AT_ONCE]
)
def test_resumed_equals_uninterrupted(tmp_path: Path, stop: int) -> None:
    """With `first` after the last step before, two recorders write what one would have."""
    record_all(tmp_path / "whole", range(2 * STEPS_AT_ONCE + 3))
    record_all(tmp_path / "parts", range(stop))
    record_all(tmp_path / "parts", range(stop, 2 * STEPS_AT_ONCE + 3), first=stop)
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_script_that_is_run_twice(tmp_path: Path) -> None:
    """Run again with one path, a script is compared with itself; it is said where it parts."""
    record_all(tmp_path / "ledger")
    before = (tmp_path / "ledger").read_bytes()
    record_all(tmp_path / "ledger")
    assert (tmp_path / "ledger").read_bytes() == before
    said = r"as damaged-ledger: step 3 was computed again and differs, first in params"
    with pytest.warns(SetAsideWarning, match=said):
        record_all(tmp_path / "ledger", wrong=3)
    found = compare(tmp_path / "ledger", tmp_path / "damaged-ledger")
    assert (found.step, found.stage, found.leaves) == (3, "params", ("w",))


def test_the_chain_is_told_when_it_is_on_the_disk(tmp_path: Path) -> None:
    """`flush` returns at once; its result is the chain of the last line that was recorded."""
    with Recorder(tmp_path / "ledger") as recorder:
        recorder.record(1, params=jnp.ones(2))
        first = recorder.flush()
        recorder.record(2, params=jnp.ones(2))
        second = recorder.flush()
        chains = [first.result(), second.result()]
        written = (tmp_path / "ledger").read_bytes().splitlines()
        assert chains == [json.loads(line)["chain"] for line in written[1:]]
        assert recorder.flush().result() == chains[1]


def test_lines_are_handed_over_in_time(tmp_path: Path) -> None:
    """A kill loses at most the lines of 64 steps: the others are on their way."""
    recorder = Recorder(tmp_path / "ledger")
    for step in range(STEPS_AT_ONCE):
        recorder.record(step, params=jnp.ones(2))
    recorder._thread.submit(lambda: None).result()
    assert len(lines(tmp_path / "ledger")) == STEPS_AT_ONCE
    recorder.close()


def test_what_is_donated_afterwards(tmp_path: Path) -> None:
    """Arrays and the loss may be donated, or written into, as soon as they were recorded."""
    program = jax.jit(lambda state: jax.tree.map(lambda x: x * 0.5, state), donate_argnums=0)
    state = {"w": jnp.ones(1000), "loss": jnp.float32(1)}
    with Recorder(tmp_path / "ledger") as recorder:
        for step in range(1, 5):
            state = program(before := state)
            recorder.record(step, loss=state["loss"], params=state["w"])
        assert before["loss"].is_deleted()
        program(state)
    expected = [jnp.full(1000, 0.5**step) for step in range(1, 5)]
    written = lines(tmp_path / "ledger")
    words = [fingerprint_text(leaf_fingerprints(array)["."]) for array in expected]
    assert [line["params"] for line in written] == words
    assert [line["loss"] for line in written] == [(0.5**step).hex() for step in range(1, 5)]


def test_recorders_do_not_share_what_they_saw(tmp_path: Path) -> None:
    """Two recorders of two networks at a time, in one process, write what each would alone."""
    alike = [{"v": jnp.ones(2)}, {"w": jnp.ones(2)}, {"v": jnp.ones(3)}]
    for number, params in enumerate(alike):
        with Recorder(tmp_path / f"alone{number}") as recorder:
            recorder.record(1, params=params)
    together = [Recorder(tmp_path / str(number)) for number in range(3)]
    for recorder, params in zip(together, alike, strict=True):
        recorder.record(1, params=params)
    for number, recorder in enumerate(together):
        recorder.close()
        alone = tmp_path / f"alone{number}"
        assert (tmp_path / str(number)).read_bytes() == alone.read_bytes()


# What is refused.


def refused(recorder: Recorder, step: int, kind: type[Exception], match: str, **parts: Any) -> None:
    """See a step refused."""
    with pytest.raises(kind, match=match):
        recorder.record(step, **parts)


def test_what_cannot_be_recorded(tmp_path: Path) -> None:
    """A step that is refused leaves no trace, and those before and after it are recorded."""
    w = {"w": jnp.ones(3)}
    with Recorder(tmp_path / "ledger") as recorder:
        recorder.record(1, loss=1.0, params=w)
        said = "Cannot record grads: expected stages out of batch, key, gradients, opt_state, par"
        refused(recorder, 2, ValueError, said, grads=w)
        said = r"step 2: expected a loss, or up to 64, got one of shape \(65,\)\. Give its mean"
        refused(recorder, 2, ValueError, said, loss=jnp.ones(65), params=w)
        said = "expected a number as its loss, got"
        for loss in ("low", 1j, jnp.complex64(1), 2**70):
            refused(recorder, 2, ValueError, said, loss=loss, params=w)
        said = "a loss: expected one that float64 can hold, got 9007199254740993"
        refused(recorder, 2, ValueError, said, loss=2**53 + 1, params=w)
        refused(recorder, 2, LeafError, r"at params\.w: expected an array", params={"w": object()})
        for step in (1, 0, -1):
            said = f"step {step}: expected one after 1, which is recorded. Give a resumed run"
            refused(recorder, step, ValueError, said, params=w)
        recorder.record(2, loss=0.5, params=w)
        recorder.record(3, loss=0.5, params={"w": jnp.ones(5)})  # a last batch may be smaller
    assert [line["step"] for line in lines(tmp_path / "ledger")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"level": "off"}, "level: expected auto, leaf, brief or group, got 'off'. To record"),
        ({"every": 0}, "every: expected a whole number from 1, got 0"),
        ({"every": 2.0}, "every: expected a whole number from 1, got 2.0"),
        ({"every": True}, "every: expected a whole number from 1, got True"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, settings: Any, said: str) -> None:
    """A setting out of its range is refused before anything is written."""
    with pytest.raises(ConfigError, match=said):
        Recorder(tmp_path / "folder" / "ledger", **settings)
    assert not (tmp_path / "folder").exists()


def test_a_ledger_of_something_else_is_refused(tmp_path: Path) -> None:
    """A ledger of another run is neither gone on with nor changed."""
    before = record_all(tmp_path / "ledger", run="mine").read_bytes()
    with pytest.raises(LedgerError, match="expected one of run yours, got one of run mine"):
        Recorder(tmp_path / "ledger", run="yours")
    assert (tmp_path / "ledger").read_bytes() == before


def test_a_gap_needs_first(tmp_path: Path) -> None:
    """A resumed script that forgets `first` is told to give it where lines would go back."""
    record_all(tmp_path / "ledger", range(1, 5))
    with Recorder(tmp_path / "ledger", first=3) as recorder:
        refused(recorder, 2, ValueError, "expected one after 2, which is recorded", params=())


def record_many(recorder: Recorder) -> None:
    """Record so many steps that some are handed over."""
    for step in range(1000, 1000 + STEPS_AT_ONCE):
        recorder.record(step, params={"w": jnp.ones(3)})


@pytest.mark.parametrize(
    "next_call",
    [record_many, Recorder.flush, Recorder.close],
    ids=["record", "flush", "close"],
)
def test_a_full_disk_is_told_at_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, next_call: Callable[[Recorder], object]
) -> None:
    """Lines that cannot be written are an error of the next call, and none after them is written.

    What was written before stays whole; another recorder goes on from there.
    """
    record_all(tmp_path / "whole", range(3 * STEPS_AT_ONCE))
    recorder = Recorder(tmp_path / "ledger")

    def record(steps: range) -> None:
        for step in steps:
            recorder.record(step, loss=0.5**step, params={"w": jnp.full(3, 0.5**step)})

    record(range(STEPS_AT_ONCE))
    recorder.flush().result()
    before = (tmp_path / "ledger").read_bytes()

    def full(*args: object, **settings: object) -> None:
        patch.undo()  # soon there is room again: too late
        raise OSError(errno.ENOSPC, "No space left on device")

    gate = threading.Event()
    recorder._thread.submit(gate.wait)
    with monkeypatch.context() as patch:
        patch.setattr(writer, "append_bytes", full)
        record(range(STEPS_AT_ONCE, 3 * STEPS_AT_ONCE))
        gate.set()
        recorder._thread.submit(lambda: None).result()
    said = "Cannot write the ledger at .*: expected room and permission to write, got No space"
    with pytest.raises(RunSaveError, match=said):
        next_call(recorder)
    with suppress(RunSaveError):
        recorder.close()
    assert (tmp_path / "ledger").read_bytes() == before
    record_all(tmp_path / "ledger", range(STEPS_AT_ONCE, 3 * STEPS_AT_ONCE), first=STEPS_AT_ONCE)
    assert (tmp_path / "ledger").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_flush_under_way_tells_of_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that fail after `flush` returned are an error of its result: no seal rests on them."""

    def full(*args: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "append_bytes", full)
    recorder = Recorder(tmp_path / "ledger")
    gate = threading.Event()
    recorder._thread.submit(gate.wait)
    recorder.record(1, params=jnp.ones(3))
    chain = recorder.flush()
    gate.set()
    with pytest.raises(RunSaveError, match="No space left"):
        chain.result()
    with pytest.raises(RunSaveError, match="No space left"):
        recorder.close()


def test_an_error_of_the_loop_is_kept(tmp_path: Path) -> None:
    """A loop that fails has its steps on the disk, and its own error is the one that is seen."""

    def fail() -> None:
        with Recorder(tmp_path / "ledger") as recorder:
            recorder.record(1, params=jnp.ones(2))
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        fail()
    assert [line["step"] for line in lines(tmp_path / "ledger")] == [1]


def test_closing_ends_the_thread(tmp_path: Path) -> None:
    """No thread is left, the directory of the file is made, and closing twice does no harm."""
    before = set(threading.enumerate())
    with Recorder(tmp_path / "some" / "where" / "ledger") as recorder:
        recorder.record(1, params=jnp.ones(3))
        recorder.flush().result()
        [thread] = set(threading.enumerate()) - before
        recorder.close()
    assert not thread.is_alive()
    assert [line["step"] for line in lines(tmp_path / "some/where/ledger")] == [1]


def test_a_numpy_buffer_that_is_filled_again(tmp_path: Path) -> None:
    """A batch is recorded as it was, though the loop fills the same NumPy array again at once."""
    files = [tmp_path / f"{number}.jsonl" for number in range(4)]
    for file in files:
        buffer = np.zeros(100_000, np.float32)
        with Recorder(file) as recorder:
            for step in range(1, 6):
                buffer[:] = step
                recorder.record(step, batch={"x": buffer})
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.parametrize("busy", [False, True])
def test_memory_that_is_shared(tmp_path: Path, busy: bool) -> None:
    """What is written into memory that a JAX array shares, after `record`, is not recorded.

    Whether the device is idle then, or what else is recorded is still being computed.
    """
    buffer = aligned(2**20)
    shared = jax.device_put(buffer, jax.devices()[0])
    slow = jax.jit(lambda x: jax.lax.fori_loop(0, 20, lambda _, y: jnp.sin(y), x))
    assert shared.unsafe_buffer_pointer() == buffer.ctypes.data
    with Recorder(tmp_path / "ledger", level="leaf") as recorder:
        for step in range(9):
            buffer[:] = step // 4  # the same several times, as data are
            params = slow(jnp.ones(2**20)) if busy else np.ones(3)
            recorder.record(step, batch=shared, params=params)
        buffer[:] = -1.0
    lines = [json.loads(line) for line in (tmp_path / "ledger").read_text().splitlines()]
    assert [line["batch"] for line in lines if isinstance(line.get("batch"), str)] == [
        fingerprint_text(leaf_fingerprints(np.full(2**20, step // 4, np.float32))["."])
        for step in range(9)
    ]


def test_what_is_recorded_after_the_end_is_refused(tmp_path: Path) -> None:
    """A closed recorder takes nothing, rather than losing it."""
    recorder = Recorder(tmp_path / "ledger.jsonl")
    recorder.close()
    with pytest.raises(ValueError, match="the Recorder is closed"):
        recorder.record(1, params=jnp.zeros(2))


def test_a_recorder_that_is_not_closed_says_what_is_lost(tmp_path: Path) -> None:
    """Steps that were never written do not vanish in silence."""

    def forget() -> None:
        recorder = Recorder(tmp_path / "ledger.jsonl")
        recorder.record(1, params=jnp.zeros(2))
        del recorder
        gc.collect()

    with pytest.warns(RuntimeWarning, match=r"1 recorded step is not in .*ledger\.jsonl"):
        forget()


def test_the_loop_may_go_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is where it was when the recorder was made."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with Recorder("ledger.jsonl") as recorder:
        monkeypatch.chdir(tmp_path / "elsewhere")
        recorder.record(1, params=jnp.zeros(2))
    assert (tmp_path / "ledger.jsonl").is_file()
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_first_that_was_forgotten(tmp_path: Path) -> None:
    """A resumed loop that does not say so is told, before any line is touched."""
    file = tmp_path / "ledger.jsonl"
    with Recorder(file) as recorder:
        for step in (1, 2):
            recorder.record(step, params=jnp.zeros(2))
    before = file.read_bytes()
    with Recorder(file) as recorder, pytest.raises(ValueError, match="Give `first=3` to go on"):
        recorder.record(3, params=jnp.zeros(2))
    assert file.read_bytes() == before


def test_what_the_loop_ran_into_is_what_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the loop is not replaced by one of the recorder that it left behind."""

    def full(*arguments: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def loop() -> None:
        with Recorder(tmp_path / "ledger.jsonl") as recorder:
            recorder.record(1, params=jnp.zeros(2))
            raise KeyError("of the loop")

    monkeypatch.setattr(writer, "append_bytes", full)
    with pytest.raises(KeyError, match="of the loop"):
        loop()


@pytest.mark.parametrize("level", ["leaf", "group"])
def test_nothing_is_narrowed(tmp_path: Path, level: str) -> None:
    """Of NumPy's 64 bits all count, also where JAX has 32: which leaf has which, too."""
    near = np.nextafter(0.1, 1)
    ids = np.int64([2**40, 5])
    trees = {
        "one": {"a": np.float64(0.1), "b": np.float64([near]), "ids": ids},
        "again": {"a": np.float64(0.1), "b": np.float64([near]), "ids": ids.astype(">i8")},
        "other value": {"a": np.float64(near), "b": np.float64([near]), "ids": ids},
        "exchanged": {"a": np.float64(near), "b": np.float64([0.1]), "ids": ids},
        "other id": {"a": np.float64(0.1), "b": np.float64([near]), "ids": ids * 2 - [0, 5]},
        "narrow": {"a": np.float32(0.1), "b": np.float32([near]), "ids": ids.astype(np.int32)},
    }
    lines = {}
    for name, tree in trees.items():
        with Recorder(tmp_path / name, level=level) as recorder:
            recorder.record(1, params=tree)
        lines[name] = json.loads((tmp_path / name).read_text().splitlines()[1])["params"]
    assert lines.pop("again") == lines["one"]
    assert len({json.dumps(line) for line in lines.values()}) == len(lines)


def test_leaves_come_and_go(tmp_path: Path) -> None:
    """Steps of two networks in turn, or with a leaf more, are recorded, and compared leaf by leaf.

    A leaf that one side lacks differs; so does one whose turn came in another step.
    """
    g, d = {"gen": jnp.ones(2)}, {"disc": jnp.ones(2)}

    def told(name: str, *steps: Tree) -> Path:
        with Recorder(tmp_path / name) as recorder:
            for step, tree in enumerate(steps, 1):
                recorder.record(step, params=g, gradients=tree)
        return tmp_path / name

    one = told("one", g, d, g, {**g, **d}, g)
    assert compare(one, told("again", g, d, g, {**g, **d}, g)).verdict == "same"
    for name, steps, step, leaves in (
        ("another", (g, d, g, {**g, "disc": jnp.zeros(2)}, g), 4, ("disc",)),
        ("missing", (g, d, g, g, g), 4, ("disc",)),
        ("turns", (g, g, d, {**g, **d}, g), 2, ("disc", "gen")),
    ):
        found = compare(one, told(name, *steps))
        assert (found.step, found.stage, found.leaves) == (step, "gradients", leaves)


@pytest.mark.parametrize("level", ["auto", "leaf", "brief", "group"])
def test_of_many_arrays_the_one_that_differs_is_named(tmp_path: Path, level: str) -> None:
    """With more than 16 arrays the leaf is named, whatever level the other side was recorded at.

    Only where one side has nothing but groups is there no name. The control: the same is the same.
    """

    def told(name: str, level: str, flip: bool) -> Path:
        with Recorder(tmp_path / name, level=level) as recorder:
            for step in (1, 2):
                params = {f"block_{n}": {"w": jnp.full(3, float(n + step))} for n in range(20)}
                if flip and step == 2:
                    params["block_13"]["w"] = params["block_13"]["w"].at[0].add(1)
                recorder.record(step, params=params)
        return tmp_path / name

    one = told("one", "auto", False)
    assert compare(one, told("same", level, False)).verdict == "same"
    for found in (
        compare(one, told("other", level, True)),
        compare(told("right", level, False), told("wrong", "auto", True)),
    ):
        assert (found.step, found.stage) == (2, "params")
        assert found.leaves == (() if level == "group" else ("block_13.w",))


def test_a_dtype_that_drifts_is_said(tmp_path: Path) -> None:
    """A leaf that gets another dtype is said at that step, once; other shapes are no news."""
    w = jnp.ones(3)
    with Recorder(tmp_path / "ledger") as recorder:
        recorder.record(1, params={"w": w, "x": w > 0}, batch=w)
        recorder.record(2, params={"w": w}, batch=w[:2])
        said = "From step 3 on w of params is bfloat16, before it was float32; so with 1 more"
        with pytest.warns(DtypeDriftWarning, match=said) as warned:
            recorder.record(3, params={"w": w.astype(jnp.bfloat16), "x": w}, batch=w)
        assert warned[0].filename == __file__
        recorder.record(4, params={"w": w.astype(jnp.bfloat16), "x": w}, batch=w)


def test_several_losses(tmp_path: Path) -> None:
    """A loss for each task is kept exactly, and decides where nothing else differs."""
    for name, loss in {
        "a": jnp.float32([0.1, 2]),
        "b": np.float32([0.1, 2]),
        "c": jnp.float32([0.1, np.nextafter(np.float32(2), np.float32(3))]),
        "d": jnp.float32([0.1]),
    }.items():
        with Recorder(tmp_path / name) as recorder:
            recorder.record(1, loss=loss, params=jnp.ones(2))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    text = f"{float(np.float32(0.1)).hex()} {(2.0).hex()}"
    assert lines(tmp_path / "a")[0]["loss"] == text
    for name in "cd":
        assert compare(tmp_path / "a", tmp_path / name).stage == "loss"


def test_copies_are_compared_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copies of an array are compared at the first step and at every 64th after it, where an
    array whose copies differ is refused."""
    asked = []

    def check(verb: str, path: Any, leaf: Any) -> None:
        asked.append((step, path_string(path)))

    monkeypatch.setattr(recorder_module, "check_copies", check)
    with Recorder(tmp_path / "ledger") as recorder:
        for step in range(1, STEPS_AT_ONCE + 2):
            recorder.record(step, params={"w": jnp.zeros(2)})
    assert asked == [(1, "params.w"), (STEPS_AT_ONCE + 1, "params.w")]
