"""Ring attention over eight virtual devices with shard_map and ppermute."""
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import argparse
import json
import pathlib
import tempfile
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

DIM = 16


def make_mesh(kind="ring"):
    devices = np.array(jax.devices())
    return Mesh(devices, (kind,))


def ring_attention(q, k, v, axis_name, size):
    perm = [(i, (i + 1) % size) for i in range(size)]

    def body(carry, _):
        k, v, m, num, den = carry
        s = q @ k.T / jnp.sqrt(DIM)
        new_m = jnp.maximum(m, s.max(-1))
        w = jnp.exp(s - new_m[:, None])
        scale = jnp.exp(m - new_m)
        num = num * scale[:, None] + w @ v
        den = den * scale + w.sum(-1)
        k = jax.lax.ppermute(k, axis_name, perm)
        v = jax.lax.ppermute(v, axis_name, perm)
        return (k, v, new_m, num, den), None

    rows = q.shape[0]
    vary = lambda a: jax.lax.pcast(a, axis_name, to="varying")
    init = (k, v, vary(jnp.full((rows,), -1e30)), vary(jnp.zeros((rows, DIM))), vary(jnp.zeros((rows,))))
    (_, _, _, num, den), _ = jax.lax.scan(body, init, None, length=size)
    return num / den[:, None]


def write_shards(folder, tokens, count):
    """Corpus in shards, with an index that names them."""
    parts = np.array_split(tokens, count)
    names = []
    for i, part in enumerate(parts):
        name = f"part-{i:05d}.npy"
        np.save(folder / name, part)
        names.append(name)
    (folder / "index.json").write_text(json.dumps({"shards": names}))


def read_shards(folder):
    index = json.loads((folder / "index.json").read_text())
    return np.concatenate([np.load(folder / name) for name in index["shards"]])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--workdir", default=None)
    ap.add_argument("--seed", type=int, default=42)
    args = ap.parse_args()
    folder = pathlib.Path(args.workdir or tempfile.mkdtemp(prefix="ring_"))
    folder.mkdir(parents=True, exist_ok=True)

    mesh = make_mesh()
    size = mesh.devices.size
    rng = np.random.default_rng(args.seed)
    write_shards(folder, rng.integers(0, 50, 64 * 6), 6)
    tokens = read_shards(folder)

    key_emb, key_proj, key_target = jax.random.split(jax.random.key(args.seed), 3)
    table = jax.random.normal(key_emb, (50, DIM))
    weights = jax.random.normal(key_proj, (3, DIM, DIM)) * 0.2
    target = jax.random.normal(key_target, (DIM,))

    attend = jax.shard_map(partial(ring_attention, axis_name="ring", size=size), mesh=mesh,
                           in_specs=(P("ring"), P("ring"), P("ring")), out_specs=P("ring"))

    @jax.jit
    def step(weights, x, lr):
        def loss_fn(w):
            out = attend(x @ w[0], x @ w[1], x @ w[2])
            return jnp.mean((out - target) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(weights)
        return weights - lr * grads, loss

    sharding = NamedSharding(mesh, P("ring"))
    schedule = {"warm": 0.05, "main": 0.5, "cool": 0.1}
    for phase, lr in schedule.items():
        for i in range(6):
            x = jax.device_put(table[tokens[i * 64:(i + 1) * 64]], sharding)
            weights, loss = step(weights, x, lr)
        print(phase, f"{float(loss):.6f}", x.sharding.spec)
    print("result:", repr(float(loss)), repr(float(jnp.abs(weights).sum())))


if __name__ == "__main__":
    main()
