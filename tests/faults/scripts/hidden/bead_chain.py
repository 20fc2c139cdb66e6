#!/usr/bin/env python
# Langevin dynamics of a charged bead-spring chain between two plates.
#
# Everything is float32 and one jitted scan.  No matrix products: with N=24 beads the
# pair sums are done by an explicit fori_loop over neighbours, so that no library is free to
# choose the order of the additions.
import dataclasses
import json
import os
import time
from argparse import ArgumentParser
from functools import partial
from hashlib import sha256

for _name in [n for n in os.environ if n.startswith("JAX_") and "CACHE" not in n]:
    del os.environ[_name]
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_threefry_partitionable", True)
jax.config.update("jax_enable_x64", False)
PRNG = "threefry2x32"


@dataclasses.dataclass(frozen=True)
class Setup:
    beads: int = 24
    steps: int = 400
    stride: int = 50
    dt: float = 0.0078125
    gamma: float = 0.5
    kT: float = 0.75
    spring: float = 40.0
    wall: float = 3.0


class Bead:
    def __init__(self, number, charge):
        self.number = number
        self.charge = charge


def make_beads(cfg, rng):
    beads = [Bead(i, int(c)) for i, c in enumerate(rng.integers(-2, 3, cfg.beads))]
    return beads


def charged(beads):
    """The beads that carry charge, in chain order, as (number, charge) arrays."""
    some = sorted((b for b in beads if b.charge), key=lambda b: b.number)
    return np.array([b.number for b in some]), np.array([b.charge for b in some], np.float32)


def start_positions(cfg, rng):
    x = np.zeros((cfg.beads, 3), np.float32)
    x[:, 0] = np.arange(cfg.beads) - cfg.beads / 2
    jiggle = rng.integers(-64, 65, x.shape)
    return x + (jiggle / 1024).astype(np.float32)


def energy(x, numbers, charges, cfg):
    bond = x[1:] - x[:-1]
    length = jnp.sqrt(bond[:, 0] ** 2 + bond[:, 1] ** 2 + bond[:, 2] ** 2 + 1e-6)
    e = 0.5 * cfg.spring * jnp.sum((length - 1.0) ** 2)
    e += jnp.sum(jax.nn.softplus(4.0 * (jnp.abs(x[:, 2]) - cfg.wall)))
    q = x[numbers]

    def one(i, acc):
        d = q - jnp.roll(q, i, axis=0)
        r = jnp.sqrt(d[:, 0] ** 2 + d[:, 1] ** 2 + d[:, 2] ** 2 + 0.25)
        return acc + 0.5 * jnp.sum(charges * jnp.roll(charges, i) * jnp.exp(-r / 2.0) / r)

    return lax.fori_loop(1, len(numbers), one, e)


@partial(jax.jit, static_argnames="cfg")
def simulate(key, x, numbers, charges, cfg):
    force = jax.grad(lambda x: -energy(x, numbers, charges, cfg))
    amplitude = (2.0 * cfg.gamma * cfg.kT * cfg.dt) ** 0.5

    def body(carry, k):
        x, v = carry
        noise = jax.random.normal(k, x.shape)
        v = v + cfg.dt * (force(x) - cfg.gamma * v) + amplitude * noise
        x = x + cfg.dt * v
        return (x, v), energy(x, numbers, charges, cfg)

    keys = jax.random.split(key, cfg.steps)
    (x, v), trace = lax.scan(body, (x, jnp.zeros_like(x)), keys)
    return x, v, trace


def main():
    parser = ArgumentParser(description="bead chain")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--workdir", required=True)
    opt = parser.parse_args()
    cfg = Setup()

    rng = np.random.Generator(np.random.PCG64(opt.seed))
    beads = make_beads(cfg, rng)
    numbers, charges = charged(beads)
    x0 = start_positions(cfg, rng)
    run_id = opt.seed
    key = jax.random.key(run_id, impl=PRNG)
    began = time.perf_counter()
    x, v, trace = jax.block_until_ready(simulate(key, x0, numbers, charges, cfg))
    took = time.perf_counter() - began  # reported beside the result, never part of it

    os.makedirs(opt.workdir, exist_ok=True)
    np.savez(os.path.join(opt.workdir, "final.npz"), x=x, v=v, trace=trace)
    with open(os.path.join(opt.workdir, "run.json"), "w") as f:
        json.dump({"setup": dataclasses.asdict(cfg), "seconds": took}, f)
    result = b"".join(np.asarray(a).tobytes() for a in (x, v, trace[:: cfg.stride]))
    print("sha256", sha256(result).hexdigest())
    print("loss (final energy)", float(trace[-1]))


if __name__ == "__main__":
    main()
