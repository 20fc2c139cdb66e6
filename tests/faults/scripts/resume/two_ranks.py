"""Two processes with gloo; rank 0 writes the checkpoint, both read it."""
import argparse
import os
import socket
import subprocess
import sys


def work(args, rank):
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.experimental import multihost_utils
    from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{args.port}", num_processes=2, process_id=rank,
                               initialization_timeout=60)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())

    def everywhere(value):
        return jax.make_array_from_process_local_data(whole, np.asarray(value), np.shape(value))

    @jax.jit
    def step(w, trace, x, y):
        grad = jax.grad(lambda w: jnp.mean((jnp.tanh(x @ w) - y) ** 2))(w)
        trace = 0.9 * trace + grad
        return w - 0.2 * trace, trace

    w = np.random.RandomState(3).randn(4).astype(np.float32)
    trace, begin = np.zeros(4, np.float32), 0
    path = os.path.join(args.workdir, "state.npz")
    if args.resume:
        with np.load(path) as saved:
            w, trace, begin = saved["w"], saved["trace"], int(saved["step"])
    w, trace = everywhere(w), everywhere(trace)
    for i in range(begin, 12):
        rng = np.random.default_rng([8, rank, i])
        x = rng.normal(size=(16, 4)).astype(np.float32)
        y = np.tanh(x @ np.array([1, -1, 0.5, 0], np.float32))
        gx = jax.make_array_from_process_local_data(split, x)
        gy = jax.make_array_from_process_local_data(split, y)
        w, trace = step(w, trace, gx, gy)
        if i % 3 == 2:
            if rank == 0:
                np.savez(path, w=np.asarray(w.addressable_data(0)), step=i + 1,
                         trace=np.asarray(trace.addressable_data(0)))
            multihost_utils.sync_global_devices(f"saved {i}")
        if i + 1 == args.stop_after:
            break
    if rank == 0 and i == 11:
        print("result:", np.asarray(w.addressable_data(0)).tobytes().hex(), flush=True)
    multihost_utils.sync_global_devices("end")
    jax.distributed.shutdown()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--stop-after", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--rank", type=int)
    parser.add_argument("--port", type=int)
    args = parser.parse_args()
    if args.rank is not None:
        return work(args, args.rank)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        args.port = s.getsockname()[1]
    other = subprocess.Popen([sys.executable, os.path.abspath(__file__), *sys.argv[1:],
                              "--rank", "1", "--port", str(args.port)])
    try:
        work(args, 0)
        other.wait(timeout=60)
    finally:
        if other.poll() is None:
            other.kill()


if __name__ == "__main__":
    main()
