"""Every program that JAX executes passes here: the only file that knows private names of JAX.

The rule: each execution is seen exactly once, with the program that it was. A call that JAX's
C++ executes by itself is seen on its way out, where JAX puts the results together as we told it to;
every other call passes the function of JAX that executes programs.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .compiled import Compiled
from .names import with_names
from .settings import SettingsOfCalls, plain_settings
from .source import is_of_a_signal

_busy = threading.local()  # what this thread is at, and with which arguments


class unseen:
    """What this thread does meanwhile is the recorder's own work, and is not recorded."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = getattr(_busy, "now", False)
        _busy.now = True

    def __exit__(self, *error: object) -> None:
        _busy.now = self._before


def given_now() -> Any:
    """Return what `before` has returned for the call that this thread is at."""
    return getattr(_busy, "given", None)


def is_unseen() -> bool:
    """Whether this thread is at work for the recorder."""
    return getattr(_busy, "now", False)


class Watch(NamedTuple):
    """Who is told what happens."""

    # Execute a program with these arguments, and return its results.
    called: Callable[[Compiled, Callable[..., Any], tuple[Any, ...]], Any]
    # JAX's C++ may be about to execute something with these arguments: look at them. Whether that
    # is likely comes along, the function, and what `before` has returned for a call around this.
    before: Callable[[list[Any], bool, Any, Any], Any]
    # It has executed this; comes with what `before` returned, or None.
    after: Callable[[Any, _Way, Sequence[Any]], None]
    # Arrays were put on a device; from these.
    entered: Callable[[list[Any], Any], None]
    # An array was made of what lies in memory that belongs to something else: this.
    borrowed: Callable[[Any, Any], None]
    # Return what is known of a program that is being compiled.
    describe: Callable[[Any, str], Compiled]
    may_be_fast: bool = True
    # Put something around what lowers a program, so that it leaves what it draws from there.
    lowering: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None


_watch: Watch | None = None  # one in a process
_originals: list[tuple[Any, str, Any]] = []  # what was replaced, where
CAN_BE_FAST = sys.version_info >= (3, 12)  # from then on Python calls what a class of C++ is given
_fast = False  # whether JAX's C++ executes programs by itself


class _Way(NamedTuple):
    """How JAX's C++ executes a program by itself."""

    program: Compiled
    tree: Any  # of its results
    constants: tuple[Any, ...]  # arrays that come before the arguments of the call
    arguments: int  # how many there are of both, those that the program drops included


class _Results(NamedTuple):
    """A tree of results that `_returned` puts together when JAX's C++ does."""

    leaves: Sequence[Any]
    way: _Way


def install(watch: Watch) -> None:
    """Have every execution told to `watch`, those of functions that are compiled already included.

    JAX's C++ goes on to execute programs by itself where that can be seen.
    """
    global _watch, _fast
    _watch = watch
    if _originals:
        return
    with contextlib.suppress(Exception):  # else we stand among the lines that a program is from
        _private("source_info_util").register_exclusion(__file__)
    with contextlib.suppress(Exception):  # else among those that an error went through
        _private("traceback_util").register_exclusion(os.path.dirname(__file__))
    _fast = CAN_BE_FAST and watch.may_be_fast
    pxla, pjit, dispatch = _private("interpreters.pxla"), _private("pjit"), _private("dispatch")
    loading = pxla.UnloadedMeshExecutable
    executable, replicated = pxla.MeshExecutable, pxla.ExecuteReplicated
    _replace(loading, "from_hlo", staticmethod(_describing(loading.from_hlo)))
    _replace(pxla.MeshComputation, "compile", _described_late(pxla.MeshComputation.compile))
    if watch.lowering is not None:
        lower = pxla.lower_sharding_computation
        _replace(pxla, "lower_sharding_computation", watch.lowering(lower))
    _replace(executable, "unsafe_call", property(_learning_names(executable.unsafe_call.fget)))
    _replace(replicated, "__call__", _executing(replicated.__call__))
    _replace(pxla, "MeshExecutableFastpathData", _seen_path(pxla.MeshExecutableFastpathData))
    _replace(pjit, "_get_fastpath_data", _if_fast(pjit._get_fastpath_data))
    _replace(dispatch, "_batched_device_put_impl", _putting(dispatch._batched_device_put_impl))
    for place in filter(None, (_private("dlpack"), sys.modules.get("jax.dlpack"))):
        _replace(place, "from_dlpack", _borrowing(place.from_dlpack))
    _replace(pjit, "config", SettingsOfCalls(pjit.config))
    if hasattr(_private("api"), "_PmapFastpathData"):  # before JAX 0.8, `pmap` has one of its own
        _replace(_private("api"), "_PmapFastpathData", lambda *anything, **named: None)
    if _fast:
        kind = _class_of_functions()
        _replace(kind, "__call__", _calling(kind.__call__))
    _forget_fast_paths()


