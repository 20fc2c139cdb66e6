"""Feed a small convolutional net from a Grain pipeline with two worker processes."""
import argparse
import hashlib
import os
import tempfile

import grain.python as grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags


class Shapes:
    """Synthetic images: a bright bar, horizontal or vertical."""

    def __init__(self, n, seed):
        rng = np.random.default_rng(seed)
        self.where = rng.integers(1, 7, n)
        self.kind = rng.integers(0, 2, n)

    def __len__(self):
        return len(self.where)

    def __getitem__(self, i):
        image = np.zeros((8, 8), np.float32)
        if self.kind[i]:
            image[self.where[i]] = 1.0
        else:
            image[:, self.where[i]] = 1.0
        return {"image": image, "label": np.int32(self.kind[i])}


class AddNoise(grain.RandomMapTransform):
    def __init__(self, scale):
        self.scale = scale

    def random_map(self, element, rng):
        noise = rng.normal(0, self.scale, element["image"].shape)
        return {**element, "image": (element["image"] + noise).astype(np.float32)}


class Crop(grain.RandomMapTransform):
    def random_map(self, element, rng):
        dx, dy = rng.integers(0, 2, 2)
        return {**element, "image": np.roll(element["image"], (dx, dy), (0, 1))}


def make_loader(source, seed, workers, epochs, batch):
    sampler = grain.IndexSampler(
        num_records=len(source), shuffle=True, seed=seed, num_epochs=epochs,
        shard_options=grain.NoSharding())
    ops = [Crop(), AddNoise(0.3), grain.Batch(batch, drop_remainder=True)]
    return grain.DataLoader(data_source=source, sampler=sampler, operations=ops,
                            worker_count=workers, worker_buffer_size=2)


def init(key):
    k1, k2 = jax.random.split(key)
    return {"conv": jax.random.normal(k1, (4, 1, 3, 3)) * 0.3,
            "out": jax.random.normal(k2, (4 * 36, 2)) * 0.05}


def logits_fn(params, image):
    h = jax.lax.conv(image[:, None], params["conv"], (1, 1), "VALID")
    return jax.nn.relu(h).reshape(len(image), -1) @ params["out"]


tx = optax.sgd(0.1, momentum=0.9)


@jax.jit
def step(params, opt, image, label):
    def loss_fn(p):
        return optax.softmax_cross_entropy_with_integer_labels(logits_fn(p, image), label).mean()

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, opt = tx.update(grads, opt)
    return optax.apply_updates(params, updates), opt, loss


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--workdir", default=tempfile.gettempdir())
    p.add_argument("--seed", type=int, default=11)
    p.add_argument("--workers", type=int, default=2)
    args = p.parse_args()
    flags.FLAGS.mark_as_parsed()  # grain's workers read absl flags
    source = Shapes(192, args.seed)
    loader = make_loader(source, args.seed, args.workers, epochs=2, batch=16)
    params = init(jax.random.PRNGKey(args.seed))
    opt = tx.init(params)
    seen = 0
    for i, batch in enumerate(loader):
        params, opt, loss = step(params, opt, batch["image"], batch["label"])
        seen += len(batch["label"])
        if i % 6 == 0:
            print(f"batch {i} seen {seen} loss {float(loss):.5f}")
    digest = hashlib.sha256(np.asarray(params["conv"]).tobytes() + np.asarray(params["out"]).tobytes())
    print("result:", seen, digest.hexdigest()[:32])


if __name__ == "__main__":
    main()
