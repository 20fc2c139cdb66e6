"""A host-side simulator called from jitted code: pure_callback, io_callback, debug."""
import argparse
import hashlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback


class Market:
    """Legacy NumPy simulator that gives the price impact of an order."""

    def __init__(self, seed, assets=6):
        self.rng = np.random.default_rng(seed)
        self.depth = self.rng.uniform(0.5, 2.0, assets).astype(np.float32)
        self.log = []

    def impact(self, orders):
        orders = np.asarray(orders)
        return (np.sign(orders) * np.sqrt(np.abs(orders)) / self.depth).astype(np.float32)

    def next_return(self, step):
        shock = self.rng.normal(0.0, 0.02, self.depth.shape)
        return (0.001 * np.cos(int(step) / 3.0) + shock).astype(np.float32)

    def record(self, step, cost):
        self.log.append((int(step), float(cost)))


def make_impact(market):
    shape = jax.ShapeDtypeStruct(market.depth.shape, jnp.float32)

    @jax.custom_jvp
    def impact(orders):
        return jax.pure_callback(market.impact, shape, orders, vmap_method="sequential")

    @impact.defjvp
    def impact_jvp(primals, tangents):
        (orders,), (d,) = primals, tangents
        slope = 0.5 / (jnp.sqrt(jnp.abs(orders)) + 1e-2) / market.depth
        return impact(orders), slope * d

    return impact


def make_episode(market, length):
    impact = make_impact(market)
    ret_shape = jax.ShapeDtypeStruct(market.depth.shape, jnp.float32)

    def one(policy, carry, step):
        wealth, position = carry
        r = io_callback(market.next_return, ret_shape, step, ordered=True)
        order = jnp.tanh(policy["a"] * r + policy["b"]) - position
        cost = jnp.sum(impact(order) * order) * 0.01
        wealth = wealth + jnp.sum(position * r) - cost
        return (wealth, position + 0.5 * order), (r, cost)

    @jax.jit
    def episode(policy):
        start = (jnp.float32(1.0), jnp.zeros_like(market.depth))
        (wealth, _), (rs, costs) = jax.lax.scan(lambda c, s: one(policy, c, s), start, jnp.arange(length))
        io_callback(market.record, None, length, costs.sum(), ordered=True)
        return wealth, rs

    @jax.jit
    def improve(policy, rs):
        def loss(policy):
            order = jnp.tanh(policy["a"] * rs[:-1] + policy["b"])
            gain = jnp.sum(order * rs[1:]) - 0.01 * jnp.sum(jax.vmap(impact)(order) * order)
            return -gain
        grads = jax.grad(loss)(policy)
        return jax.tree.map(lambda p, g: p - 0.5 * g, policy, grads)

    return episode, improve


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--workdir", default=tempfile.gettempdir())
    p.add_argument("--seed", type=int, default=101)
    p.add_argument("--episodes", type=int, default=12)
    args = p.parse_args()
    market = Market(args.seed)
    episode, improve = make_episode(market, 20)
    policy = {"a": jnp.full((6,), 0.1), "b": jnp.zeros((6,))}
    for e in range(args.episodes):
        wealth, rs = episode(policy)
        policy = improve(policy, rs)
        if e % 4 == 0:
            jax.debug.print("episode {e} wealth {w:.6f}", e=e, w=wealth)
    jax.effects_barrier()
    costs = np.array([c for _, c in market.log])
    print("episodes logged", len(costs))
    digest = hashlib.sha256(np.asarray(policy["a"]).tobytes() + np.asarray(policy["b"]).tobytes())
    print("result:", digest.hexdigest()[:32], repr(float(wealth)), repr(float(costs.sum())))


if __name__ == "__main__":
    main()
