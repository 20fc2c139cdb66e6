"""How do you keep it so, in your own test suite?

The rule: compare bits, in a fresh process, after a real checkpoint; and see each proof fail once.
Chapter: docs/guide/testing_your_code.md

Read in this order: `equal` (two trees), `fresh` (a function in a fresh process), `reproducible`,
`resumable`, `seeds`, `script` (a script as it is), `fixtures` (for pytest).

Nothing in this room knows how you train: a result is any pytree that has a digest, a loop any
function. No other room imports this one, and this one alone needs pytest.
"""

from reproducibility.testing.equal import assert_bitwise_equal
from reproducibility.testing.fixtures import item_key, strict_jax
from reproducibility.testing.reproducible import assert_reproducible
from reproducibility.testing.resumable import assert_resumable
from reproducibility.testing.script import assert_script_repeats, assert_script_resumable
from reproducibility.testing.seeds import assert_seed_matters, assert_seeds_differ

__all__ = [
    "assert_bitwise_equal",
    "assert_reproducible",
    "assert_resumable",
    "assert_script_repeats",
    "assert_script_resumable",
    "assert_seed_matters",
    "assert_seeds_differ",
    "item_key",
    "strict_jax",
]
