"""The rooms of the tools around the package, stated so that they can fail."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / "tools"

# The rooms, lowest first, and what is beside them. A file imports what stands above it here.
HOUSE = {
    "story": ("stages",),
    "guard": ("pages", "isolation", "executed", "codeblocks", "published"),
    "session": ("capture", "curves", "screen", "drawing", "__main__"),
    "labs": ("settings", "markup", "cells"),
    "look": (
        *("clone", "reading", "addresses", "cards", "weight", "searching", "english", "links"),
        "hosts",
    ),
    "takeaway": ("programs", "notebooks", "downloads", "printable", "offline"),
    "reuse": ("inputs", "lab_outputs", "rendered"),
    "eighteen": (),
    "accelerator": (
        *("missing", "trainings", "more_operations", "sharded", "asked", "costs", "answers"),
        *("tables", "switches", "parts", "run", "__main__"),
    ),
    "hooks": (),
    "serve": (),
    "api": (),
    "practice": (),
    "known_across_versions": (),
    "operations": (),
}
ROOMS = [name for name, files in HOUSE.items() if files]
ORDER = [
    f"{name}.{file}" if file else name for name, files in HOUSE.items() for file in files or ("",)
]
# What each program or file of its kind has.
STANDS_TWICE = {"ROOT", "log", "main"}


def tree(module: str) -> ast.Module:
    """Return the code of a module."""
    return ast.parse((TOOLS / f"{module.replace('.', '/')}.py").read_text("utf-8"))


def imports(module: str) -> set[str]:
    """Return the modules of the tools that a module imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tools"):
            name = node.module.removeprefix("tools").removeprefix(".")
            names = {f"{name}.{alias.name}".removeprefix(".") for alias in node.names}
            found |= {name} if name in ORDER else names
        elif isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
            found |= {name.removeprefix("tools.") for name in names if name.startswith("tools")}
    return found


def test_every_tool_stands_in_the_house() -> None:
    """A file that is added must say where it stands, and each folder with Python is a room."""
    found = [path.relative_to(TOOLS).with_suffix("") for path in TOOLS.rglob("*.py")]
    modules = [".".join(path.parts) for path in found if path.name != "__init__"]
    assert sorted(ORDER) == sorted(modules)
    assert {path.parent.name for path in found if path.name == "__init__"} - {""} == set(ROOMS)


@pytest.mark.parametrize("module", ORDER)
def test_imports_of_tools_go_down(module: str) -> None:
    """No tool imports one that stands after it: of a later room, or later in its own."""
    assert imports(module) <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_tools_opens_with_its_question(room: str) -> None:
    """The file of a room is its docstring alone: a question, a rule, and every module in order."""
    [statement] = tree(f"{room}.__init__").body
    docstring = ast.get_docstring(ast.Module([statement], []))
    assert docstring.splitlines()[0].endswith("?")
    assert re.search(r"^The rule: ", docstring, re.MULTILINE)
    named = tuple(re.findall(r"`(\w+)`", docstring))
    assert named == tuple(file for file in HOUSE[room] if file != "__main__")


def test_the_tools_list_their_rooms_in_order() -> None:
    """The docstring above all tools names the rooms, lowest first, and the files beside them."""
    named = re.findall(r"`(\w+)`", ast.get_docstring(tree("__init__")))
    assert named[-len(ROOMS) :] == ROOMS
    assert {name for name, files in HOUSE.items() if not files} <= set(named)


def test_names_of_tools_are_unique() -> None:
    """A function, class or constant is defined in one file, so that a search finds one."""
    found: dict[str, list[str]] = {}
    for module in ORDER:
        for node in tree(module).body:
            names = {node.name} if isinstance(node, ast.FunctionDef | ast.ClassDef) else set()
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = getattr(node, "targets", None) or [node.target]
                assigned = [n for target in targets for n in ast.walk(target)]
                names = {n.id for n in assigned if isinstance(n, ast.Name)}
            for name in names:
                found.setdefault(name, []).append(module)
    assert {n: m for n, m in found.items() if len(m) > 1 and n not in STANDS_TWICE} == {}


def test_a_function_of_a_tool_is_short() -> None:
    """No function has more than 40 lines, its docstring included."""
    functions = [
        (module, node.name, node.end_lineno - node.lineno + 1)
        for module in ORDER
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef)
    ]
    assert [(module, name) for module, name, lines in functions if lines > 40] == []