def uninstall() -> None:
    """Leave JAX as it was; programs that were watched execute themselves from then on."""
    global _watch
    _watch = None
    while _originals:
        owner, name, original = _originals.pop()
        setattr(owner, name, original)
        if not _originals:
            _forget_fast_paths()


def _replace(owner: Any, name: str, by: Any) -> None:
    _originals.append((owner, name, vars(owner)[name]))
    setattr(owner, name, by)


def is_installed() -> bool:
    """Whether this process is being watched."""
    return bool(_originals)


def _private(name: str) -> Any:
    """Return a private module of JAX, which has been imported."""
    return importlib.import_module(f"jax._src.{name}")


def is_traced(value: Any) -> bool:
    """Whether a value stands for an array that is not there yet."""
    return isinstance(value, sys.modules["jax"].core.Tracer)


def _class_of_functions() -> Any:
    """Return the class of jitted functions: of eager operations and programs compiled ahead too."""
    jax: Any = sys.modules["jax"]
    return type(jax.jit(_private))


def _forget_fast_paths() -> None:
    """Have JAX's C++ ask again how it calls what; nothing is traced or compiled anew."""
    caches: Any = type(_private("pjit")._cpp_pjit_cache_fun_only)
    _private("pjit")._cpp_pjit_cache_fun_only.clear()
    _private("pjit")._cpp_pjit_cache_explicit_attributes.clear()
    caches.clear_all()
    for mapped in list(getattr(_private("api"), "_pmap_cache_clears", ())):
        mapped._cache_clear()


# Of what XLA loaded, by its identity: it is kept alive so that no other one gets that.
_by_executable: dict[int, Compiled] = {}
_own: set[int] = set()  # those of the recorder
_kept_alive: list[Any] = []

# Of what executes it in JAX, by its identity: one loaded program may serve two functions, which
# call its arguments otherwise.
_by_execution: dict[int, tuple[Any, Compiled]] = {}


def _describing(from_hlo: Callable[..., Any]) -> Callable[..., Any]:
    def compiled(name: str, hlo: Any, *rest: Any, **more: Any) -> Any:
        program = _watch.describe(hlo, name) if _watch is not None else None
        if program is not None and program.heard and more.get("host_callbacks"):
            more["host_callbacks"] = program.heard(more["host_callbacks"])
        if program is not None:
            program.draws = getattr(_busy, "draws", None)
        found = from_hlo(name, hlo, *rest, **more)
        loaded = getattr(found, "xla_executable", None)
        if loaded is not None and program is not None:
            _remember(loaded, program)
        return found

    return compiled


def _described_late(compile: Callable[..., Any]) -> Callable[..., Any]:
    """Describe programs that were compiled before anyone watched: JAX has kept their text."""

    def compiled(self: Any, *arguments: Any, **named: Any) -> Any:
        _busy.draws = getattr(self, "recorded_draws", None)
        try:
            found = compile(self, *arguments, **named)
        finally:
            _busy.draws = None
        loaded = getattr(found, "xla_executable", None)
        if loaded is not None and id(loaded) not in _by_executable and _watch is not None:
            _remember(loaded, _watch.describe(self._hlo, self._name))
        return found

    return compiled


