"""Character model, batches made by a background thread and a bounded queue."""
import argparse
import hashlib
import pathlib
import queue
import tempfile
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

TEXT = ("the quick brown fox jumps over the lazy dog while seven wizards "
        "make toxic brew for the evil queen and jack ") * 8
CONTEXT = 8


def vocabulary(text):
    return {c: i for i, c in enumerate(sorted(set(text)))}


def encode(text, vocab):
    return np.array([vocab[c] for c in text], np.int32)


class Prefetcher:
    """Runs `make(i)` for i in range(count) on a thread, hands out in order."""

    def __init__(self, make, count, depth=4):
        self.make = make
        self.count = count
        self.queue = queue.Queue(depth)
        self.thread = threading.Thread(target=self._fill, daemon=True)
        self.thread.start()

    def _fill(self):
        for i in range(self.count):
            self.queue.put(self.make(i))
        self.queue.put(None)

    def __iter__(self):
        while True:
            item = self.queue.get()
            if item is None:
                return
            yield item


def batch_maker(codes, seed, size):
    def make(i):
        rng = np.random.default_rng([seed, i])
        starts = rng.integers(0, len(codes) - CONTEXT - 1, size)
        x = np.stack([codes[s:s + CONTEXT] for s in starts])
        y = codes[starts + CONTEXT]
        return x, y

    return make


def init(key, vocab, width=24):
    ks = jax.random.split(key, 3)
    return {"emb": jax.random.normal(ks[0], (vocab, 8)) * 0.3,
            "w": jax.random.normal(ks[1], (CONTEXT * 8, width)) * 0.1,
            "out": jax.random.normal(ks[2], (width, vocab)) * 0.1}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--workdir", default=tempfile.gettempdir())
    p.add_argument("--seed", type=int, default=5)
    p.add_argument("--steps", type=int, default=120)
    args = p.parse_args()
    vocab = vocabulary(TEXT)
    codes = encode(TEXT, vocab)
    params = init(jax.random.PRNGKey(args.seed), len(vocab))
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))
    opt = tx.init(params)

    @jax.jit
    def step(params, opt, x, y):
        def loss_fn(p):
            h = jnp.tanh(p["emb"][x].reshape(x.shape[0], -1) @ p["w"])
            return optax.softmax_cross_entropy_with_integer_labels(h @ p["out"], y).mean()

        loss, g = jax.value_and_grad(loss_fn)(params)
        up, opt2 = tx.update(g, opt, params)
        return optax.apply_updates(params, up), opt2, loss

    losses = []
    begin = time.time()
    feed = Prefetcher(batch_maker(codes, args.seed, 32), args.steps)
    for i, (x, y) in enumerate(feed):
        params, opt, loss = step(params, opt, x, y)
        losses.append(loss)
        if i % 30 == 0:
            print(f"step {i} loss {float(loss):.5f}")
    print(f"{args.steps / (time.time() - begin):.0f} steps/s")
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    print("result:", digest.hexdigest()[:32], repr(float(jnp.stack(losses).sum())))


if __name__ == "__main__":
    main()
