"""Promises of `reproducibility.evidence.commitment`, its limits and its command."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reproducibility import EvidenceError, Run, RunError, commit
from reproducibility.cli.commands import main
from reproducibility.evidence import limits
from reproducibility.evidence.commitment import (
    check_proof,
    difference_from,
    prove,
    read_commitment,
)
from reproducibility.evidence.merkle import leaf_hash, tree_root
from reproducibility.storage.files import readable_json, with_digest
from tests.replaying import another, rewrite_ledger


def written(path: Path, value: object) -> Path:
    """Write a statement as a file."""
    path.write_bytes(readable_json(value))
    return path


def test_the_root_covers_every_part_and_says_which_it_is(finished: Path) -> None:
    """The root is that of run.json, the ledger in blocks, the seals and the result, by name."""
    found = commit(finished)
    assert (found.run, found.last, found.lines) == (Run.read(finished).name, 12, 15)
    assert list(found.checkpoints) == [4, 8, 12]
    parts = [b"run.json\n" + (finished / "run.json").read_bytes()]
    parts += [b"ledger 0\n" + (finished / "ledger.jsonl").read_bytes()]
    for step in found.checkpoints:
        seal = finished / "checkpoints" / f"{step:08d}" / "seal.json"
        parts += [b"checkpoint %d\n" % step + seal.read_bytes()]
    parts += [b"result.json\n" + (finished / "result.json").read_bytes()]
    assert tree_root([leaf_hash(part) for part in parts]).hex() == found.root
    assert found.leaves == len(parts)
    assert difference_from(found, Run.read(finished)) is None


def test_any_change_after_the_commitment_is_named(run: Path) -> None:
    """A line, a seal, the result and a cut history are seen, though each holds in itself."""
    found, result = commit(run), (run / "result.json").read_bytes()
    (run / "result.json").unlink()
    assert difference_from(found, Run.read(run)) == (
        True,
        "The result was changed after the commitment was made.",
    )
    (run / "result.json").write_bytes(result)
    seal = run / "checkpoints" / "00000008" / "seal.json"
    before = seal.read_bytes()
    body = {**json.loads(before), "digest": "0" * 64}
    del body["sha256"]
    seal.write_bytes(readable_json(with_digest(body)))
    assert difference_from(found, Run.read(run))[1].startswith("Checkpoint 8 was changed")
    seal.write_bytes(before)
    ledger = (run / "ledger.jsonl").read_bytes()
    (run / "ledger.jsonl").write_bytes(b"".join(ledger.splitlines(keepends=True)[:-1]))
    assert difference_from(found, Run.read(run)) == (True, "The ledger had 15 lines, and has 14.")
    (run / "ledger.jsonl").write_bytes(ledger)
    rewrite_ledger(run, another(5, "loss"))
    assert difference_from(found, Run.read(run))[1].startswith("The ledger was changed")


def test_a_commitment_that_names_an_end_which_its_ledger_has_not_is_no_basis(run: Path) -> None:
    """The root does not cover its last step and head: they are compared with the lines."""
    found, now = commit(run), Run.read(run)
    for lie in ({"last": 1000}, {"head": "0" * 64}):
        changed, words = difference_from(dataclasses.replace(found, **lie), now)
        assert changed
        assert words.startswith("The commitment contradicts itself: it names step")


def test_a_run_that_has_grown_is_not_called_changed(run: Path) -> None:
    """A commitment to the first lines still holds; what it does not cover is said."""
    whole = (run / "ledger.jsonl").read_bytes()
    (run / "ledger.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:11]))
    (run / "result.json").unlink()
    found = commit(run)
    (run / "ledger.jsonl").write_bytes(whole)
    changed, words = difference_from(found, Run.read(run))
    assert not changed
    assert words.startswith("The run has grown since: the commitment covers it up to step 8")


def test_a_proof_shows_one_step_or_checkpoint(finished: Path, tmp_path: Path) -> None:
    """A proof holds for its own part of its own commitment, and for nothing that was altered."""
    found = commit(finished)
    for asked, what in (({"step": 7}, "step 7"), ({"checkpoint": 8}, "checkpoint 8")):
        proof = prove(finished, **asked)
        path = written(tmp_path / "proof.json", proof)
        assert check_proof(path, found) == (what, None)
        body = {name: value for name, value in proof.items() if name != "sha256"}
        changes = {
            "content": body["content"].replace("1", "2", 1),
            "index": body["index"] - 1,
            "path": body["path"][:-1],
            "what": what.replace(what[-1], "99"),
            "root": "0" * 64,
        }
        for name, value in changes.items():
            written(path, with_digest({**body, name: value}))
            assert check_proof(path, found)[1], name
    with pytest.raises(EvidenceError, match="a line, or a checkpoint, that the run has"):
        prove(finished, step=13)


def test_a_proof_that_says_more_is_refused(finished: Path, tmp_path: Path) -> None:
    """What no hash covers would be read as if it were proven."""
    more = {**prove(finished, step=7), "accuracy": 0.99}
    del more["sha256"]
    with pytest.raises(EvidenceError, match="unaltered"):
        check_proof(written(tmp_path / "proof.json", with_digest(more)), commit(finished))


def test_a_statement_that_was_altered_is_refused(finished: Path, tmp_path: Path) -> None:
    """A changed value, a field too many, another kind and a wrong type are no commitment."""
    whole = commit(finished).to_json()
    path = written(tmp_path / "c.json", whole)
    assert read_commitment(path) == commit(finished)
    body = {name: value for name, value in whole.items() if name != "sha256"}
    spoilt: list[dict[str, object]] = [
        {**whole, "lines": 14},
        with_digest({**body, "more": 1}),
        with_digest({**body, "root": 5}),
        with_digest({**body, "lines": True}),
        with_digest({**body, "checkpoints": [{"step": [4], "leaf": "0" * 64}]}),
        with_digest({**body, "format": 2}),
        {"kind": "something"},
    ]
    for value in spoilt:
        with pytest.raises(EvidenceError):
            read_commitment(written(path, value))


def link_out(run: Path) -> None:
    """Put a link where the result was."""
    (run / "result.json").unlink()
    (run / "result.json").symlink_to("/etc/hostname")


def link_in_a_checkpoint(run: Path) -> None:
    """Put a link to a directory into a checkpoint."""
    (run / "checkpoints" / "00000008" / "more").symlink_to("/etc")


def pipe(run: Path) -> None:
    """Put a pipe where the attempts were: it would be read for ever."""
    (run / "attempts.jsonl").unlink()
    os.mkfifo(run / "attempts.jsonl")


def giant(run: Path) -> None:
    """Make run.json a gigabyte long; the file takes no room."""
    os.truncate(run / "run.json", 1 << 30)


def long_line(run: Path) -> None:
    """Make a line of the ledger longer than anything that is read at once."""
    with open(run / "ledger.jsonl", "ab") as file:
        file.write(b"x" * (limits.MOST_LINE_BYTES + 1))


def no_folder(run: Path) -> None:
    """Let the checkpoints be elsewhere."""
    (run / "checkpoints").rename(run.parent / "elsewhere")
    (run / "checkpoints").symlink_to(run.parent / "elsewhere")


@pytest.mark.parametrize(
    "spoil", [link_out, link_in_a_checkpoint, pipe, giant, long_line, no_folder]
)
def test_what_no_run_has_is_refused_unread(run: Path, spoil: Callable[[Path], None]) -> None:
    """Links, pipes and what is far too large are refused in one sentence, and not read."""
    spoil(run)
    with pytest.raises(EvidenceError, match=r"^Cannot audit [^\n]*\nSee docs"):
        commit(run)


def test_the_command_prints_or_writes(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`commit` prints the statement or writes it; a proof instead where one is asked for."""

    def ends(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["commit", *map(str, words)])
        return ended.value.code, *capsys.readouterr()

    assert json.loads(ends(finished)[1]) == commit(finished).to_json()
    out = tmp_path / "c.json"
    assert ends(finished, "--out", out) == (0, "", "")
    assert read_commitment(out) == commit(finished)
    assert json.loads(ends(finished, "--prove-step", 3)[1])["what"] == "step 3"
    code, _, reason = ends(finished, "--prove-step", 3, "--prove-checkpoint", 4)
    assert (code, reason.count("\n")) == (2, 1)
    assert ends(finished, "--out", finished / "c.json")[0] == 2
    assert ends(tmp_path / "none")[0] == 2


def test_a_ledger_that_does_not_hold_is_not_committed_to(run: Path) -> None:
    """A line that does not continue the chain is damage; one that a kill cut short is left out."""
    whole = (run / "ledger.jsonl").read_bytes()
    (run / "ledger.jsonl").write_bytes(whole[:-9])
    assert commit(run).last == 11
    (run / "ledger.jsonl").write_bytes(whole.replace(b'"step":9', b'"step":8'))
    with pytest.raises(EvidenceError, match="does not continue the chain"):
        commit(run)
    (run / "ledger.jsonl").unlink()
    with pytest.raises(RunError):
        commit(run)
