"""The guard on the pages: every way in which a block could be shown and not checked is tried."""

import builtins
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.guard.isolation import isolated
from tools.guard.pages import CONTINUES, OUTPUT, PageError, read_page
from tools.guard.published import compare_page, problems, rendered, shown_blocks
from tools.look.hosts import requests_elsewhere

ROOT = Path(__file__).parents[2]

# They share the pages that one session of the guard has run.
pytestmark = pytest.mark.xdist_group("guard")

HONEST = f"""# A page

```python
print("one")
```
{OUTPUT}
```text
one
```

Then

{CONTINUES}
```sh
echo two
```
{OUTPUT}
```text
two
```
"""

# Where the fence of an addition stands: below the honest page and a blank line.
LINE = HONEST.count("\n") + 2

TAB = f"""
=== "A tab"

    ```python
    text = '''a

    b'''
    print(text)
    ```
    {OUTPUT}
    ```text
    a

    b
    ```
"""

# What is legal, and really runs: each is added to the honest page.
LEGAL = {
    "attributes": '\n```python title="x.py" hl_lines="1"\nprint("x")\n```\n',
    "a tab": TAB,
    "details": '\n??? note "More"\n\n    ```python\n    print("x")\n    ```\n',
    "a longer fence": '\n````python\nprint("""\n```\n""")\n````\n',
    "a titled listing": '\n```text title="RUN/"\nRUN/\n  run.json\n```\n',
    "a titled listing of data": '\n```json title="x.json"\n{"a": 1}\n```\n',
    "an annotation": "\n```python\nprint(1)  # (1)!\n```\n\n1. It prints.\n",
    "bash": "\n```bash\nset -o | grep pipefail\n```\n",
    "continued after a diff": '\n```diff title="x.py"\n-a\n+b\n```\n'
    "\n<!--pytest-codeblocks:cont-->\n```python\nprint(1)\n```\n",
}

