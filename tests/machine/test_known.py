"""Promises of `reproducibility.machine.known`."""

import dataclasses
import socket
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import jax
import numpy as np
import pytest
from jax import lax

from reproducibility import ConfigError, known_faults
from reproducibility.machine import known
from reproducibility.machine.child import unused_port
from reproducibility.machine.faults import FAULTS, Fault
from reproducibility.machine.known import FaultAnswer
from tests import planted

Ask = Callable[..., dict[str, FaultAnswer]]


@pytest.fixture(scope="module")
def everywhere() -> dict[str, FaultAnswer]:
    """Ask this CPU about all faults, those of accelerators and of other settings included."""
    here = [dataclasses.replace(f, platforms=("cpu",), prng=(), flag="") for f in FAULTS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known, "FAULTS", tuple(here))
        return {answer.name: answer for answer in known_faults()}


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Ask about planted faults only: `ask(first={"reproduce": planted.wrong})`."""

    def asked(deadline: float = 100.0, **entries: dict[str, object]) -> dict[str, FaultAnswer]:
        plain = {"wrong": "w", "platforms": ("cpu",), "consequence": "So.", "cure": "Do."}
        table = [Fault(**{"name": f"jax-{n}", **plain, **more}) for n, more in entries.items()]
        monkeypatch.setattr(known, "FAULTS", tuple(table))
        return {a.name.removeprefix("jax-"): a for a in known_faults(deadline=deadline)}

    return asked


def shifts_in_place() -> bool:
    """Say whether the program of openxla/xla#49176, written as there, is right on this JAX."""

    def program(x: jax.Array) -> jax.Array:
        base = x + np.int32(1)
        return lax.dynamic_update_slice(base, base[:3], (1, 0, 0)).reshape((1, 4, 1))

    got = jax.jit(program)(np.arange(4, dtype=np.int32).reshape(4, 1, 1))
    return np.asarray(got).ravel().tolist() == [1, 1, 2, 3]


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_program_runs_on_the_cpu(fault: Fault, everywhere: dict[str, FaultAnswer]) -> None:
    """Every program gives an answer here, and it is the right one but where JAX has the fault."""
    expected = "not seen" if fault.tries > 1 else "right"
    if fault.name == "jax-19085" or (fault.name == "xla-49176" and not shifts_in_place()):
        expected = "wrong"  # documented by JAX, and present in 0.12.0.1
    answer = everywhere[fault.name]
    assert answer.verdict == expected, answer
    assert (answer.source, answer.cure) == (fault.source, fault.cure)


def test_what_is_elsewhere_does_not_apply() -> None:
    """On a CPU with its usual settings, faults of accelerators and of rbg keys are not asked."""
    names = [f.name for f in FAULTS if "cpu" not in f.platforms or f.prng]
    assert names
    for answer in known_faults(names):
        assert answer.verdict == "does not apply"
        assert answer.detail
        assert answer.patterns == {}


def test_settings_made_in_python_are_asked_about() -> None:
    """With rbg keys by default, what JAX documents about them under vmap is found here."""
    with jax.default_prng_impl("rbg"):
        [answer] = known_faults(["jax-19085"])
    assert answer.verdict == "wrong"
    assert "24 of 32 wrong" in answer.detail  # all but the first of four keys


def test_each_verdict_has_its_planted_cause(ask: Ask) -> None:
    """Right, wrong, wrong once, not seen, failing, empty and elsewhere are told apart."""
    told = ask(
        right={"reproduce": planted.right},
        wrong={"reproduce": planted.wrong},
        once={"reproduce": planted.wrong, "tries": 30},
        rare={"reproduce": planted.right, "tries": 30},
        fails={"reproduce": planted.raising},
        empty={"reproduce": planted.empty},
        elsewhere={"reproduce": planted.wrong, "platforms": ("tpu",)},
    )
    assert {name: answer.text for name, answer in told.items()} == {
        "right": "right",
        "wrong": "wrong",
        "once": "wrong",
        "rare": "not seen in 30 tries",
        "fails": "cannot be told",
        "empty": "cannot be told",
        "elsewhere": "does not apply",
    }
    assert told["wrong"].detail.startswith("try 0: 1 of 4 wrong, first at (2,): 3.0 instead of 1.0")
    assert told["once"].detail.startswith("try 29: ")
    assert told["fails"].detail == "RuntimeError: planted"


