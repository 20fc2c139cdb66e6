"""Mixed precision with a loss scale, saved by flax.serialization."""
import argparse
import os
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization, struct

tx = optax.sgd(optax.linear_schedule(0.1, 0.01, 30), momentum=0.9, nesterov=True)


@struct.dataclass
class State:
    params: dict
    opt_state: tuple
    loss_scale: jax.Array
    good_steps: jax.Array
    seen: jax.Array


def init(seed):
    a, b = jax.random.split(jax.random.PRNGKey(seed))
    params = {"hidden": jax.random.normal(a, (4, 12)) / 2, "shift": jnp.zeros(12),
              "out": jax.random.normal(b, (12, 2)) / 3}
    return State(params, tx.init(params), jnp.float32(2**20), jnp.int32(0), jnp.zeros(3))


@jax.jit
def update(state, inputs, targets, labels):
    def loss_fn(params):
        half = jax.tree.map(lambda p: p.astype(jnp.float16), params)
        h = jnp.tanh(inputs.astype(jnp.float16) @ half["hidden"] + half["shift"])
        loss = jnp.mean((h @ half["out"] - targets) ** 2)
        return loss.astype(jnp.float32) * state.loss_scale

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    grads = jax.tree.map(lambda g: g / state.loss_scale, grads)
    finite = jnp.all(jnp.array([jnp.isfinite(g).all() for g in jax.tree.leaves(grads)]))
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    new = (optax.apply_updates(state.params, updates), opt_state)
    params, opt_state = jax.tree.map(
        lambda n, o: jnp.where(finite, n, o), new, (state.params, state.opt_state))
    good = jnp.where(finite, state.good_steps + 1, 0)
    scale = jnp.where(finite, jnp.where(good % 4 == 0, state.loss_scale * 2, state.loss_scale),
                      state.loss_scale / 2)
    seen = state.seen + jnp.bincount(labels, length=3)
    return State(params, opt_state, scale, good, seen), loss / state.loss_scale


def examples(epoch, size):
    rng = np.random.default_rng([7, epoch])
    x = rng.normal(size=(48, 4)).astype(np.float32)
    y = np.stack([x[:, 0] * x[:, 1], np.sin(x[:, 2])], 1)
    labels = rng.integers(0, 3, 48)
    for i in range(0, 48, size):
        yield x[i:i + size], y[i:i + size], labels[i:i + size]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--out", required=True)
    p.add_argument("--epochs", type=int, default=6)
    p.add_argument("--max-epochs-now", type=int, default=10**6)
    p.add_argument("--restore", action="store_true")
    args = p.parse_args()
    path = os.path.join(args.out, "model.msgpack")
    state, epoch = init(3), 0
    if args.restore:
        with open(path, "rb") as f:
            stored = serialization.from_bytes({"state": state, "epoch": 0}, f.read())
        state, epoch = stored["state"], stored["epoch"]
    while epoch < min(args.epochs, args.max_epochs_now):
        for inputs, targets, labels in examples(epoch, 12):
            state, loss = update(state, inputs, targets, labels)
        epoch += 1
        print("epoch", epoch, float(loss))
        with open(path, "wb") as f:
            f.write(serialization.to_bytes({"state": state, "epoch": epoch}))
    crc = 0
    for leaf in jax.tree.leaves(state):
        crc = zlib.crc32(np.asarray(leaf).tobytes(), crc)
    print("result", crc)


if __name__ == "__main__":
    main()
