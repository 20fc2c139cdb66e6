"""Scripts on eight devices, run in a process of its own; prints what the tests of this folder ask.

Each of them is counted by the runtime, and recorded twice: JAX's fast path in use, and not.
"""

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reproducibility import compare_records, record
from reproducibility.same.hashing import tree_digest
from reproducibility.script.reading import processes_of
from reproducibility.watch import hook, prints

EXECUTE = "CommonPjRtLoadedExecutable::Execute"


@functools.cache
def mesh() -> jax.sharding.Mesh:
    """Return all devices, four by two."""
    automatic = jax.sharding.AxisType.Auto
    return jax.make_mesh((4, 2), ("x", "y"), axis_types=(automatic, automatic))


def on(*spec: Any) -> Any:
    """Return a sharding over the mesh."""
    return jax.sharding.NamedSharding(mesh(), jax.P(*spec))


def mapped() -> Any:
    """Each device with its part, and a sum over all."""
    body = jax.shard_map(
        lambda x: x * 2 + jax.lax.psum(x.sum(), ("x", "y")),
        mesh=mesh(),
        in_specs=jax.P("x", "y"),
        out_specs=jax.P("x", "y"),
    )
    step, x = jax.jit(body), jax.device_put(np.arange(64.0).reshape(8, 8) / 64, on("x", "y"))
    for _ in range(4):
        x = step(x) / 100
    return x


def moved() -> Any:
    """An array that goes from one sharding to another, and to single devices."""
    x = jax.device_put(np.arange(64.0).reshape(8, 8), on("x"))
    for sharding in (on(None, "y"), on(), on("y", "x"), jax.devices()[3], on("x"), on("x", None)):
        x = jax.device_put(x, sharding)
        x = jax.jit(lambda x: x + 1)(x)
    return x


def replicated() -> Any:
    """Parameters on every device, batches in parts, and donation."""
    w = jax.device_put(np.ones((8, 3)), on())
    step = jax.jit(lambda w, x: w - 0.1 * (x.T @ (x @ w)) / 64, donate_argnums=0)
    for i in range(4):
        w = step(w, jax.device_put(np.full((16, 8), i + 1.0), on("x")))
    return w


def constrained() -> Any:
    """Shardings that are said inside of the program, and eager operations after it."""
    step = jax.jit(lambda x: jax.lax.with_sharding_constraint(jnp.sin(x), on("x")) + 1)
    x = jnp.ones((8, 2))
    for _ in range(3):
        x = step(x)
    return x, x[3:5] * 2


def in_a_mesh() -> Any:
    """A mesh that is set for all calls, with shardings that are part of the types."""
    explicit = jax.sharding.AxisType.Explicit
    with jax.set_mesh(jax.make_mesh((8,), ("x",), axis_types=(explicit,))):
        x, step = jax.device_put(np.ones((8, 2)), jax.P("x", None)), jax.jit(lambda x: x * 2)
        for _ in range(3):
            x = step(x)
        return x, jnp.ones(3).sum()


SCRIPTS: tuple[Callable[[], Any], ...] = (mapped, moved, replicated, constrained, in_a_mesh)


def executions(do: Callable[[], Any]) -> int:
    """Return how many programs the runtime says that it executed, once each for all devices."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(do())
        (trace,) = Path(folder).rglob("*.xplane.pb")
        names = [
            event.name
            for plane in jax.profiler.ProfileData.from_file(str(trace)).planes
            for line in plane.lines
            for event in line.events
        ]
    one, several = names.count(f"{EXECUTE}HelperOnSingleDevice"), f"{EXECUTE} ("
    return one + sum(name.startswith(several) for name in names)


def of_one(do: Callable[[], Any], folder: Path) -> dict[str, Any]:
    """Return what is asked of a script."""
    plain = tree_digest(jax.device_get(do()))
    found: dict[str, Any] = {"executions": executions(do)}
    for name in ("fast", "again", "slow"):
        hook.CAN_BE_FAST = name != "slow"
        with record(folder / name):
            results = do()
            found[f"{name} stays"] = hook._fast
        found[f"{name} is plain"] = tree_digest(jax.device_get(results)) == plain
        threads = [t for process in processes_of(folder / name) for t in process.threads]
        found[f"{name} calls"] = sum(1 for thread in threads for _ in thread.calls())
    hook.CAN_BE_FAST = True
    for other in ("again", "slow"):
        compared = compare_records(folder / "fast", folder / other)
        found[other] = [compared.verdict, compared.problems]
    return found


def of_arrays() -> dict[str, Any]:
    """Return the fingerprints of one array in parts and whole, and whether torn replicas show."""
    array = np.arange(64, dtype=np.float32).reshape(8, 8)
    places = [on("x"), on("x", "y"), on(), on(None, "y"), jax.devices()[5]]
    with hook.unseen():
        arrays = [jax.device_put(array, place) for place in places]
        halves = [np.zeros(40_000, np.float32) for _ in jax.devices()]
        halves[-1][2] = 1
        parts = [jax.device_put(h, d) for h, d in zip(halves, jax.devices(), strict=True)]
        torn = jax.make_array_from_single_device_arrays((40_000,), on(), parts)
        pending = [prints.Prints().of([*arrays, jnp.asarray(array)]), prints.Prints().of([torn])]
        found = prints.texts([*pending, prints.OfHost(array)])
    return {
        "fingerprints": [*found[0], *found[2]],
        "unlike": [each.unlike for each in pending],
    }


def of_memory(folder: Path) -> list[str]:
    """Return what a record says of memory in parts on all devices, of which NumPy wrote to one."""
    raw = np.zeros(4 * 8 * 16 + 64, np.uint8)
    begin = -raw.ctypes.data % 64
    buffer = raw[begin : begin + 4 * 8 * 16].view(np.float32).reshape(8, 16)
    with record(folder):
        x, look = jax.device_put(buffer, on(("x", "y"))), jax.jit(jnp.isnan)
        jax.block_until_ready(look(x))
        buffer[-1, -1] = 1
        jax.block_until_ready(look(x))
    (process,) = processes_of(folder)
    inputs = {call.values for thread in process.threads for call in thread.calls()}
    return [each.kind for each in process.events()] + [f"{len(inputs)} inputs"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        facts = {do.__name__: of_one(do, Path(name, do.__name__)) for do in SCRIPTS}
        memory = of_memory(Path(name, "memory"))
    print(json.dumps({"scripts": facts, "arrays": of_arrays(), "memory": memory}))
