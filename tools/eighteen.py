"""Eighteen operations, each with the value that it is asked of: those whose bits are compared.

It needs JAX alone. `operations` runs its text as a script, and `accelerator` calls its functions.
"""

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", False)
key = jax.random.key(0, impl="threefry2x32")
vector = jnp.linspace(0.1, 3, 100_000)
matrix = jnp.cos(jnp.outer(jnp.arange(300.0), jnp.arange(300.0))) + 20 * jnp.eye(300)
symmetric = matrix @ matrix.T
images = jnp.sin(jnp.arange(16 * 32 * 32 * 8.0)).reshape(16, 32, 32, 8)
kernel = jnp.cos(jnp.arange(3 * 3 * 8 * 16.0)).reshape(3, 3, 8, 16)


def convolution(kernel: jax.Array) -> jax.Array:
    """Return the sum of the squares of a convolution."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    out = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
    return jnp.sum(out**2)


OPERATIONS = {
    "key bits": (lambda k: jax.random.bits(k, (1000,)), key),
    "normal": (lambda k: jax.random.normal(k, (1000,)), key),
    "exp": (jnp.exp, vector),
    "log": (jnp.log, vector),
    "sin": (jnp.sin, vector),
    "tanh": (jnp.tanh, vector),
    "rsqrt": (jax.lax.rsqrt, vector),
    "softmax": (jax.nn.softmax, matrix),
    "sum": (jnp.sum, jnp.sin(jnp.arange(10_000_000.0))),
    "cumsum": (jnp.cumsum, vector),
    "matrix times matrix": (lambda m: m @ m, matrix),
    "matrix times vector": (lambda m: m @ m[0], matrix),
    "gradient of a convolution": (jax.grad(convolution), kernel),
    "svd": (jnp.linalg.svd, matrix),
    "eigh": (jnp.linalg.eigh, symmetric),
    "cholesky": (jnp.linalg.cholesky, symmetric),
    "qr": (jnp.linalg.qr, matrix),
    "solve": (lambda m: jnp.linalg.solve(m, m[0]), matrix),
}
