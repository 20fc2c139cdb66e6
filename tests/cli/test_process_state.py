"""Promises of `reproducibility.cli.process_state`: what a command changes, it puts back."""

import logging
import os
import signal
import sys
import warnings
from typing import Any

import pytest

from reproducibility import CheckpointStore
from reproducibility.cli.process_state import stop_on_signal
from tests.calling import SMALL, Call


def test_a_second_signal_ends_at_once() -> None:
    """The first Ctrl-C asks for a checkpoint; whoever presses it again does not want to wait."""
    with stop_on_signal() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def process_state() -> dict[str, Any]:
    """Return what everything in a process shares."""
    return {
        "filters": list(warnings.filters),
        "hooks": (warnings.showwarning, sys.unraisablehook, sys.excepthook, sys.stdout),
        "handlers": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)],
        "levels": [logging.getLogger(name).level for name in ("absl", "asyncio")],
        "variables": dict(os.environ),
    }


def test_a_command_puts_back_what_it_changes(call: Call) -> None:
    """A process that calls `main` with arguments of its own is as it was, after success and after
    a refusal. The control: while a signal is turned into a request, it is not."""
    assert CheckpointStore  # Orbax is loaded: libraries may change what they like by then
    call("train", *SMALL, "--steps", 1, "--run-dir", "run")
    before = process_state()
    assert call("train", *SMALL, "--steps", 2, "--run-dir", "run")[0] == 0
    assert call("train", *SMALL, "--steps", 1, "--run-dir", "run", "--seed", 9)[0] == 2
    assert process_state() == before
    with stop_on_signal():
        assert process_state() != before
