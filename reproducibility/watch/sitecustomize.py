"""Python imports this when it starts, if this folder is on its path: it begins a record.

The rule: a script that cannot be recorded runs as it would have.
Chapter: docs/guide/any_script.md

It acts right after the script's own `import jax`, so that what the script sets before still holds.
A `sitecustomize` of the environment is imported as if this one were not there.
"""

import os
import sys


def _begin() -> None:
    import importlib.util

    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != folder]
    directory = os.environ.get("REPRODUCIBILITY_RECORD")
    own = sys.modules.pop("sitecustomize", None)
    try:
        importlib.import_module("sitecustomize")  # that of the environment
    except ImportError:
        sys.modules["sitecustomize"] = own  # type: ignore[assignment]
    if not directory:
        return
    name = "_reproducibility_watch"
    spec = importlib.util.spec_from_file_location(
        name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    begin = importlib.import_module(f"{name}.begin")
    begin.with_the_script(directory)


try:
    _begin()
except Exception as error:  # the script goes on; that the record is empty says what happened
    sys.stderr.write(f"reproducibility: cannot record: {type(error).__name__}: {error}\n")
