"""The rooms of the package, stated so that they can fail."""

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from tools import api

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "reproducibility"

# The house: what lies on top of one another, lowest first. A folder is a room; inside of it a file
# imports those named before it, and rooms and files import only what stands above them here.
HOUSE = {
    "errors": (),
    "keys": (),
    "same": (
        "static",
        "leaves",
        "overlapping",
        "state",
        "hashing",
        "fingerprint",
        "joined",
        "distance",
    ),
    "machine": ("environment", "child", "reproducers", "faults", "trial", "known"),
    "scale": ("lifeline", "launch", "start", "agree", "sum", "layout", "gradients"),
    "storage": (
        "files",
        "found",
        "containers",
        "seal",
        "moment",
        "orbax",
        "restoring",
        "checkpoint",
        "stored",
        "whole",
        "generators",
    ),
    "recording": (
        "lines",
        "ledger",
        "mend",
        "writer",
        "walk",
        "given",
        "step_words",
        "losses",
        "new_lines",
        "surroundings",
        "static_facts",
        "recorder",
    ),
    "reference": (
        "config",
        "data",
        "model",
        "run",
        "step",
        "resume",
        "loop",
        "check",
        "doctor",
    ),
    "explain": (
        "child",
        "recompute",
        "stretches",
        "replay",
        "comparison",
        "sides",
        "checkpoints",
        "compare",
        "on_devices",
        "same_key",
        "trace",
        "aligned",
        "origin",
        "page",
        "report",
    ),
    "evidence": (
        "merkle",
        "limits",
        "commitment",
        "claims",
        "chosen",
        "request",
        "progress",
        "recheck",
        "verdict",
        "audit",
    ),
    "watch": (
        "late",
        "compiled",
        "limit",
        "settings",
        "surroundings",
        "source",
        "names",
        "hook",
        "mixing",
        "prints",
        "hiding",
        "writing",
        "texts",
        "lines",
        "threads",
        "callbacks",
        "shared",
        "execution",
        "keeping",
        "again",
        "ulps",
        "second",
        "derived",
        "draws",
        "consumed",
        "asides",
        "calls",
        "wrap",
        "values",
        "children",
        "host",
        "versions_of_files",
        "hold",
        "elsewhere",
        "begin",
        "sitecustomize",
    ),
    "script": (
        "ending",
        "screen",
        "start",
        "sealed",
        "reading",
        "sites",
        "origins",
        "programs",
        "pairs",
        "diverging",
        "unordered",
        "align",
        "growing",
        "inherited",
        "printed",
        "written",
        "dataflow",
        "cause",
        "repeat",
        "twice",
        "report",
        "recomputed",
        "values",
        "reused",
        "findings",
        "record",
        "graph",
        "updates",
        "matched",
        "descent",
        "aligned_lanes",
        "sides",
        "left_over",
        "instead",
        "beside",
        "aligned",
        "aligned_report",
        "inputs",
        "moments",
        "steps",
        "backwards",
        "onwards",
        "ends",
        "resumption",
        "resuming",
        "parts",
        "lost",
        "reprinted",
        "rounded",
        "interrupt",
        "hidden",
        "hidden_numbers",
        "hidden_table",
        "mirror",
        "asking",
        "changing",
        "unheld",
        "undone",
        "swept",
        "sweep",
        "lanes",
        "drawn_aligned",
        "drawn",
    ),
    "testing": ("equal", "fresh", "reproducible", "resumable", "seeds", "script", "fixtures"),
    "exercise": (
        "texts",
        "answers",
        "runner",
        "bench",
        "judged_first",
        "judged_parts",
        "judged_saved",
        "judged_later",
        "verdict",
        "desk",
    ),
    "cli": (
        "terminal",
        "process_state",
        "parse",
        "arguments",
        "training",
        "runs",
        "audits",
        "machines",
        "scripts",
        "exercises",
        "commands",
    ),
}
ROOMS = [name for name, files in HOUSE.items() if files]
# Every module, lowest first.
ORDER = [
    f"{name}.{file}" if file else name for name, files in HOUSE.items() for file in files or ("",)
]

# Every other library enters through one door.
DOORS = {
    "flax": {"reference.model"},
    "optax": {"reference.step"},
    "orbax": {"storage.orbax"},
    "safetensors": {"storage.containers"},
    "ml_dtypes": {"storage.containers"},
    "sklearn": {"reference.data"},
    "grain": {"reference.data"},
    "tyro": {"cli.parse"},
    "rich": {"cli.terminal"},
    "pytest": {"testing.fixtures"},
}
EVERYWHERE = {"jax", "jaxlib", "jaxtyping", "numpy"}  # above `errors`, except in `config`
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("[a-z]*.py")
    if path.parent.name != "programs"  # what readers repair is no part of the package
)