# What is not: added to the honest page, it is refused in these words.
CHEATS = {
    "py": ("\n```py\n1 / 0\n```\n", "neither run nor a known listing"),
    "python3": ("\n```python3\n1 / 0\n```\n", "neither run nor a known listing"),
    "Python": ("\n```Python\n1 / 0\n```\n", "neither run nor a known listing"),
    "pycon": ("\n```pycon\n>>> 1 / 0\n```\n", "neither run nor a known listing"),
    "ipython": ("\n```ipython\n1 / 0\n```\n", "neither run nor a known listing"),
    "zsh": ("\n```zsh\nfalse\n```\n", "neither run nor a known listing"),
    "no language": ("\n```\n1 / 0\n```\n", "neither run nor a known listing"),
    "braces": ("\n``` {.python .output}\n1 / 0\n```\n", "neither run nor a known listing"),
    "tildes": ("\n~~~python\n1 / 0\n~~~\n", "use ```"),
    "raw HTML": ("\n<pre><code>import os</code></pre>\n", "raw HTML"),
    "Python in text": ('\n```text title="x"\nimport os\n```\n', "looks like Python"),
    "a call in text": ('\n```text title="x"\ntrain(config)\n```\n', "looks like Python"),
    "a prompt in text": ('\n```text title="x"\n>>> 1 + 1\n2\n```\n', "looks like Python"),
    "a command in text": ('\n```text title="x"\npip install x\n```\n', "looks like a shell"),
    "a shell prompt in text": ('\n```text title="x"\n$ ls\n```\n', "looks like a shell"),
    "Python in yaml": ('\n```yaml title="x"\nimport os\n```\n', "looks like Python"),
    "no JSON": ('\n```json title="x"\nprint()\n```\n', "not JSON"),
    "an output with no block": ("\n```text\nthree\n```\n", "compared with nothing"),
    "an output after a listing": (
        f'\n```text title="x"\nx\n```\n{OUTPUT}\n```text\nthree\n```\n',
        "must follow a python, sh or bash block",
    ),
    "two outputs": (f"\n{OUTPUT}\n```text\nthree\n```\n", "already shows its output"),
    "an output that is code": (
        f"\n```python\nprint(1)\n```\n{OUTPUT}\n```python\n1\n```\n",
        "an output is one of",
    ),
    "an output tag at the end": (f"\n{OUTPUT}\n", "directly before a fence"),
    "an output tag before prose": (f"\n{OUTPUT}\nIt prints\n", "directly before a fence"),
    "cont after a listing": (
        f'\n```text title="x"\nx\n```\n{CONTINUES}\n```python\n1 / 0\n```\n',
        "must follow a python, sh or bash block",
    ),
    "cont before a listing": (
        f'\n{CONTINUES}\n```text title="x"\nx\n```\n',
        "must stand before a python, sh or bash block",
    ),
    "a skip mark": ("\n<!--pytest.mark.skip-->\n```python\n1 / 0\n```\n", "is no tag"),
    "a bare xfail": ("\n<!--pytest.mark.xfail-->\n```python\n1 / 0\n```\n", "is no tag"),
    "skipfile": ("\n<!--pytest-codeblocks:skipfile-->\n", "is no tag"),
    "importorskip": ("\n<!--pytest-codeblocks:importorskip(no)-->\n", "is no tag"),
    "a misspelt tag": ("\n<!--pytest-codeblock:cont-->\n```python\n1\n```\n", "is no tag"),
    "a tag in a line": (f"\nIt prints {OUTPUT}\n```text\nx\n```\n", "is no tag"),
    "whitespace ignored": (
        "\n<!--pytest-codeblocks:expected-output-ignore-whitespace-->\n```text\nx\n```\n",
        "is no tag",
    ),
    "a hidden block": ("\n<!--\n```python\nx = 1\n```\n-->\n", "a comment over several lines"),
    "a fence in a list item": ("\n- ```python\n  1 / 0\n  ```\n", "begin its own line"),
    "a fence in a quotation": ("\n> ```python\n> 1 / 0\n> ```\n", "begin its own line"),
    "a fence not closed": ("\n```python\n1 / 0\n", "not closed"),
    "a fence closed by a string": ('\n```python\nx = """\n```\n"""\n```\n', "not closed"),
    "an included file": ('\n```python\n--8<-- "x.py"\n```\n', "cannot include"),
    "console": ("\n```console\n$ make serve\n```\n", "console_blocks.toml"),
}

# What reads well and does not hold when it runs.
FAILURES = {
    "a stale output": (
        f"\n```python\nprint(1)\n```\n{OUTPUT}\n```text\n2\n```\n",
        "make update-outputs",
    ),
    "a block that fails": ("\n```python\nassert 1 == 2\n```\n", "assert 1 == 2"),
    "a block that leaves": ("\n```python\nraise SystemExit\n```\n", "left early"),
    "a block that skips": (
        "\n```python\nimport pytest\npytest.skip('later')\n```\n",
        "left early",
    ),
    "sh that fails early": ("\n```sh\nfalse\necho\n```\n", "exit code 1"),
    "bash that fails in a pipe": ("\n```bash\nfalse | true\n```\n", "exit code 1"),
    "an unset variable": ('\n```sh\necho "$NO_SUCH_VARIABLE"\n```\n', "NO_SUCH_VARIABLE"),
    "a warning": ("\n```python\nimport warnings\nwarnings.warn('x')\n```\n", "UserWarning: x"),
}


# The source looks innocent; only the built page shows that this is code.
RENDERED = {"indented code": "\nText\n\n    import os\n    os.abort()\n"}

# The build itself stops at a file that is not there.
STOPPED = "an included file"
# These show a reader nothing that the honest page does not.
INVISIBLE = {
    "an output tag at the end",
    "an output tag before prose",
    "skipfile",
    "importorskip",
    "a hidden block",
}


