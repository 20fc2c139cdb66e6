"""Record a command, or a part of a notebook.

The rule: what is recorded goes on as if nobody watched.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from reproducibility.errors import ConfigError
from reproducibility.script.start import new_directory
from reproducibility.watch import hook
from reproducibility.watch.begin import Session


@contextlib.contextmanager
def record(directory: str | Path) -> Iterator[None]:
    """Record every compiled call of JAX that is made meanwhile, in this process.

    Calls of functions that were compiled before are seen too, and nothing is compiled again. What
    is asked of the machine (entropy, the clock, folders) is recorded for commands only.

    **Same bits:** recording changes none: it runs programs of its own on what yours return.

    Args:
        directory: a new or empty directory.

    Raises:
        ConfigError: the directory holds something, or this process is being recorded already.

    Examples:
        >>> import tempfile
        >>> import jax.numpy as jnp
        >>> from reproducibility import compare_records, record
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a", "b"):
        ...         with record(f"{folder}/{name}"):
        ...             total = jnp.ones(3).sum()
        ...     compare_records(Path(folder, "a"), Path(folder, "b")).verdict
        'same'
    """
    if hook.is_installed() or "_reproducibility_watch" in sys.modules:
        raise ConfigError(
            "record",
            "this process",
            expected="one that nobody records",
            got="one that is being recorded",
            do="Leave one of the two recorders out.",
        )
    new_directory(Path(directory))
    session = Session(str(directory))
    session.install()
    try:
        yield
    finally:
        session.end()
