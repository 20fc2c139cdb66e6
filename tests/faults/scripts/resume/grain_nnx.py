"""An NNX regressor on a Grain pipeline; Orbax keeps the model, the optimizer and the iterator."""
import argparse
import hashlib
import os

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx


class Regressor(nnx.Module):
    def __init__(self, rngs):
        self.inp = nnx.Linear(5, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.out = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(nnx.gelu(self.norm(self.inp(x)))))[:, 0]


@nnx.jit
def train_step(model, optimizer, batch):
    def loss_fn(m):
        return jnp.mean((m(batch["x"]) - batch["y"]) ** 2)

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


def pipeline(seed, n=160, size=16):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2]
    rows = [{"x": x[i], "y": np.float32(y[i])} for i in range(n)]
    return grain.MapDataset.source(rows).seed(seed).shuffle().repeat(None).batch(size)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--save-every", type=int, default=5)
    parser.add_argument("--until", type=int, default=None)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()

    model = Regressor(nnx.Rngs(params=0, dropout=1))
    optimizer = nnx.Optimizer(model, optax.adam(0.01), wrt=nnx.Param)
    batches = iter(pipeline(3).to_iter_dataset())
    begin = 0
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    manager = ocp.CheckpointManager(os.path.join(args.dir, "saved"), options=options)
    if args.resume:
        begin = manager.latest_step()
        states = {"model": nnx.state(model), "optimizer": nnx.state(optimizer)}
        restored = manager.restore(begin, args=ocp.args.Composite(
            state=ocp.args.StandardRestore(nnx.to_pure_dict(nnx.State(states))),
            data=grain.checkpoint.CheckpointRestore(batches)))
        pure = restored.state
        new_model, new_optimizer = states["model"], states["optimizer"]
        nnx.replace_by_pure_dict(new_model, pure["model"])
        nnx.replace_by_pure_dict(new_optimizer, pure["optimizer"])
        nnx.update(model, new_model)
        nnx.update(optimizer, new_optimizer)
    for step in range(begin, args.until or args.steps):
        batch = next(batches)
        loss = train_step(model, optimizer, batch)
        if (step + 1) % args.save_every == 0:
            states = {"model": nnx.state(model), "optimizer": nnx.state(optimizer)}
            manager.save(step + 1, args=ocp.args.Composite(
                state=ocp.args.StandardSave(nnx.to_pure_dict(nnx.State(states))),
                data=grain.checkpoint.CheckpointSave(batches)))
    manager.close()
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(nnx.state(model, nnx.Param, nnx.BatchStat)):
        digest.update(np.asarray(leaf).tobytes())
    print("result:", digest.hexdigest()[:24], float(loss))


if __name__ == "__main__":
    main()
