"""Runs as a forger would make them: each change is followed by all that makes it hold in itself.

The ledger is chained again, seals are made anew, and what has a digest of its own gets a new one.
"""

import contextlib
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from reproducibility import (
    CheckpointStore,
    ReproducibilityError,
    Run,
    TrainConfig,
    restore_state,
    train,
)
from reproducibility.evidence import audit as auditing
from reproducibility.evidence import recheck
from reproducibility.explain.recompute import computed_entry
from reproducibility.machine.environment import capture_environment, facts_of
from reproducibility.recording.lines import FIELDS, STAGES
from reproducibility.reference.run import Result, write_result
from reproducibility.storage.files import (
    canonical_json,
    chained,
    readable_json,
    saved_steps,
    with_digest,
)
from tests.conftest import SMALL

type Forge = Callable[[Path, random.Random], object]


def compute_here(environment: Any, module: str, task: Any, progress: Any) -> dict[str, Any]:
    """Do what a child of `audit` does, in this process."""
    assert module == auditing.CHILD
    with contextlib.redirect_stdout(io.StringIO()):  # it is a pipe to the parent otherwise
        found = json.loads(json.dumps(recheck.work(task)))
    return {**found, "environment": facts_of({**found, "environment": capture_environment()})}


def rebuild(
    run: Path,
    *,
    identity: Callable[[dict[str, Any]], object] = lambda settings: None,
    line: Callable[[dict[str, Any]], object] = lambda line: None,
    keep: Callable[[dict[str, Any]], bool] = lambda line: True,
    seal: Callable[[dict[str, Any]], object] = lambda seal: None,
    result: Callable[[dict[str, Any]], object] = lambda result: None,
    attempt: Callable[[dict[str, Any]], object] = lambda line: None,
) -> None:
    """Change a run, and make everything hold again: names, chains, seals and digests."""
    before = Run.read(run)
    lines = before.attempts()
    settings = dict(before.identity)
    identity(settings)
    (run / "run.json").write_bytes(canonical_json(with_digest(settings)))
    name = Run.read(run).name
    heads = _chain_again(run, name, line, keep)
    for step in saved_steps(run / "checkpoints"):
        path = run / "checkpoints" / f"{step:08d}" / "seal.json"
        body = json.loads(path.read_bytes())
        del body["sha256"]
        body |= {"run": name, "chain": heads.get(step, max(heads.items())[1])}
        seal(body)
        path.write_bytes(readable_json(with_digest(body)))
    if (run / "result.json").exists():
        body = json.loads((run / "result.json").read_bytes())
        del body["sha256"], body["format"]
        body["run"] = name
        result(body)
        write_result(run / "result.json", Result(**body))
    (run / "attempts.jsonl").unlink()
    for each in lines:
        del each["chain"]
        attempt(each)
        Run.read(run).log(**each)


def _chain_again(run: Path, name: str, line: Any, keep: Any) -> dict[int, str]:
    head, heads, content = name, {}, b""
    for raw in (run / "ledger.jsonl").read_text().splitlines():
        body = json.loads(raw)
        del body["chain"]
        if "run" in body:
            body["run"] = name
        elif not keep(body):
            continue
        else:
            line(body)
        written, head = chained(head, body)
        content += written
        heads[body.get("step", -1)] = head
    (run / "ledger.jsonl").write_bytes(content)
    return heads


def flipped(text: str, rng: random.Random) -> str:
    """Change one digit of a fingerprint."""
    place = rng.randrange(len(text))
    return (
        text[:place] + format(int(text[place], 16) ^ 1 << rng.randrange(4), "x") + text[place + 1 :]
    )


def nudged(state: Any, rng: random.Random, times: float = 1.01) -> Any:
    """Change one parameter of a state a little."""
    leaves, tree = jax.tree.flatten(state.params)
    number = rng.randrange(len(leaves))
    array = np.array(leaves[number])
    array.flat[rng.randrange(array.size)] += np.float32(times)
    leaves[number] = jax.numpy.asarray(array)
    return type(state)(state.step, jax.tree.unflatten(tree, leaves), state.opt_state, state.key)


