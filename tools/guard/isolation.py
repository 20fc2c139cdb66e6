"""Give each block of a page an empty directory and a fresh state, and put everything back.

What cannot be put back is what a process reads once: XLA_FLAGS, the platform, the number of
devices. A page shows those in a child process. A block that replaces a function of some module puts
it back itself.
"""

from __future__ import annotations

import builtins
import io
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import jax
import numpy as np


@contextmanager
def isolated() -> Iterator[Path]:
    """Work in an empty directory; restore environment, paths, settings and seeds afterwards."""
    with ExitStack() as stack:
        for restored in (environment, import_state, builtin_names, jax_settings, numpy_and_random):
            stack.enter_context(restored())
        yield stack.enter_context(empty_directory())


@contextmanager
def empty_directory() -> Iterator[Path]:
    """Make a temporary directory the working directory and the first place imports look."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="block-", ignore_cleanup_errors=True) as name:
        os.chdir(name)
        sys.path.insert(0, name)
        try:
            yield Path(name)
        finally:
            os.chdir(before)


@contextmanager
def environment() -> Iterator[None]:
    """Restore os.environ; programs beside this interpreter come first, and lines are 100 wide."""
    before = dict(os.environ)
    programs = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([programs, before.get("PATH", os.defpath)])
    os.environ.update(COLUMNS="100", NO_COLOR="1", TERM="dumb")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def import_state() -> Iterator[None]:
    """Restore sys.path and sys.argv, and forget modules imported from a block's directory."""
    path, argv, modules = sys.path[:], sys.argv[:], set(sys.modules)
    sys.argv[:] = [""]
    try:
        yield
    finally:
        added = set(sys.path) - set(path)
        sys.path[:], sys.argv[:] = path, argv
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if any(entry and file.startswith(entry + os.sep) for entry in added):
                del sys.modules[name]


@contextmanager
def builtin_names() -> Iterator[None]:
    """Restore the builtins: showing a value, as a docstring's example does, leaves it there as `_`.

    A library that looks through the builtins when it is imported finds it: Tyro fails on a tuple
    that holds a dict.
    """
    before = dict(vars(builtins))
    try:
        yield
    finally:
        vars(builtins).update(before)
        for name in vars(builtins).keys() - before.keys():
            delattr(builtins, name)


@contextmanager
def jax_settings() -> Iterator[None]:
    """Restore every setting of jax.config that changed."""
    before = dict(jax.config.values)
    try:
        yield
    finally:
        for name, value in dict(jax.config.values).items():
            if value != before.get(name, value):
                jax.config.update(name, before[name])  # type: ignore[no-untyped-call]


@contextmanager
def numpy_and_random() -> Iterator[None]:
    """Seed the global generators from the system, as a new process does; restore them after."""
    states: tuple[Any, Any] = np.random.get_state(), random.getstate()
    options: Any = np.get_printoptions()
    np.random.seed(None)
    random.seed()
    try:
        yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])
        np.set_printoptions(**options)


class Capture:
    """What was written to stdout, once the capture has ended."""

    text = ""


@contextmanager
def captured_stdout() -> Iterator[Capture]:
    """Capture what is written to stdout, by this process and by those it starts."""
    capture = Capture()
    with tempfile.TemporaryFile() as file:
        sys.stdout.flush()
        saved = os.dup(1)
        os.dup2(file.fileno(), 1)
        # Unbuffered, so that lines of child processes stand where they were written.
        stream = io.TextIOWrapper(os.fdopen(os.dup(1), "wb", 0), "utf-8", write_through=True)
        try:
            with stream, redirect_stdout(stream):
                yield capture
        finally:
            os.dup2(saved, 1)
            os.close(saved)
            file.seek(0)
            capture.text = file.read().decode("utf-8", "backslashreplace")
