"""Evolve a small recurrent controller for a noisy pendulum with evosax."""
import argparse
import hashlib
import random
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from evosax.algorithms import Open_ES, Sep_CMA_ES

ALGOS = {"open_es": Open_ES, "sep_cma": Sep_CMA_ES}


def parse():
    p = argparse.ArgumentParser()
    p.add_argument("--workdir", default=None)
    p.add_argument("--seed", type=int, default=3)
    p.add_argument("--algo", default="open_es", choices=sorted(ALGOS))
    p.add_argument("--generations", type=int, default=25)
    p.add_argument("--pop", type=int, default=32)
    args = p.parse_args()
    args.workdir = args.workdir or tempfile.mkdtemp(prefix="es_")
    return args


def policy(params, obs):
    h = jnp.tanh(params["w1"] @ obs + params["b1"])
    return 2.0 * jnp.tanh(params["w2"] @ h)[0]


def rollout(params, start, wind):
    def body(carry, gust):
        th, om = carry
        obs = jnp.array([jnp.cos(th), jnp.sin(th), om])
        u = policy(params, obs)
        om = jnp.clip(om + 0.05 * (15.0 * jnp.sin(th) + 3.0 * u + gust), -8.0, 8.0)
        th = th + 0.05 * om
        angle = (th + jnp.pi) % (2 * jnp.pi) - jnp.pi
        return (th, om), angle**2 + 0.1 * om**2 + 0.001 * u**2

    _, costs = jax.lax.scan(body, (start[0], start[1]), wind)
    return costs.mean()


@jax.jit
def evaluate(population, starts, wind):
    over_starts = jax.vmap(rollout, in_axes=(None, 0, None))
    return jax.vmap(lambda p: over_starts(p, starts, wind).mean())(population)


def start_states(rng, n):
    return np.stack([rng.uniform(-np.pi, np.pi, n), rng.uniform(-1, 1, n)], axis=1).astype(np.float32)


def main():
    args = parse()
    random.seed(args.seed)
    rng = np.random.default_rng(args.seed)
    key = jax.random.key(args.seed)

    solution = {"w1": jnp.zeros((8, 3)), "b1": jnp.zeros(8), "w2": jnp.zeros((1, 8))}
    if args.algo == "open_es":
        es = Open_ES(population_size=args.pop, solution=solution,
                     optimizer=optax.adam(0.03), std_schedule=optax.constant_schedule(0.2))
    else:
        es = Sep_CMA_ES(population_size=args.pop, solution=solution)
    params = es.default_params
    key, sub = jax.random.split(key)
    state = es.init(sub, solution, params)

    horizon = 60
    t0 = time.time()
    for gen in range(args.generations):
        key, k_ask, k_tell = jax.random.split(key, 3)
        population, state = es.ask(k_ask, state, params)
        starts = start_states(rng, 6)
        wind = np.array([random.gauss(0.0, 0.3) for _ in range(horizon)], np.float32)
        fitness = evaluate(population, starts, wind)
        state, metrics = es.tell(k_tell, population, fitness, state, params)
        if gen % 5 == 0:
            print(f"gen {gen:3d} best {float(metrics['best_fitness']):.5f} mean {float(fitness.mean()):.5f}")
    print(f"took {time.time() - t0:.1f}s")
    mean = es.get_mean(state)
    flat = np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(mean)])
    print("result:", hashlib.sha256(flat.tobytes()).hexdigest()[:24], repr(float(state.best_fitness)))


if __name__ == "__main__":
    main()
