"""Brax PPO on a tiny point-mass environment."""
import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
from brax.envs.base import Env, State
from brax.training.agents.ppo import networks as ppo_networks
from brax.training.agents.ppo import train as ppo

if not hasattr(jax, "device_put_replicated"):  # removed from JAX, brax 0.14 still calls it
    jax.device_put_replicated = lambda tree, devices: jax.tree.map(lambda x: jnp.stack([x] * len(devices)), tree)


class PointMass(Env):
    """Push a mass to a goal in the plane."""

    def __init__(self, goal, drag=0.1):
        self._goal = np.asarray(goal, np.float32)
        self._drag = drag

    def reset(self, rng):
        pos = jax.random.uniform(rng, (2,), minval=-1.0, maxval=1.0)
        data = {"pos": pos, "vel": jnp.zeros(2)}
        zero = jnp.zeros(())
        return State(data, self._observe(data), zero, zero, {"distance": zero}, {})

    def step(self, state, action):
        data = state.pipeline_state
        vel = data["vel"] * (1.0 - self._drag) + 0.1 * jnp.clip(action, -1, 1)
        pos = data["pos"] + 0.1 * vel
        data = {"pos": pos, "vel": vel}
        distance = jnp.linalg.norm(pos - self._goal)
        done = jnp.where(jnp.abs(pos).max() > 3.0, 1.0, 0.0)
        state.metrics.update(distance=distance)
        return state.replace(pipeline_state=data, obs=self._observe(data), reward=-distance, done=done)

    def _observe(self, data):
        return jnp.concatenate([data["pos"], data["vel"], self._goal - data["pos"]])

    @property
    def observation_size(self):
        return 6

    @property
    def action_size(self):
        return 2

    @property
    def backend(self):
        return "none"


def choose_goal(seed):
    rng = np.random.default_rng(seed)
    candidates = rng.uniform(-1, 1, size=(16, 2))
    return candidates[np.argmax(np.linalg.norm(candidates, axis=1))]


def progress(num_steps, metrics):
    reward = metrics.get("eval/episode_reward")
    if reward is not None:
        print(f"steps {num_steps:6d} reward {float(reward):.4f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timesteps", type=int, default=1200)
    args = parser.parse_args()

    env = PointMass(choose_goal(args.seed))
    factory = functools.partial(
        ppo_networks.make_ppo_networks,
        policy_hidden_layer_sizes=(16,),
        value_hidden_layer_sizes=(16,),
    )
    make_policy, params, metrics = ppo.train(
        environment=env,
        num_timesteps=args.timesteps,
        episode_length=20,
        num_envs=8,
        num_eval_envs=8,
        batch_size=8,
        num_minibatches=2,
        unroll_length=5,
        num_updates_per_batch=2,
        num_evals=2,
        normalize_observations=True,
        learning_rate=1e-3,
        entropy_cost=1e-2,
        network_factory=factory,
        progress_fn=progress,
        seed=args.seed,
    )
    total = sum(np.abs(np.asarray(p, np.float64)).sum() for p in jax.tree.leaves(params[1:]))
    print(f"result: {float(total)!r} {float(metrics['eval/episode_reward'])!r}")


if __name__ == "__main__":
    main()
