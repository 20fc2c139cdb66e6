"""What surrounds a run is told where it can be read, and nothing is imported for it."""

import os
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from reproducibility.watch import surroundings

CORE = "processor : {n}\nmodel name : {model}\nflags : fpu sse4_2 {flags}\n\n"


@pytest.mark.parametrize(
    ("flags", "named"),
    [("", "SSE4_2"), ("avx", "AVX"), ("avx avx2", "AVX2"), ("avx avx2 avx512f", "AVX512")],
)
def test_the_first_core_is_told(monkeypatch: pytest.MonkeyPatch, flags: str, named: str) -> None:
    """Name and widest instructions are those of the first core, however many follow."""
    text = CORE.format(n=0, model="one", flags=flags)
    text += "".join(CORE.format(n=n, model="other", flags="avx512_vnni") for n in range(1, 400))
    _reads(monkeypatch, lambda: text.encode())
    told = surroundings.processor()
    assert (told["model"], told["instructions"]) == ("one", named)


def test_what_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without such a file, and with one that is no text, there is an architecture at least."""

    def refuse() -> bytes:
        raise PermissionError

    for read in (refuse, lambda: b"\xff\x00:\n:::\n"):
        _reads(monkeypatch, read)
        told = surroundings.processor()
        assert told["architecture"] == os.uname().machine
        assert told["instructions"] == ""


def test_devices_are_counted_by_kind_and_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver of another version is another runtime; a CPU has none."""
    client = types.SimpleNamespace(platform_version="cuda 13000\nbuilt on some day")

    def device(platform: str, kind: str) -> Any:
        return types.SimpleNamespace(platform=platform, device_kind=kind, client=client)

    both = [device("gpu", "NVIDIA H200"), device("cpu", "cpu"), device("gpu", "NVIDIA H200")]
    jax = types.SimpleNamespace(local_devices=lambda: both)
    monkeypatch.setitem(sys.modules, "jax", jax)
    assert surroundings.devices_by_kind() == {"NVIDIA H200 (cuda 13000)": 2, "cpu": 1}
    monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace())
    assert surroundings.devices_by_kind() == {}


def test_only_what_is_imported_has_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that the script has not imported is not imported for its version."""
    torch = types.ModuleType("torch")
    torch.__version__ = "9.9"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    found = surroundings.versions()
    assert found["torch"] == "9.9"
    assert "tensorflow" not in found
    assert "tensorflow" not in sys.modules


def _reads(monkeypatch: pytest.MonkeyPatch, read: Callable[[], bytes]) -> None:
    monkeypatch.setattr(os, "open", lambda *_: 0)
    monkeypatch.setattr(os, "close", lambda _: None)
    monkeypatch.setattr(os, "read", lambda _, size: read()[:size])


def test_no_module_is_asked_for_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the script's own may be called as a library is, and raise or warn when asked."""

    class Lazy(types.ModuleType):
        def __getattr__(self, name: str) -> str:
            raise RuntimeError(name)

    monkeypatch.setitem(sys.modules, "grain", Lazy("grain"))
    assert "grain" not in surroundings.versions()
    vars(sys.modules["grain"])["__version__"] = "1"
    assert surroundings.versions()["grain"] == "1"
