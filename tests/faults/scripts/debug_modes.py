"""A sparse-coding script as left over from a debugging afternoon."""
import argparse
import functools
import hashlib
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np


@functools.partial(jax.jit, static_argnames=("iters",))
def ista(dictionary, y, lam, iters):
    step = 1.0 / jnp.linalg.norm(dictionary, 2) ** 2

    def body(_, z):
        z = z - step * dictionary.T @ (dictionary @ z - y)
        return jnp.sign(z) * jnp.maximum(jnp.abs(z) - lam * step, 0.0)

    return jax.lax.fori_loop(0, iters, body, jnp.zeros((dictionary.shape[1], y.shape[1])))


@jax.jit
def refit(dictionary, codes, y, damp):
    gram = codes @ codes.T + damp * jnp.eye(codes.shape[0])
    new = jnp.linalg.solve(gram, codes @ y.T).T
    norms = jnp.linalg.norm(new, axis=0)
    return jnp.where(norms > 1e-3, new / jnp.maximum(norms, 1e-6), dictionary)


def residual(dictionary, codes, y):
    return jnp.linalg.norm(y - dictionary @ codes) / jnp.linalg.norm(y)


def tile_names(folder, rng, count):
    """Write some image tiles, come back with their names."""
    for i in range(count):
        tile = np.outer(np.sin(np.arange(4) * rng.uniform(0.5, 2)), np.cos(np.arange(4) * rng.uniform(0.5, 2)))
        np.save(folder / f"tile{i:02d}.npy", tile.astype(np.float32).ravel())
    return [f.name for f in sorted(folder.iterdir()) if f.suffix == ".npy"]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--workdir", default=None)
    p.add_argument("--seed", type=int, default=77)
    args = p.parse_args()
    folder = pathlib.Path(args.workdir or tempfile.mkdtemp(prefix="tiles_")) / "tiles"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    names = tile_names(folder, rng, 24)
    y = np.stack([np.load(folder / name) for name in names], axis=1)
    y = y + 0.01 * rng.standard_normal(y.shape).astype(np.float32)
    dictionary = jax.random.normal(jax.random.key(args.seed), (16, 20))
    dictionary = dictionary / jnp.linalg.norm(dictionary, axis=0)
    iters = 40
    for epoch in range(6):
        codes = ista(dictionary, y, 0.05, iters)
        dictionary = refit(dictionary, codes, y, 1e-3)
        print(f"epoch {epoch} residual {float(residual(dictionary, codes, y)):.6f}")
        if epoch == 2:
            jax.clear_caches()

    # was it compiled? nothing may trace here
    with jax.no_tracing(True):
        codes = ista(dictionary, y, 0.05, iters)

    # op by op, to compare with the compiled result
    with jax.disable_jit():
        slow = ista(dictionary, jnp.asarray(y), 0.05, 5)
    fast = ista(dictionary, y, 0.05, 5)
    print("disable_jit agrees", bool(jnp.allclose(slow, fast, atol=1e-4)))
    support = np.argsort(-np.abs(np.asarray(codes)).sum(1))[:5]
    print("most used atoms", len(support))
    digest = hashlib.sha256(np.asarray(dictionary).tobytes() + np.asarray(codes).tobytes() + np.asarray(slow).tobytes())
    print("result:", digest.hexdigest()[:32], repr(float(residual(dictionary, codes, y))))


if __name__ == "__main__":
    main()
