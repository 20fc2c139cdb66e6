"""Four small trainings that need JAX and NumPy alone, each with what accelerators are known for.

Data and first weights are drawn by NumPy, so they are the same on each device. `perceptron` has
matrix products and dropout, `convolution` has convolutions and max-pooling (whose gradient is a
select-and-scatter), `attention` an embedding (whose gradient is a scatter) and attention, and
`bfloat16` is the same in bfloat16.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

EXAMPLES = {"perceptron": 256, "convolution": 64, "attention": 16, "bfloat16": 16}
_OF_ATTENTION = {"embed": (256, 64), "qkv": (64, 192), "out": (64, 64), "head": (64, 256)}
_SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "perceptron": {"one": (64, 256), "two": (256, 256), "head": (256, 10)},
    "convolution": {"one": (3, 3, 3, 16), "two": (3, 3, 16, 32), "head": (32 * 8 * 8, 10)},
    "attention": _OF_ATTENTION,
    "bfloat16": _OF_ATTENTION,
}


@dataclass
class Stretch:
    """Some steps of a training: where they ended, and how long they took."""

    digest: str
    losses: list[float] = field(default_factory=list)
    first_ms: float = 0.0
    """Milliseconds of the first step, compiling included."""
    ms: float = 0.0
    """Milliseconds of a later step: the fastest, which other work on the machine changes least."""


def started(network: str) -> Any:
    """Return the state before the first step: weights, and the moments of the optimiser."""
    rng = np.random.default_rng(7)
    weights = {
        name: (rng.normal(size=shape) / np.prod(shape[:-1]) ** 0.5).astype(np.float32)
        for name, shape in _SHAPES[network].items()
    }
    zeros = {name: np.zeros_like(weight) for name, weight in weights.items()}
    return {"weights": weights, "moments": zeros}


def batch_of(network: str, step: int) -> Any:
    """Return the batch of a step, a function of its number."""
    rng, size = np.random.default_rng([11, step]), EXAMPLES[network]
    if network == "perceptron":
        x = rng.normal(size=(size, 64)).astype(np.float32)
    elif network == "convolution":
        x = rng.normal(size=(size, 32, 32, 3)).astype(np.float32)
    else:
        x = rng.integers(0, 256, (size, 32)).astype(np.int32)
        return x, np.roll(x, -1, axis=1)
    return x, rng.integers(0, 10, size).astype(np.int32)


def loss_of(network: str, weights: Any, batch: Any, key: Any) -> Any:
    """Return the mean loss of a batch."""
    x, labels = batch
    if network == "perceptron":
        logits = _perceptron(weights, x, key)
    elif network == "convolution":
        logits = _convolution(weights, x)
    else:
        dtype = jnp.bfloat16 if network == "bfloat16" else jnp.float32
        logits = _attention({name: w.astype(dtype) for name, w in weights.items()}, x)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)
    return -chosen.astype(jnp.float32).mean()


def stepped(network: str, state: Any, batch: Any, step: Any) -> Any:
    """Return the state after a step, and its loss."""
    key = jax.random.fold_in(jax.random.key(3, impl="threefry2x32"), step)
    loss, grads = jax.value_and_grad(lambda w: loss_of(network, w, batch, key))(state["weights"])
    return updated(state, grads), loss


def updated(state: Any, grads: Any) -> Any:
    """Return the state after an update with momentum."""
    moments = jax.tree.map(lambda m, g: 0.9 * m + g, state["moments"], grads)
    weights = jax.tree.map(lambda w, m: w - 0.05 * m, state["weights"], moments)
    return {"weights": weights, "moments": moments}


def trained(network: str, first: int, last: int, load: str = "", save: str = "") -> Stretch:
    """Train from the step after `first` to `last`, from a file or the start, into a file or not."""
    state = loaded(Path(load)) if load else started(network)
    step = jax.jit(lambda state, batch, n: stepped(network, state, batch, n))
    state, times, losses = jax.device_put(state), [], []
    for number in range(first + 1, last + 1):
        batch, began = jax.device_put(batch_of(network, number)), time.perf_counter()
        state, loss = jax.block_until_ready(step(state, batch, np.int32(number)))
        times.append(1000 * (time.perf_counter() - began))
        losses.append(float(loss))
    if save:
        saved(Path(save), state)
    later = min(times[1:], default=0.0)
    return Stretch(digest_of(state), losses, times[0], later)


def digest_of(tree: Any) -> str:
    """Return a digest of every bit of a tree of arrays."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        value = np.asarray(leaf)
        digest.update(f"{value.dtype} {value.shape} ".encode() + value.tobytes())
    return digest.hexdigest()


def saved(file: Path, state: Any) -> None:
    """Write a state into a file."""
    arrays = {f"{a}/{b}": np.asarray(x) for a, part in state.items() for b, x in part.items()}
    np.savez(file, **arrays)


def loaded(file: Path) -> Any:
    """Read a state from a file."""
    state: dict[str, dict[str, Any]] = {}
    with np.load(file) as arrays:
        for name in arrays.files:
            part, _, leaf = name.partition("/")
            state.setdefault(part, {})[leaf] = arrays[name]
    return state


def _perceptron(weights: Any, x: Any, key: Any) -> Any:
    hidden = jnp.tanh(x @ weights["one"])
    kept = jax.random.bernoulli(key, 0.9, hidden.shape)
    return jnp.tanh(jnp.where(kept, hidden / 0.9, 0) @ weights["two"]) @ weights["head"]


def _convolution(weights: Any, x: Any) -> Any:
    for name in ("one", "two"):
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, weights[name], (1, 1), "SAME", dimension_numbers=dimensions
        )
        x = jax.lax.reduce_window(
            jax.nn.relu(x), -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        )
    return x.reshape(len(x), -1) @ weights["head"]


def _attention(weights: Any, x: Any) -> Any:
    hidden = weights["embed"][x]
    qkv = (hidden @ weights["qkv"]).reshape(*x.shape, 3, 4, 16)
    q, k, v = qkv[..., 0, :, :], qkv[..., 1, :, :], qkv[..., 2, :, :]
    mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return (hidden + mixed.reshape(*x.shape, 64) @ weights["out"]) @ weights["head"]
