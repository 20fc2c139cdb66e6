"""What is no array has a text, by which it is compared: a key of a dictionary, a static field.

The rule: two values have one text only if they are equal, and no code of theirs is asked: no
`==`, no hash, no pickle. Of what cannot be said so, the kind alone is compared, and that is told.
Chapter: docs/components/hashing_explained.md

    None, True, 7, 1.5, "text", b'bytes'   as Python writes them
    (a, b)  [a, b]  {k: v}  set{a, b}      by their entries; entries of dicts and sets are sorted
    Pair(a, b)   Rate(value=1.5)           a tuple or text of a class of its own; a dataclass
    Mode.TRAIN   np.int64(7)               an enum; a number of NumPy
    float32[3] sha256 …                    an array, by its bits
    <function relu>   <class Dense>        by name; what a function holds or does is not compared
    <Mesh, not compared>                   anything else
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import json
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

MOST = 100_000  # values in one static field
DEEPEST = 100  # containers in one another
LONGEST_TEXT = 300  # characters of a text that are kept; then its digest


class StaticDataError(ValueError):
    """A value that has no text, because it contains itself or has no end worth waiting for."""


class TextOf:
    """Writes the text of one value, and notes what of it is not compared.

    Args:
        foreign: what to write for a value of a kind that is not known; None for the kind alone.
    """

    def __init__(self, foreign: Callable[[Any], str] | None = None) -> None:
        self.not_compared: list[str] = []
        self._foreign = foreign
        self._around: list[int] = []  # the containers that are being written
        self._count = 0

    def __call__(self, value: Any) -> str:
        """Return the text of a value.

        Raises:
            StaticDataError: it contains itself, or more than `MOST` values.
        """
        self._count += 1
        if self._count > MOST:
            raise StaticDataError(f"more than {MOST:,} values")
        if id(value) in self._around:
            raise StaticDataError(f"a {type(value).__name__} that contains itself")
        if len(self._around) >= DEEPEST:
            raise StaticDataError(f"more than {DEEPEST} containers in one another")
        self._around.append(id(value))
        try:
            return self._text(value)
        except StaticDataError:
            raise
        except Exception as error:  # whatever a foreign object raises when it is read
            if self._foreign:
                raise StaticDataError(f"one that raises {type(error).__name__}") from None
            return self._unknown(value)
        finally:
            self._around.pop()

    def _text(self, value: Any) -> str:
        kind = type(value)
        if value is None or kind in (bool, int, float, complex, bytes, types.EllipsisType):
            return repr(value)
        if kind is str:
            return json.dumps(value)
        if issubclass(kind, enum.Enum):
            return self._member(value)
        if issubclass(kind, np.generic | np.ndarray | jax.Array):
            return self._array(value)
        bases: tuple[Any, ...] = (str, int, float, complex, bytes)
        for base in bases:
            if issubclass(kind, base):  # prints itself as it likes: asked of the base
                return f"{_quoted(kind)}({self(base.__getnewargs__(value)[0])})"
        if issubclass(kind, tuple | list | set | frozenset | Mapping):
            return self._container(value, kind)
        return self._object(value, kind)

    def _container(self, value: Any, kind: type) -> str:
        base: Any = next((b for b in (tuple, list, set, frozenset, dict) if issubclass(kind, b)), 0)
        name = "" if kind in (tuple, list, dict) else _quoted(kind)
        if base is tuple or base is list:
            inner = [self(entry) for entry in base.__iter__(value)]
            ends = "[]" if base is list else "()"
            comma = "," if base is tuple and len(inner) == 1 else ""
            return f"{name}{ends[0]}{', '.join(inner)}{comma}{ends[1]}"
        if base is set or base is frozenset:
            return f"{name}{{{', '.join(sorted(map(self, base.__iter__(value))))}}}"
        pairs = dict.items(value) if base is dict else list(value.items())
        inner = sorted(f"{self(key)}: {self(entry)}" for key, entry in pairs)
        return f"{name}{{{', '.join(inner)}}}"

    def _object(self, value: Any, kind: type) -> str:
        if isinstance(value, np.dtype):
            return f"dtype({json.dumps(value.str if value.names is None else repr(value))})"
        if isinstance(value, jax.tree_util.PyTreeDef):
            return f"PyTreeDef({self(value.node_data())}, {self(tuple(value.children()))})"
        if isinstance(value, functools.partial):
            return f"partial{self((value.func, value.args, value.keywords))}"
        if isinstance(value, types.MethodType):
            return f"method{self((value.__func__, value.__self__))}"
        if isinstance(value, type):
            return f"<class {_quoted(value)}>"
        if isinstance(value, types.ModuleType):
            return f"<module {value.__name__}>"
        if dataclasses.is_dataclass(value):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            inner = [f"{name}={self(entry)}" for name, entry in fields.items()]
            return f"{_quoted(kind)}({', '.join(inner)})"
        name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
        if callable(value) and type(name) is str:
            if "<lambda>" in name or getattr(value, "__closure__", None):
                self.not_compared.append(f"what function {name} holds and does")
            return f"<function {name}>"
        return self._foreign(value) if self._foreign else self._unknown(value)

    def _unknown(self, value: Any) -> str:
        name = type(value).__qualname__
        self.not_compared.append(f"a {name}")
        return f"<{name}, not compared>"

    def _member(self, value: enum.Enum) -> str:
        kind, name = type(value), value._name_
        if name is None:  # some bits of a flag
            return f"{_quoted(kind)}({self(value._value_)})"
        simple = re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII)
        return f"{_quoted(kind)}.{name if simple else json.dumps(name)}"

    def _array(self, value: Any) -> str:
        name = value.dtype.name
        if isinstance(value, np.generic):
            if value.dtype.kind in "biufc":
                return f"np.{name}({value.item()!r})"
            return f"np.{type(value).__name__}({json.dumps(str(value))})"
        words = jax.random.key_data(value) if name.startswith("key<") else value
        if words.dtype.kind == "O" or isinstance(value, jax.core.Tracer):
            return self._unknown(value)
        array = np.asarray(words)
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        return f"{name}[{','.join(map(str, value.shape))}] sha256 {digest}"


def _quoted(kind: type) -> str:
    """Return the name of a class, without its module: a script is `__main__` in one process only.

    In quotes where it could be taken for something else.
    """
    name = kind.__qualname__
    simple = re.fullmatch(r"(?!np\.)[A-Za-z_][\w.<>]*", name, re.ASCII)
    return name if simple else json.dumps(name)


def key_text(key: Any) -> str:
    """Return the text of a dictionary's key, or of what a registered class calls a child.

    **Same bits:** everywhere. Different keys of the kinds above have different texts; a key of
    another class is called what it prints.

    Args:
        key: Anything that JAX takes as such.

    Raises:
        StaticDataError: It prints its address, or nothing at all.
    """

    def printed(value: Any) -> str:
        kind: Any = type(value)
        if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
            raise StaticDataError("one that does not say what it is")
        return f"<{_quoted(kind)}: {json.dumps(str(value))}>"

    return TextOf(printed)(key)


def static_text(value: Any) -> tuple[str, list[str]]:
    """Return the text of static data, and what of it is not compared.

    **Same bits:** everywhere.

    Args:
        value: Anything.

    Raises:
        StaticDataError: It contains itself, or more than `MOST` values.
    """
    writer = TextOf()
    text = writer(value)
    return _with_digest_of_rest(text), writer.not_compared


def _with_digest_of_rest(text: str) -> str:
    if len(text) <= LONGEST_TEXT:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text[:200]} … ({len(text)} characters, sha256 {digest})"


def entries_of(value: Any) -> Iterator[Any]:
    """Yield a value and what it is made of, as deep as tuples, lists and dicts go.

    Args:
        value: Static data of which `static_text` gave a text, so that it ends.
    """
    yield value
    kind = type(value)
    if kind in (tuple, list):
        for entry in value:
            yield from entries_of(entry)
    elif kind is dict:
        for entry in value.values():
            yield from entries_of(entry)
