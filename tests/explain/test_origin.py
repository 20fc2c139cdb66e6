"""Promises of `reproducibility.explain.origin`."""

import dataclasses
import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from reproducibility import ReplayError, RunError, TrainConfig, capture_environment, train
from reproducibility.explain import origin, recompute, stretches
from reproducibility.explain.origin import trace_steps
from reproducibility.machine.environment import facts_of
from tests.conftest import SMALL
from tests.replaying import X86, another, rewrite_ledger, train_otherwise

CONFIG = TrainConfig(seed=7, steps=3, **SMALL)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make two runs of one identity, the second in a process that has other bits."""
    folder = tmp_path_factory.mktemp("origin")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # record no commit: it may change while the tests run
        train(CONFIG, run_dir=folder / "a")
        train_otherwise({folder / "b": CONFIG})
    return folder / "a", folder / "b"


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in this process and environment instead of in others."""

    def work(environment: Any, module: str, task: Any, progress: Any) -> dict[str, Any]:
        found = json.loads(json.dumps(importlib.import_module(module).work(task)))
        return {**found, "environment": facts_of({**found, "environment": capture_environment()})}

    monkeypatch.setattr(stretches, "in_environment", work)


@pytest.mark.long
def test_the_operation_is_found_in_two_environments(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two runs of two instruction sets, the operation that differs is named with its line."""
    monkeypatch.chdir(runs[0].parent)
    said: list[str] = []
    found = trace_steps(runs, 1, progress=said.append)
    assert (found.verdict, found.exit_code, found.notes) == ("different", 1, ())
    divergence = found.divergence
    assert divergence.kind == "operation"
    assert divergence.a.inputs == divergence.b.inputs
    assert divergence.a.outputs != divergence.b.outputs
    assert divergence.a.where == divergence.b.where
    assert not divergence.a.where.startswith("/")
    assert found.reason == divergence.reason
    if X86:  # elsewhere the flag is another one
        assert divergence.a.name in ("exp", "log", "tanh", "dot_general")
        assert ".py:" in divergence.a.where
    assert any("tracing step 1" in text for text in said)


@pytest.mark.nightly
@pytest.mark.long
def test_a_step_is_traced_from_the_state_before_it(
    runs: tuple[Path, Path], in_process: None
) -> None:
    """The whole step is traced, every shard and the update, and its results are those of a step."""
    found = trace_steps(runs[:1], 2)
    assert (found.verdict, found.exit_code, found.divergence) == ("same", 0, None)
    names = [operation.name for operation in found.traces[0].operations]
    assert names.count("exp") >= CONFIG.shards
    assert "sqrt" in names  # Adam
    assert any(name.startswith("[1].params") for name in found.traces[0].outputs)
    assert found.traces[0] != trace_steps(runs[:1], 1).traces[0]


def test_the_initialisation_is_step_0(runs: tuple[Path, Path], in_process: None) -> None:
    """Step 0 is the making of the first parameters, from the key."""
    [found] = trace_steps(runs[:1], 0).traces
    names = {operation.name for operation in found.operations}
    assert any("random" in name for name in names)
    assert "exp" not in names
    assert any("kernel" in name for name in found.outputs)


def test_equal_steps_are_the_same(runs: tuple[Path, Path], in_process: None) -> None:
    """Where every operation agrees, so do the runs."""
    found = trace_steps((runs[0], runs[0]), 1)
    assert (found.verdict, found.exit_code, found.divergence.kind) == ("same", 0, "none")


def test_what_no_operation_shows_cannot_be_told(
    runs: tuple[Path, Path], in_process: None, tmp_path: Path
) -> None:
    """Ledgers that differ, and operations that do not: the answer is neither yes nor no."""
    shutil.copytree(runs[0], tmp_path / "b")
    rewrite_ledger(tmp_path / "b", another(2, "gradients"))
    found = trace_steps((runs[0], tmp_path / "b"), 2)
    assert (found.verdict, found.exit_code) == ("cannot be told", 3)
    assert "no operation does on its own" in found.reason


def test_a_state_that_is_not_the_recorded_one_is_said(
    runs: tuple[Path, Path], in_process: None, tmp_path: Path
) -> None:
    """If the steps before came out otherwise than recorded, the answer says so."""
    shutil.copytree(runs[0], tmp_path / "b")
    rewrite_ledger(tmp_path / "b", another(1, "params"))
    [note] = trace_steps([tmp_path / "b"], 2).notes
    assert f"{tmp_path / 'b'}: computed again, step 1 came out different" in note


def test_without_a_trace_there_is_no_verdict(
    runs: tuple[Path, Path], in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an earlier stretch is refuted and nothing was traced, nothing is compared."""
    monkeypatch.setattr(origin, "work", lambda task: recompute.work({**task, "end": 1, "since": 0}))
    with pytest.raises(ReplayError, match="Cannot trace a step"):
        trace_steps(runs[:1], 2)


def test_another_program_is_found(
    runs: tuple[Path, Path], in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of other code than that of the other run differs where the code does."""
    other = dataclasses.replace(CONFIG, learning_rate=2e-3)
    train(other, run_dir=runs[0].parent / "rate")
    found = trace_steps((runs[0], runs[0].parent / "rate"), 1)
    assert (found.verdict, found.divergence.kind) == ("different", "program")
    assert "optax" in found.divergence.a.where


def test_bad_input(runs: tuple[Path, Path], in_process: None, tmp_path: Path) -> None:
    """A step that was never computed, and a directory that is no run, are refused."""
    with pytest.raises(ReplayError, match="a step from 0 to 3"):
        trace_steps(runs, 4)
    with pytest.raises(RunError):
        trace_steps([tmp_path], 1)


def test_it_is_json(runs: tuple[Path, Path], in_process: None) -> None:
    """What was found can be written and read."""
    found = trace_steps((runs[0], runs[0]), 0)
    read = json.loads(json.dumps(found.to_json()))
    assert read.keys() == {"verdict", "reason", "parting", "notes", "traces"}
    assert read["traces"][0]["operations"][0]["name"]