def file_name(form: str) -> str:
    """The page that holds a form."""
    return f"docs/{form.replace(' ', '_')}.md"


class Tree:
    """A site in a directory of its own, on which the guard is run as on ours."""

    def __init__(self, folder: Path, pages: dict[str, str]) -> None:
        self.folder = folder
        (folder / "docs").mkdir()
        for name, source in pages.items():
            (folder / name).write_text(source, "utf-8")

    def run(self, *options: str) -> tuple[int, str]:
        """Run all pages in a new process; return its exit code and what it printed."""
        command = [sys.executable, "-m", "pytest", "-p", "tools.guard.codeblocks", "--codeblocks"]
        done = subprocess.run(
            [*command, "-p", "no:randomly", "-W", "error", "docs", *options],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    @property
    def record(self) -> dict[str, Any]:
        """The pages on record."""
        record = json.loads((self.folder / "build/executed.json").read_text("utf-8"))
        return record["pages"]

    def problems(self, name: str, source: str | None = None) -> list[str]:
        """Hold the page, rendered from `source` or from its file, against the record."""
        html = rendered(source or (self.folder / name).read_text("utf-8"))
        return problems(name, html, self.folder)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tree, str]:
    """One page for every form, all run in one session, and what the session printed."""
    pages = {file_name(form): HONEST + addition for form, addition in forms().items()}
    pages |= {"docs/isolated.md": ISOLATED, "docs/as_a_script.md": AS_A_SCRIPT}
    tree = Tree(tmp_path_factory.mktemp("forms"), pages)
    code, printed = tree.run()
    assert code == 1, printed
    return tree, printed


def forms() -> dict[str, str]:
    """The honest page, each legal form, and each that fails when it runs."""
    return {"honest": "", **LEGAL, **{form: source for form, (source, _) in FAILURES.items()}}


@pytest.mark.parametrize("form", ["honest", *LEGAL])
def test_every_legal_form_runs(ran: tuple[Tree, str], form: str) -> None:
    """A form that a page may use is run, is on record, and is found on the built page."""
    tree, printed = ran
    name = file_name(form)
    assert f"FAILED {name}" not in printed
    assert tree.problems(name) == []
    expected = 2 + (form in LEGAL and "listing" not in form)
    assert len(tree.record[name]["blocks"]) == expected


@pytest.mark.parametrize("form", FAILURES)
def test_what_fails_is_reported_with_page_and_line(ran: tuple[Tree, str], form: str) -> None:
    """A block that does not hold fails its page, in words, at the line of its fence."""
    tree, printed = ran
    name, (_, words) = file_name(form), FAILURES[form]
    assert f"FAILED {name}::line {LINE}" in printed
    report = re.search(rf"_ {re.escape(name)}:{LINE} _+\n(.*?)\n(_____|=====)", printed, re.DOTALL)
    assert report
    assert f"{name}:{LINE}" in report[1]
    assert words in report[1]
    assert tree.problems(name) != []


@pytest.mark.parametrize("form", CHEATS)
def test_a_cheat_is_refused_in_words(tmp_path: Path, form: str) -> None:
    """A page with one dishonest block is not read at all; the sentence says what is wrong."""
    addition, words = CHEATS[form]
    path = tmp_path / "page.md"
    path.write_text(HONEST + addition, "utf-8")
    with pytest.raises(PageError, match=r"page\.md:\d+: ") as refusal:
        read_page(path, tmp_path)
    assert words in str(refusal.value)


def test_a_page_that_is_refused_is_an_error_of_the_session(tmp_path: Path) -> None:
    """A cheat does not vanish from the run: pytest ends with an error that names page and line."""
    tree = Tree(tmp_path, {"docs/page.md": HONEST + CHEATS["py"][0]})
    code, printed = tree.run()
    assert code == 2
    assert f"docs/page.md:{LINE}: ```py is neither run nor" in printed


