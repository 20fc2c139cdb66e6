"""Begin to watch: at once in a notebook, after the script's own `import jax` otherwise.

The rule: nothing is imported that the script has not imported, and no backend is started.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import atexit
import functools
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
from collections.abc import Callable
from os import getpid  # itself, which nobody holds or watches
from pathlib import Path
from time import monotonic
from time import time as _now  # itself, which nobody holds or watches
from typing import Any, NoReturn

from . import execution, hook
from .asides import Asides
from .calls import Calls
from .compiled import Compiled
from .consumed import Consumed
from .elsewhere import CHANGES, change
from .hiding import SECRET, text_without_secrets, without_secrets
from .hold import hold
from .host import WATCHED_LATE, Host
from .keeping import Keeping
from .limit import StepLimit
from .second import Second
from .settings import settings_of_script
from .surroundings import devices_by_kind, processor, versions
from .values import Values
from .versions_of_files import file_of_script, versions_of_files
from .writing import Writing

# Variables that are known to change what is computed; others are not written down.
TELLING = (
    "JAX_",
    "XLA_",
    "PYTHONHASHSEED",
    "NPROC",
    "OMP_",
    "OPENBLAS_",
    "MKL_",
    "CUDA_VISIBLE",
    "TF_",
)

SHOWN_OF_AN_ERROR = 200  # characters of an error
WAIT_AT_OS_EXIT = 20  # seconds that `os._exit` waits for the record


class Session:
    """One process being watched."""

    def __init__(self, directory: str, *, again: int = 0, keys: bool = False) -> None:
        keys = keys or bool(os.environ.get("REPRODUCIBILITY_KEYS"))
        self._again = again or int(os.environ.get("REPRODUCIBILITY_AGAIN") or 0)
        self.writing = Writing(Path(directory), {**_facts(), "again": self._again, "keys": keys})
        self._began, self._script = _now(), ""
        self.calls = Calls(self.writing)
        second = Second(self._again, self.writing, self.calls.shared.arrays)
        self._second = second if self._again else None
        self._consumed = Consumed(self.writing) if keys else None
        if self._again or keys:
            self.calls.asides = Asides(self._second, self._consumed)
        self.host = Host(self.writing, self.calls, _may_tell)
        self._values = Values(self.host.left)
        self._tested = self._ended = False
        self._place = (0, 1)  # which process of its job, and of how many
        self._devices: dict[str, int] = {}  # how many of each kind, as JAX leaves them at the end
        self._most = int(os.environ.get("REPRODUCIBILITY_CALLS") or sys.maxsize)
        self._until = float(os.environ.get("REPRODUCIBILITY_UNTIL") or "inf")
        wanted = os.environ.get("REPRODUCIBILITY_KEEP")
        if wanted:
            self.calls.keeping = Keeping(self.writing.directory, wanted, _telling())
        self._may_end = self._most < sys.maxsize or self._until < float("inf") or bool(wanted)
        self._signal = int(os.environ.get("REPRODUCIBILITY_SIGNAL") or 0)
        step = os.environ.get("REPRODUCIBILITY_STEP")
        self._step = StepLimit(step, Path(directory)) if step else None

    def install(self) -> None:
        """Watch JAX, which has been imported."""
        self._script = file_of_script()
        try:
            hook.install(
                hook.Watch(
                    self._first,
                    self._before if self._may_end else self.calls.before,
                    self.calls.after,
                    self.calls.entered,
                    self.calls.borrowed,
                    self.calls.describe,
                    may_be_fast=self.calls.keeping is None and self._step is None,
                    lowering=self._consumed.lowering if self._consumed else None,
                )
            )
            if self.calls.keeping is not None:
                execution.tell_of_compilations(self.calls.keeping.compiled)
        except Exception as error:
            self.writing.problem(f"this JAX cannot be watched: {type(error).__name__}: {error}")

    def _first(self, program: Compiled, execute: Callable[..., Any], arguments: Any) -> Any:
        """Test the hooks at the first call, when the script has started its backend itself."""
        if not self._tested:
            self._tested = True
            self._called()
            self._place, self._devices = _place_in_job(), devices_by_kind()
            try:
                lacking = hook.self_test()
            except Exception as error:
                first = str(error).partition("\n")[0]  # of JAX's, which may be long
                lacking = f"{type(error).__name__}: {first[:SHOWN_OF_AN_ERROR]}"
            self._watch_values()
            if lacking:
                self.writing.problem(f"the recorder does not see every call: {lacking}")
        self._leave_after_the_last()
        if self._step is not None and self._step.has_come(program, arguments):
            self._interrupt()
        return self.calls(program, execute, arguments)

    def _watch_values(self) -> None:
        try:
            with hook.unseen():
                self._values.watch(type(sys.modules["jax"].device_put(0)))
        except Exception as error:
            self.writing.remark(f"what is read is not seen: {type(error).__name__}: {error}")

    def _called(self) -> None:
        """Note that JAX is called; a full disk is no concern of the script's."""
        try:
            self.writing.called()
        except Exception as error:
            self.writing.problem(f"the record cannot be written: {type(error).__name__}: {error}")

    def _before(self, arguments: list[Any], likely: bool, function: Any, outer: Any) -> Any:
        if likely:
            self._leave_after_the_last()
        return self.calls.before(arguments, likely, function, outer)

    def _leave_after_the_last(self) -> None:
        """End the process if it has made all calls that were asked for."""
        made = self.calls.number
        kept = self.calls.keeping is not None and self.calls.keeping.done
        if kept or made >= self._most or (made and monotonic() > self._until):
            if self._signal and not kept:
                self._interrupt()
                return
            self.end(ended_at=self.calls.most)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    def _interrupt(self) -> None:
        """Send the signal that was asked for, once; what the script does then is its own."""
        number, self._most, self._until = self._signal, sys.maxsize, float("inf")
        deadly = number == signal.SIGKILL or signal.getsignal(number) == signal.SIG_DFL
        if deadly:
            self.end(ended_at=self.calls.most)
        os.kill(getpid(), number)

    def end(self, **facts: Any) -> None:
        """Write what waits, and leave JAX alone."""
        if self._ended or not self.writing.is_owner():
            return
        self._ended = True
        jax = sys.modules.get("jax")
        if jax is not None and not self._tested and _has_backend():
            self.writing.problem("JAX has started and no call was seen")
        self.calls.shared.look_at_all()
        hook.uninstall()
        self._values.restore()
        # Again, for the script may set some before it imports JAX.
        facts |= {"versions": versions(), "variables": _telling(), "place": self._place}
        facts |= {
            "settings": settings_of_script(),
            "devices": sum(self._devices.values()),
            "kinds": [f"{count} of {kind}" for kind, count in self._devices.items()],
            "undone": _undone(),
            "sources": _versions_of_script(self._script, self._began),
        }
        if self._second is not None:
            facts["not again"] = self._second.not_computed
        if self._consumed is not None:
            facts["keys not seen"] = self._consumed.not_seen
        self.writing.end(**facts)


