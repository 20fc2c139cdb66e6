"""Which lines of a script may be behind what a line computes, and what a line asks for.

The rule: this reads the script and runs nothing. What it finds explains and confirms nothing.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

IN_PACKAGES = re.compile("(site|dist)-packages")  # in the path of a file
DEPTH = 4  # functions that are followed into each other
# What takes the system's entropy where it has no seed, and what always does.
UNSEEDED = (
    *("default_rng", "RandomState", "SeedSequence", "Random", "SystemRandom", "seed"),
    *("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"),
)
ENTROPY = (
    *("urandom", "getrandom", "uuid1", "uuid4", "token_bytes", "token_hex", "token_urlsafe"),
    *("randbelow", "randbits"),
)
NAMED_AT_RANDOM = (
    "mkdtemp",
    "mkstemp",
    "TemporaryDirectory",
    "NamedTemporaryFile",
)  # take it for a name


def lines_behind(file: str, line: int) -> set[int]:
    """Return the lines of a file that may have had a part in what a line computes.

    Names are followed to where they are assigned, in the function around the line and in the file,
    and functions of the file into their bodies.

    Args:
        file: the file.
        line: a line in it.
    """
    tree = _tree(file)
    if tree is None:
        return set()
    return _WalkBack(tree).behind(line)


def asked_by(file: str, line: int, *, for_names: bool = True) -> str:
    """Return which call in a line asks for entropy, as it is written; nothing if none is known.

    Args:
        file: the file.
        line: a line in it.
        for_names: whether one that takes it for the name of a file counts.
    """
    for call in _calls_at(file, line):
        name = _last_name(call.func)
        if name in (*ENTROPY, *NAMED_AT_RANDOM * for_names) or (
            name in UNSEEDED and not _has_seed(call)
        ):
            unseeded = ", unseeded" if name in UNSEEDED else ""
            return f"{ast.unparse(call.func)}(){unseeded}"
    return ""


def is_seeded(file: str, line: int) -> bool:
    """Whether all generators that a line makes have a seed; NumPy's old ones take entropy then too.

    A seed that is drawn in the same line is none.

    Args:
        file: the file.
        line: a line in it.
    """
    calls = list(_calls_at(file, line))
    made = [call for call in calls if _last_name(call.func) in UNSEEDED]
    drawn = any(_last_name(call.func) in ENTROPY for call in calls)
    return bool(made) and not drawn and all(_has_seed(call) for call in made)


def own_files[T](behind: Mapping[str, T]) -> dict[str, T]:
    """Return the files of the script among those of a call, or all of them if it has none there.

    A library on the way to JAX has sets of its own, which are not to blame for the script's.

    Args:
        behind: files, and what is known of each.
    """
    own = {file: it for file, it in behind.items() if not IN_PACKAGES.search(file)}
    return own or dict(behind)


def salted(file: str, lines: set[int] | None) -> int:
    """Return the last of these lines in which the salt of `hash()` may show; 0 if none does.

    Args:
        file: the file.
        lines: lines in it; None for all.
    """
    found = [0]
    for node in ast.walk(_tree(file) or ast.Module([], [])):
        if (lines is None or getattr(node, "lineno", 0) in lines) and _may_show_the_salt(node):
            found.append(node.lineno)  # type: ignore[attr-defined]
    return max(found)


def calls_in(file: str, lines: set[int]) -> set[str]:
    """Return the last names of all functions that these lines call.

    Args:
        file: the file.
        lines: lines in it.
    """
    nodes = (node for node in ast.walk(_tree(file) or ast.Module([], [])) if _is_call(node))
    return {_last_name(node.func) for node in nodes if node.lineno in lines}  # type: ignore[attr-defined]


def _is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call)


def _may_show_the_salt(node: ast.AST) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    return isinstance(node, ast.Name) and node.id in ("hash", "set", "frozenset")


@lru_cache
def _tree(file: str) -> ast.Module | None:
    try:
        return ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _calls_at(file: str, line: int) -> Iterator[ast.Call]:
    for node in ast.walk(_tree(file) or ast.Module([], [])):
        if isinstance(node, ast.Call) and node.lineno <= line <= (node.end_lineno or 0):
            yield node


def _last_name(node: ast.AST) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def _has_seed(call: ast.Call) -> bool:
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return any(not (isinstance(each, ast.Constant) and each.value is None) for each in given)


class _WalkBack:
    """A walk from a line back to where its names come from."""

    def __init__(self, tree: ast.Module) -> None:
        self._found: set[int] = set()
        self._names: set[str] = set()
        functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        self._functions = [node for node in ast.walk(tree) if isinstance(node, functions)]
        self._statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]

    def behind(self, line: int) -> set[int]:
        """Return the lines behind one."""
        simple = [each for each in self._statements if each not in self._functions]
        for statement in simple:
            if statement.lineno <= line <= (statement.end_lineno or 0):
                self._take(_head(statement))
        for _ in range(DEPTH * 4):
            before = len(self._found), len(self._names)
            for statement in self._statements:
                if _assigned(statement) & self._names:
                    self._take(_head(statement))
            for function in self._functions:
                if function.name in self._names:
                    self._take([function])
            if before == (len(self._found), len(self._names)):
                break
        return self._found

    def _take(self, nodes: list[ast.AST]) -> None:
        for node in nodes:
            first = getattr(node, "lineno", 0)
            self._found.update(range(first, (getattr(node, "end_lineno", first) or first) + 1))
            for each in ast.walk(node):
                if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load):
                    self._names.add(each.id)
                elif isinstance(each, ast.Attribute):
                    self._names.add(each.attr)


def _head(statement: ast.stmt) -> list[ast.AST]:
    """Return a statement; of one with a block inside, what stands before the block."""
    if not hasattr(statement, "body"):
        return [statement]
    parts = [getattr(statement, name, None) for name in ("target", "iter", "test", "items")]
    found: list[ast.AST] = []
    for part in parts:
        found += part if isinstance(part, list) else [part] if part is not None else []
    return found


def _assigned(statement: ast.stmt) -> set[str]:
    """Return the names that a statement gives a value, attributes by their last name."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return set()
    found = set()
    for head in _head(statement):
        for node in ast.walk(head):
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(_last_name(node))
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                found.add(_last_name(node.value))
    call = statement.value if isinstance(statement, ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
        found.add(_last_name(call.func.value))  # x.append(...), rng.shuffle(x)
        found.update(_last_name(each) for each in call.args)
    return found - {""}
