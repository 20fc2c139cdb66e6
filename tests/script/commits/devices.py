"""Train many small models, one a row, and one large model, over all devices there are."""

import argparse
import hashlib
import os

parser = argparse.ArgumentParser()
parser.add_argument("--devices", type=int, default=1)
parser.add_argument("--one-model", action="store_true")
args = parser.parse_args()
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={args.devices}"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

mesh = Mesh(np.array(jax.devices()), ("rows",))
rows, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("rows",), ()))
batches = np.random.default_rng(1).normal(size=(6, 16, 64)).astype(np.float32)


@jax.jit
def step_of_many(models, batch):
    return models - 0.1 * (models * batch - 1) * batch


@jax.jit
def step_of_one(model, batch):
    error = batch @ model - 1
    return model - 0.01 * batch.T @ error / batch.shape[0]


if args.one_model:
    model = jax.device_put(np.ones(64, np.float32), everywhere)
    for batch in batches:
        model = step_of_one(model, jax.device_put(batch, rows))
else:
    model = jax.device_put(np.ones((16, 64), np.float32), rows)
    for batch in batches:
        model = step_of_many(model, jax.device_put(batch, rows))
print("training", hashlib.sha256(np.asarray(model).tobytes()).hexdigest())
