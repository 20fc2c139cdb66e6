"""CNN on small synthetic pictures: NumPy loader with augmentation, checkpoints, early stopping."""
import argparse
import os
import pickle
import queue
import random
import tempfile
import threading
import time
import uuid

import jax
import jax.numpy as jnp
import numpy as np
import optax

SIZE, CROP = 12, 10


def make_images(rng, n):
    labels = rng.integers(0, 3, n)
    images = rng.normal(scale=0.3, size=(n, SIZE, SIZE)).astype(np.float32)
    for img, label in zip(images, labels):
        k = rng.integers(2, SIZE - 2)
        if label == 0:
            img[k] += 1.0
        elif label == 1:
            img[:, k] += 1.0
        else:
            np.fill_diagonal(img, 1.0)
    return images, labels.astype(np.int32)


class Loader:
    """Shuffles, crops and flips in NumPy, with a prefetch thread."""

    def __init__(self, images, labels, batch, seed):
        self.images, self.labels, self.batch = images, labels, batch
        self.rng = np.random.default_rng(seed)

    def augment(self, image):
        top, left = self.rng.integers(0, SIZE - CROP + 1, size=2)
        image = image[top:top + CROP, left:left + CROP]
        if self.rng.random() < 0.5:
            image = image[::-1, ::-1]
        return image

    def produce(self, out):
        order = self.rng.permutation(len(self.images))
        for i in range(0, len(order), self.batch):
            idx = order[i:i + self.batch]
            out.put((np.stack([self.augment(self.images[j]) for j in idx])[..., None], self.labels[idx]))
        out.put(None)

    def __iter__(self):
        out = queue.Queue(maxsize=4)
        threading.Thread(target=self.produce, args=(out,), daemon=True).start()
        while (item := out.get()) is not None:
            yield item


def init(seed):
    k = jax.random.split(jax.random.PRNGKey(seed), 3)
    he = jax.nn.initializers.he_normal()
    return {"c1": he(k[0], (3, 3, 1, 8)), "c2": he(k[1], (3, 3, 8, 8)), "w": he(k[2], (8 * 3 * 3, 3)), "b": jnp.zeros(3)}


def logits_fn(params, x):
    for name in ("c1", "c2"):
        x = jax.lax.conv_general_dilated(x, params[name], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x)
    return x.reshape(x.shape[0], -1) @ params["w"] + params["b"]


def loss_fn(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits_fn(params, x), y).mean()


tx = optax.adam(3e-3)
eval_loss = jax.jit(loss_fn)


@jax.jit
def train_step(params, opt_state, x, y):
    grads = jax.grad(loss_fn)(params, x, y)
    updates, opt_state = tx.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--workdir", default=None)
    ap.add_argument("--seed", type=int, default=9)
    ap.add_argument("--patience", type=int, default=3)
    args = ap.parse_args()
    workdir = args.workdir or tempfile.mkdtemp()
    os.makedirs(workdir, exist_ok=True)
    run_dir = tempfile.mkdtemp(dir=workdir)

    images, labels = make_images(np.random.default_rng(args.seed), 400)
    val_x, val_y = images[320:, 1:1 + CROP, 1:1 + CROP, None], labels[320:]
    loader = Loader(images[:320], labels[:320], 32, args.seed + 1)
    params = init(args.seed)
    opt_state = tx.init(params)
    best, bad, started = np.inf, 0, time.monotonic()
    for epoch in range(12):
        for x, y in loader:
            params, opt_state = train_step(params, opt_state, x, y)
        val = float(eval_loss(params, val_x, val_y))
        print(f"epoch {epoch} val {val:.4f} after {time.monotonic() - started:.2f}s")
        if val < best - 1e-3:
            best, bad = val, 0
            with open(os.path.join(run_dir, "best.pkl"), "wb") as f:
                pickle.dump(jax.device_get(params), f)
        else:
            bad += 1
        if bad >= args.patience:
            print("early stop")
            break
    with open(os.path.join(run_dir, "best.pkl"), "rb") as f:
        params = pickle.load(f)
    total = sum(float(np.abs(p).sum(dtype=np.float64)) for p in jax.tree.leaves(params))
    print(f"result: {total!r} {best!r}")


if __name__ == "__main__":
    main()
