"""Keep one call: its program and the values of its inputs, so that it can be executed again.

The rule: one call of one run, asked for by name; what cannot be kept is said in a sentence.
Chapter: docs/guide/any_script.md

    DIR/process-1/kept/call.json       what it is, or why it was not kept; the digest of every file
    DIR/process-1/kept/program.mlir    its StableHLO
    DIR/process-1/kept/options         how it was compiled, as XLA writes that
    DIR/process-1/kept/input-1-0       bytes of an input on a device: the number of either
    DIR/process-1/kept/result-1-0      the same of a result
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import execution
from .late import np

FOLDER, CALL = "kept", "call.json"


class Keeping:
    """Waits for a call: `process-1/2:3` is call 3 of the second thread of that process."""

    def __init__(self, folder: Path, wanted: str, variables: dict[str, str]) -> None:
        process, _, place = wanted.rpartition("/")
        thread, _, call = place.partition(":")
        self._wanted = (int(thread), int(call)) if process == folder.name else None
        self._folder, self._variables = folder / FOLDER, variables
        self.done = False
        self._files: dict[str, str] = {}
        self._facts: dict[str, Any] = {}
        self._compiled: dict[int, tuple[Any, Any, Any]] = {}

    def compiled(self, loaded: Any, module: Any, options: Any) -> None:
        """Remember what a program was compiled from."""
        self._compiled[id(loaded)] = (loaded, module, options)

    def before(self, line: Any, execute: Callable[..., Any], arguments: Sequence[Any]) -> None:
        """Keep program and inputs, if this is the call."""
        if (line.thread.index, line.number) != self._wanted:
            return
        facts = self._facts
        try:
            self._folder.mkdir(mode=0o700)
            facts.update(self._surroundings())
            facts["inputs"] = self._arrays("input", execution.inputs_of(execute, arguments))
            why = execution.why_it_cannot_be_executed_alone(execute)
            known = self._compiled.get(id(line.program.loaded))
            if why or known is None:
                facts["not"] = why or "it was compiled before anyone watched"
            else:
                self._write("program.mlir", _bytecode_of(known[1]))
                self._write("options", known[2].SerializeAsString())
                facts["devices"] = [each.id for each in known[0].local_devices()]
                facts["platform"] = known[0].local_devices()[0].platform
        except Exception as error:
            facts["not"] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"

    def after(self, line: Any, results: Sequence[Any]) -> None:
        """Keep the results, if this is the call, and be done."""
        if (line.thread.index, line.number) != self._wanted:
            return
        try:
            bases = [getattr(each, "_base_array", each) for each in results]
            self._facts["results"] = self._arrays("result", bases)
        except Exception as error:
            self._facts["not"] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        self._facts["files"] = self._files
        self._write(CALL, json.dumps(self._facts, sort_keys=True).encode())
        self.done = True

    def _surroundings(self) -> dict[str, Any]:
        """Return what a fresh process needs to be like this one."""
        jax: Any = sys.modules["jax"]
        return {
            "python": sys.executable,
            "path": os.path.dirname(os.path.dirname(jax.__file__)),
            "variables": self._variables,
            "cpus": len(jax.local_devices(backend="cpu")) if jax.default_backend() == "cpu" else 0,
        }

    def _arrays(self, what: str, arrays: Sequence[Any]) -> list[dict[str, Any]]:
        """Write the parts of arrays that lie on each device."""
        found = []
        for number, array in enumerate(arrays):
            parts = []
            for place, shard in enumerate(array.addressable_shards):
                part = np.array(shard.data)
                self._write(f"{what}-{number}-{place}", part.tobytes())
                facts = {"device": shard.device.id, "shape": list(part.shape)}
                parts.append({**facts, "replica": shard.replica_id})
            found.append({"dtype": array.dtype.name, "parts": parts})
        return found

    def _write(self, name: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(self._folder / name, flags, 0o600), "wb") as file:
            file.write(data)
        self._files[name] = hashlib.sha256(data).hexdigest()


def _bytecode_of(module: Any) -> bytes:
    file = io.BytesIO()
    module.operation.write_bytecode(file)
    return file.getvalue()
