"""Operations that accelerators are known for, beside the eighteen: by index, pooling, attention.

Those with duplicate indices add by index; on a GPU that may happen in the order of threads.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_rng = np.random.default_rng(5)
_places = _rng.integers(0, 1000, 200_000).astype(np.int32)
_values = _rng.normal(size=200_000).astype(np.float32)
_square = _rng.normal(size=(1024, 1024)).astype(np.float32)
_images = _rng.normal(size=(32, 32, 32, 16)).astype(np.float32)
_heads = _rng.normal(size=(3, 4, 512, 4, 64)).astype(np.float32)


def added_by_index(values: Any) -> Any:
    """Add many values into few places."""
    return jnp.zeros(1000).at[_places].add(values)


def pooled(images: Any) -> Any:
    """Return the sum of squares of a max-pooling with windows that overlap."""
    window = (1, 3, 3, 1), (1, 2, 2, 1), "VALID"
    return jnp.sum(jax.lax.reduce_window(images, -jnp.inf, jax.lax.max, *window) ** 2)


def attended(heads: Any, implementation: str | None = None) -> Any:
    """Return the sum of squares of attention."""
    q, k, v = heads
    out = jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation=implementation)
    return jnp.sum(out.astype(jnp.float32) ** 2)


def attended_by_cudnn(heads: Any) -> Any:
    """Return the same in bfloat16 by cuDNN, which there is on NVIDIA GPUs only."""
    return attended(heads.astype(jnp.bfloat16), "cudnn")


MORE_OPERATIONS = {
    "sum by index": (added_by_index, _values),
    "segment sum": (lambda v: jax.ops.segment_sum(v, jnp.asarray(_places), 1000), _values),
    "histogram with weights": (
        lambda v: jnp.histogram(v, bins=10, range=(-3, 3), weights=v * v)[0],
        _values,
    ),
    "gradient of an embedding": (
        jax.grad(lambda m: jnp.sum(jnp.sin(m[_places % 1024]))),
        _square[:, :32],
    ),
    "gradient of max-pooling": (jax.grad(pooled), _images),
    "a large product": (lambda m: m @ m, _square),
    "a large product, bfloat16": (
        lambda m: m.astype(jnp.bfloat16) @ m.astype(jnp.bfloat16),
        _square,
    ),
    "sort": (jnp.sort, _values),
    "attention": (attended, _heads),
    "gradient of attention": (jax.grad(attended), _heads),
    "gradient of attention by cuDNN, bfloat16": (jax.grad(attended_by_cudnn), _heads),
}
ONLY_ON = {"gradient of attention by cuDNN, bfloat16": "gpu"}
