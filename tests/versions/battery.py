"""A script of many kinds of calls, for Python 3.10 and JAX 0.6 on: it prints what it computed.

With `FAULT` set, one input differs. With `COUNT` set, it prints how many programs the runtime says
that it executed. With `eight`, it is the part for eight devices.
"""

import gzip
import json
import os
import re
import sys
import tempfile
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

warnings.simplefilter("ignore")
FAULT = np.float32(os.environ.get("FAULT", "0"))
EXECUTED = re.compile(r"ExecuteHelper(OnSingleDevice)?$")

step = jax.jit(lambda w, x: w * 0.9 + x)
donating = jax.jit(lambda w, x: w * 0.9 + x, donate_argnums=0)


def called_back(x: Any) -> Any:
    """Call JAX while a program runs."""
    return np.asarray(step(jnp.asarray(x), jnp.float32(1)))


def refuse(x: Any) -> Any:
    """Raise an error while JAX traces."""
    raise ValueError("no")


def jitted() -> Any:
    """Call one function with numbers of NumPy; a fault is planted here."""
    w = jnp.zeros(3)
    for i in range(3):
        w = step(w, np.float32(i) + FAULT)
    return w


def eager() -> Any:
    """Call operations, one by one."""
    return jnp.sort(jnp.arange(7.0) % 3 + 1)[::2]


def donated() -> Any:
    """Give arguments away."""
    w = jnp.zeros(3)
    for i in range(3):
        w = donating(w, np.float32(i))
    return w


def callbacks() -> Any:
    """Call a function of the host, which calls JAX."""
    shape = jax.ShapeDtypeStruct((3,), np.float32)
    program = jax.jit(lambda x: jax.pure_callback(called_back, shape, x) + 1)
    return program(jnp.arange(3.0))


def keys() -> Any:
    """Draw, and split a key."""
    first, second = jax.random.split(jax.random.key(0))
    return jax.random.normal(first, (3,)), jax.random.key_data(second)


def exchanged() -> Any:
    """Share memory with NumPy."""
    return step(jnp.from_dlpack(np.ones(64, np.float32)), jnp.float32(2))


def threads() -> Any:
    """Call JAX in threads, one after the other."""
    found: list[Any] = []
    for i in range(2):
        work = threading.Thread(target=lambda i=i: found.append(step(jnp.float32(i), jnp.ones(2))))
        work.start()
        work.join()
    return found


def raised() -> Any:
    """Look at the traceback of an error."""
    try:
        jax.jit(refuse)(jnp.ones(2))
    except ValueError:
        print(traceback.format_exc().count("\n"), "watch" in traceback.format_exc())
    return jnp.ones(1)


def on_a_mesh() -> Any:
    """Move an array between shardings, in a mesh."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), "d")
    lies = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    x = jax.device_put(np.arange(16, dtype=np.float32), lies)
    with mesh:
        y = jax.jit(lambda x: jnp.cumsum(x) * x)(x)
    return step(y, x)


def mapped() -> Any:
    """Map a function over devices."""
    return jax.pmap(lambda x: jax.lax.psum(x * 2, "i"), "i")(np.arange(8, dtype=np.float32))


ONE = (jitted, eager, donated, callbacks, keys, exchanged, threads, raised)
EIGHT = (on_a_mesh, mapped)


def executions(folder: str) -> int:
    """Return how many programs the runtime says that it executed."""
    profile: Any = jax.profiler.ProfileData
    if profile is None:  # in older versions
        (exported,) = Path(folder).rglob("*.trace.json.gz")
        document = json.loads(gzip.decompress(exported.read_bytes()))
        names = [event.get("name", "") for event in document["traceEvents"]]
    else:
        (trace,) = Path(folder).rglob("*.xplane.pb")
        planes = profile.from_file(str(trace)).planes
        names = [event.name for plane in planes for line in plane.lines for event in line.events]
    return sum(EXECUTED.search(name) is not None for name in names)


def main() -> None:
    """Run it."""
    jax.devices()
    counting = "COUNT" in os.environ
    with tempfile.TemporaryDirectory() as folder:
        if counting:
            jax.profiler.start_trace(folder)
        for each in EIGHT if "eight" in sys.argv else ONE:
            for leaf in jax.tree_util.tree_leaves(jax.block_until_ready(each())):
                print(each.__name__, np.asarray(leaf).tobytes().hex())
        if counting:
            jax.profiler.stop_trace()
            print("executions", executions(folder))


if __name__ == "__main__":
    main()
