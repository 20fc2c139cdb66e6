"""A short statement that fixes a run before anyone says what will be audited.

The rule: it has one digest of all of the run: its identity, each block of its ledger, each seal and
its result. Who holds the statement sees any later change.
Chapter: docs/guide/verification.md

The parts are leaves of one tree, in this order: run.json, the blocks of `LINES_A_LEAF` lines of the
ledger, the seal.json of each checkpoint, result.json. Each begins with a line that says which it
is, so that no part can be shown in the place of a different one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from reproducibility.errors import EvidenceError, RunError
from reproducibility.evidence.limits import refuse_unfit, small_json
from reproducibility.evidence.merkle import inclusion_path, leaf_hash, root_by_path, tree_root
from reproducibility.recording.ledger import LEDGER, Ledger
from reproducibility.recording.lines import json_object
from reproducibility.reference.run import IDENTITY, LOCK, RESULT, Run, locked, read_result
from reproducibility.storage.files import read_with_digest, saved_steps, with_digest
from reproducibility.storage.found import SEAL

COMMITMENT_FORMAT = 1
COMMITMENT = "reproducibility commitment"
PROOF = "reproducibility proof"
LINES_A_LEAF = 64  # lines of the ledger in one leaf
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Commitment:
    """What `commit` says of a run.

    Same bits: equal exactly if every byte that it covers is.
    """

    run: str
    """The name of the run: the SHA-256 of its run.json."""
    lines: int
    """How many lines its ledger has."""
    last: int
    """The step of the last of them."""
    head: str
    """What the chain of the ledger has come to."""
    checkpoints: dict[int, str]
    """The hash of each checkpoint's seal in the tree, by step."""
    result: str | None
    """The hash of result.json in the tree; None of a run that is not finished."""
    digest: str | None
    """The digest of the final state that the result names."""
    root: str
    """The one digest of all of it."""

    @property
    def leaves(self) -> int:
        """How many leaves the tree has."""
        return (
            1 + -(-self.lines // LINES_A_LEAF) + len(self.checkpoints) + (self.result is not None)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the statement as its file has it."""
        seals = [{"step": step, "leaf": leaf} for step, leaf in self.checkpoints.items()]
        known = {**vars(self), "checkpoints": seals, "block": LINES_A_LEAF}
        return with_digest({"kind": COMMITMENT, "format": COMMITMENT_FORMAT, **known})


def commit(run: Path | str) -> Commitment:
    """Make a short statement of all that a run is, to publish before it is audited.

    **Same bits:** everywhere, for the same files.

    Args:
        run: a run directory of `train`.

    Raises:
        RunError: there is no run, it has no ledger, or a process works on it now.
        EvidenceError: its ledger or a seal is not as it was written.

    Examples:
        >>> import tempfile
        >>> from reproducibility import TrainConfig, train
        >>> folder = Path(tempfile.mkdtemp()) / "run"
        >>> _ = train(TrainConfig(seed=7, steps=2, shards=1), run_dir=folder)
        >>> commit(folder) == commit(folder)
        True
    """
    path = Path(run)
    refuse_unfit(path)
    with unchanging(path):
        found = Run.read(path)
        ledger = whole_ledger(found)
        seals = {step: _seal_leaf(found, step) for step in saved_steps(found.checkpoints)}
        result = _leaf(RESULT, path / RESULT) if (path / RESULT).exists() else None
        known = read_result(path / RESULT) if result else None
        lines = ledger_leaves(found, ledger.chain.number)
    return Commitment(
        run=found.name,
        lines=ledger.chain.number,
        last=ledger.last or 0,
        head=ledger.chain.head,
        checkpoints={step: leaf.hex() for step, leaf in seals.items()},
        result=result.hex() if result else None,
        digest=known.digest if known else None,
        root=tree_root([*lines, *seals.values(), *([result] if result else [])]).hex(),
    )


def unchanging(path: Path) -> contextlib.AbstractContextManager[None]:
    """Hold a run as it is while it is read, where it has a lock.

    Args:
        path: the run directory.
    """
    return locked(path, shared=True) if (path / LOCK).exists() else contextlib.nullcontext()


def whole_ledger(run: Run) -> Ledger:
    """Read a ledger to its end; a last line that a kill has cut short does not count.

    Args:
        run: the run.

    Raises:
        LedgerError: there is none.
        EvidenceError: a line does not continue the chain.
    """
    ledger = Ledger(run.path / LEDGER, run.name)
    for _ in ledger:
        pass
    if ledger.problem and not ledger.chain.torn:
        raise EvidenceError(
            "commit to",
            "the ledger",
            path=ledger.path,
            expected="lines that continue its chain",
            got=ledger.problem,
            do="`reproducibility check` says what is damaged.",
        )
    return ledger


def ledger_leaves(run: Run, lines: int) -> list[bytes]:
    """Return the leaves of a run's identity and of the first lines of its ledger.

    **Same bits:** everywhere, for the same files.

    Args:
        run: the run.
        lines: how many lines.
    """
    blocks = enumerate(_ledger_blocks(run, lines))
    return [_leaf(IDENTITY, run.path / IDENTITY), *(_block_leaf(n, b) for n, b in blocks)]


def _ledger_blocks(run: Run, lines: int) -> Iterator[bytes]:
    with open(run.path / LEDGER, "rb") as file:
        first = islice(file, lines)
        while block := b"".join(islice(first, LINES_A_LEAF)):
            yield block


def _block_leaf(number: int, block: bytes) -> bytes:
    return leaf_hash(b"ledger %d\n" % number + block)


def _leaf(name: str, path: Path) -> bytes:
    return leaf_hash(name.encode() + b"\n" + path.read_bytes())


def _seal_leaf(run: Run, step: int) -> bytes:
    """Return the leaf of a checkpoint: its seal holds the digests of all else."""
    path = run.checkpoints / f"{step:08d}" / SEAL
    try:
        seal = read_with_digest(path)
    except RunError as error:
        seal = {"run": error.got}
    if (seal.get("run"), seal.get("step")) != (run.name, step):
        raise EvidenceError(
            "commit to",
            "a checkpoint",
            path=path,
            step=step,
            expected=f"a seal of run {run.name}",
            got=f"{seal.get('run')}",
            do="`reproducibility check` says what is damaged.",
        )
    return _leaf(f"checkpoint {step}", path)


def read_commitment(path: str | os.PathLike[str]) -> Commitment:
    """Read a statement that `commit` made.

    **Same bits:** everywhere.

    Args:
        path: its file.

    Raises:
        EvidenceError: it is none, or it was altered.
    """
    found = _statement(Path(path), COMMITMENT)
    try:
        names = [field.name for field in dataclasses.fields(Commitment)]
        if (
            found.keys() != {*names, "kind", "format", "block", "sha256"}
            or found["block"] != LINES_A_LEAF
        ):
            raise ValueError("fields of another form")
        seals = {seal["step"]: seal["leaf"] for seal in found["checkpoints"]}
        known = Commitment(**{**{n: found[n] for n in names}, "checkpoints": seals})
        if not _is_commitment(known) or known.to_json() != found:
            raise ValueError("values of another form")
    except (LookupError, TypeError, ValueError) as error:
        raise _unusable_statement(Path(path), "commitment", str(error)) from error
    return known


def _is_commitment(found: Commitment) -> bool:
    hashes = [found.run, found.head, found.root, *found.checkpoints.values()]
    hashes += [text for text in (found.result, found.digest) if text is not None]
    numbers = [found.lines, found.last, *found.checkpoints]
    return (
        all(isinstance(text, str) and _HASH.fullmatch(text) for text in hashes)
        and all(type(number) is int and 0 <= number < 1 << 53 for number in numbers)
        and list(found.checkpoints) == sorted(found.checkpoints)
    )


def _statement(path: Path, kind: str) -> dict[str, Any]:
    """Read a statement, whose own digest has to be right; it may be in any spelling."""
    found = small_json(path, kind)
    body = {name: value for name, value in found.items() if name != "sha256"}
    if found.get("format") != COMMITMENT_FORMAT or with_digest(body) != found:
        raise _unusable_statement(path, kind.split()[-1], "another format, or altered content")
    return found


def _unusable_statement(path: Path, what: str, got: str) -> EvidenceError:
    expected, do = f"a {what} of format {COMMITMENT_FORMAT}, unaltered", "Take an intact copy."
    return EvidenceError("use", f"the {what}", path=path, expected=expected, got=got, do=do)


def difference_from(given: Commitment, run: Run) -> tuple[bool, str] | None:
    """Say in what a run is not what a commitment says of it; None if it is.

    Checkpoints that are not there any more are no difference: the commitment has their hashes.

    **Same bits:** everywhere, for the same files.

    Args:
        given: the commitment.
        run: the run, whose files hold.

    Returns:
        Whether the run was changed, or else has only grown; and a sentence.
    """
    now = commit(run.path)
    if now.run != given.run:
        return True, f"The commitment is to run {given.run}, and this is run {now.run}."
    if now.lines < given.lines:
        return True, f"The ledger had {given.lines} lines, and has {now.lines}."
    seals = [bytes.fromhex(leaf) for leaf in given.checkpoints.values()]
    result = [bytes.fromhex(given.result)] if given.result else []
    root = tree_root([*ledger_leaves(run, given.lines), *seals, *result]).hex()
    if root != given.root:
        return True, "The ledger was changed after the commitment was made, or its lists were."
    if (end := _end_of(run, given.lines)) != (given.last, given.head):
        return True, (
            f"The commitment contradicts itself: it names step {given.last} as the last of its "
            f"ledger, with head {given.head}, and its lines end with step {end[0]}, with {end[1]}."
        )
    if now.lines > given.lines:
        return False, (
            f"The run has grown since: the commitment covers it up to step {given.last}, and the "
            f"ledger goes on to step {now.last}."
        )
    for step, leaf in now.checkpoints.items():
        if given.checkpoints.get(step) != leaf:
            was = "changed" if step in given.checkpoints else "added"
            return True, f"Checkpoint {step} was {was} after the commitment was made."
    if now.result != given.result or now.digest != given.digest:
        return True, "The result was changed after the commitment was made."
    return None


def _end_of(run: Run, lines: int) -> tuple[int, str]:
    """Return the last step that the first lines of a ledger have, and what their chain comes to."""
    last = 0
    found: dict[str, Any] = {}
    with open(run.path / LEDGER, "rb") as file:
        for line in islice(file, lines):
            found = json_object(line)
            last = found.get("step", last)
    return last, found.get("chain", run.name)


def prove(run: Path | str, *, step: int | None = None, checkpoint: int | None = None) -> Any:
    """Return a proof that a step of the ledger, or a checkpoint, is in the commitment to a run.

    **Same bits:** everywhere, for the same files.

    Args:
        run: a run directory.
        step: a step that has a line.
        checkpoint: or the step of a checkpoint.

    Returns:
        A JSON object: the part itself, and the path of hashes from it to the root.

    Raises:
        EvidenceError: there is no such line or checkpoint.
    """
    path = Path(run)
    root = commit(path)
    found = Run.read(path)
    leaves = ledger_leaves(found, root.lines)
    content: bytes | None = None
    index = 0
    if step is not None:
        for number, block in enumerate(_ledger_blocks(found, root.lines)):
            if _line_of(block, step):
                content, index = block, 1 + number
    elif checkpoint in root.checkpoints:
        content = (found.checkpoints / f"{checkpoint:08d}" / SEAL).read_bytes()
        index = len(leaves) + list(root.checkpoints).index(checkpoint)
    what = f"step {step}" if step is not None else f"checkpoint {checkpoint}"
    if content is None:
        expected, do = "a line, or a checkpoint, that the run has", "Name a different one."
        raise EvidenceError("prove", what, path=path, expected=expected, got="none", do=do)
    leaves += [bytes.fromhex(leaf) for leaf in root.checkpoints.values()]
    leaves += [bytes.fromhex(root.result)] if root.result else []
    return with_digest(
        {
            "kind": PROOF,
            "format": COMMITMENT_FORMAT,
            "root": root.root,
            "what": what,
            "index": index,
            "content": content.decode(),
            "path": [node.hex() for node in inclusion_path(leaves, index)],
        }
    )


def _line_of(block: bytes, step: int) -> bytes | None:
    ending = b'"step":%d}' % step
    return next((line for line in block.splitlines() if line.endswith(ending)), None)


def check_proof(path: Path | str, given: Commitment) -> tuple[str, str | None]:
    """Check a proof against a commitment.

    **Same bits:** everywhere.

    Args:
        path: the file of the proof.
        given: the commitment.

    Returns:
        What it is a proof of, and what is wrong with it, or None.

    Raises:
        EvidenceError: it is no proof.
    """
    found = _statement(Path(path), PROOF)
    try:
        what, index, nodes = found["what"], found["index"], found["path"]
        known = re.fullmatch(r"(step|checkpoint) (0|[1-9][0-9]{0,17})", what)
        fields = {"kind", "format", "root", "what", "index", "content", "path", "sha256"}
        if (
            found.keys() != fields
            or not known
            or type(index) is not int
            or not all(map(_HASH.fullmatch, nodes))
        ):
            raise ValueError("values of another form")
        content, hashes = found["content"].encode(), [bytes.fromhex(node) for node in nodes]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise _unusable_statement(Path(path), "proof", str(error)) from error
    number = int(known[2])
    if known[1] == "step":
        blocks = -(-given.lines // LINES_A_LEAF)
        right = 1 <= index <= blocks and _line_of(content, number) is not None
        leaf = _block_leaf(index - 1, content)
    else:
        right = number in given.checkpoints
        leaf = leaf_hash(b"checkpoint %d\n" % number + content)
    if found["root"] != given.root:
        return what, "it is a proof for a different commitment"
    if not right or root_by_path(leaf, index, given.leaves, hashes) != bytes.fromhex(given.root):
        return what, "its content and path do not come to the root of the commitment"
    return what, None
