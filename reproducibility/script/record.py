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
from reproducibility.script.findings import said_of
from reproducibility.script.start import new_directory
from reproducibility.watch import hook
from reproducibility.watch.begin import Session


@contextlib.contextmanager
def record(directory: str | Path, *, again: int = 0, keys: bool = False) -> Iterator[None]:
    """Record every compiled call of JAX that is made meanwhile, in this process.

    Calls of functions that were compiled before are seen too, and nothing is compiled again. What
    is asked of the machine (entropy, the clock, folders) is recorded for commands only.

    **Same bits:** recording changes none: it runs programs of its own on what yours return.

    Args:
        directory: a new or empty directory.
        again: compute one of so many calls a second time, from the same inputs, and compare the
            results by bits; what came of it is said on stderr. 0 is none.
        keys: look for keys that are drawn from twice, in programs that are compiled meanwhile;
            what was found is said on stderr.

    Raises:
        ConfigError: the directory holds something, this process is being recorded already, or
            `again` is negative.

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
    if again < 0:
        raise ConfigError("use", "again", expected="0 or more", got=again, do="Try 16.")
    new_directory(Path(directory))
    session = Session(str(directory), again=again, keys=keys)
    session.install()
    try:
        yield
    finally:
        session.end()
        if again or keys:
            sys.stderr.write("".join(f"{line}\n" for line in said_of(Path(directory))))
