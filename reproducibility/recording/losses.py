"""The losses of a step: refused, or kept with every bit.

The rule: a ledger has each as a hexadecimal float, of which none is rounded.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import numpy as np

from reproducibility.recording.step_words import traced_refusal
from reproducibility.same.leaves import BITS

LOSSES = 64  # of a step, at most


def losses_of(step: int, loss: Any, members: int | None) -> tuple[list[str] | None, Any]:
    """Return the losses of the host as texts, or the array that is on the device.

    Args:
        step: Of which they are.
        loss: What the loop gave.
        members: How many trainings it is of; or None.

    Raises:
        ValueError: It is no number, or of another shape, or traced.
    """
    if isinstance(loss, jax.core.Tracer):
        raise traced_refusal("the loss")
    usual = members is None and isinstance(loss, jax.Array) and not loss.ndim
    if usual and _is_of_numbers(loss.dtype):
        return None, loss
    shape = np.shape(loss)
    each = shape if members is None else shape[1:]
    if loss is not None and members is not None and shape[:1] != (members,):
        raise ValueError(
            f"Cannot record step {step}: expected a loss for each of {members} members, got "
            f"one of shape {shape}."
        )
    if math.prod(each) > LOSSES or not math.prod(each):
        raise ValueError(
            f"Cannot record step {step}: expected a loss, or up to {LOSSES}, got one of shape "
            f"{shape}. Give its mean."
        )
    array = loss if isinstance(loss, jax.Array) else np.asarray(0.0 if loss is None else loss)
    if not _is_of_numbers(array.dtype):
        raise ValueError(f"Cannot record step {step}: expected a number as its loss, got {loss!r}.")
    if loss is None or (array is loss and isinstance(loss, jax.Array)):
        return None, loss  # its bits too: the loop may donate it before it is fetched
    rows = array.reshape(1 if members is None else members, -1)
    return [_loss_text(row.tolist()) for row in rows], None


@functools.cache
def _is_of_numbers(dtype: Any) -> bool:
    return dtype.name in BITS and dtype.kind != "c"


def loss_texts_of(words: Any, kind: Any) -> list[str] | None:
    """Return the losses of steps as the ledger has them, from the last words of each.

    Args:
        words: Of each step.
        kind: Dtype and number of the losses of a step; or None.
    """
    if kind is None:
        return None
    dtype, many = kind
    content = np.ascontiguousarray(words[:, words.shape[1] - many :]).view(np.uint8)
    losses = np.ascontiguousarray(content[..., : dtype.itemsize]).view(dtype)
    return [_loss_text(row) for row in losses.reshape(len(words), -1).tolist()]


def _loss_text(losses: list[Any]) -> str:
    rounded = next((loss for loss in losses if float(loss) != loss == loss), None)
    if rounded is not None:
        raise ValueError(
            f"Cannot record a loss: expected one that float64 can hold, got {rounded}. "
            "Give it as a leaf of a stage."
        )
    return " ".join(float(loss).hex() for loss in losses)
