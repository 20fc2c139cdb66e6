"""What the tests of the assertions share: a check that must fail, and some leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

X = np.arange(6, dtype=np.float32).reshape(2, 3)
KEYS = jax.random.wrap_key_data(np.arange(8, dtype=np.uint32).reshape(4, 2), impl="threefry2x32")


def failure(check: Callable[..., None], *args: Any, **settings: Any) -> str:
    """Return what a check that must fail says."""
    with pytest.raises(AssertionError) as caught:
        check(*args, **settings)
    return str(caught.value)