LONGEST = 300  # lines of code in a module
# Modules that are longer today, with what they have: they may shrink and not grow.
TOO_LONG: dict[str, int] = {}


def source(module: str) -> Path:
    """Return the file of a module."""
    return PACKAGE / f"{module.replace('.', '/')}.py"


def ours(module: str) -> set[str]:
    """Return the modules of the package that a module imports, without the package's name."""
    return {
        name.removeprefix("reproducibility.")
        for name in imports(module)
        if name.startswith("reproducibility.")
    }


def imports(module: str) -> set[str]:
    """Return the full names that a module imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(source(module).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            assert module.startswith("watch."), "imports are absolute"
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {f"reproducibility.watch.{name}" for name in names}
        elif isinstance(node, ast.ImportFrom):
            if node.module.removeprefix("reproducibility.") in ROOMS:  # from a room, its files
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return found


def test_every_file_stands_in_the_house() -> None:
    """A file that is added must say where it stands, and each folder is a room."""
    assert sorted(ORDER) == MODULES
    assert sorted(path.parent.name for path in PACKAGE.rglob("__init__.py")) == sorted(
        [PACKAGE.name, *ROOMS]
    )


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_down(module: str) -> None:
    """No file imports one that stands after it: of a later room, or later in its own."""
    assert ours(module) <= set(ORDER[: ORDER.index(module)])


# Rooms that hand out names themselves: `reproducibility.cli:main` is the command that is installed,
# and suites import assertions and fixtures from `reproducibility.testing`.
DOORS_OF_THEIR_OWN = ("cli", "testing")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_opens_with_its_question(room: str) -> None:
    """The file of a room is its docstring: a question, a rule, and every module in order. Where it
    hands out names, they come from its own files, and `__all__` has each of them."""
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text())
    docstring = ast.get_docstring(tree)
    if room in DOORS_OF_THEIR_OWN:
        *nodes, last = tree.body[1:]
        assert {node.module.split(".")[1] for node in nodes} == {room}
        names = sorted(alias.name for node in nodes for alias in node.names)
        assert ast.unparse(last) == f"__all__ = {names}"
    else:
        assert tree.body[1:] == []
    assert docstring.splitlines()[0].endswith("?")
    assert re.search(r"^The rule: ", docstring, re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)`", docstring)) == HOUSE[room]


@pytest.mark.parametrize("module", MODULES)
def test_libraries_enter_through_their_door(module: str) -> None:
    """A library is imported by the one module that wraps it; config and errors import none."""
    theirs = {name.split(".")[0] for name in imports(module)}
    theirs -= {"reproducibility", *sys.stdlib_module_names}
    allowed = {library for library, doors in DOORS.items() if module in doors}
    if module not in ("errors", "reference.config"):
        allowed |= EVERYWHERE
    assert theirs <= allowed


@pytest.mark.parametrize("module", MODULES)
def test_jax_is_imported_before_its_parts(module: str) -> None:
    """`import jax` waits for another thread that imports JAX. A part of it does not, and fails."""
    body = ast.parse(source(module).read_text()).body
    names = [node.names[0].name for node in body if isinstance(node, ast.Import)]
    places = [*names, *(str(node.module) for node in body if isinstance(node, ast.ImportFrom))]
    parts = [name for name in places if name.split(".")[0] in ("jax", "jaxtyping", "flax", "optax")]
    assert not parts or "jax" in names  # ruff sorts it before them


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("watch.")])
def test_what_watches_a_script_needs_its_python_only(module: str) -> None:
    """The room `watch` is loaded by another environment's Python: it imports the standard library,
    NumPy and JAX, and of the package itself only."""
    theirs = {name.split(".")[0] for name in imports(module) if "reproducibility.watch" not in name}
    assert theirs <= {"jax", "numpy", *sys.stdlib_module_names}


# What makes a process one of several to JAX. The trial of a fault of several processes does so in
# a process of its own.
DISTRIBUTED = {"jax.distributed", "jax._src.distributed", "jax._src.clusters"}
JOINS = {"scale.start", "machine.trial"}


def test_processes_are_joined_through_their_door() -> None:
    """A process becomes one of several, and asks which it is, in one file."""
    found = set()
    for module in MODULES:
        nodes = ast.walk(ast.parse(source(module).read_text()))
        named = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
        found |= {module} if (named | imports(module)) & DISTRIBUTED else set()
    assert found == JOINS


# What is seen through another file only is tested there.
TESTED_WITH = {
    "explain.on_devices": "explain.trace",
    "explain.aligned": "explain.trace",
    "recording.losses": "recording.recorder",
    "recording.new_lines": "recording.recorder",
    "storage.found": "storage.stored",
    "storage.whole": "storage.stored",
    "explain.comparison": "explain.compare",
    "explain.sides": "explain.compare",
    "cli.arguments": "cli.runs",
    "cli.audits": "evidence.commitment",
    "evidence.limits": "evidence.commitment",
    "evidence.claims": "evidence.audit",
    "evidence.progress": "evidence.audit",
    "evidence.recheck": "evidence.audit",
    "evidence.request": "evidence.audit",
    "evidence.verdict": "evidence.audit",
    "cli.machines": "reference.doctor",
    "cli.scripts": "script.twice",
    "cli.exercises": "exercise.desk",
    "exercise.judged_first": "exercise.verdict",
    "exercise.judged_parts": "exercise.verdict",
    "exercise.judged_saved": "exercise.verdict",
    "exercise.judged_later": "exercise.verdict",
    "script.diverging": "script.align",
    "script.aligned_lanes": "script.aligned",
    "script.drawn_aligned": "script.drawn",
    "script.origins": "script.align",
    "script.unordered": "script.align",
    "script.sealed": "script.reading",
    "script.pairs": "script.align",
    "script.inherited": "script.twice",
    "script.start": "script.twice",
    "watch.again": "script.repeat",
    "watch.ulps": "watch.second",
    "script.recomputed": "watch.second",
    "script.findings": "watch.second",
    "script.reused": "watch.draws",
    "watch.derived": "watch.draws",
    "watch.consumed": "watch.draws",
    "watch.asides": "watch.draws",
    "script.inputs": "script.interrupt",
    "script.graph": "script.aligned",
    "script.updates": "script.aligned",
    "script.matched": "script.aligned",
    "script.descent": "script.aligned",
    "script.sides": "script.aligned",
    "script.left_over": "script.aligned",
    "script.instead": "script.aligned",
    "script.beside": "script.aligned",
    "script.aligned_report": "script.aligned",
    "script.lost": "script.interrupt",
    "script.resumption": "script.interrupt",
    "script.resuming": "script.interrupt",
    "watch.limit": "script.interrupt",
    "script.moments": "script.interrupt",
    "script.steps": "script.interrupt",
    "script.backwards": "script.interrupt",
    "script.onwards": "script.interrupt",
    "script.ends": "script.interrupt",
    "script.parts": "script.interrupt",
    "script.reprinted": "script.interrupt",
    "script.rounded": "script.interrupt",
    "script.values": "script.interrupt",
    "testing.fresh": "testing.reproducible",
    "testing.script": "script.interrupt",
    "script.hidden": "script.sweep",
    "script.hidden_numbers": "script.sweep",
    "script.hidden_table": "script.sweep",
    "script.mirror": "script.sweep",
    "script.asking": "script.sweep",
    "script.changing": "script.sweep",
    "script.undone": "script.sweep",
    "script.unheld": "script.sweep",
    "script.sites": "script.report",
    "script.swept": "script.sweep",
    "script.lanes": "script.drawn",
    "explain.page": "explain.report",
    "watch.elsewhere": "script.sweep",
    "watch.begin": "script.twice",
    "watch.versions_of_files": "script.aligned",
    "watch.calls": "script.record",
    "watch.children": "watch.host",
    "watch.late": "watch.host",
    "watch.settings": "watch.hook",
    "watch.compiled": "script.record",
    "watch.lines": "script.reading",
    "watch.execution": "script.repeat",
    "watch.keeping": "script.repeat",
    "watch.mixing": "watch.prints",
    "watch.source": "script.record",
    "watch.wrap": "watch.host",
    "script.dataflow": "script.cause",
    "watch.sitecustomize": "script.twice",
    "watch.texts": "script.programs",
    "watch.threads": "watch.callbacks",
    "watch.writing": "script.reading",
    "cli.terminal": "cli.runs",
    "explain.recompute": "explain.replay",
    "explain.stretches": "explain.replay",
}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_travels_with_its_chapter_and_tests(module: str) -> None:
    """Each module names a page that exists, has a rule, and a test file of its name."""
    docstring = ast.get_docstring(ast.parse(source(module).read_text()))
    [page] = re.findall(r"^Chapter: (docs/\S+\.md)$", docstring, re.MULTILINE)
    assert (ROOT / page).is_file()
    assert re.search(r"^The rule: ", docstring, re.MULTILINE)
    *room, name = TESTED_WITH.get(module, module).split(".")
    assert Path(ROOT, "tests", *room, f"test_{name}.py").is_file()


def exported() -> list[ast.FunctionDef | ast.ClassDef]:
    """Return what the stub and `testing` hand out, with the public methods of its classes."""
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    names: dict[str, set[str]] = {}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            names.setdefault(node.module, set()).update(alias.name for alias in node.names)
    for node in ast.parse((PACKAGE / "testing" / "__init__.py").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            module = node.module.removeprefix("reproducibility.")
            names.setdefault(module, set()).update(alias.name for alias in node.names)
    kinds = (ast.FunctionDef, ast.ClassDef)
    found = []
    for module, wanted in names.items():
        tree = ast.parse(source(module).read_text())
        found += [n for n in tree.body if isinstance(n, kinds) and n.name in wanted]
    inner = [
        n for c in found if isinstance(c, ast.ClassDef) for n in c.body if isinstance(n, kinds)
    ]
    return [node for node in [*found, *inner] if not node.name.startswith("_")]


# What these come to are no bits: they start, write, wait or tell.
NO_BITS = {
    "launch",
    "initialize",
    "write_atomically",
    "write_result",
    "of",
    "close",
    "flush",
    "wait",
    "report",
    "read",
    "work",
    "log",
    "attempts",
    "take",
    "read_result",
    "mend_attempts",
    "result",
    "finish",
    "mend_result",
    "steps",
    "to_json",
    "verify",
}


def test_what_is_exported_says_where_the_bits_are_the_same() -> None:
    """All that readers can import has a docstring, and what computes has a line on sameness."""
    silent = []
    for node in exported():
        docstring = ast.get_docstring(node) or ""
        assert docstring, node.name
        decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
        property_like = decorators & {"property", "functools.cached_property"}
        if isinstance(node, ast.FunctionDef) and not property_like and node.name not in NO_BITS:
            silent += [node.name] if "ame bits:" not in docstring else []
    assert silent == []


def test_no_line_says_nothing() -> None:
    """A line on sameness stands where something is computed."""
    texts = {module: source(module).read_text() for module in MODULES}
    assert [module for module, text in texts.items() if "not a computation" in text] == []


def constants(tree: ast.Module) -> set[str]:
    """Return the names that a module assigns outside of functions and classes."""
    assigned = [n for n in tree.body if isinstance(n, ast.Assign | ast.AnnAssign)]
    targets = [t for n in assigned for t in getattr(n, "targets", None) or [n.target]]
    names = {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return {name for name in names if not name.startswith("__")}


# `work` is what a process that replays calls in the module that it is told.
STANDS_TWICE = {"work"}


def test_names_are_unique() -> None:
    """A function, class or constant is defined in one file, so that a reader who searches for its
    name finds one."""
    found: dict[str, list[str]] = {}
    for module in MODULES:
        tree = ast.parse(source(module).read_text())
        kinds = (ast.FunctionDef, ast.ClassDef)
        named = {n.name for n in tree.body if isinstance(n, kinds)} | constants(tree)
        named |= {n.name.id for n in tree.body if isinstance(n, ast.TypeAlias)}
        for name in named:
            found.setdefault(name, []).append(module)
    assert {n: m for n, m in found.items() if len(m) > 1 and n not in STANDS_TWICE} == {}


def mentioned(tree: ast.Module) -> set[str]:
    """Return the names that a module reads, its own or those of others."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
    return found


