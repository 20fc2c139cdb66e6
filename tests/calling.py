"""The command line, called in the tests."""

from collections.abc import Callable

SMALL = ["--batch-size", "32", "--shards", "2", "--hidden", "8"]

# What a test calls with arguments, which returns the code, stdout and stderr.
Call = Callable[..., tuple[int, str, str]]


def one_sentence(err: str) -> str:
    """Check that stderr is one line without a traceback, and return it."""
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err.strip()
