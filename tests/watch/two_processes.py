"""A script in two processes: `python -m tests.watch.two_processes PORT NUMBER`."""

import json
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from reproducibility import compare_records, record
from reproducibility.script.reading import processes_of
from reproducibility.watch import hook, prints


def main(port: str, number: int) -> None:
    """Record a few steps on arrays of both processes, twice; print what the tests ask."""
    jax.distributed.initialize(f"localhost:{port}", 2, number)
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    whole, parts = (jax.sharding.NamedSharding(mesh, jax.P(*axes)) for axes in ((), ("x",)))
    array = np.arange(8, dtype=np.float32)

    def place(sharding: jax.sharding.Sharding) -> jax.Array:
        return jax.make_array_from_callback((8,), sharding, lambda index: array[index])

    step = jax.jit(lambda w, x: w + jnp.sum(x * 2), out_shardings=whole)
    facts = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a", "b"):
            with record(Path(folder, name)):
                w = place(whole)
                for _ in range(4):
                    w = step(w, place(parts))
                jax.block_until_ready(w)
        compared = compare_records(Path(folder, "a"), Path(folder, "b"))
        (process,) = processes_of(Path(folder, "a"))
        facts = {"verdict": [compared.verdict, compared.problems]}
        calls = [call for thread in process.threads for call in thread.calls()]
        steps = [call for call in calls if call.pattern.program.called == "<lambda>"]
        facts["results"] = [call.results for call in steps]
    with hook.unseen():
        pending = [prints.Prints().of([place(whole)]), prints.Prints().of([place(parts)])]
        found = prints.texts([*pending, prints.OfHost(array), prints.OfHost(array[:4])])
    facts["prints"] = found
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
