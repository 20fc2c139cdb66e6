"""With JAX's 64 bits on: every tool works on states that need them; only `train` refuses.

One process has them on, does all of it, and tells; this one compares.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import root_key, step_key, stream_key, tree_digest

PROGRAM = """
import json, sys, tempfile
import jax
import jax.numpy as jnp
import numpy as np
import reproducibility as r
from reproducibility import testing

assert jnp.arange(3.0).dtype == jnp.float64, "this process needs the 64 bits"

def state(**changed):
    parts = {"w": jnp.arange(3.0), "i": jnp.int64(2**40), "c": jnp.complex128(0.1 + 2j)}
    parts |= {"f": jnp.float32([0.1, 2]), "u": jnp.uint64(2**63 + 1), "n": np.float64(0.1)}
    return parts | {"key": r.root_key(7)} | changed

OTHERS = {
    "w": jnp.arange(3.0).at[1].set(np.nextafter(1.0, 2.0)),
    "i": jnp.int64(2**41), "u": jnp.uint64(1), "c": jnp.complex128(0.1 + 1e-16 + 2j),
}

def store(folder):
    with r.CheckpointStore(folder + "/store") as store:
        store.save(1, state())
        restored = store.restore(state())
    testing.assert_bitwise_equal(restored, state())
    return {name: str(leaf.dtype) for name, leaf in restored.items()}

def recorder(folder):
    found = {}
    for name, changed in {"same": {}, **{n: {n: leaf} for n, leaf in OTHERS.items()}}.items():
        for file, tree in (("a", state()), (name, state(**changed))):
            with r.Recorder(f"{folder}/{name}.{file}") as recorder:
                recorder.record(1, params=tree, loss=tree["w"][1], key=tree["key"])
        found[name] = r.compare(f"{folder}/{name}.a", f"{folder}/{name}.{name}").verdict
    return found

def failing(check, *args, **settings):
    try:
        check(*args, **settings)
    except (AssertionError, r.ConfigError) as error:
        return str(error)
    return "passed"

def assertions():
    def advance(s, n):
        for _ in range(n):
            noise = jax.random.normal(r.step_key(s["key"], s["n"]), (3,))
            s = {**s, "w": s["w"] / 3 + noise, "n": s["n"] + 1}
        return s
    start = {"w": jnp.arange(3.0), "n": jnp.int64(0), "key": r.root_key(7)}
    lost = lambda s, n: advance({**s, "w": s["w"].astype("float32").astype("float64")}, n)
    seeds = jax.vmap(r.root_key)(jnp.arange(4))
    return [
        failing(testing.assert_resumable, advance, start),
        failing(testing.assert_resumable, lost, start)[:30],
        failing(testing.assert_seed_matters, lambda seed: jax.random.normal(r.root_key(seed))),
        failing(testing.assert_seeds_differ, jax.vmap(jax.random.normal)(seeds)),
        failing(testing.assert_bitwise_equal, state(), state(w=OTHERS["w"])),
    ]

def operations(x):
    return (jnp.sin(x) * 0.1).sum()

with tempfile.TemporaryDirectory() as folder:
    key = r.root_key(7)
    drawn = jax.tree.map(jnp.asarray, r.generator_state(np.random.default_rng(5)))
    keys = [r.step_key(key, 3), r.stream_key(key, "a"), jax.jit(r.step_key)(key, 3)]
    others = [state(**{n: leaf}) for n, leaf in OTHERS.items()]
    print_of = jax.jit(r.fingerprint)
    said = {
        "digest": r.tree_digest(state()),
        "others": [r.tree_digest(tree) != r.tree_digest(state()) for tree in others],
        "fingerprint": bool((jax.jit(r.fingerprint)(state()) == r.fingerprint(state())).all()),
        "fingerprints": [bool((print_of(t) != print_of(state())).any()) for t in others],
        "keys": [jax.random.key_data(k).tolist() for k in keys],
        "store": store(folder),
        "recorder": recorder(folder),
        "trace": [[o.name, o.shapes[0]] for o in r.trace(operations, jnp.arange(3.0)).operations],
        "distance": str(r.distance(np.float64(0.3), np.float64(0.1 + 0.2))),
        "assertions": assertions(),
        "generator": float(r.generator_from_state(drawn).random()),
        "train": failing(r.train, r.TrainConfig(seed=7, steps=2)).partition(":")[0],
    }
print(json.dumps(said))
"""


@pytest.mark.long
def test_with_64_bits() -> None:
    """Digest, fingerprint, keys, store, recorder, trace, distance, assertions and generators work
    where JAX has 64 bits, and narrow nothing; `train`, whose identity excludes them, refuses."""
    variables = {**os.environ, "JAX_ENABLE_X64": "1"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    key = root_key(7)
    words = {"w": np.arange(3.0), "i": np.int64(2**40), "c": np.complex128(0.1 + 2j)}
    words |= {"f": np.float32([0.1, 2]), "u": np.uint64(2**63 + 1), "n": np.float64(0.1)}
    keys = [step_key(key, 3), stream_key(key, "a"), step_key(key, 3)]
    assert said == {
        "digest": tree_digest(words | {"key": key}),  # of NumPy, where JAX has 32 bits
        "others": [True] * 4,
        "fingerprint": True,
        "fingerprints": [True] * 4,
        "keys": [jax.random.key_data(k).tolist() for k in keys],
        "store": {
            **{"w": "float64", "i": "int64", "c": "complex128", "f": "float32", "u": "uint64"},
            **{"n": "float64", "key": "key<fry>"},
        },
        "recorder": {"same": "same", **dict.fromkeys("wiuc", "different")},
        "trace": [["sin", "float64[3]"], ["mul", "float64[3]"], ["reduce_sum", "float64[]"]],
        "distance": "1 of 1 elements differ, by up to 1 ULP",
        "assertions": [
            "passed",
            "Resumed after 3 of 6 updates, ",
            "passed",
            "passed",
            "Not the same bits: leaf w: 1 of 3 elements differ, by up to 1 ULP.",
        ],
        "generator": np.random.default_rng(5).random(),
        "train": "Cannot start a run with this JAX setting",
    }
    assert jnp.arange(3.0).dtype == jnp.float32