def test_no_constant_is_dead() -> None:
    """What a module assigns at its top is read somewhere in the package: what nothing reads says
    something that nothing keeps. The pages may read what they explain."""
    trees = {m: ast.parse(source(m).read_text()) for m in MODULES}
    pages = " ".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    read = set().union(*map(mentioned, trees.values()))
    dead = [f"{module}.{n}" for module, tree in trees.items() for n in constants(tree) - read]
    assert [name for name in dead if not re.search(rf"\b{name.split('.')[1]}\b", pages)] == []


def code_lines(path: Path) -> int:
    """Count the lines of code: no blank lines, comments or docstrings."""
    source = path.read_text()
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        for child in getattr(node, "body", []) if isinstance(node, documented) else []:
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                docstrings |= set(range(child.lineno, child.end_lineno + 1))
    kept = (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {t.start[0] for t in tokens if t.type not in kept and t.type != tokenize.NEWLINE}
    return len(lines - docstrings)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_kept_in_the_head(module: str) -> None:
    """A module has at most 300 lines of code; those that had more when this began have no more."""
    assert code_lines(source(module)) <= TOO_LONG.get(module, LONGEST)


def test_only_what_is_too_long_is_named_so() -> None:
    """A module that has come below the limit loses its exception."""
    assert [m for m in TOO_LONG if m not in MODULES or code_lines(source(m)) <= LONGEST] == []


def code_of(path: Path) -> str:
    """Return the Python that a file shows: all, the blocks of a page, or docstring examples."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    if PACKAGE in path.parents:
        return "\n".join(re.findall(r"^ *(?:>>>|\.\.\.) (.*)", text, re.MULTILINE))
    return text


SHOWN = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [
        ROOT / "README.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("docs/**/*.py"),
        *(PACKAGE / f"{module.replace('.', '/')}.py" for module in MODULES),
        *PACKAGE.rglob("__init__.py"),
    ]
)


@pytest.mark.parametrize("name", SHOWN)
def test_what_readers_see_comes_through_one_door(name: str) -> None:
    """Pages, labs and docstring examples import from `reproducibility` itself, from its `testing`,
    and the command's `main`: inner paths are nobody's business, so that they can change."""
    doors = {"reproducibility", "reproducibility.testing", "reproducibility.cli"}
    named = re.findall(r"(?:from|import) (reproducibility[\w.]*)", code_of(ROOT / name))
    assert set(named) <= doors, name


def test_the_stub_is_the_door() -> None:
    """Each name of the stub comes from the module that it says, and stands there once."""
    import reproducibility

    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    imported = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in imported for alias in node.names]
    assert len(names) == len(set(names))
    assert set(reproducibility.__all__) - {"__version__"} == set(names)
    for node in imported:
        for alias in node.names:
            found = getattr(reproducibility, alias.name)
            assert getattr(found, "__module__", f"reproducibility.{node.module}") == (
                f"reproducibility.{node.module}"
            )


# In one process, with the package imported from scratch for each order: JAX is loaded once.
ORDERS = """
import importlib, sys
from types import ModuleType

def check(*modules):
    for name in [name for name in sys.modules if name.partition(".")[0] == "reproducibility"]:
        del sys.modules[name]
    package = importlib.import_module("reproducibility")
    for module in modules:
        importlib.import_module(f"reproducibility.{module}")
    for attempt in ("first", "again"):
        for name in sorted(set(package.__all__) - {"__version__"}):
            found = getattr(package, name)
            right = getattr(found, "__name__", name) == name and not isinstance(found, ModuleType)
            assert right, f"{modules}: {attempt} {found}"

modules = sys.argv[1:]
check()
check(*modules)
check(*reversed(modules))
for module in ("reference.loop", "explain.compare", "same.fingerprint"):
    check(module)
print("checked")
"""


def test_a_name_is_never_its_module() -> None:
    """`reproducibility.fingerprint` and `reproducibility.compare` are the functions, whichever of
    the modules are imported before and in whichever order: Python itself would put the modules
    there, and lazy-loader before 0.6 let it."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", ORDERS, *MODULES],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "EAGER_IMPORT": ""},
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "checked\n"


@pytest.mark.parametrize("module", MODULES)
def test_no_name_hides_another(module: str) -> None:
    """No argument or variable of a function has the name of something that its module defines.

    A reader, or the next change, would take one for the other.
    """
    tree = ast.parse(source(module).read_text())
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {(a.asname or a.name).split(".")[0] for a in node.names}
    hidden = set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.Lambda):
            for node in ast.walk(function):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    hidden |= {(function.lineno, node.id)} if node.id in defined else set()
                elif isinstance(node, ast.arg) and node.arg in defined:
                    hidden.add((function.lineno, node.arg))
    assert hidden == set()


def test_the_map_is_the_house() -> None:
    """The map in CONTRIBUTING and the API pages say what the docstrings and the stub say."""
    text = api.CONTRIBUTING.read_text("utf-8")
    assert api.with_map(text) == text, "run: python -m tools.api"
    for name, page in api.pages().items():
        assert (api.FOLDER / name).read_text("utf-8") == page, "run: python -m tools.api"
    files = re.findall(r"^ *(\w+)/? ", api.house(), re.MULTILINE)
    assert files == [part for room, inside in HOUSE.items() for part in (room, *inside)]
