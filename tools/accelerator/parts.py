"""What is measured, part by part: each asks fresh processes and puts their rows into a table."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.accelerator.answers import Answered, Asking
from tools.accelerator.switches import DUMP, LOAD, Switch, switches_of
from tools.accelerator.tables import Part, number, same

NETWORKS = ["perceptron", "convolution", "attention", "bfloat16"]
TOOLS_FOLDER = Path(__file__).parents[1]
LONG = 40
FLAG_STEPS = 12
FLAGGED = 3  # of the networks are trained with each flag


@dataclass
class Scope:
    """What is known before a part begins, and how much of it is to be done."""

    asking: Asking
    platform: str = "cpu"
    devices: int = 1
    networks: tuple[str, ...] = tuple(NETWORKS)
    operations: tuple[str, ...] = ()
    """Those that are tried; none for all."""
    steps: int = LONG
    switches: int | None = None
    """How many flags are tried; None for all."""
    package: dict[str, Any] | None = None
    """What `train` of the package came to, which is trained, stopped and resumed in one go."""
    whole: Answered | None = None
    """Trainings that were not interrupted, once there are some."""


def all_operations() -> list[str]:
    """Return the names of all operations, without JAX: the keys of two tables."""
    files = TOOLS_FOLDER / "eighteen.py", TOOLS_FOLDER / "accelerator" / "more_operations.py"
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    found = [re.match(r' {4}"([^"]+)": \(', line) for line in lines]
    return [match[1] for match in found if match]


def repeat_part(scope: Scope) -> Part:
    """Train each network twice in each of two processes."""
    part = Part(
        "repeat",
        "The same training, run again",
        [
            "training",
            "twice in one process",
            "in two processes",
            "first step, ms",
            "fastest step, ms",
        ],
    )
    arguments = {"networks": scope.networks, "first": 0, "last": scope.steps, "times": 2}
    found = [_asked(scope, part, "asked:trainings", **arguments) for _ in range(2)]
    scope.whole = found[0]
    for network in scope.networks:
        one, other = (_row(each, network, part) for each in found)
        if one:
            digests = [each["digest"] if each else None for each in (one, other)]
            words = same(digests) + (_since(one["losses"], other["losses"]) if other else "")
            times = [number(one["first_ms"]), number(one["ms"])]
            part.rows.append([network, same(one["digests"]), words, *times])
    with tempfile.TemporaryDirectory() as folder:
        own = _asked(scope, part, "asked:package_training", folder=folder)
        row = _row(own, "`train` of the package", part)
        if row:
            part.rows.append([row["what"], same(row["digests"]), "not measured", "", ""])
            scope.package = row
    return part


def resume_part(scope: Scope) -> Part:
    """Train whole, and in two processes with a file between."""
    part = Part(
        "resume",
        "A training that is stopped and resumed in a fresh process",
        ["training", "a whole run and a resumed one"],
    )
    half, networks = scope.steps // 2, scope.networks
    whole = scope.whole
    if whole is None:
        whole = _asked(scope, part, "asked:trainings", networks=networks, first=0, last=scope.steps)
    with tempfile.TemporaryDirectory() as folder:
        one, other = {"first": 0, "last": half, "save": True}, {"first": half, "last": scope.steps}
        for piece in (one, other):
            last = _asked(scope, part, "asked:trainings", networks=networks, folder=folder, **piece)
    for network in networks:
        a, b = _row(whole, network, part), _row(last, network, part)
        if a and b:
            part.rows.append([network, same([a["digest"], b["digest"]])])
    if scope.package:
        digests = [scope.package["digests"][0], scope.package["resumed"]]
        part.rows.append([f"{scope.package['what']}, in one process", same(digests)])
    return part


def operations_part(scope: Scope) -> Part:
    """Call each operation ten times in each of two processes, and compare it with the CPU's."""
    columns = ["operation", "ten calls of one process", "two processes"]
    accelerated = scope.platform != "cpu"
    part = Part(
        "operations",
        "Operations: run to run, and against the CPU backend",
        columns + accelerated * ["largest difference from the CPU", "with `highest` precision"],
    )
    names = list(scope.operations or all_operations())
    one = _asked(scope, part, "asked:operations", names=names)
    other = _asked(scope, part, "asked:operations", names=names, compare=False)
    for name in names:
        a, b = _row(one, name, part), _row(other, name, part)
        if a:
            both = [each["digests"][0] if each else None for each in (a, b)]
            row = [name, same(a["digests"]), same(both)]
            far = [number(a.get("from the CPU"), ".1e"), number(a.get("at highest"), ".1e")]
            part.rows.append(row + far * accelerated)
    return part


