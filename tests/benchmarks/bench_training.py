"""The training loop against loops written by hand, in the same process.

Two peers. *Bare* is the loop an expert writes: one jitted function, buffers donated, nothing
fetched. It does the same arithmetic as ours: the same network, loss, dropout, optimiser and batch
rows. *Tutorial* is the loop most tutorials show: it reads loss and accuracy after every step, and
runs the network a second time for the metrics. What counts is the median of the ratios of stretches
that alternate.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from reproducibility import PLANNED, Programs, TrainConfig, root_key, step_key, stream_key

REPETITIONS = 9
Loop = Callable[[int], None]


def ours(programs: Programs) -> Loop:
    """Return the loop of `train`, as far as the steps go."""

    def run(steps: int) -> None:
        state = jax.tree.map(jnp.copy, programs.start)
        for step in range(steps):
            if step % PLANNED == 0:
                plan = programs.plan(state)
            state, loss, _ = programs.step(state, plan)
        jax.block_until_ready((state, loss))

    return run


def by_hand(programs: Programs) -> tuple[Any, Callable[..., Any], Any]:
    """Return the data, the loss of a batch and the optimiser, as a Flax user writes them."""
    data, graph = programs.data, programs.graph

    def loss_of(params: Any, x: Any, y: Any, key: Any) -> Any:
        logits = nnx.merge(graph, nnx.State(params))(x, key=key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return losses.mean(), logits

    return data, loss_of, optax.adam(programs.identity.learning_rate)


def bare(programs: Programs) -> Loop:
    """Return the loop an expert writes: a single jitted step that nothing waits for."""
    data, loss_of, optimiser = by_hand(programs)
    key = stream_key(root_key(programs.identity.seed), "dropout")

    def step(params: Any, opt_state: Any, count: Any, data: Any) -> Any:
        x, y = data.batch(count)
        (loss, _), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            params, x, y, step_key(key, count)
        )
        updates, opt_state = optimiser.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, count + 1, loss

    jitted = jax.jit(step, donate_argnums=(0, 1, 2))

    def run(steps: int) -> None:
        params = jax.tree.map(jnp.copy, programs.start.params)
        opt_state, count = optimiser.init(params), jnp.uint32(0)
        for _ in range(steps):
            params, opt_state, count, loss = jitted(params, opt_state, count, data)
        jax.block_until_ready((params, loss))

    return run


def tutorial(programs: Programs) -> Loop:
    """Return the loop of most tutorials: metrics by a second forward pass, fetched every step."""
    data, loss_of, optimiser = by_hand(programs)
    key = jax.random.key(programs.identity.seed)
    graph = programs.graph

    @jax.jit
    def step(params: Any, opt_state: Any, x: Any, y: Any, key: Any) -> Any:
        (loss, _), gradient = jax.value_and_grad(loss_of, has_aux=True)(params, x, y, key)
        updates, opt_state = optimiser.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    @jax.jit
    def metrics(params: Any, x: Any, y: Any) -> Any:
        logits = nnx.merge(graph, nnx.State(params))(x)
        return (jnp.argmax(logits, -1) == y).mean()

    size = programs.identity.batch_size
    batches = len(data.x) // size

    def run(steps: int) -> None:
        params = programs.start.params
        opt_state, k, history = optimiser.init(params), key, []
        for i in range(steps):
            k, dropout = jax.random.split(k)
            start = i % batches * size
            x, y = data.x[start : start + size], data.y[start : start + size]
            params, opt_state, loss = step(params, opt_state, x, y, dropout)
            history.append((float(loss), float(metrics(params, x, y))))
        jax.block_until_ready(params)

    return run


def seconds(loop: Loop, steps: int) -> float:
    """Return how long so many steps take."""
    start = time.perf_counter()
    loop(steps)
    return time.perf_counter() - start


def ratio(loop: Loop, peer: Loop, steps: int, repetitions: int = REPETITIONS) -> float:
    """Return the median of our time over the peer's, in stretches that alternate."""
    loop(3), peer(3)
    return statistics.median(
        seconds(loop, steps) / seconds(peer, steps) for _ in range(repetitions)
    )


def resume_cost() -> float:
    """Return the time from a state at step 10,000 to its next step, over that at step 10."""
    programs = Programs(TrainConfig(seed=7).identity)

    def one(step: int) -> float:
        state = jax.tree.map(jnp.copy, programs.start)
        state = jax.block_until_ready(dataclasses.replace(state, step=jnp.uint32(step)))
        start = time.perf_counter()
        jax.block_until_ready(programs.step(state, programs.plan(state)))
        return time.perf_counter() - start

    one(10), one(10_000)
    return statistics.median(one(10_000) / one(10) for _ in range(51))


def run() -> list[dict[str, Any]]:
    """Measure, and return a row for each promise: name, value, bound, and what it is against."""
    plain = Programs(TrainConfig(seed=7, shards=1).identity)
    sharded = Programs(TrainConfig(seed=7).identity)
    wide = Programs(TrainConfig(seed=7, batch_size=2048, hidden=(1024, 1024)).identity)
    return [
        {
            "name": "--shards 1, default network, time of a step",
            "value": ratio(ours(plain), bare(plain), 1000),
            "bound": "<= 1.15",
            "peer": "a bare jitted Flax and Optax loop, same arithmetic",
        },
        {
            "name": "tutorial loop, time of a step",
            "value": ratio(tutorial(plain), ours(plain), 300),
            "bound": ">= 4",
            "peer": "--shards 1, default network",
        },
        {
            "name": "8 shards, default network, time of a step",
            "value": ratio(ours(sharded), tutorial(sharded), 300),
            "bound": "<= 1.5",
            "peer": "the tutorial loop",
        },
        {
            "name": "8 shards, default network, time of a step",
            "value": ratio(ours(sharded), bare(sharded), 300),
            "bound": "<= 2.5",
            "peer": "the bare loop, in one piece",
        },
        {
            "name": "8 shards of 256, 1,024-wide network, time of a step",
            "value": ratio(ours(wide), bare(wide), 4, 5),
            "bound": "<= 1.10",
            "peer": "the bare loop, batch of 2,048",
        },
        {
            "name": "the first step after resuming at 10,000",
            "value": resume_cost(),
            "bound": "<= 1.05",
            "peer": "the first step after resuming at 10",
        },
    ]


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']:52} {row['value']:6.3f}  {row['bound']}  ({row['peer']})")
