"""The judge of hidden inputs: what was missed and what was invented is called so."""

from __future__ import annotations

from typing import Any

from tests.faults.judge_hidden import judge_hidden


def outcome(wanted: tuple[str, ...], verdict: str = "different", **results: str) -> str:
    """Judge an answer that has a result for each of some rows."""
    rows = [
        {"name": name.replace("_", "-"), "result": result.replace("_", " "), "line": None}
        for name, result in results.items()
    ]
    answer: dict[str, Any] = {"verdict": verdict, "reason": "Said so.", "rows": rows}
    return judge_hidden(wanted, answer).outcome


def test_exactly_what_was_planted_is_right() -> None:
    """All that a script depends on is found, and nothing else is."""
    assert outcome(("hash salt",), hash="different", listing="same") == "right"
    assert outcome(("clock", "time zone"), clock="different", zone="different") == "right"
    assert outcome(("clock", "time zone"), clock="different", zone="same") == "missed"
    assert outcome(("hash salt",), hash="different", listing="different") == "invented"


def test_a_kind_may_have_several_rows() -> None:
    """One of them is enough, and the others are not invented."""
    assert outcome(("threads",), blas_threads="different", xla_threads="same") == "right"
    assert outcome(("threads",), blas_threads="different", blas_kernels="different") == "right"
    assert outcome(("jax setting",), x64="different", prng="same") == "right"


def test_a_variable_is_a_row_of_its_own() -> None:
    """A variable that the script reads has a row of its name."""
    assert outcome(("environment variable",), BIGRAM_RATE="different") == "right"
    assert outcome(("hash salt",), hash="different", BIGRAM_RATE="different") == "invented"


def test_a_script_that_depends_on_nothing() -> None:
    """It is the same, and it has to be said so."""
    assert outcome((), "same", hash="same", listing="same") == "same"
    assert outcome((), hash="different") == "invented"
    assert outcome((), "cannot be told", hash="cannot be told") == "cannot be told"


def test_what_was_not_found() -> None:
    """To say that an input does not matter is worse than to say that it cannot be told."""
    assert outcome(("hash salt",), "same", hash="same") == "missed"
    assert outcome(("hash salt",), "same", listing="same") == "cannot be told"
    assert outcome(("hash salt",), "cannot be told", hash="cannot_be_told") == "cannot be told"
    assert judge_hidden(("hash salt",), None).outcome == "no answer"
