"""Promises of `reproducibility.recording.lines`: what a line may say, and what is no line."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reproducibility import Ledger, LedgerError, compare
from reproducibility.recording.lines import Header, differing
from reproducibility.same.fingerprint import combined
from tests.ledgers import RUN, craft, header, line, step, walked, write


@pytest.mark.parametrize(
    ("params", "got"),
    [(5, "5"), ("0" * 14, "'00000000000000'"), ("0" * 32, repr("0" * 32)), ("z" * 16, "'zzzz")],
)
def test_a_line_that_its_header_does_not_describe(tmp_path: Path, params: Any, got: str) -> None:
    """An entry of another form than the header says is refused by step and stage."""
    bad = craft(tmp_path / "bad", header(), step(1, params=params))
    good = craft(tmp_path / "good", header(), step(1))
    message = rf"Cannot read the params of a line, step 1: expected 1 fingerprints .*, got {got}"
    with pytest.raises(LedgerError, match=message):
        walked(bad, good)


@pytest.mark.parametrize("name", ["weights", "a"])
@pytest.mark.parametrize("value", ["0" * 16, 2])
def test_what_cannot_be_compared_is_not_the_same(tmp_path: Path, name: str, value: Any) -> None:
    """A field or stage that this version does not know is said by name, and is never "the same".

    The control: without it the two are.
    """
    body, other = {**step(1), name: value}, {**step(1), name: "1" * 16}
    a, b = craft(tmp_path / "a", header(), body), craft(tmp_path / "b", header(), other)
    said = f"{name!r}, which is none of batch"
    if name > "step":
        read = Ledger(a)
        assert (list(read), read.problem is not None and said in read.problem) == ([], True)
        assert compare(a, b).verdict == "cannot be told"
    else:
        with pytest.raises(LedgerError, match=rf"Cannot read a line, step 1: .*, got {name}\."):
            compare(a, b)
    strange = header(leaves={"params": ["b", "w"], name: ["w"]})
    a, b = (craft(tmp_path / n, strange, each) for n, each in (("a", body), ("b", other)))
    with pytest.raises(LedgerError, match=f"got format 1 with the stage {said}"):
        compare(a, b)
    a, b = (craft(tmp_path / n, header(), step(1)) for n in "ab")
    assert compare(a, b).verdict == "same"


@pytest.mark.parametrize("loss", [1.5, None, "one", "", "0x1p+9999", ["0x1p+0"]])
def test_a_loss_that_is_no_number_is_refused(tmp_path: Path, loss: Any) -> None:
    """A loss that cannot be compared is refused on both sides, instead of being left out."""
    about, body = line(1)
    with pytest.raises(LedgerError, match="Cannot write the loss of a line, step 1: "):
        write(tmp_path / "a", [(about, {**body, "loss": loss})])
    a = craft(tmp_path / "a", header(), step(1, loss=loss))
    b = craft(tmp_path / "b", header(), step(1, loss="0x1p+0"))
    with pytest.raises(LedgerError, match="Cannot read the loss of a line, step 1: "):
        compare(a, b)


def test_two_spellings_of_a_loss_are_one(tmp_path: Path) -> None:
    """A loss is compared as the number it is; what only one side has is no difference, and said."""
    paths = [
        craft(tmp_path / str(i), header(), step(1, **({"loss": loss} if loss else {})))
        for i, loss in enumerate(["0x1p+0", "0x1.0000000000000p+0", "0x1.0000000000001p+0", None])
    ]
    assert compare(paths[0], paths[1]).verdict == "same"
    assert compare(paths[0], paths[2]).stage == "loss"
    found = compare(paths[0], paths[3])
    assert (found.verdict, found.notes) == ("same", ("Only one of the two ledgers has loss.",))


def test_differing_ignores_what_one_side_lacks() -> None:
    """Stages come in the order of cause and effect; groups and leaves compare as groups."""
    leaf = {"params": {"b": "0" * 16, "w": "1" * 16}, "key": {"k": "2" * 16}}
    group = {"params": {"": combined(["0" * 16, "1" * 16])}, "batch": {"": "3" * 16}}
    assert differing(leaf, group) == {}
    other = {"params": {"b": "0" * 16, "w": "3" * 16}, "key": {"k": "3" * 16}}
    assert differing(leaf, other) == {"key": ("k",), "params": ("w",)}
    assert differing(other, group) == {"params": ()}


def forge(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """Change the bytes of each line, whatever they are then, and compute the chain from scratch."""
    head, content = RUN, b""
    for raw in path.read_bytes().splitlines():
        body = change(raw[: raw.find(b'"chain":')] + raw[raw.find(b'"chain":') + 75 :])
        head = hashlib.sha256(head.encode() + body).hexdigest()
        at = body.find(b'"every"') if b'"every"' in body else 1
        content += body[:at] + b'"chain":"%b",' % head.encode() + body[at:] + b"\n"
    forged = path.with_name("forged.jsonl")
    forged.write_bytes(content)
    return forged


FORGED = {
    "a name of a leaf twice": lambda line: line.replace(b'["b","w"]', b'["b","b","w"]').replace(
        b'"params":"', b'"params":"deadbeefdeadbeef'
    ),
    "a stage twice": lambda line: line.replace(b'"params":"', b'"params":"00","params":"'),
    "more in the header": lambda line: line.replace(b'"level"', b'"extra":1,"level"'),
    "leaves in another order": lambda line: line.replace(b'["b","w"]', b'["w","b"]'),
    "a space": lambda line: line.replace(b'"params":"', b'"params": "'),
}


@pytest.mark.parametrize("how", ["as it is", "nothing but steps", *FORGED])
def test_what_is_not_as_it_is_written_is_not_the_same(tmp_path: Path, how: str) -> None:
    """A ledger with bytes that no comparison looks at, whose chain was computed again, is refused
    or different: it is never the same as the one it was made of. The control: unchanged, it is."""
    header = Header("", "leaf", 1, 0, {"params": ["b", "w"]})
    lines = [(header, {"params": f"{step:032x}", "step": step}) for step in range(4)]
    write(tmp_path / "true.jsonl", lines)

    def emptied(line: bytes) -> bytes:
        step = json.loads(line).get("step")
        return line if step is None else b'{"step":%d}' % step

    changes = {"as it is": lambda line: line, "nothing but steps": emptied, **FORGED}
    forged = forge(tmp_path / "true.jsonl", changes[how])
    others = [tmp_path / "true.jsonl"]
    others += [forged] if how == "nothing but steps" else []  # which tell of no step that it agrees
    for other in others:
        try:
            verdict = compare(other, forged).verdict
        except LedgerError:
            verdict = "refused"
        assert (verdict == "same") == (how == "as it is")
