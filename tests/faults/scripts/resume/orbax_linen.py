"""A Linen classifier with batch statistics and an average, kept by an Orbax CheckpointManager."""
import argparse
import hashlib
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax.training import train_state


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(24)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.Dropout(0.1, deterministic=not train)(nn.relu(x))
        return nn.Dense(3)(x)


class TrainState(train_state.TrainState):
    batch_stats: dict
    ema: dict


def make_data(seed, n=320):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    x = rng.normal(size=(n, 6)) + labels[:, None] * rng.normal(size=6)
    return x.astype(np.float32), labels.astype(np.int32)


def create_state(seed):
    net = Net()
    variables = net.init(jax.random.key(seed), jnp.zeros((2, 6)), False)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.02, 5, 60)
    return TrainState.create(
        apply_fn=net.apply,
        params=variables["params"],
        tx=optax.adamw(schedule),
        batch_stats=variables["batch_stats"],
        ema=jax.tree.map(lambda p: p * 0.5, variables["params"]),
    )


@jax.jit
def train_step(state, batch, key):
    def loss_fn(params):
        logits, changed = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats}, batch["x"], True,
            rngs={"dropout": key}, mutable=["batch_stats"])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()
        return loss, changed["batch_stats"]

    (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    state = state.apply_gradients(grads=grads, batch_stats=stats)
    ema = jax.tree.map(lambda e, p: 0.95 * e + 0.05 * p, state.ema, state.params)
    return state.replace(ema=ema), loss


def rows_of(step, n, size=32):
    order = np.random.default_rng(100 + step // (n // size)).permutation(n)
    at = step % (n // size) * size
    return order[at:at + size]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--stop-after", type=int)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    x, y = make_data(args.seed)
    state, first = create_state(args.seed), 0
    base = jax.random.key(args.seed + 1)
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    with ocp.CheckpointManager(os.path.join(args.workdir, "ckpt"), options=options) as manager:
        last = manager.latest_step()
        if last is not None:
            fresh = state
            state = manager.restore(last, args=ocp.args.StandardRestore(state))
            first = last
        for step in range(first, args.steps):
            if step == args.stop_after:
                return
            rows = rows_of(step, len(x))
            key = jax.random.fold_in(base, step)
            state, loss = train_step(state, {"x": x[rows], "y": y[rows]}, key)
            if (step + 1) % args.every == 0:
                manager.save(step + 1, args=ocp.args.StandardSave(state))
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((state.params, state.batch_stats, state.ema)):
        digest.update(np.asarray(leaf).tobytes())
    print("result:", digest.hexdigest()[:32])


if __name__ == "__main__":
    main()
