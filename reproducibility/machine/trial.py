"""One process that runs reproducers, and writes down what each came to.

The rule: an answer is written as soon as it is there, so that a crash or a deadline costs only the
answers that were not. What applies is decided here, where the devices and the settings are.
Chapter: docs/guide/using_the_project.md
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax

from reproducibility.machine.reproducers import Computed


@dataclasses.dataclass(frozen=True)
class Task:
    """A reproducer for a fresh process, and when it applies.

    Same bits: everywhere.
    """

    name: str
    """Which fault."""
    function: str
    """Where the reproducer is, "module:function"."""
    platforms: tuple[str, ...]
    """The platforms on which the fault was seen."""
    tries: int = 1
    """How often to try."""
    prng: tuple[str, ...] = ()
    """The default generators of keys that it concerns; none for any."""
    flag: str = ""
    """The flag of XLA without which it does not apply; "" for none."""
    devices: int = 1
    """Devices that it needs."""

    def obstacle(self) -> str | None:
        """Say why this does not apply to this process, or None.

        Same bits: it asks this process.
        """
        platform, generator = jax.default_backend(), str(jax.config.jax_default_prng_impl)
        if platform not in self.platforms:
            return f"this is {platform}"
        if self.prng and generator not in self.prng:
            return f"keys are {generator} by default"
        if self.flag and self.flag not in os.environ.get("XLA_FLAGS", ""):
            return f"{self.flag} is not in XLA_FLAGS"
        if jax.device_count() < self.devices:
            return f"it needs {self.devices} devices"
        return None


def judge(
    computed: Iterable[Computed], problems: dict[str, str | None] | None = None
) -> dict[str, str | None]:
    """Compare what was computed with what is right.

    Same bits: everywhere, for the same arrays.

    Args:
        computed: what a reproducer yields.
        problems: where to put what is wrong, so that it is there also if the reproducer fails.

    Returns:
        What is wrong, by pattern or try; None where nothing is.

    Raises:
        ValueError: nothing was computed.
    """
    problems = {} if problems is None else problems
    for each in computed:  # of several devices, one wrong is enough
        if not each.right.size:
            raise ValueError(f"{each.what}: there is nothing to compare")
        problems[each.what] = problems.get(each.what) or each.problem()
    if not problems:
        raise ValueError("The reproducer computed nothing.")
    return problems


def answer(task: Task) -> dict[str, Any]:
    """Run a reproducer, if it applies.

    **Same bits:** this is what is found out.

    Args:
        task: which.

    Returns:
        "problems" as from `judge`, "obstacle" if it does not apply, or "error" if it failed; then
        "problems" holds what it had found until then.
    """
    facts: dict[str, Any] = {"name": task.name, "jax": jax.__version__}
    problems: dict[str, str | None] = {}
    try:
        obstacle = task.obstacle()
        if obstacle:
            return facts | {"obstacle": obstacle}
        module, _, function = task.function.partition(":")
        reproduce: Callable[[int], Iterable[Computed]]
        reproduce = getattr(importlib.import_module(module), function)
        return facts | {"problems": judge(reproduce(task.tries), problems)}
    except (Exception, SystemExit) as error:  # whatever it is, nothing can be told about this fault
        return facts | {"problems": problems, "error": f"{type(error).__name__}: {error}"[:500]}


def answer_file(arguments: list[str]) -> None:
    """Answer tasks in a file of lines: what `known` starts in a fresh Python.

    Same bits: as `answer` says.

    Args:
        arguments: the file to write, the tasks as JSON, and where several processes do this
            together: the address of the first, how many, and which this is.
    """
    file, tasks, *which = arguments
    if which:
        address, count, index = which[0], int(which[1]), int(which[2])
        jax.distributed.initialize(address, count, index)
    with Path(file).open("a", encoding="utf-8") as lines:
        for task in json.loads(tasks):
            print(json.dumps(answer(Task(**task))), file=lines, flush=True)