def with_the_script(directory: str) -> None:
    """Watch the process that is starting."""
    for name in filter(None, os.environ.get("REPRODUCIBILITY_HOLD", "").split(",")):
        (change if name.partition("=")[0] in CHANGES else hold)(name)
    session = Session(directory)
    session.host.watch_python()
    # What is registered first runs last: the script's own functions at exit may call JAX.
    atexit.register(session.end)
    _end_with_os_exit(session)
    _end_with_exec(session)
    for module, do in (("numpy.random", session.host.watch_numpy), ("jax", session.install)):
        if module in sys.modules:
            do()
        else:
            sys.meta_path.insert(0, _After(module, do))
    for module in WATCHED_LATE:
        if module not in sys.modules:
            do = functools.partial(session.host.imported, module)
            sys.meta_path.insert(0, _After(module, do))


def _end_with_os_exit(session: Session) -> None:
    """Have the record ended by `os._exit` too, which runs no function at exit."""
    leave = os._exit

    def _exit(status: int) -> NoReturn:
        try:
            session.end(patience=WAIT_AT_OS_EXIT)
        finally:
            leave(status)

    os._exit = _exit


def _end_with_exec(session: Session) -> None:
    """Have it ended where another program takes the process; what fails at that has a hole."""
    for name in ("execv", "execve"):
        become = getattr(os, name)

        def become_another(
            *arguments: Any, become: Callable[..., Any] = become, **named: Any
        ) -> NoReturn:
            session.end(patience=WAIT_AT_OS_EXIT)
            try:
                become(*arguments, **named)
            finally:  # there is no other program
                session.writing.not_ended("a call of os.exec failed, and what followed is unseen")
            raise AssertionError

        setattr(os, name, become_another)


class _After(importlib.abc.MetaPathFinder):
    """Do something when a module has been imported."""

    def __init__(self, name: str, do: Callable[[], None]) -> None:
        self._name, self._do = name, do

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """Find what the others find; it may only be asked whether there is such a module."""
        if fullname != self._name or self not in sys.meta_path:
            return None
        for finder in [each for each in sys.meta_path if each is not self]:
            find: Any = getattr(finder, "find_spec", None)
            spec: importlib.machinery.ModuleSpec | None = find and find(fullname, path, target)
            if spec is not None:
                break
        else:
            return None
        if spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                    self._do()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _may_tell(name: str) -> bool:
    """Whether the value of a variable may be written down."""
    return name.startswith(TELLING) and not SECRET.search(name)


def _telling() -> dict[str, str]:
    return {name: os.environ[name] for name in sorted(os.environ) if _may_tell(name)}


def _versions_of_script(script: str, since: float) -> dict[str, str]:
    """Return the script's own files by their digests; none if that fails, for it only explains."""
    try:
        return versions_of_files(script, since)
    except Exception:
        return {}


def _undone() -> list[str]:
    """Return the variables that this run was given and that the script has set otherwise."""
    given = json.loads(os.environ.get("REPRODUCIBILITY_GIVEN", "{}"))
    return [name for name, text in given.items() if not _has_words(os.environ.get(name), text)]


def _has_words(text: str | None, words: str | None) -> bool:
    if text is None or words is None:
        return text is words
    return set(words.split()) <= set(text.split())


def _facts() -> dict[str, Any]:
    return {
        "command": without_secrets(sys.orig_argv),
        "folder": text_without_secrets(os.getcwd()),
        "python": sys.version.split()[0],
        "processor": processor(),
        "pid": getpid(),
        "parent": os.getppid(),
        "variables": _telling(),
        "cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [],
    }


def _place_in_job() -> tuple[int, int]:
    """Return which of the processes this is that compute together, and how many there are."""
    jax: Any = sys.modules["jax"]
    try:
        return jax.process_index(), jax.process_count()
    except Exception:  # it pairs records; without it the order in which they began does
        return 0, 1


def _has_backend() -> bool:
    bridge: Any = sys.modules.get("jax._src.xla_bridge")
    return bool(getattr(bridge, "_backends", None))
