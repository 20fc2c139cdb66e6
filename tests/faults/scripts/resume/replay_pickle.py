"""Q-learning on a line, with a replay buffer, a target network and pickled NumPy arrays."""
import argparse
import pickle
import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

CELLS, CAPACITY = 9, 64


@jax.jit
def q_values(weights, position):
    return jnp.tanh(weights["in"][position]) @ weights["out"]


@jax.jit
def learn(weights, velocity, target, batch, rate):
    def loss(w):
        q = jax.vmap(q_values, (None, 0))(w, batch["here"])
        chosen = jnp.take_along_axis(q, batch["action"][:, None], 1)[:, 0]
        future = jax.vmap(q_values, (None, 0))(target, batch["there"]).max(1)
        wanted = batch["reward"] + 0.9 * jax.lax.stop_gradient(future)
        return jnp.mean((chosen - wanted) ** 2)

    grads = jax.grad(loss)(weights)
    velocity = jax.tree.map(lambda v, g: 0.8 * v + g, velocity, grads)
    return jax.tree.map(lambda w, v: w - rate * v, weights, velocity), velocity


class Replay:
    def __init__(self):
        self.rows = np.zeros((CAPACITY, 4), np.float32)
        self.filled = 0

    def add(self, *row):
        self.rows[self.filled % CAPACITY] = row
        self.filled += 1

    def sample(self, rng, size=8):
        chosen = self.rows[rng.integers(0, min(self.filled, CAPACITY), size)]
        here, action, reward, there = chosen.T
        return {"here": here.astype(np.int32), "action": action.astype(np.int32),
                "reward": reward, "there": there.astype(np.int32)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--stop-after", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    random.seed(4)
    rng = np.random.default_rng(5)
    init = np.random.default_rng(6)
    weights = {"in": init.normal(size=(CELLS, 6)).astype(np.float32),
               "out": init.normal(size=(6, 2)).astype(np.float32)}
    velocity = {name: np.zeros_like(w) for name, w in weights.items()}
    target = weights
    replay, position, epsilon, tick = Replay(), CELLS // 2, 0.9, 0
    file = args.workdir / "agent.pkl"
    if args.resume:
        saved = pickle.loads(file.read_bytes())
        weights, velocity, target = saved["weights"], saved["velocity"], saved["target"]
        replay, position = saved["replay"], saved["position"]
        epsilon, tick = saved["epsilon"], saved["tick"]
        random.setstate(saved["python"])
        rng = saved["rng"]
    while tick < 40:
        if random.random() < epsilon:
            action = random.randrange(2)
        else:
            action = int(np.argmax(q_values(weights, position)))
        there = min(max(position + 2 * action - 1, 0), CELLS - 1)
        replay.add(position, action, float(there == CELLS - 1), there)
        position = there if there != CELLS - 1 else CELLS // 2
        rate = np.float32(0.3 / (1 + tick / 20))
        weights, velocity = learn(weights, velocity, target, replay.sample(rng), rate)
        epsilon *= 0.97
        tick += 1
        if tick % 6 == 0:
            target = weights
        if tick % 5 == 0:
            kept = dict(weights=jax.tree.map(np.asarray, weights),
                        velocity=jax.tree.map(np.asarray, velocity),
                        target=jax.tree.map(np.asarray, target),
                        replay=replay, position=position, epsilon=epsilon, tick=tick,
                        python=random.getstate(), rng=rng)
            file.write_bytes(pickle.dumps(kept))
        if tick == args.stop_after:
            return
    print("result:", np.asarray(weights["out"]).tobytes().hex()[:48], replay.rows.sum())


if __name__ == "__main__":
    main()
