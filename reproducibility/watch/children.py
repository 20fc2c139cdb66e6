"""What a script starts is recorded too, whatever environment it gives it.

The rule: the script sees the environment as it made it; a child has what it needs to be recorded. A
Python that looks at no such variable cannot be recorded, and that is said.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

OURS = "REPRODUCIBILITY_"
PATH = "PYTHONPATH"
_IS_PYTHON = re.compile(r"python[\d.]*(\.exe)?$")


class Children:
    """What the children of this process are given."""

    def __init__(self, problem: Callable[[str], None]) -> None:
        self._problem = problem
        self._folder = os.path.dirname(os.path.abspath(__file__))
        self._ours = {name: text for name, text in os.environ.items() if name.startswith(OURS)}

    def follow(self) -> None:
        """Have what `os` starts recorded, if this process is."""
        if not self._ours:
            return
        os.putenv = _also_after(os.putenv, self._put)  # what a child without an `env` is given
        os.unsetenv = _also_after(os.unsetenv, self._put)
        for name in ("posix_spawn", "posix_spawnp", "execve"):
            start = getattr(os, name, None)
            if start is not None:
                setattr(os, name, self._starting(start, 2))

    def follow_subprocess(self, module: Any) -> None:
        """Have what `subprocess` starts recorded, if this process is."""
        if self._ours:
            popen = module.Popen
            popen._execute_child = self._starting(popen._execute_child, 7)

    def _starting(self, start: Callable[..., Any], place: int) -> Callable[..., Any]:
        """Return a function that starts a process, whose argument at `place` is its environment."""

        @functools.wraps(start)
        def started(*arguments: Any, **named: Any) -> Any:
            if "env" in named:
                named["env"] = self.environment(named["env"])
            elif len(arguments) > place:
                given = self.environment(arguments[place])
                arguments = (*arguments[:place], given, *arguments[place + 1 :])
            return start(*arguments, **named)

        return started

    def environment(self, given: Any) -> Any:
        """Return the environment of a child, with what it needs to be recorded."""
        if not isinstance(given, Mapping):  # that of this process, or an error
            return given
        names = {os.fsdecode(name): name for name in given if isinstance(name, (str, bytes))}
        found = dict(given)
        found.update({name: text for name, text in self._ours.items() if name not in names})
        path = names.get(PATH, PATH)
        found[path] = self._with_folder(os.fsdecode(found.get(path, "")))
        return found

    def _with_folder(self, path: str) -> str:
        folders = [each for each in path.split(os.pathsep) if each]
        if any(os.path.abspath(each) == self._folder for each in folders):
            return path
        return os.pathsep.join([self._folder, *folders])

    def _put(self, put: Callable[..., Any], name: Any, text: Any = b"") -> None:
        """Put back what a child needs, once the script has changed or deleted it."""
        word = os.fsdecode(name)
        if word == PATH:
            put(PATH, self._with_folder(os.fsdecode(text)))
        elif word in self._ours:
            put(word, os.fsdecode(text) or self._ours[word])

    def started(self, words: Sequence[Any]) -> None:
        """Say if a Python is started that looks at no variables."""
        texts = [os.fsdecode(each) for each in words if isinstance(each, (str, bytes, os.PathLike))]
        if texts and _IS_PYTHON.search(os.path.basename(texts[0])) and (word := _deaf(texts[1:])):
            self._problem(f"it started Python with {word}, which cannot be recorded")


_put = os.putenv


def _also_after(original: Callable[..., Any], do: Callable[..., None]) -> Callable[..., Any]:
    @functools.wraps(original)
    def changed(*arguments: Any) -> None:
        original(*arguments)
        do(_put, *arguments)

    return changed


def _deaf(words: Sequence[str]) -> str:
    """Return the option with which Python does not look at variables, or at what they name."""
    rest = iter(words)
    for word in rest:
        if word in ("-W", "-X"):
            next(rest, None)
        elif not word.startswith("-") or word[:2] in ("-c", "-m", "--") or word == "-":
            break
        elif word[:2] not in ("-W", "-X") and set(word) & set("EIS"):
            return word
    return ""
