"""A notebook's cells, run one after another in one namespace, as notebook tools do it."""

import hashlib
import linecache

CELLS = [
    """
import jax
import jax.numpy as jnp
import numpy as np
names = ["a", "b", "c", "d", "e", "f"]
""",
    """
def make_batch(i):
    return np.random.default_rng(i).normal(size=(16, 6)).astype(np.float32)

scale = {name: 1 + place / 10 for place, name in enumerate(names)}
""",
    """
@jax.jit
def update(w, batch, scale):
    return w - 0.1 * jax.grad(lambda w: jnp.mean((batch * scale @ w - 1) ** 2))(w)
""",
    """
w = jnp.zeros(6)
for i in range(20):
    w = update(w, make_batch(i), np.float32(list(scale.values())))
""",
]

namespace = {"__name__": "__main__"}
for number, cell in enumerate(CELLS, 1):
    name = f"<cell {number}>"
    linecache.cache[name] = (len(cell), None, cell.splitlines(True), name)
    exec(compile(cell, name, "exec"), namespace)

print("result:", hashlib.sha256(bytes(memoryview(namespace["w"]).cast("B"))).hexdigest()[:16])
