"""Every program that JAX executes passes here: the only file that knows private names of JAX.

The rule: what JAX calls is an object of ours that calls JAX's own. Because it is no
`ExecuteReplicated`, JAX keeps no shortcut to the program, and every call comes.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import re
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

_busy = threading.local()  # whether this thread is at work for the recorder, or tests it


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """What this thread does meanwhile is the recorder's own work, and is not recorded."""
    before = getattr(_busy, "now", False)
    _busy.now = True
    try:
        yield
    finally:
        _busy.now = before


def is_unseen() -> bool:
    """Whether this thread is at work for the recorder."""
    return getattr(_busy, "now", False)


class Compiled:
    """What is known of a compiled program."""

    __slots__ = (
        *("arguments", "constants", "kept", "mutable", "name", "results", "shapes", "text"),
        "where",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = self.constants = self.where = ""
        self.arguments: tuple[str, ...] = ()
        self.results: tuple[str, ...] = ()
        self.shapes: tuple[str, ...] = ()  # of its arguments, those that it drops included
        self.kept: tuple[int, ...] | None = None
        self.mutable: tuple[Any, ...] = ()


class _Watched:
    """Stands where JAX keeps what executes a program."""

    __slots__ = ("__weakref__", "execute", "program")

    def __init__(self, execute: Callable[..., Any], program: Compiled) -> None:
        self.execute, self.program = execute, program

    def __call__(self, *arguments: Any) -> Any:
        tested: list[str] | None = getattr(_busy, "tested", None)
        if tested is not None:
            tested.append(self.program.name)
        if _watcher is None or is_unseen() or tested is not None:
            return self.execute(*arguments)
        return _watcher(self.program, self.execute, arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.execute, name)


class _SettingsOfCalls:
    """JAX's settings, as they are read where a call comes by.

    Under `no_tracing` JAX refuses any call that does not take the shortcut, as watched ones do not.
    Whatever is traced is still refused, where it is traced.
    """

    no_tracing = types.SimpleNamespace(value=False)

    def __init__(self, config: Any) -> None:
        self._config = config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)


type_of_watcher = Callable[[Compiled, Callable[..., Any], "tuple[Any, ...]"], Any]
_watcher: type_of_watcher | None = None  # one in a process
_originals: dict[str, Any] = {}


def install(
    watcher: type_of_watcher,
    entered: Callable[[list[Any], Any], None],
    describe: Callable[[Any, str], Compiled],
) -> None:
    """Have every call come to `watcher`, and every transfer from the host to `entered`."""
    global _watcher
    dispatch, pxla = _private("dispatch"), _private("interpreters.pxla")
    _watcher = watcher
    if _originals:
        return
    executable = pxla.MeshExecutable
    unsafe_call: Any = executable.unsafe_call
    from_hlo = pxla.UnloadedMeshExecutable.from_hlo
    put = dispatch._batched_device_put_impl
    pjit: Any = _private("pjit")
    _originals.update(unsafe_call=unsafe_call, from_hlo=from_hlo, put=put, config=pjit.config)

    def watched(self: Any) -> Any:
        call = unsafe_call.fget(self)
        if isinstance(call, _Watched) or is_unseen():
            return call
        program = _by_executable.get(id(self.xla_executable))
        if program is None:  # compiled before anyone watched
            program = describe(None, str(getattr(call, "name", "a program")))
        # One loaded program may serve two functions, which call its arguments otherwise.
        self._unsafe_call = _Watched(call, _with_names(copy.copy(program), self))
        return self._unsafe_call

    def compiled(name: str, hlo: Any, *rest: Any, **more: Any) -> Any:
        if is_unseen():
            return from_hlo(name, hlo, *rest, **more)
        program = describe(hlo, name)
        found = from_hlo(name, hlo, *rest, **more)
        loaded = getattr(found, "xla_executable", None)
        if loaded is not None:
            _by_executable[id(loaded)] = program
            _kept_alive.append(loaded)
        return found

    def put_on_devices(*arguments: Any, **named: Any) -> Any:
        found = put(*arguments, **named)
        if _watcher is not None and not is_unseen():
            entered(list(found), arguments)
        return found

    executable.unsafe_call = property(watched)
    pxla.UnloadedMeshExecutable.from_hlo = staticmethod(compiled)
    dispatch._batched_device_put_impl = put_on_devices
    pjit.config = _SettingsOfCalls(pjit.config)