def _remember(loaded: Any, program: Compiled) -> None:
    _by_executable[id(loaded)] = program
    _kept_alive.append(loaded)


def _learning_names(unsafe_call: Callable[..., Any]) -> Callable[..., Any]:
    """Learn which names the arguments of a program have, when JAX asks for what executes it."""

    def named(self: Any) -> Any:
        call = unsafe_call(self)
        if _by_execution.get(id(call), (None,))[0] is not call:
            _program_of(call, self)
        return call

    return named


def _program_of(call: Any, executable: Any = None) -> Compiled:
    """Return what is known of what executes a program."""
    known = _by_execution.get(id(call))
    if known is not None and known[0] is call and executable is None:
        return known[1]
    found = _by_executable.get(id(getattr(call, "xla_executable", None)))
    program = Compiled(str(getattr(call, "name", "a program"))) if found is None else found
    program = with_names(copy.copy(program), executable, call)
    _by_execution[id(call)] = (call, program)
    return program


def _executing(execute: Callable[..., Any]) -> Callable[..., Any]:
    """See what JAX executes in Python."""

    def executed(self: Any, *arguments: Any) -> Any:
        program = _program_of(self)
        tested: list[str] | None = getattr(_busy, "tested", None)
        if tested is not None:
            tested.append(program.name)
        if _watch is None or is_unseen() or tested is not None:
            found = execute(self, *arguments)
        else:
            found = _watch.called(program, functools.partial(execute, self), arguments)
        _busy.last = (self.xla_executable, program)
        return found

    return executed


def _seen_path(fastpath: Callable[..., Any]) -> Callable[..., Any]:
    """Let JAX's C++ execute by itself only what has been executed in Python just now.

    So it is certain which program that is. The results go through `_returned`.
    """

    def seen(*arguments: Any, **named: Any) -> Any:
        last, _busy.last = getattr(_busy, "last", None), None
        data = fastpath(*arguments, **named)
        if id(data.xla_executable) in _own:
            return data
        if not _fast or last is None or last[0] is not data.xla_executable:
            return None
        try:
            constants, count = getattr(data, "const_args", ()), len(list(data.kept_var_bitvec))
            way = _Way(last[1], data.out_pytree_def, tuple(constants), count)
            leaves = list(range(data.out_pytree_def.num_leaves))
            tree = _trees().flatten(_Results(leaves, way))[1]
            return data._replace(out_pytree_def=tree)
        except Exception:  # then all of its calls go through Python
            return None

    return seen


def _if_fast(fastpath: Callable[..., Any]) -> Callable[..., Any]:
    """Do not look for a way that is not taken."""
    return lambda *arguments, **named: fastpath(*arguments, **named) if _fast else None


@functools.lru_cache(maxsize=1)
def _trees() -> Any:
    """Return what knows JAX's own trees of arrays, and from now on ours."""
    registry = _private("tree_util").dispatch_registry
    registry.register_node(_Results, lambda node: (node.leaves, node.way), _returned)
    return registry


def _returned(way: _Way, leaves: Sequence[Any]) -> Any:
    """JAX's C++ has executed a program: tell of it, and put its results together."""
    given = getattr(_busy, "given", None)
    tested: list[str] | None = getattr(_busy, "tested", None)
    if tested is not None:
        if given is not None and len(given) + len(way.constants) == way.arguments:
            tested.append(way.program.name)
    elif _watch is not None and not getattr(_busy, "now", False):
        _busy.now, _busy.given = True, None
        try:
            _watch.after(given, way, leaves)
        finally:
            _busy.now = False
    return way.tree.unflatten(leaves)


