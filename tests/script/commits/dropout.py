"""Train with dropout, Adam and a schedule of the learning rate; batches are drawn on the device."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

STEPS, BATCH, KEEP = 12, 8, 0.8

data = jnp.asarray(np.random.default_rng(7).normal(size=(48, 4)).astype(np.float32))
target = jnp.cos(data).sum(axis=1)


def rate_at(i):
    return 0.01 * min(1.0, (i + 1) / 4)


@jax.jit
def draw(key):
    return jax.random.choice(key, data.shape[0], (BATCH,), replace=False)


@jax.jit
def step(state, key, rows, rate):
    def loss_of(w):
        hidden = jax.nn.relu(data[rows] @ w["a"])
        hidden = hidden * jax.random.bernoulli(key, KEEP, hidden.shape) / KEEP
        return jnp.mean((hidden @ w["b"] - target[rows]) ** 2)

    loss, grads = jax.value_and_grad(loss_of)(state["w"])
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state["m"], grads)
    v = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, state["v"], grads)
    w = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-6), state["w"], m, v)
    return {"w": w, "m": m, "v": v}, loss


@jax.jit
def norm(state):
    return sum(jnp.sum(each**2) for each in jax.tree.leaves(state["w"]))


key = jax.random.key(2)
key, sub = jax.random.split(key)
w = {"a": jax.random.normal(sub, (4, 8)), "b": jnp.ones(8)}
zeros = jax.tree.map(jnp.zeros_like, w)
state = {"w": w, "m": zeros, "v": zeros}
for i in range(STEPS):
    key, draw_key, drop_key = jax.random.split(key, 3)
    rows = draw(draw_key)
    state, loss = step(state, drop_key, rows, rate_at(i))
    print(f"step {i}, loss {float(loss):.4f}")
print(f"norm {float(norm(state)):.4f}")
leaves = jax.tree.leaves(state["w"])
print("training", hashlib.sha256(b"".join(np.asarray(w).tobytes() for w in leaves)).hexdigest())
