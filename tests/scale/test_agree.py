"""Promises of `reproducibility.scale.agree`, in processes of JAX that know each other."""

import re
from importlib import metadata
from pathlib import Path

import pytest

from tests.scale.test_start import start

SMALL = ["--batch-size", "32", "--shards", "2", "--hidden", "8", "--steps", "4"]
# Goes through all calls once. A process that got out of step would not come to the end.
TOGETHER = """
import atexit
index or atexit.register(time.sleep, 4)  # after all else: the other ends meanwhile
import jax, jax.numpy as jnp
from reproducibility.scale import agree
from reproducibility import assert_same_on_all_processes, initialize
from reproducibility.scale.agree import assert_same_facts, on_first, stop_together
from reproducibility.scale.start import this_process

tell(joined=[initialize(**asked), *this_process()])
jax.config.update("jax_num_cpu_devices", 3)  # refused where `here` has started JAX
tell(devices=[jax.process_index(), jax.process_count(), jax.local_device_count()])

def fail():
    raise OSError(f"No room on {index}.")

def wait():
    while not os.path.exists("late"):
        time.sleep(0.01)

tell(values=[on_first(lambda: [index, "größer"]), on_first(lambda: None)])
tell(failed=error(lambda: on_first(fail)))
tell(no_json=error(lambda: on_first(object, deadline=10)))
tell(late=error(lambda: on_first(wait, deadline=0.2)))
open("late", "w").close()

w = jnp.arange(3)
tell(same=error(lambda: assert_same_on_all_processes({"w": w, "b": [w, w]})))
tell(leaf=error(lambda: assert_same_on_all_processes({"w": w, "b": [w, w + index]})))
tell(more=error(lambda: assert_same_on_all_processes({"w": w} | ({"v": w} if index else {}))))
tell(less=error(lambda: assert_same_on_all_processes({"w": w} | ({} if index else {"v": w}))))
tell(thing=error(lambda: assert_same_on_all_processes({"w": w * index}, thing="params")))

def facts(**different):
    return error(lambda: assert_same_facts({"hidden": (8, 4), "rate": float("nan"), **different},
                                           thing="these settings"))

tell(facts=facts(), fact=facts(seed=index, zeal=index))
for step in range(1, 10_000):
    if step == 5 and index == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    if stop_together(step):
        break
    time.sleep(0.01)
tell(stopped=step, still=on_first(lambda: index))
agree.AGREEMENT = 0.3
tell(absent=None if index else facts())
"""
TRAIN = """
from importlib import metadata
from reproducibility import TrainConfig, initialize, train

def refused(place="run", **settings):
    small = {"seed": 7, "steps": 4, "batch_size": 32, "shards": 2, "hidden": (8,), **settings}
    return error(lambda: train(TrainConfig(**small), run_dir=place))

initialize(**asked)
tell(seed=refused(seed=7 + index), cadence=refused(checkpoint_every=2 + index))
tell(flag=refused())
version = metadata.version
if index:
    metadata.version = lambda name: "0.0.1" if name == "jax" else version(name)
tell(version=refused())
tell(written=os.path.exists("run"))
"""
CLI = """
from reproducibility.cli import main
which = [f"--{name}={value}".replace("_", "-") for name, value in asked.items()]
main(["train", "--run-dir", "run", "--seed", str(7 + index), *SMALL, *which])
"""


def test_what_processes_do_together(tmp_path: Path) -> None:
    """Two processes know each other, agree, differ, fail and stop, and each says the same."""
    (code, first, err), (other_code, other, other_err) = start(TOGETHER, 2, tmp_path)
    assert (code, other_code) == (0, 0), err + other_err
    assert (first["joined"], other["joined"]) == ([2, 0, 2], [2, 1, 2])
    assert (first["devices"], other["devices"]) == ([0, 2, 3], [1, 2, 3])

    # What process 0 did, and what became of it, is known to both.
    assert first["values"] == other["values"] == [[0, "größer"], None]
    assert first["failed"] == ["OSError", "No room on 0."]
    assert other["failed"] == [
        "ProcessError",
        "Cannot go on with process 0: expected its part done, got No room on 0. Mend that there.",
    ]
    assert first["no_json"][0] == "TypeError"
    assert "got Object of type object is not JSON serializable" in other["no_json"][1]
    assert first["late"] is None
    assert other["late"][0] == "ProcessError"
    assert "expected process 0 within 0.2 s, got nothing of it." in other["late"][1]

    # What differs is named on both, with the process that has it.
    assert (first["same"], first["facts"]) == (other["same"], other["facts"]) == (None, None)
    digest = "'[0-9a-f]{64}'"
    for name, said in {
        "leaf": rf"use a tree: expected b\[1\]={digest}, as process 0 has, got b\[1\]={digest} on",
        "more": rf"use a tree: expected no v, as process 0 has, got v={digest} on",
        "less": rf"use a tree: expected v={digest}, as process 0 has, got no v on",
        "thing": rf"use params: expected w={digest}, as process 0 has, got w={digest} on",
        "fact": "use these settings: expected seed=0, as process 0 has, got seed=1 on",
    }.items():
        kind, sentence = first[name]
        assert [kind, sentence] == other[name]
        assert kind == "ProcessMismatchError"
        assert re.fullmatch(f"Cannot {said} process 1. Start all .* settings.", sentence)

    assert first["stopped"] == other["stopped"]
    assert 5 <= first["stopped"] < 9_999
    assert (first["still"], other["still"]) == (0, 0)

    # Who does not make the same call is not waited for.
    kind, sentence = first["absent"]
    assert kind == "ProcessError"
    assert "expected process 1 within 0.3 s, got nothing of it." in sentence


@pytest.mark.long
def test_a_training_is_the_same_everywhere(tmp_path: Path) -> None:
    """Another seed, cadence, version or flag on one process is named on all.

    Nothing is written then.
    """
    flags = {1: {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}}
    ended = start(TRAIN, 2, tmp_path, env={0: {"XLA_FLAGS": ""}, **flags})
    for code, told, err in ended:
        assert code == 0, err
        said = {name: each[1] for name, each in told.items() if name != "written"}
        assert "expected seed=7, as process 0 has, got seed=8 on process 1." in said["seed"]
        assert (
            "expected checkpoint_every=2, as process 0 has, got checkpoint_every=3 on"
            in said["cadence"]
        )
        flag = "xla_flags.xla_cpu_enable_fast_math"
        assert f"expected no {flag}, as process 0 has, got {flag}='true' on" in said["flag"]
        version = re.escape(metadata.version("jax"))
        assert re.search(
            f"expected version.jax='{version}', as process 0 has, got version.jax='0.0.1' on",
            said["version"],
        )
        assert not told["written"]


@pytest.mark.long
def test_the_command_line_refuses_it_on_all(tmp_path: Path) -> None:
    """Processes that are started with different settings all say which, and end with code 2."""
    said = (
        "Cannot use these settings: expected seed=7, as process 0 has, got seed=8 on process 1. "
        "Start all processes with the same versions and settings."
    )
    for code, told, err in start(f"SMALL = {SMALL}\n{CLI}", 2, tmp_path):
        assert (code, told) == (2, {})
        assert said in err
        assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
