"""Labs give the same outputs each time they are executed: text and pictures."""

from pathlib import Path
from typing import Any

import jupytext
import nbclient
import pytest
from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor

from tools.labs import use_own_settings

ROOT = Path(__file__).parents[2]
LABS = sorted((ROOT / "docs" / "labs").glob("*.py"))


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Execute as the site's build does: without the settings of whoever runs the tests."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, "")  # so that what is set next is undone afterwards
    use_own_settings(tmp_path)


def outputs(source: str) -> list[list[dict[str, Any]]]:
    """What each code cell of a lab shows: the outputs, without the numbers that count cells."""
    notebook = jupytext.reads(source, fmt="py:percent")
    nbclient.NotebookClient(
        notebook, kernel_name="python3", timeout=200, resources={"metadata": {"path": str(ROOT)}}
    ).execute()
    # A kernel sends what is printed in pieces, cut by the clock; a reader sees them as one.
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})
    shown = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return [[{**output, "execution_count": None} for output in cell] for cell in shown]


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.stem)
def test_a_lab_shows_the_same_twice(lab: Path) -> None:
    """Two executions, each in a new process, agree in every character and every picture."""
    first, second = outputs(lab.read_text("utf-8")), outputs(lab.read_text("utf-8"))
    assert first == second
    shown = [output for cell in first for output in cell]
    assert any("<svg" in output.get("data", {}).get("text/html", "") for output in shown)
    assert not [output for output in shown if output.get("name") == "stderr"]


def test_a_lab_that_differs_is_noticed() -> None:
    """The comparison can fail: a draw from the system's randomness is seen."""
    source = "# %%\nimport os\nprint(os.urandom(8).hex())\n\n# %%\n2 + 2\n"
    first, second = outputs(source), outputs(source)
    assert first[0] != second[0]
    assert first[1] == second[1]