def _private(name: str) -> Any:
    """Return a private module of JAX, which has been imported."""
    return importlib.import_module(f"jax._src.{name}")


def is_installed() -> bool:
    """Whether this process is being watched."""
    return bool(_originals)


def uninstall() -> None:
    """Leave JAX as it was; programs that were watched execute themselves from then on."""
    global _watcher
    _watcher = None
    if not _originals:
        return
    dispatch, pxla = _private("dispatch"), _private("interpreters.pxla")
    pxla.MeshExecutable.unsafe_call = _originals["unsafe_call"]
    pxla.UnloadedMeshExecutable.from_hlo = staticmethod(_originals["from_hlo"])
    dispatch._batched_device_put_impl = _originals["put"]
    _private("pjit").config = _originals["config"]
    _originals.clear()


# By the identity of what XLA loaded, which is kept alive so that no other one gets it.
_by_executable: dict[int, Compiled] = {}
_kept_alive: list[Any] = []


def self_test() -> str:
    """Run programs whose calls are known; return what was not seen, or nothing."""
    import jax.numpy as jnp
    import numpy as np

    jax: Any = sys.modules["jax"]

    def recorder_self_test(x: Any) -> Any:
        return x + 1

    seen: list[str] = []
    _busy.tested = seen
    try:
        with plain_settings():
            program = jax.jit(recorder_self_test)
            jax.block_until_ready([program(np.float32(i)) for i in range(3)])
            first = sum("recorder_self_test" in name for name in seen)
            ahead = program.lower(np.float32(0)).compile()
            jax.block_until_ready([ahead(np.float32(i)) for i in range(3)])
            then = sum("recorder_self_test" in name for name in seen) - first
            before = len(seen)
            jax.block_until_ready(jnp.zeros(1) + 1)
            eager = len(seen) - before
    finally:
        _busy.tested = None
    if (first, then) != (3, 3) or not eager:
        return f"of 3 calls, 3 compiled ahead and some eager ones, {first}, {then}, {eager} came"
    return ""


def text_of(hlo: Any) -> str:
    """Return a program's StableHLO, without places in the source."""
    return str(hlo.operation.get_asm(enable_debug_info=False))


def without_constants(text: str) -> str:
    """Return a program's StableHLO without the numbers that are written in it."""
    text, _, _ = text.partition("\n{-#")  # where large ones stand
    return re.sub(r"dense(_resource)?<[^>]*>", "dense", text)


def _with_names(program: Compiled, executable: Any) -> Compiled:
    """Add what the executable knows: the names of arguments and results in the user's function."""
    info: Any = getattr(executable, "_all_args_info", None)
    debug: Any = getattr(info, "debug_info", None)
    with contextlib.suppress(Exception):  # names explain a difference; without them it has none
        program.arguments = tuple(str(name) for name in debug.arg_names or ())
        program.results = tuple(str(name) for name in debug.result_paths or ())
        program.where = str(debug.func_src_info or "")
        program.shapes = tuple(aval.str_short(short_dtypes=True) for aval in info.in_avals)
    kept = getattr(executable, "_kept_var_idx", None)
    program.kept = None if kept is None else tuple(sorted(kept))
    mutation = getattr(executable, "_mut", None)
    program.mutable = tuple(mutation.in_mut) if mutation else ()
    return program


def plain_settings() -> contextlib.AbstractContextManager[Any]:
    """The settings under which the recorder's own programs are compiled and called."""
    config, stack = _private("config"), contextlib.ExitStack()
    for name, value in (
        ("enable_x64", True),
        ("disable_jit", False),
        ("debug_nans", False),
        ("debug_infs", False),
        ("check_tracer_leaks", False),
        ("log_compiles", False),
        ("enable_compilation_cache", False),
        ("no_tracing", False),
        ("transfer_guard_host_to_device", "allow"),
        ("transfer_guard_device_to_device", "allow"),
        ("transfer_guard_device_to_host", "allow"),
    ):
        state = getattr(config, name, None)
        if callable(state):
            stack.enter_context(state(value))
    return stack


def devices_of(array: Any) -> int:
    """Return on how many devices an array lies."""
    return len(array.sharding.device_set)