def faults_part(scope: Scope) -> Part:
    """Ask about published faults."""
    part = Part("faults", "Published faults, asked of this device", ["fault", "what", "answer"])
    rows = _asked(scope, part, "asked:faults", deadline=max(5, scope.asking.left() - 10)).rows
    if scope.platform == "gpu":
        flag = {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
        rows += _asked(scope, part, "asked:faults", flag, deadline=20, names=["jax-27796"]).rows
    why: dict[str, list[str]] = {}
    for row in rows:
        if row["verdict"] == "does not apply":
            why.setdefault(row["detail"], []).append(row["what"])
        else:
            verdict = f"**{row['verdict']}**" if row["verdict"] == "wrong" else row["verdict"]
            link = f"[{row['what']}]({row['source']})"
            part.rows.append([link, row["fault"], f"{verdict}: {row['detail']}"])
    part.left_out += [f"{', '.join(names)}: {detail}" for detail, names in why.items()]
    return part


def costs_part(scope: Scope) -> Part:
    """Measure what our tools cost."""
    part = Part("costs", "What the tools cost", ["what", "times as long", "against"])
    for row in _asked(scope, part, "costs:costs").rows:
        if _told(row, part):
            part.rows.append([row["what"], number(row["ratio"]), row["peer"]])
    return part


def scripts_part(scope: Scope) -> Part:
    """Run a script with `twice` and with `record --again`."""
    columns = ["command", "verdict", "it says", "seconds"]
    part = Part("scripts", "`twice` and `record --again` on two of the trainings", columns)
    with tempfile.TemporaryDirectory() as folder:
        for row in _asked(scope, part, "costs:scripts", folder=folder).rows:
            if _told(row, part):
                words = [row["verdict"], row["says"], number(row["seconds"])]
                part.rows.append([row["what"], *words])
    return part


def layouts_part(scope: Scope) -> Part:
    """Train on one device and on more: on a CPU, virtual ones."""
    columns = ["devices", "one sharded program", "shards in a fixed order"]
    part = Part("layouts", "The same training on more devices", columns)
    counts = [n for n in (1, 2, 4, 8) if scope.platform == "cpu" or n <= scope.devices]
    if len(counts) == 1:
        part.left_out.append("more devices: there is 1")
        return part
    base: dict[str, str] = {}
    for count in counts:
        flag = f"--xla_force_host_platform_device_count={count}"
        found = _asked(scope, part, "asked:layout", {"XLA_FLAGS": flag}, devices=count)
        cells = []
        for kind in ("ordinary", "fixed order"):
            row = _row(found, kind, part)
            if row:
                base.setdefault(kind, row["digest"])
            cells.append(("as on 1" if row["digest"] == base[kind] else "differs") if row else "")
        part.rows.append([str(count), *cells])
    return part


def flags_part(scope: Scope) -> Part:
    """Train with each flag, and compare bits and times with none."""
    names = ", ".join(scope.networks[:FLAGGED])
    columns = [
        "set",
        "bits as without",
        "twice in one process",
        f"fastest step, times as long ({names})",
    ]
    part = Part("flags", "Flags and settings, each alone", [*columns, "first step", "sum by index"])
    base = _with_flags(scope, part, {})
    tried = switches_of(scope.platform)[: scope.switches]
    for switch in tried:
        _flag_row(scope, part, base, switch)
    if scope.platform == "gpu" and scope.switches is None:
        _kept_choice(scope, part, base)
    if base:
        _flag_row(scope, part, base, Switch("nothing, once more", {}, ()))
    return part


PARTS: dict[str, tuple[Callable[[Scope], Part], float, float]] = {
    "repeat": (repeat_part, 90, 0),
    "operations": (operations_part, 110, 0),
    "resume": (resume_part, 60, 0),
    "faults": (faults_part, 60, 0),
    "flags": (flags_part, 600, 120),
    "costs": (costs_part, 60, 0),
    "scripts": (scripts_part, 60, 0),
    "layouts": (layouts_part, 60, 0),
}
"""Each part, its seconds at most, and seconds that it leaves to those after it."""


def _flag_row(scope: Scope, part: Part, base: dict[str, Any], switch: Switch) -> None:
    if scope.asking.left() < 3:
        part.cut.append(switch.name)
        return
    rows = _with_flags(scope, part, switch.variables, switch.name)
    networks = scope.networks[:FLAGGED]
    shared = [n for n in networks if "digest" in rows.get(n, {}) and "digest" in base.get(n, {})]
    if not shared:
        return
    unlike = [n for n in shared if rows[n]["digest"] != base[n]["digest"]]
    again = [n for n in shared if len(set(rows[n]["digests"])) > 1]
    missing = [n for n in networks if n in base and n not in shared]
    bits = "all" if not unlike else f"not {', '.join(unlike)}"
    bits += f" (failed: {', '.join(missing)})" if missing else ""
    steps = ", ".join(_ratio(rows[n]["ms"], base[n]["ms"]) for n in shared)
    first = ", ".join(_ratio(rows[n]["first_ms"], base[n]["first_ms"]) for n in shared)
    by_index = [each.get("sum by index", {}).get("ms") for each in (rows, base)]
    repeats = "the same" if not again else f"**not {', '.join(again)}**"
    part.rows.append([f"`{switch.name}`", bits, repeats, steps, first, _ratio(*by_index)])


def _kept_choice(scope: Scope, part: Part, base: dict[str, Any]) -> None:
    """Keep the kernels that one process has chosen, and compare two that load them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "autotune.pb")
        for flag in (DUMP, LOAD):
            if flag == LOAD and not file.exists():
                part.errors.append(f"{LOAD}: no file was written by {DUMP}")
                return
            switch = Switch(f"{flag}FILE", {"XLA_FLAGS": f"{flag}{file}"}, ())
            _flag_row(scope, part, base, switch)


def _with_flags(
    scope: Scope, part: Part, variables: dict[str, str], name: str = "no flag"
) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "networks": scope.networks[:FLAGGED],
        "first": 0,
        "last": FLAG_STEPS,
    }
    arguments["times"] = 2
    found = scope.asking.ask("asked:flagged", variables, **arguments)
    if found.error:
        part.errors.append(f"{name}: {found.error}")
    rows = {row["what"]: row for row in found.rows}
    for row in rows.values():
        if "error" in row:
            part.errors.append(f"{name}, {row['what']}: {row['error']}")
    return rows


def _asked(
    scope: Scope, part: Part, task: str, variables: dict[str, str] | None = None, **arguments: Any
) -> Answered:
    found = scope.asking.ask(task, variables, **arguments)
    part.raw.setdefault(task, []).append({"arguments": arguments, "rows": found.rows})
    if found.error:
        part.errors.append(found.error)
    return found


def _row(found: Answered, what: str, part: Part) -> dict[str, Any] | None:
    """Return the row of a thing, if it was measured; else say why it was not."""
    row = next((row for row in found.rows if row["what"] == what), None)
    if row is None:
        words = f"{what}: it was not reached"
        part.cut += [words] if words not in part.cut else []
        return None
    return row if _told(row, part) else None


def _told(row: dict[str, Any], part: Part) -> bool:
    """Say whether a row was measured; else note why it was not, once."""
    for key, words in (("error", part.errors), ("left out", part.left_out)):
        if key in row:
            said = f"{row['what']}: {row[key]}"
            words += [said] if said not in words else []
    return "error" not in row and "left out" not in row


def _since(a: Iterable[float], b: Iterable[float]) -> str:
    """Say since which step two runs have other losses, and how far they are at the end."""
    pairs = list(zip(a, b, strict=True))
    unlike = [step for step, (x, y) in enumerate(pairs, 1) if x != y]
    if not unlike:
        return ""
    x, y = pairs[-1]
    far = number(abs(x - y) / max(abs(x), 1e-30), ".1e")
    return f", losses from step {unlike[0]}, {far} at the end"


def _ratio(a: float | None, b: float | None) -> str:
    return number(a / b, ".2f") if a and b else ""