def put(run: Path, step: int, state: Any) -> None:
    """Put a state in the place of a checkpoint, sealed as by the run itself."""
    found, folder = Run.read(run), run / "checkpoints"
    chain = json.loads((folder / f"{step:08d}" / "seal.json").read_bytes())["chain"]
    shutil.rmtree(folder / f"{step:08d}")
    with CheckpointStore(folder, run=found.name, keep=99) as store:
        store.save(step, state, chain=lambda: chain)


def loss(run: Path, rng: random.Random) -> None:
    """Make one loss look better."""
    step = rng.randint(1, 12)

    def change(line: dict[str, Any]) -> None:
        if line["step"] == step:
            line["loss"] = (float.fromhex(line["loss"]) * rng.uniform(0.5, 0.999)).hex()

    rebuild(run, line=change)


def stage(run: Path, rng: random.Random) -> None:
    """Change one digit of one stage of one step."""
    step, name = rng.randint(1, 12), rng.choice(STAGES)

    def change(line: dict[str, Any]) -> None:
        if line["step"] == step:
            line[name] = flipped(line[name], rng)

    rebuild(run, line=change)


def without(run: Path, rng: random.Random) -> None:
    """Leave a field out of the lines, so that nothing would be compared."""
    name, step = rng.choice(FIELDS), rng.randint(1, 12)

    def change(line: dict[str, Any]) -> None:
        if line["step"] >= step:
            line.pop(name, None)

    rebuild(run, line=change)


def state(run: Path, rng: random.Random) -> None:
    """Put a different state into a checkpoint, and leave the ledger."""
    step = rng.choice([4, 8, 12])
    put(run, step, nudged(restore_state(Run.read(run), step=step), rng, rng.uniform(1e-6, 2)))
    if step == 12:
        _result_of_checkpoint(run)


def splice(run: Path, rng: random.Random) -> None:
    """Change the state at a checkpoint, its line too, and train on from there."""
    step = rng.choice([4, 8])
    (run / "result.json").unlink()
    for later in (8, 12):
        if later > step:
            shutil.rmtree(run / "checkpoints" / f"{later:08d}")
    changed = nudged(restore_state(Run.read(run), step=step), rng, rng.uniform(1e-4, 2))
    entry = computed_entry(dict(_stages(changed)))

    def change(line: dict[str, Any]) -> None:
        if line["step"] == step:
            line |= {name: "".join(entry[name].values()) for name in entry}

    rebuild(run, line=change, keep=lambda line: line["step"] <= step)
    put(run, step, changed)
    train(config_of(run), run_dir=run)


def _stages(state: Any) -> dict[str, Any]:
    return {"opt_state": state.opt_state, "params": state.params}


def config_of(run: Path, **settings: Any) -> TrainConfig:
    """Return the request that made a run."""
    names = ("seed", "dataset", "batch_size", "shards", "hidden", "dropout", "learning_rate")
    found = {name: Run.read(run).identity[name] for name in names}
    return TrainConfig(**{**found, "steps": 12, "checkpoint_every": 4, **settings})


def seed(run: Path, rng: random.Random) -> None:
    """Give a run a seed that it was not made with."""
    rebuild(run, identity=lambda settings: settings.update(seed=rng.randint(8, 2**31)))


def setting(run: Path, rng: random.Random) -> None:
    """Say of a run a setting that it was not made with."""
    change = rng.choice([{"dropout": 0.5}, {"learning_rate": 0.01}, {"batch_size": 64}])
    rebuild(run, identity=lambda settings: settings.update(change))


def more_said(run: Path, rng: random.Random) -> None:
    """Say something in run.json that nothing computes."""
    said = {rng.choice(["data_licence", "note", "zero_leakage"]): rng.choice(["yes", 1, None])}
    rebuild(run, identity=lambda settings: settings.update(said))


def data(run: Path, rng: random.Random) -> None:
    """Say that the data were others."""
    digest = f"{rng.getrandbits(256):064x}"
    rebuild(run, identity=lambda settings: settings.update(data_digest=digest))


def other_run(run: Path, rng: random.Random) -> None:
    """Put a checkpoint of a run with a different seed into this one."""
    step = rng.choice([4, 8, 12])
    other = run.parent / "other"
    train(config_of(run, seed=rng.randint(8, 99)), run_dir=other)
    put(run, step, restore_state(Run.read(other), step=step))
    if step == 12:
        _result_of_checkpoint(run)


