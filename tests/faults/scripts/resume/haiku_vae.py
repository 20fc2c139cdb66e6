"""Half-precision VAE with dynamic loss scaling: Haiku, jmp, optax; one pickle per checkpoint."""
import argparse
import glob
import hashlib
import os
import pickle

import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import numpy as np
import optax

DIM = 20
POLICY = jmp.get_policy("params=float32,compute=float16,output=float32")


def encoder_decoder(x, is_training):
    h = jax.nn.relu(hk.Linear(24, name="enc1")(x))
    h = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9, name="bn")(h, is_training)
    mean, log_var = jnp.split(hk.Linear(8, name="enc2")(h), 2, axis=-1)
    centre = hk.ExponentialMovingAverage(0.95, name="centre")(jnp.mean(mean, axis=0))
    z = mean - 0.1 * centre + jnp.exp(0.5 * log_var) * jax.random.normal(hk.next_rng_key(), mean.shape, mean.dtype)
    out = hk.Linear(DIM, name="dec2")(jax.nn.relu(hk.Linear(24, name="dec1")(z)))
    return out, mean, log_var


def records():
    rng = np.random.default_rng(99)
    basis = rng.normal(size=(3, DIM))
    for _ in range(200):
        yield (rng.normal(size=3) @ basis + 0.1 * rng.normal(size=DIM)).astype(np.float32)


class ShuffleBuffer:
    """Endless stream through a small reservoir, as tf.data's shuffle() does it."""

    def __init__(self, size, seed):
        self.source = list(records())
        self.rng = np.random.default_rng(seed)
        self.cursor = size
        self.buffer = [self.source[i] for i in range(size)]

    def batch(self, n):
        out = []
        for _ in range(n):
            j = int(self.rng.integers(len(self.buffer)))
            out.append(self.buffer[j])
            self.buffer[j] = self.source[self.cursor % len(self.source)]
            self.cursor += 1
        return np.stack(out)

    def state(self):
        return {"rng": self.rng.bit_generator.state, "cursor": self.cursor, "buffer": np.stack(self.buffer)}

    def set_state(self, s):
        self.rng.bit_generator.state = s["rng"]
        self.cursor = s["cursor"]
        self.buffer = list(s["buffer"])


class Experiment:
    def __init__(self, args):
        self.args = args
        self.net = hk.transform_with_state(encoder_decoder)
        self.opt = optax.adam(args.lr)
        self.keys = hk.PRNGSequence(args.seed)
        self.data = ShuffleBuffer(40, args.seed)
        self.params, self.state = self.net.init(next(self.keys), jnp.zeros((2, DIM)), True)
        self.opt_state = self.opt.init(self.params)
        self.loss_scale = jmp.DynamicLossScale(jnp.float32(2.0 ** 15), period=6)
        self.update = jax.jit(self._update)
        self.step = 0

    def _update(self, params, state, opt_state, loss_scale, rng, x):
        def loss_fn(params):
            p, xc = POLICY.cast_to_compute((params, x))
            (out, mean, log_var), new_state = self.net.apply(p, state, rng, xc, True)
            out, mean, log_var = POLICY.cast_to_output((out, mean, log_var))
            kl = -0.5 * jnp.sum(1 + log_var - mean ** 2 - jnp.exp(log_var), -1)
            loss = jnp.mean(jnp.sum((out - x) ** 2, -1) + self.args.beta * kl)
            return loss_scale.scale(loss), (loss, new_state)

        grads, (loss, new_state) = jax.grad(loss_fn, has_aux=True)(params)
        grads = loss_scale.unscale(POLICY.cast_to_param(grads))
        finite = jmp.all_finite(grads)
        updates, new_opt = self.opt.update(grads, opt_state, params)
        new_params = optax.apply_updates(params, updates)
        new_state = jax.tree.map(lambda new, old: new.astype(old.dtype), new_state, state)
        params, state, opt_state = jmp.select_tree(
            finite, (new_params, new_state, new_opt), (params, state, opt_state))
        return params, state, opt_state, loss_scale.adjust(finite), loss

    def path(self, step):
        return os.path.join(self.args.workdir, f"vae-{step:05d}.pkl")

    def save(self):
        os.makedirs(self.args.workdir, exist_ok=True)
        blob = {"params": self.params, "state": self.state, "opt_state": self.opt_state,
                "loss_scale": self.loss_scale, "keys": self.keys.internal_state,
                "data": self.data.state(), "step": self.step}
        with open(self.path(self.step) + ".tmp", "wb") as f:
            pickle.dump(jax.device_get(blob), f)
        os.rename(self.path(self.step) + ".tmp", self.path(self.step))

    def restore(self):
        found = sorted(glob.glob(self.path(0).replace("00000", "*")))
        if found:
            with open(found[-1], "rb") as f:
                blob = pickle.load(f)
            self.params = blob["params"]
            self.state = blob["state"]
            self.opt_state = blob["opt_state"]
            self.loss_scale = blob["loss_scale"]
            self.keys.replace_internal_state(blob["keys"])
            self.data.set_state(blob["data"])
            self.step = blob["step"]

    def run(self):
        loss = None
        while self.step < self.args.steps:
            x = self.data.batch(self.args.batch)
            rng = next(self.keys)
            self.params, self.state, self.opt_state, self.loss_scale, loss = self.update(
                self.params, self.state, self.opt_state, self.loss_scale, rng, x)
            self.step += 1
            if self.step % self.args.save_every == 0:
                self.save()
        h = hashlib.sha256()
        for leaf in jax.tree.leaves((self.params, self.state)):
            h.update(np.asarray(leaf).tobytes())
        print("digest", h.hexdigest())
        print("last loss", float(loss))


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--steps", type=int, default=30)
    ap.add_argument("--workdir", required=True)
    ap.add_argument("--resume", action="store_true")
    ap.add_argument("--seed", type=int, default=42)
    ap.add_argument("--batch", type=int, default=12)
    ap.add_argument("--lr", type=float, default=4e-3)
    ap.add_argument("--beta", type=float, default=0.2)
    ap.add_argument("--save-every", type=int, default=7)
    experiment = Experiment(ap.parse_args())
    if experiment.args.resume:
        experiment.restore()
    experiment.run()
