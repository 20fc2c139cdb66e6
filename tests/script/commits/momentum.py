"""Train with momentum written out by hand, operation by operation, from gradients of parts."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

PARTS = 4
RATE, MOMENTUM = 0.05, 0.9

rng = np.random.default_rng(5)
x = jnp.asarray(rng.normal(size=(32, 6)).astype(np.float32))
y = jnp.sin(x[:, 0])


def predict(params, x):
    return jnp.tanh(x @ params["in"]) @ params["out"]


@jax.jit
def gradients(params, x, y):
    return jax.grad(lambda p: jnp.mean((predict(p, x) - y) ** 2))(params)


key_in, key_out = jax.random.split(jax.random.key(1))
params = {"in": jax.random.normal(key_in, (6, 5)), "out": jax.random.normal(key_out, (5,))}
velocity = {name: jnp.zeros_like(value) for name, value in params.items()}
for i in range(8):
    total = None
    for part in range(PARTS):
        rows = slice(part * 8, part * 8 + 8)
        grads = gradients(params, x[rows], y[rows])
        if total is None:
            total = grads
        else:
            total = {name: total[name] + grads[name] for name in total}
    for name in ["in", "out"]:
        velocity[name] = MOMENTUM * velocity[name] + total[name] / PARTS
        params[name] = params[name] - RATE * velocity[name]
print(
    "training",
    hashlib.sha256(b"".join(np.asarray(w).tobytes() for w in params.values())).hexdigest(),
)
