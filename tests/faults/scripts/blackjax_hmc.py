"""Bayesian curve fitting with BlackJAX NUTS (window adaptation, own inference loop)."""
import os
import tempfile
import time
from datetime import datetime

import blackjax
import jax
import jax.numpy as jnp
import numpy as np

SEED = 20240611
NUM_OBS = 60
NUM_WARMUP = 150
NUM_CHAINS = 2
NUM_SAMPLES = 200
CENTRES = np.linspace(-2, 2, 5)


def observe(seed):
    gen = np.random.Generator(np.random.PCG64(seed))
    t = np.sort(gen.uniform(-2.5, 2.5, NUM_OBS))
    y = np.sin(1.5 * t) + 0.3 * t + gen.standard_normal(NUM_OBS) * 0.2
    return t, y


def design_matrix(t):
    phi = np.exp(-0.5 * ((t[:, None] - CENTRES[None, :]) / 0.8) ** 2)
    return np.hstack([np.ones((len(t), 1)), phi])


def make_logdensity(phi, y):
    phi = jnp.asarray(phi)
    y = jnp.asarray(y)

    def logdensity(position):
        weights, log_sigma = position["w"], position["log_sigma"]
        resid = (y - phi @ weights) / jnp.exp(log_sigma)
        loglik = -0.5 * jnp.sum(resid ** 2) - len(y) * log_sigma
        logprior = -0.5 * jnp.sum(weights ** 2) / 4.0 - 0.5 * (log_sigma + 1.0) ** 2
        return loglik + logprior

    return logdensity


def inference_loop(key, kernel, initial_states, num_samples, num_chains):
    @jax.jit
    def one_step(states, key):
        keys = jax.random.split(key, num_chains)
        states, infos = jax.vmap(kernel)(keys, states)
        return states, (states, infos)

    keys = jax.random.split(key, num_samples)
    _, (states, infos) = jax.lax.scan(one_step, initial_states, keys)
    return states, infos


def initial_position(phi, y):
    w, *_ = np.linalg.lstsq(phi, y, rcond=None)
    return {"w": jnp.asarray(w, jnp.float32), "log_sigma": jnp.float32(-1.0)}


def run():
    t, y = observe(SEED)
    phi = design_matrix(t)
    logdensity = make_logdensity(phi, y)
    start = initial_position(phi, y)

    warmup_key, chain_key, sample_key = jax.random.split(jax.random.key(SEED), 3)
    warmup = blackjax.window_adaptation(blackjax.nuts, logdensity)
    (state, parameters), _ = warmup.run(warmup_key, start, num_steps=NUM_WARMUP)
    print(f"step size {float(parameters['step_size']):.4f}")
    kernel = blackjax.nuts(logdensity, **parameters).step

    jitter = 0.01 * jax.random.normal(chain_key, (NUM_CHAINS, len(CENTRES) + 1))
    positions = {"w": state.position["w"] + jitter, "log_sigma": jnp.repeat(state.position["log_sigma"], NUM_CHAINS)}
    initial = jax.vmap(lambda p: blackjax.nuts.init(p, logdensity))(positions)
    states, infos = inference_loop(sample_key, kernel, initial, NUM_SAMPLES, NUM_CHAINS)
    states.logdensity.block_until_ready()
    print(f"{datetime.now():%H:%M:%S} acceptance {float(infos.acceptance_rate.mean()):.3f}")
    print("divergences", int(infos.is_divergent.sum()))

    posterior = np.asarray(states.position["w"], np.float64).reshape(-1, phi.shape[1])
    print("weights", np.round(posterior.mean(0), 3))
    print(f"result: {float(posterior.sum())!r} {float(states.logdensity[-1, 0])!r}")


if __name__ == "__main__":
    run()
