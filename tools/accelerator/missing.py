"""Stand-ins for two small libraries that the package imports, where a Python lacks them.

A machine with an accelerator often has JAX, NumPy and no network. `lazy_loader` reads the stub of
the package; `jaxtyping` is for annotations only.
"""

import importlib.util
from pathlib import Path

LAZY_LOADER = '''
import ast
import importlib


def attach_stub(package, filename):
    """Import each name of the stub beside a file when it is first used."""
    with open(filename + "i", encoding="utf-8") as stub:
        imports = [node for node in ast.parse(stub.read()).body if isinstance(node, ast.ImportFrom)]
    where = {alias.name: node.module for node in imports for alias in node.names}

    def attribute(name):
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{where[name]}"), name)

    return attribute, lambda: sorted(where), sorted(where)
'''
JAXTYPING = '''
class Anything:
    """What an annotation says, if nobody reads it."""

    def __class_getitem__(cls, _):
        return cls


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Anything
'''
STAND_INS = {"lazy_loader": LAZY_LOADER, "jaxtyping": JAXTYPING}


def stand_in(folder: Path) -> list[str]:
    """Write what this Python lacks into a folder, and return the names."""
    lacking = [name for name in STAND_INS if importlib.util.find_spec(name) is None]
    for name in lacking:
        (folder / f"{name}.py").write_text(STAND_INS[name].lstrip(), encoding="utf-8")
    return lacking
