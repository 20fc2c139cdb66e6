"""Policy search in which a whole epoch is one scan; its carry goes to disk as npz."""
import argparse
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def plant(state, force, noise):
    angle, speed = state
    speed = speed + 0.05 * (jnp.sin(angle) + force) + 0.01 * noise
    return jnp.stack([angle + 0.05 * speed, speed])


def cost_of(gains, start, key):
    def tick(state, noise):
        force = jnp.clip(-gains @ state, -2, 2)
        return plant(state, force, noise), state @ state

    _, costs = jax.lax.scan(tick, start, jax.random.normal(key, (20,)))
    return costs.mean()


@partial(jax.jit, static_argnames="length")
def epoch(carry, starts, length):
    def one(carry, start):
        key, use = jax.random.split(carry["key"])
        cost, slope = jax.value_and_grad(cost_of)(carry["gains"], start, use)
        first = 0.9 * carry["first"] + 0.1 * slope
        second = 0.99 * carry["second"] + 0.01 * slope**2
        n = carry["n"] + 1
        step = first / (1 - 0.9**n) / (jnp.sqrt(second / (1 - 0.99**n)) + 1e-8)
        baseline = 0.9 * carry["baseline"] + 0.1 * cost
        return {"gains": carry["gains"] - 0.05 * step, "first": first, "second": second, "n": n,
                "key": key, "baseline": baseline}, cost

    return jax.lax.scan(one, carry, starts, length)


def load(path, carry):
    with np.load(path) as found:
        saved = {name: jnp.asarray(found[name]) for name in found.files if name != "epochs"}
        saved["key"] = jax.random.wrap_key_data(saved["key"])
        return saved, int(found["epochs"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--leave-after", type=int, default=0)
    args = parser.parse_args()
    carry = {"gains": jnp.array([0.5, 0.1]), "first": jnp.zeros(2), "second": jnp.zeros(2),
             "n": jnp.int32(0), "key": jax.random.key(2), "baseline": jnp.float32(0)}
    path, done = os.path.join(args.workdir, "carry.npz"), 0
    if os.path.exists(path):
        carry, done = load(path, carry)
    for number in range(done, args.epochs):
        starts = np.random.default_rng(900 + number).uniform(-1, 1, (10, 2)).astype(np.float32)
        carry, costs = epoch(carry, starts, 10)
        print(f"epoch {number} cost {float(costs.mean()):.5f}")
        saved = {**carry, "key": jax.random.key_data(carry["key"])}
        np.savez(path, epochs=number + 1, **{k: np.asarray(v) for k, v in saved.items()})
        if number + 1 == args.leave_after:
            return
    print("result:", np.asarray(carry["gains"]).tobytes().hex(), float(carry["baseline"]).hex())


if __name__ == "__main__":
    main()