def _calling(call: Callable[..., Any]) -> Callable[..., Any]:
    """See the arguments of whatever JAX's C++ may execute by itself, before it does."""
    flatten = _trees().flatten

    def called(function: Any, /, *arguments: Any, **named: Any) -> Any:
        watch = _watch
        if watch is None or getattr(_busy, "now", False):
            return call(function, *arguments, **named)
        outer = getattr(_busy, "given", None)
        try:
            info = getattr(function, "_jit_info", None)
            if info is not None and (info.static_argnums or info.static_argnames):
                leaves = flatten(_without_static(info, arguments, named))[0]
            else:
                leaves = flatten((arguments, named) if named else arguments)[0]
            if getattr(_busy, "tested", None) is None:
                _busy.now = True
                _busy.given = watch.before(leaves, bool(function._cache_size()), function, outer)
            else:
                _busy.given = leaves
        except Exception as error:  # of the user's types; if JAX executes it, that is said
            _busy.given = None
            if is_of_a_signal(error):
                raise
        finally:
            _busy.now = False
        try:
            return call(function, *arguments, **named)
        except BaseException as error:  # the script sees it as it was
            trace = error.__traceback__
            error.__traceback__ = trace.tb_next if trace else None
            raise
        finally:
            _busy.given = outer

    return called


def _without_static(info: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return the arguments of a call that are arrays."""
    static, names = info.static_argnums, info.static_argnames
    return (
        [each for place, each in enumerate(arguments) if place not in static],
        {name: each for name, each in named.items() if name not in names},
    )


def _putting(put: Callable[..., Any]) -> Callable[..., Any]:
    def put_on_devices(*arguments: Any, **named: Any) -> Any:
        found = put(*arguments, **named)
        if _watch is not None and not is_unseen():
            _watch.entered(list(found), arguments)
        return found

    return put_on_devices


def _borrowing(make: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(make)
    def from_dlpack(external_array: Any, *arguments: Any, **named: Any) -> Any:
        found = make(external_array, *arguments, **named)
        if _watch is not None and not is_unseen():
            _watch.borrowed(found, external_array)
        return found

    return from_dlpack


def self_test() -> str:
    """Run programs whose calls are known; return what was not seen, or nothing.

    If that fails while JAX's C++ executes by itself, it has to leave all to Python from then on.
    """
    global _fast
    lacking = _self_test()
    if lacking and _fast:
        _fast = False
        _forget_fast_paths()
        lacking = _self_test()
    return lacking


def _self_test() -> str:
    import numpy as np

    jax: Any = sys.modules["jax"]
    # The call during which this is done may be an operation itself, which JAX does not begin again
    # inside of itself: so these are of a shape that no script has.
    odd = np.zeros((1, 3, 1, 1, 5, 1, 1), np.int8)

    def recorder_self_test(x: Any, y: Any) -> Any:
        return {"sum": x["one"] + y}

    def count(program: Any) -> int:
        before = len(seen)
        jax.block_until_ready([program({"one": np.float32(i)}, y=1.5) for i in range(3)])
        return sum("recorder_self_test" in name for name in seen[before:])

    seen: list[str] = []
    _busy.tested = seen
    try:
        with plain_settings():
            program = jax.jit(recorder_self_test)
            first = count(program)
            then = count(program.lower({"one": np.float32(0)}, y=1.5).compile())
            before = len(seen)
            jax.block_until_ready([jax.lax.add(odd, odd) for _ in range(3)])
            eager = len(seen) - before
    finally:
        _busy.tested = None
    if (first, then) != (3, 3) or eager < 3:
        return f"of 3 calls, 3 compiled ahead and some eager ones, {first}, {then}, {eager} came"
    return ""


def text_of(hlo: Any) -> str:
    """Return a program's StableHLO, without places in the source."""
    return str(hlo.operation.get_asm(enable_debug_info=False))


def direct(compiled: Any) -> Any:
    """Return what calls a program of the recorder's own, without a detour through Python."""
    _own.add(id(compiled.runtime_executable()))
    _kept_alive.append(compiled)
    with contextlib.suppress(Exception):  # a detour is slower, and does the same
        return compiled._executable.create_cpp_call(compiled._params) or compiled
    return compiled
