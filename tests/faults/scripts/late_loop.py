"""A regression of 300 steps; the learning rate and the noise change late in the training."""

import hashlib
import random

import jax
import jax.numpy as jnp
import numpy as np

STEPS = 300
WORDS = ["red", "green", "blue", "cyan", "magenta", "yellow", "black", "white"]

rng = np.random.default_rng(3)
random.seed(3)
data = rng.normal(size=(256, 8)).astype(np.float32)
target = np.sin(data.sum(1)).astype(np.float32)


def loss_of(params, x, y):
    hidden = jnp.tanh(x @ params["in"])
    return jnp.mean((hidden @ params["out"] - y) ** 2)


@jax.jit
def step(params, x, y, rate, noise):
    loss, grads = jax.value_and_grad(loss_of)(params, x, y)
    params = jax.tree.map(lambda p, g: p - rate * (g + noise), params, grads)
    return params, loss


def make_params(key):
    one, two = jax.random.split(key)
    return {
        "in": jax.random.normal(one, (8, 16)) * 0.3,
        "out": jax.random.normal(two, (16,)) * 0.3,
    }


def rate_at(i):
    return np.float32(0.1 if i < 200 else 0.01)


def noise_at(i):
    return np.float32(0.0)


def weights_of(words):
    return np.float32([len(word) / 10 for word in words])


params = make_params(jax.random.key(3))
for i in range(STEPS):
    rows = rng.integers(0, len(data), 32)
    rate = rate_at(i)
    noise = noise_at(i)
    params, loss = step(params, data[rows], target[rows], rate, noise)
    if i % 100 == 99:
        print(f"step {i + 1}: loss {loss:.4f}")

score = jnp.dot(jnp.asarray(weights_of(WORDS)), params["in"][:, 0])
leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params)]
print("result:", hashlib.sha256(b"".join(leaves)).hexdigest()[:16], float(score))
