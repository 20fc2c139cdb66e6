"""No secret reaches a record, by a command, a program of a line, or the name of a file."""

import json

import pytest

from reproducibility.watch.hiding import text_without_secrets, without_secrets


@pytest.mark.parametrize(
    "words",
    [
        ["--api-key=hush"],
        ["--password", "hush"],
        ["token=hush"],
        ["--wandb.api_key", "hush"],
        ["--AWS-SECRET=hush"],
        ["https://me:hush@host/data"],
        ['{"api_key": "hush", "seed": 1}'],
        ["--header", "Authorization: Bearer hush"],
        ["--with", "sk-hushhushhushhush0123"],
    ],
)
def test_a_secret_argument(words: list[str]) -> None:
    """The value of what is called a secret is not written down."""
    assert "hush" not in " ".join(without_secrets(["python", "a.py", *words]))


@pytest.mark.parametrize(
    "program",
    ["login('hush')", 'os.environ["A"] = "hush"', "x = '''a\nhush'''", "f('it\\\\'s', \"hush"],
)
def test_a_program_of_a_line(program: str) -> None:
    """What stands in quotes after `-c` is hidden; what is done is not."""
    shown = " ".join(without_secrets(["python", "-c", f"import os; {program}"]))
    assert "hush" not in shown
    assert shown.startswith("python -c import os; ")


@pytest.mark.parametrize(
    "name",
    [
        "/data/token=hush/w.npz",
        "/a?api_key=hush&b=2",
        "/runs/hf_hushhushhushhush",
        "s3://me:hush@b/c",
    ],
)
def test_the_name_of_a_file(name: str) -> None:
    """Nor is one in the name of a file; the line stays JSON."""
    shown = text_without_secrets(json.dumps({"kind": "reads", "what": name}))
    assert "hush" not in shown
    assert json.loads(shown)["kind"] == "reads"


def test_what_is_no_secret() -> None:
    """All else stays: two records are put together by their commands."""
    words = ["python", "train.py", "--seed=7", "--keys", "3", "--tokenizer=bpe", "http://h:80/a@b"]
    words += ["--max_tokens=512", "-m", "pkg.tokens", "/data/tokens/a.bin", "--key_size=3"]
    assert without_secrets(words) == words
    spawned = ["python", "-c", "from multiprocessing.spawn import spawn_main; spawn_main(3)"]
    assert without_secrets(spawned) == spawned
