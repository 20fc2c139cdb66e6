"""Make a JAX training run repeat bit for bit, and prove that it does.

The names of the stub are the stable surface; where each is defined may change.
Chapter: docs/index.md
"""

import lazy_loader

# The stub beside this file lists the names: type checkers read it, and so does this line, so
# that `import reproducibility` loads a module only when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
