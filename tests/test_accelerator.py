"""What `make accelerator` measures: its functions, and once, in full, on a CPU."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tools.accelerator import asked, missing, parts, switches, tables, trainings
from tools.accelerator.answers import Answered, Asking

ROOT = Path(__file__).parents[1]


class Told:
    """Answers from a list instead of from processes."""

    def __init__(self, *answers: Answered) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict]] = []

    def ask(self, task: str, variables: object = None, **arguments: object) -> Answered:
        """Hand out the next answer."""
        self.asked.append((task, dict(variables or {})))
        return self.answers.pop(0)

    def left(self) -> float:
        """There is time as long as there are answers."""
        return 100.0 if self.answers else 0.0


def training(digest: str, again: str = "", loss: float = 1.0, ms: float = 1.0) -> dict:
    """Return the row of a training."""
    digests = [digest, again or digest]
    times = {"first_ms": 10.0 * ms, "ms": ms}
    return {"what": "perceptron", "digest": digest, "digests": digests, "losses": [loss]} | times


def test_a_training_that_differs_is_never_called_the_same() -> None:
    """Other bits in one process, and between two, are each said, with the step."""
    one, other = (Answered([training("a", "b", 1.0)]), Answered([training("c", loss=1.5)]))
    part = parts.repeat_part(scope(Told(one, other, Answered())))
    assert part.rows[0][1:3] == [
        "**2 results in 2**",
        "**2 results in 2**, losses from step 1, 5.0e-01 at the end",
    ]
    alike = Told(Answered([training("a")]), Answered([training("a")]), Answered())
    assert parts.repeat_part(scope(alike)).rows[0][1:3] == ["the same", "the same"]


def test_a_resumed_run_that_differs_is_said() -> None:
    """What counts is the digest of the resumed run, not that of its first half."""
    whole, half = Answered([training("a")]), Answered([training("h")])
    for last, said in (("a", "the same"), ("b", "**2 results in 2**")):
        told = Told(whole, half, Answered([training(last)]))
        assert parts.resume_part(scope(told)).rows == [["perceptron", said]]


def test_a_row_that_is_missing_is_listed_and_never_shown_as_the_same() -> None:
    """A process that died leaves no verdict: its error, and what was not reached."""
    told = Told(
        Answered(error="a process ended with -6: 'x'"), Answered([training("a")]), Answered()
    )
    part = parts.repeat_part(scope(told))
    assert part.rows == []
    assert part.errors == ["a process ended with -6: 'x'"]
    assert part.cut[0] == "perceptron: it was not reached"
    assert tables.same([]) == tables.same([None, None]) == "not measured"


def test_a_flag_is_compared_with_none_and_what_fails_under_it_is_named() -> None:
    """Bits and times are those with the flag against those without; an error keeps its sentence."""
    by_index = {"what": "sum by index", "ms": 2.0}
    base = Answered([training("a"), by_index])
    slow = Answered([training("b", ms=3.0), {**by_index, "ms": 80.0}])
    refused = Answered([{"what": "perceptron", "error": "UNIMPLEMENTED: no such kernel"}])
    told = Told(base, slow, refused, base)
    part = parts.flags_part(scope(told, switches=2))
    flags = [switch.variables for switch in switches.switches_of("cpu")[:2]]
    assert [variables for _, variables in told.asked] == [{}, *flags, {}]
    assert part.rows[0][1:] == ["not perceptron", "the same", "3.00", "3.00", "40.00"]
    assert part.rows[1][0] == "`nothing, once more`"
    assert part.rows[1][1] == "all"
    assert part.errors == [
        f"{switches.switches_of('cpu')[1].name}, perceptron: UNIMPLEMENTED: no such kernel"
    ]


def test_flags_for_which_there_was_no_time_are_listed() -> None:
    """Each flag that was not tried is in the list of what was cut."""
    part = parts.flags_part(scope(Told(Answered([training("a")])), switches=3))
    assert part.rows == []
    assert part.cut[:3] == [switch.name for switch in switches.switches_of("cpu")[:3]]


def test_only_flags_of_the_platform_are_tried() -> None:
    """XLA ends a process at a flag that it does not know, so those of other devices stay out."""
    assert not [
        s.name for s in switches.switches_of("cpu") if "_gpu_" in s.name or "TF32" in s.name
    ]
    names = [switch.name for switch in switches.switches_of("gpu")]
    assert names[:2] == [
        "--xla_gpu_exclude_nondeterministic_ops=true",
        "--xla_gpu_deterministic_ops=true",
    ]
    assert switches.switches_of("cuda") == switches.switches_of("gpu")


def test_a_process_finds_no_flags_of_the_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags and caches are taken away, memory is not reserved, and the CPU stays reachable."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/somewhere")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    found = Asking(0.0, "/ours").environment({"NPROC": "1"})
    assert {"XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR"} & set(found) == set()
    assert found["JAX_PLATFORMS"] == "cuda,cpu"
    assert (
        found["XLA_PYTHON_CLIENT_PREALLOCATE"] == found["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    )
    assert found["PYTHONPATH"].split(":") == ["/ours", "/theirs"]
    assert found["NPROC"] == "1"


def test_the_names_of_all_operations_are_read_without_jax() -> None:
    """The names that the parent reads are the keys of both tables, in their order."""
    found = []
    for file in ("tools/eighteen.py", "tools/accelerator/more_operations.py"):
        for node in ast.parse((ROOT / file).read_text()).body:
            if isinstance(node, ast.Assign) and node.targets[0].id.endswith("OPERATIONS"):
                found.append([key.value for key in node.value.keys])
    assert parts.all_operations() == [*found[0], *found[1]]
    assert [len(names) for names in found] == [18, 11]


def test_a_distance_is_of_bits_first_and_by_the_largest_number() -> None:
    """Equal bits are 0; else the largest difference by the largest number."""
    assert asked.distance(np.ones(3), np.ones(3)) == 0
    assert asked.distance([np.array([1.0, 4.0])], [np.array([2.0, 4.0])]) == 0.25


def test_an_error_is_a_sentence_and_a_missing_library_is_left_out() -> None:
    """What fails costs its own row only."""

    def fails() -> dict:
        raise ValueError("first line\nsecond")

    def lacks() -> dict:
        raise ModuleNotFoundError("No module named 'optax'", name="optax")

    assert asked.attempt(fails) == {"error": "ValueError: first line second"}
    assert asked.attempt(lacks) == {"left out": "this Python has no optax"}


def test_stand_ins_do_what_the_package_asks_of_the_libraries(tmp_path: Path) -> None:
    """The stub is read, a name is imported when it is used, and an annotation is anything."""
    for name, text in missing.STAND_INS.items():
        (tmp_path / f"{name}.py").write_text(text)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from jaxtyping import Array, Float; Float[Array, 'n']\n"
        "import reproducibility\n"
        "assert 'root_key' in dir(reproducibility) and 'jax' not in sys.modules\n"
        "assert reproducibility.ExitCode.SAME == 0\n"
        "try: reproducibility.no_such_name\n"
        "except AttributeError: print('well')\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.stdout, done.stderr) == ("well\n", "")


def test_the_result_has_every_error_and_all_that_was_cut(tmp_path: Path) -> None:
    """JSON and Markdown name the device, what failed, what was cut and what was left out."""
    part = tables.Part("a", "A title", ["x", "y"], [["1", "a|b"]])
    part.errors, part.cut, part.left_out = ["it broke"], ["a flag"], ["no second device"]
    facts = {"platform": "gpu", "device": "A thing", "devices": 2, "version of jax": "9"}
    text = tables.write_all(tmp_path, facts, [part], 3.2)
    assert "## Measured on: 2 x A thing (gpu), jax 9\n" in text
    for line in ("| 1 | a\\|b |", "* Failed: it broke", "* Cut for time: a flag"):
        assert f"{line}\n" in text
    assert "* Left out: no second device\n" in text
    whole = json.loads((tmp_path / "accelerator.json").read_text())
    assert whole["parts"][0]["errors"] == ["it broke"]
    assert (tmp_path / "accelerator.md").read_text() == text


def test_a_training_is_resumed_from_a_file_with_all_bits(tmp_path: Path) -> None:
    """Two steps, a file and one step end where three steps end; without the file they do not."""
    file = str(tmp_path / "state.npz")
    whole = trainings.trained("perceptron", 0, 3)
    trainings.trained("perceptron", 0, 2, save=file)
    assert trainings.trained("perceptron", 2, 3, load=file).digest == whole.digest
    assert trainings.trained("perceptron", 2, 3).digest != whole.digest
    assert len(whole.losses) == 3


def test_a_digest_depends_on_bits_shape_and_dtype() -> None:
    """Arrays of bfloat16, which no buffer of NumPy can hold, are digested as well."""
    ones = np.ones(4, np.float32)
    others = ones.reshape(2, 2), ones.astype("bfloat16"), -ones, -0.0 * ones, 0.0 * ones
    digests = [trainings.digest_of([each]) for each in (ones, *others)]
    assert len(set(digests)) == 6
    assert trainings.digest_of([ones.copy()]) == digests[0]


@pytest.mark.nightly
@pytest.mark.long
def test_a_short_measurement_runs_on_this_machine(tmp_path: Path) -> None:
    """The command measures in fresh processes, and writes a table with a verdict."""
    command = [sys.executable, "-m", "tools.accelerator", "--out", str(tmp_path), "--small"]
    command += ["--only", "resume", "--seconds", "300"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    [part] = json.loads((tmp_path / "accelerator.json").read_text())["parts"]
    assert part["rows"] == [["perceptron", "the same"], ["attention", "the same"]]


@pytest.mark.long
@pytest.mark.nightly
def test_every_part_is_measured_on_this_machine(tmp_path: Path) -> None:
    """All parts, with two flags: nothing fails, and nothing is cut for time."""
    command = [sys.executable, "-m", "tools.accelerator", "--out", str(tmp_path), "--small"]
    command += ["--seconds", "1500"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    found = json.loads((tmp_path / "accelerator.json").read_text())["parts"]
    assert [part["name"] for part in found] == list(parts.PARTS), done.stderr
    assert all(part["rows"] for part in found)


def scope(told: Told, switches: int | None = None) -> parts.Scope:
    """Return the scope of a part that asks nobody."""
    return parts.Scope(told, networks=("perceptron",), switches=switches)
