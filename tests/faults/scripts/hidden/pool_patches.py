"""Patches of pictures, cut by a pool of threads, and a dictionary learned from them."""
import argparse
import hashlib
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", False)
jax.config.update("jax_default_prng_impl", "threefry2x32")
jax.config.update("jax_threefry_partitionable", True)
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_num_cpu_devices", 1)

import jax.numpy as jnp
import numpy as np


class Picture:
    def __init__(self, number):
        self.number = number
        rng = np.random.default_rng(number)
        self.pixels = rng.integers(0, 256, (24, 24)).astype(np.float32) / 256


def cut(picture):
    corners = np.random.default_rng(100 + picture.number).integers(0, 16, (12, 2))
    return np.stack([picture.pixels[a:a + 8, b:b + 8].ravel() for a, b in corners])


def all_patches(pictures):
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(cut, picture) for picture in pictures]
        return [future.result() for future in futures]


@jax.jit
def improve(atoms, patches):
    def loss(a):
        codes = jax.nn.relu(patches @ a.T)
        return jnp.mean((codes @ a - patches) ** 2)

    return atoms - 0.5 * jax.grad(loss)(atoms)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    pictures = [Picture(number) for number in range(8)]
    name = f"run-{args.seed}"
    atoms = jax.random.uniform(jax.random.key(args.seed), (10, 64)) / 8
    for _ in range(2):
        for patches in all_patches(pictures):
            atoms = improve(atoms, patches)
    (args.workdir / f"{name}.txt").write_text(f"{time.time()} {threading.active_count()}")
    print("result:", hashlib.sha1(np.asarray(atoms).tobytes()).hexdigest())


if __name__ == "__main__":
    main()
