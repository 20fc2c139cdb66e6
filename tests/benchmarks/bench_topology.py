"""What the same bits on any layout cost: our step against ordinary data parallelism.

The peer is the step that JAX's documentation teaches: one jitted function, parameters on every
device, the batch cut over the devices; XLA adds the gradients. It does the same arithmetic on the
same layout, and its bits depend on it. Each number of devices has a process of its own. On a
machine with fewer cores than devices the devices share them, for both sides alike.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from reproducibility import Layout, Programs, TrainConfig, root_key, step_key, stream_key
from tests.benchmarks.bench_training import Loop, by_hand, ours, ratio

DEVICES = (1, 2, 4, 8)
SHARDS = 8
# Examples a shard, width of the two hidden layers, steps a stretch, bound.
CASES = (
    (16, 64, 60, None),
    (16, 256, 40, None),
    (64, 256, 15, None),
    (64, 1024, 4, "<= 1.35"),
    (256, 1024, 2, "<= 1.10"),
)
DEADLINE = 900  # seconds for one number of devices


def ordinary(programs: Programs) -> Loop:
    """Return the loop of ordinary data parallelism; it waits for each step, as ours does on CPU."""
    data, loss_of, optimiser = by_hand(programs)
    layout = programs.layout
    key = stream_key(root_key(programs.identity.seed), "dropout")
    cut = NamedSharding(layout.mesh, PartitionSpec("device"))
    everywhere = layout.everywhere

    def step(params: Any, opt_state: Any, count: Any, data: Any) -> Any:
        rows = jax.lax.with_sharding_constraint(data.rows(count, 0, data.batch_size), cut)
        x, y = data.x[rows], data.y[rows]
        (loss, _), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            params, x, y, step_key(key, count)
        )
        updates, opt_state = optimiser.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, count + 1, loss

    jitted = jax.jit(step, donate_argnums=(0, 1, 2))
    data = jax.device_put(data, everywhere)

    def run(steps: int) -> None:
        params = jax.device_put(jax.tree.map(jnp.copy, programs.start.params), everywhere)
        opt_state, count = jax.device_put((optimiser.init(params), jnp.uint32(0)), everywhere)
        for _ in range(steps):
            params, opt_state, count, loss = jitted(params, opt_state, count, data)
            if not layout.single:
                jax.block_until_ready(params)
        jax.block_until_ready((params, loss))

    return run


def measure(devices: int) -> list[dict[str, Any]]:
    """Measure all cases on so many devices of this process."""
    layout, rows = Layout.of(devices), []
    for examples, width, steps, bound in CASES:
        config = TrainConfig(seed=7, batch_size=examples * SHARDS, hidden=(width, width))
        programs = Programs(config.identity, layout)
        row = {
            "name": f"{examples} examples a shard, {width} wide, {devices} devices",
            "value": ratio(ours(programs), ordinary(programs), steps, 5),
            "bound": bound,
            "peer": "ordinary data parallelism on the same devices",
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def run() -> list[dict[str, Any]]:
    """Measure each number of devices in its own process; return the rows of all."""
    rows: list[dict[str, Any]] = []
    for devices in DEVICES:
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.bench_topology", str(devices)],
            stdout=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=True,
        )
        rows += map(json.loads, done.stdout.splitlines())
    return rows


if __name__ == "__main__":
    measure(int(sys.argv[1]))
