"""Image-like classification with Haiku, batch norm state and a per-class file store."""
import argparse
import os
import pathlib
import tempfile
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

CLASSES = ["bar", "dot", "ring", "cross"]


class Learner(NamedTuple):
    params: hk.Params
    state: hk.State
    opt: optax.OptState


def draw(kind, rng, size=10):
    img = np.zeros((size, size), np.float32)
    r, c = rng.integers(2, size - 2, size=2)
    if kind == "bar":
        img[r, :] = 1
    elif kind == "dot":
        img[r - 1:r + 1, c - 1:c + 1] = 1
    elif kind == "ring":
        img[r - 2:r + 2, c - 2:c + 2] = 1
        img[r - 1:r + 1, c - 1:c + 1] = 0
    else:
        img[r, :] = 1
        img[:, c] = 1
    return img + rng.normal(scale=0.2, size=img.shape).astype(np.float32)


def write_dataset(root, per_class, seed):
    rng = np.random.default_rng(seed)
    for label, kind in enumerate(CLASSES):
        for i in range(per_class // 25):
            images = np.stack([draw(kind, rng) for _ in range(25)])
            name = f"{kind}-{i:03d}.npy"
            np.save(root / name, images)


def read_dataset(root):
    xs, ys = [], []
    for name in sorted(os.listdir(root)):
        if not name.endswith(".npy"):
            continue
        images = np.load(root / name)
        xs.append(images)
        ys.append(np.full(len(images), CLASSES.index(name.split("-")[0])))
    return np.concatenate(xs)[..., None], np.concatenate(ys).astype(np.int32)


def forward(images, is_training):
    x = hk.Conv2D(8, 3, stride=2)(images)
    x = hk.BatchNorm(True, True, 0.9)(x, is_training)
    x = jax.nn.relu(x)
    x = hk.Flatten()(x)
    if is_training:
        x = hk.dropout(hk.next_rng_key(), 0.2, x)
    return hk.Linear(len(CLASSES))(x)


net = hk.transform_with_state(forward)
tx = optax.sgd(0.05, momentum=0.9)


def loss_fn(params, state, rng, images, labels):
    logits, state = net.apply(params, state, rng, images, is_training=True)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, state


@jax.jit
def update(learner, rng, images, labels):
    (loss, state), grads = jax.value_and_grad(loss_fn, has_aux=True)(
        learner.params, learner.state, rng, images, labels)
    updates, opt = tx.update(grads, learner.opt)
    return Learner(optax.apply_updates(learner.params, updates), state, opt), loss


@jax.jit
def accuracy(learner, images, labels):
    logits, _ = net.apply(learner.params, learner.state, None, images, is_training=False)
    return jnp.mean(jnp.argmax(logits, -1) == labels)


def train(args, images, labels):
    rngs = hk.PRNGSequence(args.seed)
    params, state = net.init(next(rngs), jnp.zeros_like(images[:4]), is_training=True)
    learner = Learner(params, state, tx.init(params))
    order = np.arange(len(images))
    np.random.seed(args.seed)
    for epoch in range(args.epochs):
        np.random.shuffle(order)
        for i in range(0, len(order), 50):
            idx = order[i:i + 50]
            learner, loss = update(learner, next(rngs), images[idx], labels[idx])
        print(f"epoch={epoch} loss={loss:.4f} acc={accuracy(learner, images, labels):.3f}")
    return learner, loss


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=pathlib.Path, default=None)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    base = args.workdir or pathlib.Path(tempfile.mkdtemp(prefix="shapes"))
    base.mkdir(parents=True, exist_ok=True)
    root = pathlib.Path(tempfile.mkdtemp(dir=base, prefix="data"))
    write_dataset(root, 100, args.seed)
    images, labels = read_dataset(root)
    learner, loss = train(args, images, labels)
    total = sum(np.asarray(p, np.float64).sum() for p in jax.tree.leaves(learner.params))
    print(f"result: {float(total)!r} {float(loss)!r}")


if __name__ == "__main__":
    main()
