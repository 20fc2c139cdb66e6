"""Train a small classifier on batches from the host."""

import argparse
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--log-seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=16)
parser.add_argument("--eval-every", type=int, default=4)
args = parser.parse_args()

rng = np.random.default_rng(3)
images = rng.normal(size=(64, 8)).astype(np.float32)
labels = np.float32(images.sum(1) > 0)
held_out = rng.normal(size=(40, 8)).astype(np.float32)


def forward(params, x):
    hidden = jnp.tanh(x @ params["w1"] + params["b1"])
    return hidden @ params["w2"]


def loss_of(params, x, y):
    return jnp.mean((forward(params, x) - y) ** 2)


@jax.jit
def step(params, x, y):
    loss, grads = jax.value_and_grad(loss_of)(params, x, y)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), loss


@jax.jit
def evaluate(params, x, y):
    return jnp.mean((forward(params, x) > 0.5) == y)


def init(key):
    one, two = jax.random.split(key)
    w1 = 0.3 * jax.random.normal(one, (8, 16))
    w2 = 0.3 * jax.random.normal(two, (16,))
    return {"w1": w1, "b1": jnp.zeros(16), "w2": w2}


params = init(jax.random.key(args.seed))
for i in range(args.steps):
    at = i * 8 % 64
    params, loss = step(params, images[at : at + 8], labels[at : at + 8])
    if i % args.eval_every == 0:
        print(f"step {i}, accuracy {float(evaluate(params, images, labels)):.3f}")
print(
    "training",
    hashlib.sha256(b"".join(np.asarray(w).tobytes() for w in params.values())).hexdigest(),
)
