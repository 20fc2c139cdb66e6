"""Promises of `reproducibility.recorder`: it changes nothing, and nothing escapes it."""

import copy
import dataclasses
import errno
import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from reproducibility import Recorder, TrainConfig, compare, ledger, train, tree_digest
from reproducibility.errors import ConfigError, LeafError, LedgerError, RunSaveError, SetAsideWarning
from reproducibility.fingerprint import as_text, fingerprint, leaf_fingerprints
from reproducibility.ledger import STAGES, Ledger, read_entry
from reproducibility.recorder import AT_ONCE
from reproducibility.training import Plan, Programs, TrainState, programs_of
from reproducibility.training import _attempt as attempt

Small = Callable[..., TrainConfig]
Tree = Any

# Planted faults: in the real training loop, at a random step, stage, leaf, element and bit.

STEPS = 9
TINY = {"seed": 7, "batch_size": 8, "shards": 2, "hidden": (4,), "dropout": 0.25, "steps": STEPS}
PLANTS = 35  # of each, so 210 in all
FAULTS = {
    "nothing": None, "a bit of the batch": "batch", "two examples": "batch", "a key": "key",
    "a bit of the gradient": "gradients", "a bit of the optimiser": "opt_state",
    "a bit of the parameters": "params",
}  # fmt: skip


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
            return dataclasses.replace(
                plan, dropout=plan.dropout.at[at].set(plan.dropout[at - 1])
            )
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


def recorded(folder: Path, programs: Any) -> Path:
    """Train by the loop of the package, with three recorders; return where their ledgers are."""
    each = [
        Recorder(folder / name, view=Programs.stages, **settings)
        for name, settings in LEDGERS.items()
    ]
    attempt(TrainConfig(**TINY), programs, None, None, Several(*each), programs.start, None, None)
    for recorder in each:
        recorder.close()
    return folder


@pytest.mark.parametrize(("fault", "stage"), FAULTS.items())
def test_a_planted_fault_is_named(tmp_path: Path, fault: str, stage: str | None) -> None:
    """The right step, stage and leaf are named, every time; by groups the step and the stage.

    Where only every third step is recorded, the right three steps. The control: without a fault
    there is nothing to name.
    """
    programs = programs_of(TrainConfig(**TINY).identity)
    right = recorded(tmp_path / "right", programs)
    chance = random.Random(fault)
    for number in range(PLANTS if stage else 1):
        step = chance.randint(2, STEPS)
        faulty = Faulty(programs, fault, step, chance)
        wrong = recorded(tmp_path / str(number), faulty)
        by_leaf, by_group, thirds = (compare(right / name, wrong / name) for name in LEDGERS)
        if stage is None:
            assert (by_leaf.verdict, by_group.verdict, thirds.verdict) == ("same",) * 3
            continue
        assert (by_leaf.step, by_leaf.stage, by_leaf.leaves) == (step, stage, faulty.leaves)
        assert (by_group.step, by_group.stage, by_group.leaves) == (step, stage, ())

        pairs = zip(lines(right / "leaf"), lines(wrong / "leaf"), strict=True)
        differ = [one["step"] for one, other in pairs if one != other]
        assert differ[0] == step
        every_third = [step for step in differ if step % 3 == 0]
        assert thirds.step == (every_third[0] if every_third else STEPS)
        if every_third and thirds.step % 3:
            continue
        if every_third:
            since = every_third[0] - 3
            said = f"They part at a step from {since + 1} to {thirds.step}, first in "
            assert thirds.reason.startswith(said)
            assert since < step <= thirds.step or differ != list(range(step, STEPS + 1))


def conv(key: jax.Array) -> tuple[Tree, Any, Tree]:
    """Make a convolutional network, momentum, and what it learns."""
    a, b, c = (stream_key(key, name) for name in "abc")
    params = {"conv": jax.random.normal(a, (3, 3, 1, 4)), "out": jax.random.normal(b, (64, 3))}

    def apply(params: Tree, x: jax.Array, key: jax.Array) -> jax.Array:
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, params["conv"], (2, 2), "SAME", dimension_numbers=dimensions
        )
        return dropped(jax.nn.relu(x).reshape(len(x), -1), key) @ params["out"]

    return params, optax.sgd(0.1, momentum=0.9), apply, jax.random.normal(c, (32, 8, 8, 1))
