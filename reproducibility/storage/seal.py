"""What a seal says of a leaf, and the words for what does not match it.

The rule: damage is said only where bytes do not match their seal; what cannot be read is unread.
Chapter: docs/components/checkpoint_explained.md
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from reproducibility.errors import (
    CheckpointDamagedError,
    CheckpointMismatchError,
    CheckpointReadError,
    LeafError,
    and_more,
    first_line,
)
from reproducibility.same.hashing import (
    LeafPath,
    is_key,
    named_leaves,
    path_string,
)

type Host = list[tuple[LeafPath, Any]]
SEAL_FORMAT = 1
SEAL = "seal.json"
ARRAYS = "arrays"


def kind_and_first_line(error: Exception) -> str:
    """Return the kind of an error and the two ends of its first line: what, and why."""
    line = first_line(error) if str(error).strip() else ""
    short = line if len(line) <= 200 else f"{line[:80]} … {line[-110:]}"
    number = re.search(r"os_error_code='(\d+)'", line)  # TensorStore says why anywhere in its line
    why = os.strerror(int(number[1])) if number else ""
    return f"{type(error).__name__}{line and ': '}{short}{'' if why in short else f' ({why})'}"


def leaves_by_name(tree: PyTree) -> dict[str, Any]:
    """Return the leaves by name; refuse what is no array and describes none."""
    leaves = {path_string(path): leaf for path, leaf in named_leaves(tree)}
    for name, leaf in leaves.items():
        if not hasattr(leaf, "dtype") or isinstance(leaf, jax.core.Tracer):
            raise LeafError(
                "checkpoint",
                f"leaf {name}",
                expected="an array or a typed key",
                got=f"a value of type {type(leaf).__name__}",
                do="State its dtype, for example np.float32(value), outside of jit.",
            )
    return leaves


def sealed_spec(leaf: Any) -> dict[str, Any]:
    """Describe a leaf as the seal does; the dtype of a key, "key<fry>", tells its kind."""
    return {"dtype": leaf.dtype.name, "shape": list(leaf.shape)}


def prng_of_leaf(leaf: Any) -> dict[str, str]:
    """Name the PRNG implementation of a leaf of keys."""
    return {"prng": str(jax.random.key_impl(leaf))} if is_key(leaf) else {}


def _describe(spec: dict[str, Any]) -> str:
    return f"{spec['dtype']}[{','.join(map(str, spec['shape']))}]"


def damage_error(
    folder: Path,
    step: int,
    expected: str,
    got: str = "",
    files: Sequence[str] = (),
    leaves: Sequence[str] = (),
) -> CheckpointDamagedError:
    """Say which files are not as they were, and which leaves that concerns."""
    if files and not got:
        spoilt = (
            f"with {'it' if len(files) == 1 else 'them'} {and_more(leaves, 3)}" if leaves else ""
        )
        got = f"{and_more(files, 3)} altered, and {spoilt or 'no leaf spoilt'}"
    error = CheckpointDamagedError(
        "use",
        "a checkpoint",
        path=folder,
        step=step,
        expected=expected,
        got=got or f"others in {and_more(leaves, 3)}",
        do="Use an earlier one.",
    )
    error.files, error.leaves = tuple(files), tuple(leaves)
    return error


def unread_error(
    folder: Path, step: int, failed: Exception | None, leaves: Sequence[str]
) -> CheckpointReadError:
    """Say what came of reading files that are intact."""
    error = CheckpointReadError(
        "restore",
        "a checkpoint",
        path=folder,
        step=step,
        expected="the leaves that were sealed, from files that are intact",
        got=kind_and_first_line(failed) if failed else f"others in {and_more(leaves, 3)}",
        do="The checkpoint is not damaged: look at memory, at the shardings asked for, and at the "
        "versions of Orbax and JAX.",
    )
    error.leaves = tuple(leaves)
    return error


def refuse_other_leaves(
    saved: dict[str, Any], wanted: dict[str, Any], folder: Path, step: int
) -> None:
    """Refuse the first leaf that is not in the checkpoint as `wanted` has it."""

    def refuse(name: str, expected: str, got: str, do: str) -> None:
        raise CheckpointMismatchError(
            "restore", f"leaf {name}", path=folder, step=step, expected=expected, got=got, do=do
        )

    for name, leaf in wanted.items():
        expected = _describe(sealed_spec(leaf))
        if name not in saved:
            near = difflib.get_close_matches(name, set(saved) - set(wanted), n=1)
            got = f"no such leaf, but an unknown {near[0]}" if near else "no such leaf"
            refuse(name, expected, got, "Restore with the model that was saved.")
        got = _describe(saved[name])
        if got != expected:
            do = "Restore as it was saved; what is wanted instead, make from that."
            refuse(name, expected, got, do)
    for name in saved:
        if name not in wanted:
            refuse(
                name,
                "no such leaf",
                _describe(saved[name]),
                "Add it to the tree, or drop it knowingly: restore all, then take what you need.",
            )


def safe_copy(leaf: Any) -> Any:
    """Return a leaf to hash later: safe from what the caller does with theirs."""
    if isinstance(leaf, np.ndarray | np.generic):
        return np.array(leaf)
    if not leaf.is_fully_addressable:  # and then replicated
        leaf = leaf.addressable_data(0)  # this process's own: nothing to wait for
    return jnp.copy(leaf) if is_key(leaf) else np.asarray(jax.device_get(leaf))