def test_what_lies_in_the_directory_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tempfile.py where the user happens to be costs no answer."""
    Path(tmp_path, "tempfile.py").write_text("raise RuntimeError('planted')")
    monkeypatch.chdir(tmp_path)
    [answer] = known_faults(["jax-9604"])
    assert answer.verdict == "right"


def test_a_port_is_taken_for_several_processes_alone(
    tmp_path: Path,
) -> None:
    """One process needs no port; where two cannot have theirs, they get another, once."""
    plain = {"wrong": "w", "platforms": ("cpu",), "consequence": "So.", "cure": "Do."}
    one = Fault(name="jax-1", reproduce=planted.right, **plain)

    def asked(fault: Fault, *ports: int) -> int:
        left, end = list(ports), time.monotonic() + 100
        place = tmp_path / str(fault.processes)
        variables = known._environment_with(1)
        told = known._ask([fault], place, variables, end, Event(), lambda: left.pop(0))
        assert told["jax-1"]["problems"]
        assert not any(told["jax-1"]["problems"].values())
        return len(left)

    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert asked(one) == 0
        assert asked(dataclasses.replace(one, processes=2), taken, unused_port()) == 0


def test_a_version_is_no_excuse(ask: Ask) -> None:
    """A version measured to be right is asked all the same, and found wrong if it is."""
    told = ask(wrong={"reproduce": planted.wrong, "right_in": (jax.__version__,)})
    assert told["wrong"].verdict == "wrong"
    assert f"measured to be right in {jax.__version__}" in told["wrong"].detail


def test_what_does_not_end_is_ended(ask: Ask) -> None:
    """At the deadline a process is killed, and its fault cannot be told."""
    told = ask(deadline=3.0, endless={"reproduce": planted.endless})  # pytest's limit is shorter
    assert told["endless"].verdict == "cannot be told"


def test_all_processes_have_to_be_right(ask: Ask) -> None:
    """A fault that only the second process sees is seen, and a silent one is no pass."""
    told = ask(
        wrong={"reproduce": planted.wrong_in_process_1, "processes": 2},
        silent={"reproduce": planted.silent_in_process_1, "processes": 2},
    )
    assert told["wrong"].verdict == "wrong"
    assert told["wrong"].detail.startswith("process 1, try 0: ")
    assert told["silent"].verdict == "cannot be told"


def test_a_name_that_is_not_known_is_refused() -> None:
    """Asking about a fault that is not in the table is an error, not silence."""
    with pytest.raises(ConfigError, match=r"Cannot find a published fault: expected .*, got jax-0"):
        known_faults(["jax-0"])


def test_a_crash_costs_its_own_answer_only(ask: Ask) -> None:
    """Whatever stands behind a program that takes its process along is asked in another one."""
    verdicts = {
        name: answer.verdict
        for name, answer in ask(
            first={"reproduce": planted.right},
            crash={"reproduce": planted.crashing},
            leave={"reproduce": planted.leaving},
            last={"reproduce": planted.wrong},
        ).items()
    }
    untold = "cannot be told"
    assert verdicts == {"first": "right", "crash": untold, "leave": untold, "last": "wrong"}


def test_what_was_wrong_before_a_failure_is_wrong(ask: Ask) -> None:
    """A program that fails after it has computed something wrong has said enough.

    One that has nothing to compare has said nothing.
    """
    found = ask(
        wrong={"reproduce": planted.wrong_then_raising},
        right={"reproduce": planted.raising},
        empty={"reproduce": planted.nothing_to_compare},
    )
    verdicts = [answer.verdict for answer in found.values()]
    assert verdicts == ["wrong", "cannot be told", "cannot be told"]


def test_flags_may_be_in_a_file(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where XLA_FLAGS names a file, as XLA allows, its flags are used as they are elsewhere."""
    (tmp_path / "flags").write_text("--xla_cpu_multi_thread_eigen=false")
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "flags"))
    [answer] = ask(one={"reproduce": planted.right}).values()
    assert answer.verdict == "right"