def _result_of_checkpoint(run: Path) -> None:
    sealed = json.loads((run / "checkpoints" / "00000012" / "seal.json").read_bytes())
    rebuild(run, result=lambda result: result.update(digest=sealed["digest"]))


def cut(run: Path, rng: random.Random) -> None:
    """Cut the end of the ledger off, and keep what it led to."""
    last = rng.randint(4, 11)
    rebuild(run, keep=lambda line: line["step"] <= last)
    whole = rng.random() < 0.5
    if whole:  # and the seals as they were: then its chain is not met
        shutil.rmtree(run / "checkpoints" / "00000012")


def result(run: Path, rng: random.Random) -> None:
    """Make the result look better."""
    change = rng.choice(
        [
            {"accuracy": rng.uniform(0.9, 1)},
            {"loss": rng.uniform(0.01, 0.2)},
            {"loss": None},
            {"params_digest": f"{rng.getrandbits(256):064x}"},
            {"digest": f"{rng.getrandbits(256):064x}"},
        ]
    )
    rebuild(run, result=lambda body: body.update(change))


def longer(run: Path, rng: random.Random) -> None:
    """Give a run the result of a longer one."""
    steps = rng.randint(13, 20)
    other = run.parent / "longer"
    train(config_of(run, steps=steps), run_dir=other)
    shutil.copy(other / "result.json", run / "result.json")
    if rng.random() < 0.7:
        rebuild(run, result=lambda body: body.update(steps=12))


def attempts(run: Path, rng: random.Random) -> None:
    """Say of the attempts what was not so: other programs, another environment, or nothing."""
    kind = rng.randrange(4)

    def change(line: dict[str, Any]) -> None:
        if line["event"] != "start":
            return
        if kind == 0:
            line["programs"] = {**line["programs"], "update": f"{rng.getrandbits(256):064x}"}
        elif kind == 1:
            del line["programs"]
        elif kind == 2:
            line["from_step"] = rng.randint(13, 99)
        else:
            line["environment"] = {**line["environment"], "version.jax": "0.4.1"}
            loss_too.append(True)

    loss_too: list[bool] = []
    rebuild(run, attempt=change)
    if loss_too:
        loss(run, rng)


def byte(run: Path, rng: random.Random) -> None:
    """Change one byte of a file, and nothing else."""
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.stat().st_size]
    path = rng.choice([path for path in files if path.name != "lock"])
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(7)
    path.write_bytes(bytes(content))


FORGERIES: dict[str, Forge] = {
    forge.__name__: forge
    for forge in (
        *(loss, stage, without, state, splice, seed, setting, more_said, data),
        *(other_run, cut, result, longer, attempts, byte),
    )
}


def honest(run: Path, kind: str, seed: int = 11, **settings: Any) -> Path:
    """Make a run that was killed, moved, resumed or grown."""
    config = TrainConfig(seed=seed, steps=12, checkpoint_every=4, **{**SMALL, **settings})
    with contextlib.chdir(run.parent):
        if kind == "resumed":
            train(TrainConfig(**{**vars(config), "stop_after": 6}), run_dir=run)
        if kind == "grown":
            train(TrainConfig(**{**vars(config), "steps": 7}), run_dir=run)
        train(config, run_dir=run)
    if kind == "killed":  # behind its last checkpoint, in the middle of a line
        shutil.rmtree(run / "checkpoints" / "00000012")
        (run / "result.json").unlink()
        ledger = (run / "ledger.jsonl").read_bytes()
        (run / "ledger.jsonl").write_bytes(ledger[:-30])
        rebuild_attempts(run)
    if kind == "moved":
        run = run.rename(run.parent / "moved elsewhere")
    return run


def rebuild_attempts(run: Path) -> None:
    """Take away the line that says how the run ended: a kill leaves none."""
    lines = (run / "attempts.jsonl").read_bytes().splitlines(keepends=True)
    (run / "attempts.jsonl").write_bytes(b"".join(lines[:-1]))


def verdict_of(run: Path, **asked: Any) -> str:
    """Audit a run; return the verdict, or "refused" where there is nothing to audit."""
    try:
        found = auditing.audit(run, **asked)
    except ReproducibilityError as error:
        if error.exit_code not in (1, 2, 3):
            raise
        return "refused"
    if not found.reason or (found.exit_code == 0) != (found.verdict == "verified"):
        raise ValueError(f"{found.verdict}: {found.reason}")
    return found.verdict
