"""SciPy minimises what JAX computes; its callback keeps a moving average of the parameters."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

jax.config.update("jax_enable_x64", True)
points = np.linspace(0, 3, 40)
values = np.exp(-points) * np.cos(4 * points)


@jax.jit
def objective(theta, points, values):
    a, b, c = theta
    return jnp.mean((a * jnp.exp(-b * points) * jnp.cos(c * points) - values) ** 2)


@jax.jit
def average(mean, theta, weight):
    return (1 - weight) * mean + weight * theta


slope = jax.jit(jax.grad(objective))
state = {"mean": jnp.zeros(3), "calls": 0}


def keep_mean(theta):
    weight = 0.25
    state["mean"] = average(state["mean"], theta, weight)
    state["calls"] += 1


def measured(theta):
    return float(objective(theta, points, values)), np.asarray(slope(theta, points, values))


start = np.array([0.8, 0.7, 3.5])
found = minimize(measured, start, jac=True, method="L-BFGS-B", callback=keep_mean)
digest = hashlib.sha256(np.asarray(state["mean"]).tobytes() + found.x.tobytes()).hexdigest()[:16]
print("result:", digest, state["calls"])
