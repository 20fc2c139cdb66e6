"""A training on several devices: one sharded program, or shards in a fixed order."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tools.accelerator.trainings import batch_of, digest_of, loss_of, started, stepped, updated

SHARDED_STEPS = 10
SHARDS = 8


def ordinary(devices: int) -> str:
    """Return the digest after some steps, each one program whose batch is cut over the devices."""
    mesh = Mesh(np.array(jax.devices()[:devices]), "d")
    state = jax.device_put(started("perceptron"), NamedSharding(mesh, PartitionSpec()))
    step = jax.jit(lambda state, batch, n: stepped("perceptron", state, batch, n))
    for number in range(1, SHARDED_STEPS + 1):
        cut = NamedSharding(mesh, PartitionSpec("d"))
        state, _ = step(state, jax.device_put(batch_of("perceptron", number), cut), number)
    return digest_of(state)


def in_fixed_order(devices: int) -> str:
    """Return the digest after the same steps with `shard_gradients` of the package."""
    from reproducibility import Layout, root_key, shard_gradients, step_key

    layout, root = Layout.of(devices), root_key(7)

    def loss(weights: Any, batch: Any, key: Any) -> Any:
        return loss_of("perceptron", weights, batch, key)

    gradients = shard_gradients(loss, shards=SHARDS, layout=layout)
    update, state = layout.each(updated), layout.replicate(started("perceptron"))
    for number in range(1, SHARDED_STEPS + 1):
        batch = batch_of("perceptron", number)
        _, gradient = gradients(state["weights"], batch, step_key(root, number))
        state = update(state, gradient)
    return digest_of(state)
