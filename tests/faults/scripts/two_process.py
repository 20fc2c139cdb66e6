"""Two processes on localhost: jax.distributed with gloo collectives."""
import argparse
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def parse():
    p = argparse.ArgumentParser()
    p.add_argument("--workdir", default=tempfile.gettempdir())
    p.add_argument("--rank", type=int, default=None)
    p.add_argument("--port", type=int, default=None)
    p.add_argument("--seed", type=int, default=9)
    p.add_argument("--rounds", type=int, default=12)
    return p.parse_args()


def local_rows(rank, seed, n=48):
    import numpy as np

    rng = np.random.default_rng(seed * 100 + rank)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    w = np.arange(1, 6, dtype=np.float32) / 5
    y = np.tanh(x @ w) + rng.normal(0, 0.05, n).astype(np.float32)
    return x, y.astype(np.float32)


def worker(args, rank):
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.experimental import multihost_utils
    from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{args.port}", num_processes=2, process_id=rank,
                               initialization_timeout=40)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows = NamedSharding(mesh, P("data"))
    everywhere = NamedSharding(mesh, P())
    x, y = local_rows(jax.process_index(), args.seed)
    gx = jax.make_array_from_process_local_data(rows, x)
    gy = jax.make_array_from_process_local_data(rows, y)
    w0 = np.random.RandomState(args.seed).randn(5).astype(np.float32)
    w = jax.make_array_from_process_local_data(everywhere, w0, (5,))

    @jax.jit
    def step(w, x, y, lr):
        def loss_fn(w):
            return jnp.mean((jnp.tanh(x @ w) - y) ** 2)

        loss, grad = jax.value_and_grad(loss_fn)(w)
        return w - lr * grad, loss

    lr = np.float32(0.3)
    for i in range(args.rounds):
        w, loss = step(w, gx, gy, lr)
        if rank == 0 and i % 4 == 0:
            print(f"round {i} loss {float(loss):.6f}", flush=True)
    total = multihost_utils.process_allgather(jnp.float32(x.sum()))
    if rank == 0:
        out = np.asarray(w.addressable_data(0))
        digest = hashlib.sha256(out.tobytes() + np.asarray(total).tobytes()).hexdigest()[:32]
        print("result:", digest, repr(float(loss)), flush=True)
    multihost_utils.sync_global_devices("done")
    jax.distributed.shutdown()


def main():
    args = parse()
    if args.rank is not None:
        worker(args, args.rank)
        return
    args.port = free_port()
    child = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--rank", "1",
                              "--port", str(args.port), "--seed", str(args.seed),
                              "--rounds", str(args.rounds)])
    try:
        worker(args, 0)
        child.wait(timeout=40)
    finally:
        if child.poll() is None:
            child.kill()


if __name__ == "__main__":
    main()
