"""Double DQN on a little swing-up cart, plain JAX (hand-written Adam), np.savez for everything."""
import argparse
import hashlib
import json
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

SIZES = (4, 32, 32, 3)
CAPACITY = 60          # small on purpose: the ring wraps round
WARMUP = 40
ACT_PER_UPDATE = 2


class Cart:
    """Cart with a pole, Euler steps, three pushes."""

    def __init__(self, rng):
        self.rng = rng
        self.s, self.t = self.fresh(), 0

    def fresh(self):
        return self.rng.uniform(-0.3, 0.3, 4)

    def step(self, a):
        x, v, th, w = self.s
        force = 4.0 * (a - 1)
        w += 0.05 * (9.8 * np.sin(th) - force * np.cos(th))
        v += 0.05 * force
        self.s = np.array([x + 0.05 * v, v, th + 0.05 * w, w])
        self.t += 1
        done = abs(self.s[0]) > 1.5 or abs(self.s[2]) > 0.8 or self.t >= 25
        reward = np.cos(self.s[2]) - 0.1 * self.s[0] ** 2
        nxt = self.s
        if done:
            self.s, self.t = self.fresh(), 0
        return nxt, reward, done


class Replay:
    def __init__(self):
        self.data = {k: np.zeros((CAPACITY,) + s, t) for k, s, t in (
            ("obs", (4,), np.float32), ("action", (), np.int32), ("reward", (), np.float32),
            ("next_obs", (4,), np.float32), ("done", (), np.float32))}
        self.head = self.size = 0

    def add(self, *row):
        for k, v in zip(self.data, row):
            self.data[k][self.head] = v
        self.head = (self.head + 1) % CAPACITY
        self.size = min(self.size + 1, CAPACITY)

    def sample(self, rng, n):
        i = rng.integers(0, self.size, n)
        return {k: v[i] for k, v in self.data.items()}


def init_params(seed):
    rng = np.random.default_rng(seed)
    return {f"{n}{i}": (rng.normal(size=(a, b)) * (2 / a) ** 0.5 if n == "w" else np.zeros(b)).astype(np.float32)
            for i, (a, b) in enumerate(zip(SIZES, SIZES[1:])) for n in "wb"}


@jax.jit
def q_values(params, obs):
    h = obs
    for i in range(len(SIZES) - 1):
        h = h @ params[f"w{i}"] + params[f"b{i}"]
        h = jnp.tanh(h) if i < len(SIZES) - 2 else h
    return h


@partial(jax.jit, static_argnames="lr")
def update(params, target, m, v, t, batch, lr):
    def loss_fn(p):
        q = jnp.take_along_axis(q_values(p, batch["obs"]), batch["action"][:, None], 1)[:, 0]
        best = jnp.argmax(q_values(p, batch["next_obs"]), -1)
        boot = jnp.take_along_axis(q_values(target, batch["next_obs"]), best[:, None], 1)[:, 0]
        goal = batch["reward"] + 0.95 * (1 - batch["done"]) * boot
        return jnp.mean((q - jax.lax.stop_gradient(goal)) ** 2)

    loss, g = jax.value_and_grad(loss_fn)(params)
    t = t + 1
    m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
    v = jax.tree.map(lambda a, b: 0.99 * a + 0.01 * b * b, v, g)
    new = lambda p, a, b: p - lr * (a / (1 - 0.9 ** t)) / (jnp.sqrt(b / (1 - 0.99 ** t)) + 1e-8)
    return jax.tree.map(new, params, m, v), m, v, t, loss


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--workdir", required=True)
    ap.add_argument("--steps", type=int, default=40)
    ap.add_argument("--resume", action="store_true")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--lr", type=float, default=3e-3)
    args = ap.parse_args()
    os.makedirs(args.workdir, exist_ok=True)
    file = os.path.join(args.workdir, "state.npz")

    rng = np.random.default_rng(args.seed)
    env, replay = Cart(rng), Replay()
    params = init_params(args.seed)
    target = params
    m = v = jax.tree.map(np.zeros_like, params)
    t = jnp.float32(0)
    step, epsilon = 0, 1.0
    if args.resume and os.path.exists(file):
        z = np.load(file)
        tree = lambda name: {k: z[f"{name}/{k}"] for k in params}
        params, target = tree("params"), tree("target")
        m, v = tree("m"), tree("v")
        t = jnp.float32(z["t"])
        replay.data = {k: z[f"replay/{k}"] for k in replay.data}
        replay.head, replay.size = int(z["head"]), int(z["size"])
        env.s, env.t = z["env"], int(z["env_t"])
        step, epsilon = int(z["step"]), float(z["epsilon"])
        rng.bit_generator.state = json.loads(str(z["rng"]))

    loss = np.nan
    while step < args.steps:
        while True:
            obs = env.s
            explore = replay.size < WARMUP or rng.random() < epsilon
            a = int(rng.integers(3)) if explore else int(np.argmax(q_values(params, obs.astype(np.float32))))
            nxt, reward, done = env.step(a)
            replay.add(obs, a, reward, nxt, done)
            if replay.size >= WARMUP and replay.head % ACT_PER_UPDATE == 0:
                break
        batch = replay.sample(rng, 16)
        params, m, v, t, loss = update(params, target, m, v, t, batch, args.lr)
        step += 1
        epsilon = max(0.1, epsilon * 0.95)
        if step % 9 == 0:
            target = params
        if step % 5 == 0:
            flat = {f"{n}/{k}": a for n, d in (("params", params), ("target", target), ("m", m), ("v", v),
                                               ("replay", replay.data)) for k, a in d.items()}
            np.savez(file + ".tmp.npz", **flat, t=t, head=replay.head, size=replay.size, env=env.s, env_t=env.t,
                     step=step, epsilon=epsilon, rng=json.dumps(rng.bit_generator.state))
            os.replace(file + ".tmp.npz", file)
    print("digest", hashlib.sha256(b"".join(np.asarray(params[k]).tobytes() for k in sorted(params))).hexdigest())
    print("last loss", float(loss))


if __name__ == "__main__":
    main()
