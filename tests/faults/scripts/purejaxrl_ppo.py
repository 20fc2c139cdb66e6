"""PPO in one lax.scan (PureJaxRL style) on a small balancing environment."""
import hashlib
import os
from functools import partial
from typing import NamedTuple

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.linen.initializers import constant, orthogonal
from flax.training.train_state import TrainState

CONFIG = {
    "SEED": 30,
    "LR": 3e-3,
    "NUM_ENVS": 8,
    "NUM_STEPS": 32,
    "UPDATES": 12,
    "EPOCHS": 2,
    "GAMMA": 0.97,
    "LAMBDA": 0.9,
    "CLIP": 0.2,
    "MAX_STEPS": 60,
    "GRAVITY": 1.2,
}


class EnvState(NamedTuple):
    pos: jax.Array
    vel: jax.Array
    t: jax.Array


class Transition(NamedTuple):
    obs: jax.Array
    action: jax.Array
    reward: jax.Array
    done: jax.Array
    value: jax.Array
    log_prob: jax.Array


def env_reset(key):
    pos, vel = jax.random.uniform(key, (2,), minval=-0.1, maxval=0.1)
    state = EnvState(pos, vel, jnp.int32(0))
    return jnp.stack([pos, vel]), state


def env_step(key, state, action):
    force = jnp.where(action == 1, 1.0, -1.0)
    vel = state.vel + 0.1 * (CONFIG["GRAVITY"] * state.pos + force)
    pos = state.pos + 0.1 * vel
    t = state.t + 1
    done = (jnp.abs(pos) > 1.0) | (t >= CONFIG["MAX_STEPS"])
    reward = 1.0 - pos ** 2
    obs_r, state_r = env_reset(key)
    state = jax.tree.map(lambda a, b: jnp.where(done, a, b), state_r, EnvState(pos, vel, t))
    obs = jnp.where(done, obs_r, jnp.stack([pos, vel]))
    return obs, state, reward, done


class ActorCritic(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.tanh(nn.Dense(32, kernel_init=orthogonal(np.sqrt(2)), bias_init=constant(0.0))(x))
        logits = nn.Dense(2, kernel_init=orthogonal(0.01))(h)
        value = nn.Dense(1, kernel_init=orthogonal(1.0))(h)
        return distrax.Categorical(logits=logits), value[..., 0]


def gae(traj, last_value):
    def back(carry, tr):
        adv, nxt = carry
        delta = tr.reward + CONFIG["GAMMA"] * nxt * (1 - tr.done) - tr.value
        adv = delta + CONFIG["GAMMA"] * CONFIG["LAMBDA"] * (1 - tr.done) * adv
        return (adv, tr.value), adv

    _, advs = jax.lax.scan(back, (jnp.zeros_like(last_value), last_value), traj, reverse=True)
    return advs, advs + traj.value


def make_train(config):
    net = ActorCritic()

    def loss_fn(params, traj, adv, target):
        pi, value = net.apply(params, traj.obs)
        ratio = jnp.exp(pi.log_prob(traj.action) - traj.log_prob)
        adv = (adv - adv.mean()) / (adv.std() + 1e-8)
        clipped = jnp.clip(ratio, 1 - config["CLIP"], 1 + config["CLIP"]) * adv
        return -jnp.minimum(ratio * adv, clipped).mean() + 0.5 * ((value - target) ** 2).mean() - 0.01 * pi.entropy().mean()

    def env_loop(carry, _):
        ts, env_state, obs, key = carry
        key, ka, ks = jax.random.split(key, 3)
        pi, value = net.apply(ts.params, obs)
        action = pi.sample(seed=ka)
        new_obs, env_state, reward, done = jax.vmap(env_step)(jax.random.split(ks, config["NUM_ENVS"]), env_state, action)
        tr = Transition(obs, action, reward, done.astype(jnp.float32), value, pi.log_prob(action))
        return (ts, env_state, new_obs, key), tr

    def update(carry, _):
        carry, traj = jax.lax.scan(env_loop, carry, None, config["NUM_STEPS"])
        ts, env_state, obs, key = carry
        adv, target = gae(traj, net.apply(ts.params, obs)[1])
        for _ in range(config["EPOCHS"]):
            ts = ts.apply_gradients(grads=jax.grad(loss_fn)(ts.params, traj, adv, target))
        return (ts, env_state, obs, key), traj.reward.sum(0).mean() / jnp.maximum(traj.done.sum(), 1)

    def train(key):
        key, kn, ke = jax.random.split(key, 3)
        tx = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(config["LR"]))
        ts = TrainState.create(apply_fn=net.apply, params=net.init(kn, jnp.zeros(2)), tx=tx)
        obs, env_state = jax.vmap(env_reset)(jax.random.split(ke, config["NUM_ENVS"]))
        carry, metric = jax.lax.scan(update, (ts, env_state, obs, key), None, config["UPDATES"])
        return carry[0], metric

    return train


if __name__ == "__main__":
    rng = jax.random.PRNGKey(CONFIG["SEED"])
    train = jax.jit(make_train(CONFIG))
    state, metric = train(rng)
    for i in range(0, CONFIG["UPDATES"], 5):
        print(f"update {i:2d} return {float(metric[i]):.4f}")
    flat = np.concatenate([np.ravel(p) for p in jax.tree.leaves(state.params)])
    print("result:", hashlib.sha256(flat.tobytes()).hexdigest()[:32], repr(float(metric[-1])))