@pytest.mark.parametrize("form", [*RENDERED, *(form for form in CHEATS if form != STOPPED)])
def test_the_built_page_alone_gives_a_cheat_away(ran: tuple[Tree, str], form: str) -> None:
    """Had the guard on the source seen nothing, the built page would still differ from what ran."""
    addition = RENDERED[form] if form in RENDERED else CHEATS[form][0]
    found = ran[0].problems(file_name("honest"), HONEST + addition)
    assert bool(found) == (form not in INVISIBLE)


IN_DOCSTRING = '<div class="doc"><div class="language-{} highlight"><pre>{}</pre></div></div>'


@pytest.mark.parametrize(
    ("language", "text", "problem"),
    [
        ("text", "Error\n├── KeyError\n└── StateError", ""),
        ("text", "import os", "looks like Python"),
        ("text", "config = train(1)", "looks like Python"),
        ("text", "pip install x", "looks like a shell command"),
        ("python", "import os", "shown, but did not run"),
        ("json", "{}", "a block of json that is neither run, nor an output, nor a listing"),
    ],
)
def test_a_docstring_may_hold_a_drawing(language: str, text: str, problem: str) -> None:
    """A tree drawn in a docstring is shown on the reference as it is; code is not a drawing."""
    shown = shown_blocks(IN_DOCSTRING.format(language, text))
    found = compare_page(shown, {"blocks": {}}, [], [], {})
    assert len(found) == (problem != "")
    assert all(problem in sentence for sentence in found)


def test_what_ran_and_is_not_shown_is_missed(ran: tuple[Tree, str]) -> None:
    """A block or an output that vanished from the built page is a problem too."""
    without = HONEST.partition("Then")[0]
    assert ran[0].problems(file_name("honest"), without) == [
        "ran, but is not shown: 'echo two'",
        "an output was compared that is not shown: 'two'",
    ]


def test_a_record_of_another_text_is_refused(tmp_path: Path) -> None:
    """A page that was edited after it ran, or never ran, is refused with what to do about it."""
    tree = Tree(tmp_path, {"docs/page.md": HONEST, "docs/other.md": HONEST})
    assert tree.run("--deselect", "docs/other.md::line 3")[0] == 0
    assert tree.problems("docs/page.md") == []
    assert tree.problems("docs/other.md") == [
        "docs/other.md has not been run: run `make test-docs` first"
    ]
    (tmp_path / "docs/page.md").write_text(HONEST + "More prose.\n", "utf-8")
    assert tree.problems("docs/page.md") == [
        "docs/page.md has changed since its blocks ran: run `make test-docs` first"
    ]


def test_a_byte_order_mark_is_refused(tmp_path: Path) -> None:
    """An invisible first character cannot make a page's first line something else."""
    path = tmp_path / "page.md"
    path.write_text("\ufeff" + HONEST, "utf-8")
    with pytest.raises(PageError, match="byte order mark"):
        read_page(path, tmp_path)


def test_update_outputs_makes_every_page_true(tmp_path: Path) -> None:
    """`--update-outputs` rewrites what differs, in tabs too, and nothing else."""
    stale = HONEST.replace("\none\n", "\nold\nlines\n") + TAB.replace(
        "    a\n\n    b\n    ```\n", "    ```\n"
    )
    tree = Tree(tmp_path, {"docs/page.md": stale})
    code, printed = tree.run("--update-outputs")
    assert code == 0, printed
    assert "updated the outputs of docs/page.md" in printed
    assert (tmp_path / "docs/page.md").read_text("utf-8") == HONEST + TAB


ISOLATED = """
```python
import os, sys, warnings
import jax, numpy as np

os.environ["LEFT_BEHIND"] = "1"
sys.path.append("/left/behind")
jax.config.update("jax_enable_x64", True)
np.random.seed(0)
np.set_printoptions(precision=2)
open("left_behind.py", "w").close()
import left_behind
```

```python
import os, sys
import jax, numpy as np

assert "LEFT_BEHIND" not in os.environ
assert "/left/behind" not in sys.path
assert not jax.config.jax_enable_x64
assert np.random.get_state()[1][0] != 0
assert np.get_printoptions()["precision"] == 8
assert os.listdir() == []
assert "left_behind" not in sys.modules
```
"""

