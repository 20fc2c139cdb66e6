"""Which line of the script is at work: where a call is made, or something is asked of the machine.

The rule: files of JAX and of the recorder are passed over; the script's own lines count most.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import os
import signal
from typing import Any

SITES = 3  # lines of source for each call
_OURS = os.path.dirname(os.path.abspath(__file__))
_PYTHON = os.path.dirname(os.__file__)

# Whose a file is, by the identity of a code object, which is kept alive so that no other gets it.
_owners: dict[int, tuple[str, Any]] = {}
SCRIPT, LIBRARY, PYTHON, JAX = "script", "library", "python", "jax"


def lines_of_source(frame: Any, *, of_host: bool = False) -> tuple[Any, ...]:
    """Return code and line number: the innermost that is not JAX's, then the script's own.

    For what is asked of the host the script's own come first, and there are none at all if it was
    asked on behalf of JAX, as for its cache of programs, or while a module is imported.
    """
    library: list[Any] = []
    script: list[Any] = []
    while frame is not None and len(script) < SITES:
        code = frame.f_code
        owner = owner_of(code)
        if of_host and not script:
            jax = owner == JAX and not code.co_filename.startswith(_OURS)
            if jax or code.co_filename.startswith("<frozen importlib"):
                return ()
        if owner == SCRIPT:
            script.append((code, frame.f_lineno))
        elif owner == LIBRARY and not script and not library:
            library.append((code, frame.f_lineno))
        frame = frame.f_back
    return tuple(([*script, *library] if of_host else [*library, *script])[:SITES])


def owner_of(code: Any) -> str:
    """Return whose a code object is."""
    known = _owners.get(id(code))
    if known is None:
        known = _owners[id(code)] = (owner_of_file(code.co_filename), code)
    return known[0]


def is_asked_by_script(frame: Any) -> bool:
    """Whether the innermost line that is not Python's own is the script's."""
    while frame is not None:
        owner = owner_of(frame.f_code)
        if owner != PYTHON and not frame.f_code.co_filename.startswith(_OURS):
            return owner == SCRIPT
        frame = frame.f_back
    return False


def place_of(frame: Any) -> tuple[int, ...]:
    """Return what stays the same from call to call where `lines_of_source` does, for less."""
    found: list[int] = []
    scripts = 0
    while frame is not None and scripts < SITES:
        code = frame.f_code
        known = _owners.get(id(code))
        owner = owner_of(code) if known is None else known[0]
        if owner == SCRIPT or (owner == LIBRARY and not found):
            found += (id(code), frame.f_lasti)
            scripts += owner == SCRIPT
        frame = frame.f_back
    return tuple(found)


def owner_of_file(name: str) -> str:
    """Return whose a file is."""
    parts = name.replace("\\", "/").split("/")
    installed = "site-packages" in parts or "dist-packages" in parts
    if name.startswith(_OURS) or (installed and {"jax", "jaxlib"} & set(parts[:-1])):
        return JAX
    if installed:
        return LIBRARY
    return PYTHON if name.startswith(("<frozen", _PYTHON)) else SCRIPT


def line_of_trace(trace: Any) -> tuple[str, int, str] | None:
    """Return the innermost line of the script, or else of a library, that an operation is from."""
    library = None
    for frame in trace.frames if trace is not None else ():
        owner = owner_of_file(frame.file_name)
        line = (frame.file_name, int(frame.line_num), frame.function_name)
        if owner == SCRIPT:
            return line
        if owner == LIBRARY and library is None:
            library = line
    return library


def is_of_library(about: str) -> bool:
    """Whether a function is JAX's or a library's, by what JAX says of it: `name at file:line`."""
    file = about.rpartition(" at ")[2].rpartition(":")[0]
    return bool(file) and owner_of_file(file) != SCRIPT


def is_of_a_signal(error: BaseException) -> bool:
    """Return whether a function raised an error that the script has called for a signal."""
    handlers = {signal.getsignal(number) for number in signal.valid_signals()}
    codes = {getattr(getattr(each, "func", each), "__code__", None) for each in handlers}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False
