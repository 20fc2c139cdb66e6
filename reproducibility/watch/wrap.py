"""Put something of ours around a function of Python or NumPy, so that nobody sees the difference.

The rule: it is called, pickled, inspected, bound and compared by type as the function was.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import ctypes
import functools
import gc
import types
from collections.abc import Callable
from typing import Any

type_of_before = Callable[["tuple[Any, ...]", "dict[str, Any]"], None]


class Around:
    """Stands where a function of C, or a bound method, stood: neither becomes a method of a class
    that holds it, as a function written in Python would."""

    def __init__(self, original: Any, call: Callable[..., Any]) -> None:
        self.__wrapped__ = original
        self._call = call
        for name in ("__name__", "__qualname__", "__doc__", "__module__"):
            self.__dict__[name] = getattr(original, name, None)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Do what was put around the function."""
        return self._call(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    @property
    def __class__(self) -> Any:
        return type(self.__wrapped__)

    @__class__.setter
    def __class__(self, kind: Any) -> None:
        raise TypeError("the type of a function cannot be changed")

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __reduce_ex__(self, protocol: Any) -> Any:
        of = getattr(self.__wrapped__, "__self__", None)
        if of is None or isinstance(of, types.ModuleType):
            return self.__name__
        if isinstance(self.__wrapped__, types.MethodType) and not isinstance(of, type):
            return getattr, (of, self.__wrapped__.__name__)
        return self.__wrapped__.__reduce_ex__(protocol)


def in_place_of(original: Any, call: Callable[..., Any]) -> Any:
    """Return what looks like a function and does what another one does."""
    if hasattr(type(original), "__get__") and not isinstance(original, types.MethodType):
        return functools.wraps(original)(call)
    return Around(original, call)


def watched(original: Any, before: type_of_before) -> Any:
    """Return a function that tells of each of its calls, before it is made."""

    def call(*arguments: Any, **named: Any) -> Any:
        before(arguments, named)
        return original(*arguments, **named)

    return in_place_of(original, call)


def watch_function(owner: Any, name: str, before: type_of_before) -> None:
    """Be told of each call of a function of a module, if it has one of that name."""
    original = getattr(owner, name, None)
    if original is not None:
        put(owner, name, watched(original, before))


def put(owner: Any, name: str, function: Any) -> None:
    """Put a function where the one that it stands for was; it is pickled as from there."""
    if isinstance(function, Around) and isinstance(owner, types.ModuleType):
        function.__module__ = owner.__name__
    setattr(owner, name, function)


class _ClassMethod:
    """A class method of a type of C, with something around it."""

    def __init__(self, original: Any, replace: Callable[[Any], Callable[..., Any]]) -> None:
        self._original, self._replace = original, replace

    def __get__(self, instance: Any, of: Any = None) -> Any:
        bound = self._original.__get__(instance, of)
        return Around(bound, self._replace(bound))


def replace_class_method(of: type, name: str, replace: Callable[[Any], Callable[..., Any]]) -> bool:
    """Have `replace(bound method)` called instead of a class method of a type written in C.

    The type stays the one it is: a subclass in its place could not be pickled or compared.
    """
    names: Any = gc.get_referents(vars(of))[0]
    if not isinstance(names, dict) or name not in names:
        return False
    names[name] = _ClassMethod(names[name], replace)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(of))
    return True
