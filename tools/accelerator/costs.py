"""What our tools cost on this device, each against the same thing without it, measured by turns."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tools.accelerator.asked import attempt
from tools.accelerator.trainings import batch_of, started, stepped

MEGABYTES = 64
AGAIN = 8  # of so many calls one is computed a second time
STRETCH = 0.3  # seconds
WIDE = 1024
REPEATED_SCRIPT = """
from tools.accelerator.trainings import trained

for network in ("perceptron", "attention"):
    print(network, trained(network, 0, 40).digest)
"""


def by_turns(peer: Callable[[], Any], ours: Callable[[], Any], times: int = 5) -> float:
    """Return the ratio of the shortest times of two things that are done by turns."""
    ours(), peer()
    took: dict[Any, list[float]] = {peer: [], ours: []}
    for _ in range(times):
        for do, seconds in took.items():
            began = time.perf_counter()
            do()
            seconds.append(time.perf_counter() - began)
    return min(took[ours]) / min(took[peer])


def costs() -> Iterator[dict[str, Any]]:
    """Measure digest, fingerprint, recorder and `record`."""
    array = jnp.sin(jnp.arange(MEGABYTES * 2**18, dtype=jnp.float32))
    plain = lambda: hashlib.sha256(np.array(array + 0).data).hexdigest()  # noqa: E731
    named = f"{MEGABYTES} MiB on the device"
    yield {
        "what": f"`tree_digest` of {named}",
        "peer": "copying it to the host and one SHA-256",
    } | attempt(lambda: {"ratio": by_turns(plain, digested(array))})
    yield {"what": f"`fingerprint` of {named}", "peer": "the same"} | attempt(
        lambda: {"ratio": by_turns(plain, fingerprinted(array))}
    )
    loops = {
        "a step of `perceptron`": small_loop(),
        f"a step of a network {WIDE} wide": wide_loop(),
    }
    for (name, loop), (tool, with_tool) in itertools.product(loops.items(), TOOLS.items()):
        row = {"what": f"{tool}, {name}", "peer": "the loop without it"}
        yield row | attempt(lambda loop=loop, tool=with_tool: {"ratio": compared(loop, tool)})


def digested(array: Any) -> Callable[[], Any]:
    """Return what digests an array that nobody has fetched."""
    from reproducibility import tree_digest

    return lambda: tree_digest({"array": array + 0})


def fingerprinted(array: Any) -> Callable[[], Any]:
    """Return what fingerprints an array on the device."""
    from reproducibility import fingerprint

    program = jax.jit(fingerprint)
    return lambda: jax.block_until_ready(program({"array": array + 0}))


After = Callable[[int, Any, Any], None]
Loop = Callable[[int, After], None]


def small_loop() -> Loop:
    """Return the training of `perceptron`: so many steps, with a call after each."""
    step = jax.jit(lambda state, batch, n: stepped("perceptron", state, batch, n))
    batches = [jax.device_put(batch_of("perceptron", number)) for number in range(8)]
    return _loop(step, batches, started("perceptron"))


def wide_loop() -> Loop:
    """Return a training whose steps are work for an accelerator."""
    rng = np.random.default_rng(3)
    start = {n: rng.normal(size=(WIDE, WIDE)).astype(np.float32) / 32 for n in "abcdefgh"}
    batches = [jax.device_put(rng.normal(size=(512, WIDE)).astype(np.float32)) for _ in range(2)]

    def loss(weights: Any, x: Any) -> Any:
        for name in sorted(weights):
            x = jnp.tanh(x @ weights[name])
        return (x**2).mean()

    def step(weights: Any, x: Any, _: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(weights, x)
        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, grads), value

    return _loop(jax.jit(step), batches, start)


def _loop(step: Callable[..., Any], batches: list[Any], start: Any) -> Loop:
    state = [jax.device_put(start)]

    def loop(steps: int, after: After) -> None:
        for number in range(1, steps + 1):
            state[0], loss = step(state[0], batches[number % len(batches)], np.int32(number))
            after(number, state[0], loss)
        jax.block_until_ready(state)

    return loop


def nothing(number: int, state: Any, loss: Any) -> None:
    """Do nothing after a step."""


@contextlib.contextmanager
def with_recorder(folder: Path) -> Iterator[After]:
    """Write each step into a ledger."""
    from reproducibility import Recorder

    steps = itertools.count(1)
    with Recorder(folder / "ledger.jsonl", environment=False) as recorder:
        yield lambda _, state, loss: recorder.record(next(steps), loss=loss, params=state)


@contextlib.contextmanager
def with_record(folder: Path, again: int = 0) -> Iterator[After]:
    """Record each compiled call of the loop."""
    from reproducibility import record

    with contextlib.redirect_stderr(io.StringIO()), record(folder / "record", again=again):
        yield nothing


def with_again(folder: Path) -> contextlib.AbstractContextManager[After]:
    """Record each compiled call, and compute one of `AGAIN` a second time."""
    return with_record(folder, AGAIN)


TOOLS = {
    "`Recorder`": with_recorder,
    "`record`": with_record,
    f"`record --again {AGAIN}`": with_again,
}


def compared(loop: Loop, tool: Callable[[Path], Any], times: int = 3) -> float:
    """Return the ratio of a loop with a tool to the loop without: the shortest times, by turns.

    What begins and ends the tool, and what is compiled for it, is outside of what is timed.
    """
    steps, plain, with_tool = steps_of(loop), [], []
    for _ in range(times):
        plain.append(_seconds(loop, steps, nothing))
        with tempfile.TemporaryDirectory() as folder, tool(Path(folder)) as after:
            loop(AGAIN + 1, after)
            with_tool.append(_seconds(loop, steps, after))
    return min(with_tool) / min(plain)


def steps_of(loop: Loop) -> int:
    """Return how many steps take a third of a second: a multiple of `AGAIN`, 64 at most."""
    loop(2, nothing)
    one = _seconds(loop, 4, nothing) / 4
    return AGAIN * max(1, min(64 // AGAIN, round(STRETCH / one / AGAIN)))


def _seconds(loop: Loop, steps: int, after: After) -> float:
    began = time.perf_counter()
    loop(steps, after)
    return time.perf_counter() - began


def scripts(folder: str) -> Iterator[dict[str, Any]]:
    """Run a script as it is, and then with `twice` and with `record --again`."""
    script = Path(folder, "train.py")
    script.write_text(REPEATED_SCRIPT.lstrip(), encoding="utf-8")
    command = [sys.executable, str(script)]
    yield {"what": "`twice`"} | attempt(lambda: ran_twice(command))
    yield {"what": f"`record --again {AGAIN}`"} | attempt(
        lambda: recorded_again(Path(folder, "record"))
    )


def ran_twice(command: list[str]) -> dict[str, Any]:
    """Ask `twice` about a script."""
    from reproducibility import twice

    began = time.perf_counter()
    found = twice(command)
    took = time.perf_counter() - began
    return {"verdict": found.verdict, "says": found.reason, "seconds": round(took, 1)}


def recorded_again(folder: Path) -> dict[str, Any]:
    """Record two trainings in this process, and compute one of `AGAIN` calls a second time."""
    from reproducibility import record
    from reproducibility.script.recomputed import recomputed
    from tools.accelerator.trainings import trained

    began, said = time.perf_counter(), io.StringIO()
    with contextlib.redirect_stderr(said), record(folder, again=AGAIN):
        for name in ("perceptron", "attention"):
            trained(name, 0, 40)
    found = recomputed(folder)
    words = f"{found.computed} of {found.calls} calls were computed a second time"
    took = round(time.perf_counter() - began, 1)
    return {
        "verdict": found.reason if found.exit_code else "all came to the same",
        "says": words,
        "seconds": took,
    }
