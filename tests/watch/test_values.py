"""What a script reads of an array is known by the call that made the array, and by its line."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from reproducibility.watch import host, values
from tests.watch.watched import run_script

SCRIPT = """\
import jax, jax.numpy as jnp
f = jax.jit(lambda x: ((x * 2).sum(), x + 1))
a, b = f(jnp.arange(4.0))
float(a)
b.tolist()
a.item()
jax.device_get(b)
a > 3 and print("more")
for _ in range(5000): float(a)
"""


def test_what_is_read_is_known_by_its_call(tmp_path: Path) -> None:
    """Each way to read an array is an event with its line; frequent ones are counted."""
    assert run_script(tmp_path, SCRIPT, record=tmp_path / "record") == "more\n"
    texts = (tmp_path / "record/process-1/host.txt").read_text().splitlines()
    events = [json.loads(text) for text in texts if not text.startswith("#")]
    read = [(e["lines"][0][1], e["what"]) for e in events if e["kind"] == "leaves"]
    # Call 0 makes the range, call 1 is f, call 2 compares.
    assert read[:5] == [(4, "1:1.0"), (5, "1:1.1"), (6, "1:1.0"), (7, "1:1.1"), (8, "1:2.0")]
    assert host.ENOUGH < read.count((9, "1:1.0")) < host.ENOUGH + 20


def test_only_the_script_is_watched_and_only_while_it_is() -> None:
    """What JAX reads for itself is not told, and in the end the class is as it was."""
    told: list[Any] = []
    watched = values.Values(lambda array, frame: told.append((array, frame.f_code.co_name)))
    array, kind = jnp.float32(2), type(jnp.float32(2))
    before = {name: vars(kind)[name] for name in values.HANDS_OUT if name in vars(kind)}
    watched.watch(kind)
    watched.watch(kind)
    try:
        assert (float(array), array.tolist(), jax.device_get(array)) == (2.0, 2.0, 2.0)
        repr(array)
        here = "test_only_the_script_is_watched_and_only_while_it_is"
        assert [name for _, name in told][:2] == [here, here]
        assert [name for _, name in told][2:] == ["_device_get"]
    finally:
        watched.restore()
    assert {name: vars(kind)[name] for name in before} == before