AS_A_SCRIPT = """
```python
import inspect
import pickle
from dataclasses import dataclass


@dataclass
class Point:
    x: int


assert __name__ == "__main__"
assert pickle.loads(pickle.dumps(Point(1))) == Point(1)
assert inspect.getsource(Point).startswith("@dataclass\\nclass Point:")
```
<!--pytest-codeblocks:cont-->
```sh
command -v python
```
"""

ENDLESS_PYTHON = """
```python
while True:
    try:
        pass
    except Exception:
        pass
```
"""
ENDLESS_SH = """
```sh
sleep 1000 & sleep 1000
```
"""


def test_blocks_leave_nothing_behind(ran: tuple[Tree, str]) -> None:
    """Environment, paths, settings, seeds, files and modules of one block are gone in the next."""
    tree, printed = ran
    assert "FAILED docs/isolated.md" not in printed
    assert len(tree.record["docs/isolated.md"]["blocks"]) == 2
    assert {path.name for path in tree.folder.iterdir()} == {".pytest_cache", "build", "docs"}


def test_an_example_leaves_no_value_in_the_builtins() -> None:
    """What a docstring's example shows is gone after it, whatever is imported then."""
    before = dict(vars(builtins))
    with isolated():
        sys.__displayhook__((1, {}))  # what doctest shows a value with
        assert vars(builtins)["_"] == (1, {})
    assert vars(builtins) == before


def test_a_block_runs_as_a_script_does(ran: tuple[Tree, str]) -> None:
    """`__main__`, pickle and source lookup work, and shell blocks find this Python first."""
    tree, printed = ran
    assert "FAILED docs/as_a_script.md" not in printed
    blocks = list(tree.record["docs/as_a_script.md"]["blocks"].values())
    assert [block["outcome"] for block in blocks] == ["passed", "passed"]
    assert blocks[-1]["printed"] == f"{Path(sys.executable).with_name('python')}\n"


def test_a_block_that_never_ends_is_stopped(tmp_path: Path) -> None:
    """A block beyond its time fails with a sentence, not even `except Exception` holds it; and

    what ran in the processes of pytest-xdist is on record.
    """
    tree = Tree(tmp_path, {"docs/python.md": ENDLESS_PYTHON, "docs/sh.md": ENDLESS_SH})
    code, printed = tree.run("--seconds-per-block", "2", "-n", "2")
    assert code == 1
    assert "docs/python.md:2: the block ran longer than 2 seconds, at line " in printed
    assert "docs/sh.md:2: the block ran longer than 2 seconds" in printed
    for page in tree.record.values():
        assert [block["outcome"] for block in page["blocks"].values()] == ["failed"]


def test_warnings_are_errors(request: pytest.FixtureRequest) -> None:
    """Our own settings make a warning an error, for blocks as for every test."""
    assert request.config.getini("filterwarnings")[0] == "error"


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        '<link rel="preconnect" href="https://fonts.example">',
        '<img src="https://img.example/badge.svg">',
        '<p style="background: url(https://img.example/x.png)">x</p>',
        "<style>@import 'https://fonts.example/x.css';</style>",
        '<script>fetch("https://api.example/x")</script>',
    ],
)
def test_a_request_to_another_host_is_found(html: str) -> None:
    """The search for requests knows the ways in which a page makes one."""
    assert len(requests_elsewhere(html)) == 1


def test_a_link_is_no_request() -> None:
    """What a reader may click, and where a page says it lives, load nothing."""
    html = '<a href="https://x.example">x</a><link rel="canonical" href="https://x.example/">'
    assert requests_elsewhere(html) == []
