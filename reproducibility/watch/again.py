"""Execute a call that was kept, several times, in a process that knows nothing of its script.

The rule: the same program, compiled as it was, from the same bytes; what comes out is written down
and not judged.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import execution
from .keeping import CALL

ANSWER = "again.json"
LONG_ENOUGH = 60  # seconds after which a call that takes long is not executed again,
AT_LEAST = 2  # once it has been this often


def execute_again(folder: Path, out: Path, times: int) -> None:
    """Execute the call of a folder, and write what came of it each time.

    Args:
        folder: where the call was kept.
        out: an empty directory for the answer, and for each result that was not there before.
        times: how often.
    """
    call = json.loads((folder / CALL).read_text())
    sys.path.append(call["path"])
    import jax

    config: Any = jax.config
    config.update("jax_enable_x64", True)  # the program says what each input is
    if call["cpus"] > 1 and "xla_force_host" not in os.environ.get("XLA_FLAGS", ""):
        config.update("jax_num_cpu_devices", call["cpus"])
    program = _Program(folder, call)
    answers, written = [], set()
    began = time.monotonic()
    for done in range(times):
        if done >= AT_LEAST and time.monotonic() - began > LONG_ENOUGH:
            break
        digests = []
        for number, parts in enumerate(program.execute()):
            digest = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
            if (number, digest) not in written:
                written.add((number, digest))
                for place, part in enumerate(parts):
                    (out / f"{number}-{digest}-{place}").write_bytes(part.tobytes())
            digests.append(digest)
        answers.append(digests)
    (out / ANSWER).write_text(json.dumps({"results": answers}))


class _Program:
    """A program that is compiled once and executed again and again."""

    def __init__(self, folder: Path, call: dict[str, Any]) -> None:
        import jax

        jnp: Any = jax.numpy
        jnp.linalg.cholesky(jnp.eye(2)).block_until_ready()  # loads LAPACK
        self._folder, self._inputs = folder, call["inputs"]
        by_id = {device.id: device for device in jax.local_devices(backend=call["platform"])}
        self._devices = [by_id[number] for number in call["devices"]]
        module, options = ((folder / name).read_bytes() for name in ("program.mlir", "options"))
        self._loaded = execution.compile_alone(module, options, self._devices)

    def execute(self) -> list[list[Any]]:
        """Return the parts of each result, device by device."""
        inputs = [self._array(number, facts) for number, facts in enumerate(self._inputs)]
        results = self._loaded.execute_sharded(inputs)
        parts = results.disassemble_into_single_device_arrays()
        return [[np.asarray(part) for part in result] for result in parts]

    def _array(self, number: int, facts: dict[str, Any]) -> Any:
        """Put an input where it was: donation may have taken the last one."""
        import jax

        arrays = []
        for place, part in enumerate(facts["parts"]):
            data = (self._folder / f"input-{number}-{place}").read_bytes()
            value = np.frombuffer(data, jax.numpy.dtype(facts["dtype"])).reshape(part["shape"])
            (device,) = (each for each in self._devices if each.id == part["device"])
            arrays.append((part["device"], jax.device_put(value.copy(), device)))
        if len(arrays) == 1:
            return arrays[0][1]
        # XLA takes the parts as they lie; which part of the whole each is, the program knows.
        order = [device.id for device in self._devices]
        arrays.sort(key=lambda pair: order.index(pair[0]))
        parts = [array for _, array in arrays]
        sharding: Any = jax.sharding
        mesh = sharding.Mesh(np.array(self._devices), "d")
        first, *rest = parts[0].shape or (None,)
        spec = sharding.PartitionSpec(*(() if first is None else ("d",)))
        shape = () if first is None else (len(parts) * first, *rest)
        lies = sharding.NamedSharding(mesh, spec)
        return jax.make_array_from_single_device_arrays(shape, lies, parts)
