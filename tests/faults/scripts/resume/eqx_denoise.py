"""Denoising score matching on a two-moons-like cloud; Equinox, optax, checkpoints with eqx.tree_serialise_leaves."""
import argparse
import functools
import hashlib
import json
import os
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax


class ScoreNet(eqx.Module):
    layers: list
    time_embed: eqx.nn.Linear
    drop: eqx.nn.Dropout

    def __init__(self, key):
        k1, k2, k3, k4 = jr.split(key, 4)
        self.layers = [eqx.nn.Linear(2, 32, key=k1), eqx.nn.Linear(32, 32, key=k2), eqx.nn.Linear(32, 2, key=k3)]
        self.time_embed = eqx.nn.Linear(1, 32, key=k4)
        self.drop = eqx.nn.Dropout(0.1)

    def __call__(self, x, sigma, key):
        h = jax.nn.silu(self.layers[0](x) + self.time_embed(jnp.log(sigma)[None]))
        h = self.drop(h, key=key)
        h = jax.nn.silu(self.layers[1](h))
        return self.layers[2](h) / sigma


def cloud(n=512):
    rng = np.random.default_rng(3)
    t = rng.uniform(0, np.pi, n)
    side = rng.integers(0, 2, n)
    pts = np.stack([np.cos(t) * (1 - 2 * side) + side, np.sin(t) * (1 - 2 * side) + 0.5 * side], -1)
    return (pts + 0.05 * rng.normal(size=pts.shape)).astype(np.float32)


def batch_at(data, step, size):
    """Batch number `step`, a function of the step alone."""
    idx = np.random.default_rng([17, step]).integers(0, len(data), size)
    return data[idx]


def loss_fn(model, x, key):
    k_sigma, k_noise, k_drop = jr.split(key, 3)
    sigma = jnp.exp(jr.uniform(k_sigma, (len(x),), minval=-3.0, maxval=0.5))
    noise = jr.normal(k_noise, x.shape)
    score = jax.vmap(model)(x + sigma[:, None] * noise, sigma, jr.split(k_drop, len(x)))
    return jnp.mean(jnp.sum((sigma[:, None] * score + noise) ** 2, -1))


def make_optimizer(lr):
    schedule = optax.warmup_cosine_decay_schedule(1e-4, lr, warmup_steps=5, decay_steps=50)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


@eqx.filter_jit
def make_step(model, ema, opt_state, x, key, optim):
    loss, grads = eqx.filter_value_and_grad(loss_fn)(model, x, key)
    updates, opt_state = optim.update(grads, opt_state, eqx.filter(model, eqx.is_array))
    model = eqx.apply_updates(model, updates)
    blend = lambda e, p: 0.9 * e + 0.1 * p if eqx.is_array(e) else e
    ema = jax.tree.map(blend, ema, model)
    return model, ema, opt_state, loss


def latest(workdir):
    names = [n for n in os.listdir(workdir) if re.fullmatch(r"step_\d+\.eqx", n)] if os.path.isdir(workdir) else []
    return max(names, key=lambda n: int(n[5:-4]), default=None)


def save(workdir, step, model, ema, opt_state, key):
    os.makedirs(workdir, exist_ok=True)
    path = os.path.join(workdir, f"step_{step}.eqx")
    with open(path + ".part", "wb") as f:
        f.write((json.dumps({"step": step}) + "\n").encode())
        eqx.tree_serialise_leaves(f, (model, ema, opt_state, key))
    os.replace(path + ".part", path)


def load(path, like):
    with open(path, "rb") as f:
        header = json.loads(f.readline().decode())
        model, ema, opt_state, key = eqx.tree_deserialise_leaves(f, like)
    return header["step"], model, ema, opt_state, key


def digest(*trees):
    h = hashlib.sha256()
    for leaf in jax.tree.leaves(eqx.filter(trees, eqx.is_array)):
        h.update(np.asarray(leaf).tobytes())
    return h.hexdigest()


def train(args):
    data = cloud()
    key, model_key = jr.split(jr.PRNGKey(args.seed))
    model = ScoreNet(model_key)
    ema = model
    optim = make_optimizer(args.lr)
    opt_state = optim.init(eqx.filter(model, eqx.is_array))
    start = 0
    if args.resume and latest(args.workdir):
        path = os.path.join(args.workdir, latest(args.workdir))
        start, model, ema, opt_state, key = load(path, (model, ema, opt_state, key))
        print("continuing after step", start, flush=True)

    step_fn = functools.partial(make_step, optim=optim)
    loss = float("nan")
    for step in range(start + 1, (args.stop_after or args.steps) + 1):
        x = batch_at(data, step, args.batch_size)
        key, step_key = jr.split(key)
        model, ema, opt_state, loss = step_fn(model, ema, opt_state, x, step_key)
        if step % 4 == 0:
            save(args.workdir, step, model, ema, opt_state, key)
    return model, ema, loss


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--stop-after", type=int, default=None)
    parser.add_argument("--workdir", type=str, required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--batch-size", type=int, default=32)
    model, ema, loss = train(parser.parse_args())
    print("digest", digest(model, ema))
    print("last loss", float(loss))
