"""Promises of `reproducibility.scale.lifeline`, in threads and in processes that are killed."""

import contextlib
import itertools
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from reproducibility import ProcessError
from reproducibility.scale.lifeline import HANDSHAKE, Lifeline, connect

LONG = 60.0  # seconds; whoever waits as long is stuck
ROOT = Path(__file__).parents[2]

# Meets, says so, and then ends as it is told on stdin: at once, with an exception, or not at all.
CHILD = """
import sys, time
from reproducibility.scale.lifeline import connect, end_process
address, index, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
line = connect(address, index, count, deadline=60, ended=end_process)
print("met", flush=True)
for order in sys.stdin:
    line.close() if order == "close\\n" else line.fail(f"{order.strip()}.", 7)
    sys.exit()
time.sleep(60)
"""


def free_address() -> str:
    """Return an address of this machine at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


class Ended:
    """Keeps what a lifeline says when it ends."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int]] = []
        self._once = threading.Event()

    def __call__(self, reason: str, code: int) -> None:
        """Be told."""
        self.said.append((reason, code))
        self._once.set()

    def wait(self) -> tuple[str, int]:
        """Return what was said first."""
        assert self._once.wait(LONG), "the loss was not noticed"
        return self.said[0]


class Group:
    """The processes of a run as threads, each with what it was told of the end of another."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.address = free_address()
        self.ended: dict[int, Ended] = {}
        self._stack, self._pool = stack, stack.enter_context(ThreadPoolExecutor(8))

    def come(
        self, index: int, count: int, deadline: float = LONG, handshake: float = HANDSHAKE
    ) -> Future[Lifeline]:
        """Let a process come to the meeting."""
        ended = self.ended[index] = Ended()
        settings = {"deadline": deadline, "ended": ended, "handshake": handshake}
        line = self._pool.submit(connect, self.address, index, count, **settings)
        self._stack.callback(lambda: line.exception(LONG) or line.result().close())
        return line

    def knock(self, said: bytes) -> socket.socket:
        """Connect as anybody can, as soon as process 0 listens, and say something."""
        host, _, port = self.address.partition(":")
        for _ in range(600):
            with contextlib.suppress(ConnectionRefusedError):
                peer = socket.create_connection((host, int(port)), timeout=LONG)
                self._stack.enter_context(peer)
                peer.sendall(said)
                return peer
            time.sleep(0.1)
        raise AssertionError("process 0 does not listen")

    def hello(self, index: int, count: int) -> socket.socket:
        """Connect as process `index` does, in a way that can be broken."""
        return self.knock(json.dumps({"process": index, "processes": count}).encode() + b"\n")


@pytest.fixture
def group() -> Iterator[Group]:
    """Make a group, whose connections are closed when the test is over."""
    with contextlib.ExitStack() as stack:
        yield Group(stack)


def refusal(line: Future[Lifeline]) -> str:
    """Return the sentence with which a process was refused."""
    error = line.exception(LONG)
    assert isinstance(error, ProcessError), error
    assert error.exit_code == 4
    return str(error).partition("\n")[0]


def answer(peer: socket.socket) -> bytes:
    """Return all that is sent over a connection, until it is closed there."""
    said = b""
    with contextlib.suppress(ConnectionResetError):  # it was closed before all was read
        while more := peer.recv(4096):
            said += more
    return said


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_they_meet_and_end_in_any_order(group: Group, order: tuple[int, ...]) -> None:
    """Processes that come and go in any order meet, and who is done is nobody's loss."""
    coming = {}
    for index in order:
        coming[index] = group.come(index, 3)
        time.sleep(0.02)
    lines = {index: line.result(LONG) for index, line in coming.items()}
    assert [lines[index].index for index in range(3)] == [0, 1, 2]
    for index in order[1:] + order[:1]:
        lines[index].close()
        time.sleep(0.02)
    assert [ended.said for ended in group.ended.values()] == [[], [], []]


def test_nothing_goes_on_afterwards(group: Group) -> None:
    """Who is done watches no longer, also where another one is not done yet."""
    lines = [line.result(LONG) for line in [group.come(index, 3) for index in range(3)]]
    for line in lines[:2]:
        line.close()
    end = time.monotonic() + LONG
    while any(thread.name == "lifeline" for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("come", "absent"), [((0, 1), "2"), ((0, 2), "1"), ((0,), "1, 2"), ((1, 0), "2")]
)
def test_a_missing_process_is_named(group: Group, come: tuple[int, ...], absent: str) -> None:
    """All that have come say, when the time is up, which processes have not."""
    waiting = [group.come(index, 3, deadline=0.7) for index in come]
    said = (
        "Cannot begin with several processes: expected all 3 processes within 0.7 s, got no "
        f"process {absent}. Start each process once, with the same --processes and --coordinator."
    )
    assert [refusal(line) for line in waiting] == [said] * len(come)


def test_many_missing_processes(group: Group) -> None:
    """Of a large run of which almost nobody came, all that did name the first that have not."""
    waiting = [group.come(index, 2_000, deadline=0.7) for index in range(2)]
    said = "expected all 2000 processes within 0.7 s, got no process 2, 3, 4, 5,"
    assert [said in refusal(line) for line in waiting] == [True, True]


def test_nothing_holds_the_address_afterwards(group: Group) -> None:
    """The port is free when all have met, for JAX to use, and when they have not."""
    port = int(group.address.partition(":")[2])
    refusal(group.come(0, 2, deadline=0.1))
    socket.create_server(("127.0.0.1", port)).close()
    lines = [group.come(index, 2) for index in range(2)]
    assert [line.result(LONG).index for line in lines] == [0, 1]
    socket.create_server(("127.0.0.1", port)).close()


def test_a_process_that_is_there_twice(group: Group) -> None:
    """The second of two processes with one number is refused, and the others go on."""
    first = group.come(0, 3)
    both = [group.come(1, 3) for _ in range(2)]
    while not any(line.done() for line in both):
        time.sleep(0.01)
    second = group.come(2, 3)
    refused, there = sorted(both, key=lambda line: line.exception(LONG) is None)
    assert refusal(refused).startswith(
        "Cannot begin with several processes: expected each process once, got process 1 a second "
    )
    assert [line.result(LONG).index for line in (first, there, second)] == [0, 1, 2]


@pytest.mark.parametrize("index", [-1, 0, 2, 3])
def test_a_number_that_no_process_has(group: Group, index: int) -> None:
    """A process that says another's number, or one that there is not, is told so."""
    first = group.come(0, 2)
    assert b'"expected": "each process once"' in answer(group.hello(index, 2))
    assert group.come(1, 2).result(LONG).index == 1
    assert first.result(LONG).index == 0


def test_process_0_twice(group: Group) -> None:
    """A second process 0 finds the port in use, says so at once, and the first goes on."""
    first = group.come(0, 3)
    waiting = [group.hello(1, 3)]  # the first listens
    said = refusal(group.come(0, 3))
    assert said.startswith(
        f"Cannot listen at {group.address}: expected a free port, got Address already in use"
    )
    assert said.endswith("Give all processes another --coordinator.")
    waiting.append(group.hello(2, 3))
    assert first.result(LONG).index == 0
    assert [peer.recv(100) for peer in waiting] == [b'{"go": 3}\n'] * 2


@pytest.mark.parametrize("count", [3, 1])
def test_another_number_of_processes(group: Group, count: int) -> None:
    """A process that was told of another number of processes is refused, and the others go on."""
    first = group.come(0, 2)
    assert refusal(group.come(1, count)) == (
        "Cannot begin with several processes: expected 2 processes, as on process 0, got "
        f"{count} on process 1. Start each process once, with the same --processes and "
        "--coordinator."
    )
    assert group.come(1, 2).result(LONG).index == 1
    assert first.result(LONG).index == 0


GARBAGE = {
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "binary": bytes(range(256)) * 4,
    "HTTP/2, as JAX speaks": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "half a line": b'{"process": 1, "proc',
    "nothing": b"",
    "a line that has no end": b"x" * 100_000,
    "lists in lists": b"[" * 4_000 + b"\n",
    "JSON that is no object": b"[1, 2]\n",
    "an object of another kind": b'{"go": 2}\n',
    "a number that is none": b'{"process": "1", "processes": 2}\n',
    "no number": b'{"process": null, "processes": 2}\n',
    "an unknown kind of count": b'{"process": 1, "processes": [2]}\n',
}


@pytest.mark.parametrize("said", GARBAGE.values(), ids=GARBAGE)
def test_a_stranger_does_not_disturb(group: Group, said: bytes) -> None:
    """Whatever somebody else sends to the port, or does not, the processes meet."""
    first = group.come(0, 2, handshake=0.1)
    group.knock(b"").close()
    with contextlib.suppress(ConnectionError):  # sent away while it was talking
        strangers = [group.knock(said) for _ in range(2)]
        answers = {answer(stranger) for stranger in strangers}
        assert answers == {b""} or (b"processes" in said and b'"go"' not in answers.pop())
    assert group.come(1, 2).result(LONG).index == 1
    assert first.result(LONG).index == 0


@contextlib.contextmanager
def again_and_again(work: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread until the block ends."""
    over = threading.Event()

    def repeat() -> None:
        with contextlib.suppress(OSError):  # nobody listens there any more
            while not over.is_set():
                work()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_stranger_who_does_not_end(group: Group) -> None:
    """Somebody who says a byte now and then, and is never done, is sent away all the same."""
    first, stranger = group.come(0, 2, handshake=0.1), group.knock(b"")

    def dribble() -> None:
        stranger.sendall(b"x")
        time.sleep(0.03)

    with again_and_again(dribble):
        assert group.come(1, 2).result(LONG).index == 1
        assert first.result(LONG).index == 0


def test_strangers_do_not_stop_the_clock(group: Group) -> None:
    """The time is up when it is up, however many strangers stand at the door meanwhile."""
    first = group.come(0, 2, deadline=0.5, handshake=0.05)
    place = group.knock(b"").getpeername()

    def stand_there() -> None:
        with socket.create_connection(place) as peer:
            peer.recv(1)

    with contextlib.ExitStack() as strangers:
        for _ in range(5):
            strangers.enter_context(again_and_again(stand_there))
        assert "got no process 1." in refusal(first)


def test_a_slow_process_is_understood(group: Group) -> None:
    """A process whose words arrive in pieces is one of ours."""
    first, peer = group.come(0, 2), group.knock(b"")
    for byte in b'{"process": 1, "processes": 2}\n':
        peer.sendall(bytes([byte]))
        time.sleep(0.001)
    assert peer.recv(100) == b'{"go": 2}\n'
    assert first.result(LONG).index == 0


def test_process_0_may_come_late(group: Group) -> None:
    """The others try again until process 0 listens, also where something else does at first."""
    host, _, port = group.address.partition(":")
    with socket.create_server((host, int(port))) as server:
        waiting = group.come(1, 2)
        server.settimeout(LONG)
        server.accept()[0].close()
    time.sleep(0.2)
    assert not waiting.done()
    assert group.come(0, 2).result(LONG).index == 0
    assert waiting.result(LONG).index == 1


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """Have nobody listen."""
    yield free_address()


@contextlib.contextmanager
def closed_door() -> Iterator[str]:
    """Have a machine that does not even answer a connection, as behind a firewall."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as all:
        for _ in range(4):  # there is no room for another one
            caller = all.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(server.getsockname())
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def silence() -> Iterator[str]:
    """Have a service that takes a connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def web_server() -> Iterator[str]:
    """Have a service that answers in another language, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):  # the test is over
                while True:
                    peer, _ = server.accept()
                    with peer:
                        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("place", "got"),
    [
        (nobody, "Connection refused"),
        (closed_door, "timed out"),
        (silence, ""),
        (web_server, "another one, as if the run had begun already"),
    ],
)
def test_a_coordinator_that_does_not_answer(
    place: Callable[[], contextlib.AbstractContextManager[str]], got: str
) -> None:
    """Where process 0 should be and is not, the others say so when the time is up."""
    with place() as address, pytest.raises(ProcessError) as caught:
        connect(address, 1, 2, deadline=0.5, ended=Ended(), handshake=0.1)
    said = f"Cannot reach process 0 at {address}: expected an answer within 0.5 s, got {got}"
    assert str(caught.value).startswith(said)
    assert "Start process 0, or give all processes its address: --coordinator." in str(caught.value)


@pytest.mark.parametrize("host", ["nowhere.invalid", "10..0.1", "x" * 70, "one two"])
def test_a_name_that_no_machine_has(host: str) -> None:
    """An address that cannot be found, or be one, is refused in one sentence that names it."""
    said = f"Cannot reach process 0 at {host}:9: expected an answer within 0.3 s, got "
    with pytest.raises(ProcessError, match=re.escape(said)):
        connect(f"{host}:9", 1, 2, deadline=0.3, ended=Ended())


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_lost_process_is_named_to_all(group: Group, lost: int) -> None:
    """A process whose connection ends without a word is named at once to all others."""
    others = [index for index in range(4) if index != lost]
    lines = [group.come(index, 4) for index in others]
    with group.hello(lost, 4) as peer:
        assert peer.recv(100) == b'{"go": 4}\n'
        assert [line.result(LONG).index for line in lines] == others
    said = (f"Process {lost} was lost: it ended without a word.", 4)
    assert [group.ended[index].wait() for index in others] == [said] * 3


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_process_lost_while_the_others_come(group: Group, how: str) -> None:
    """A process that dies before the last one has come is named to all when they have met."""
    lines = [group.come(0, 3)]
    with group.hello(1, 3) as peer:
        assert b"a second time" in answer(group.hello(1, 3))  # the first is known
        if how == "reset":  # as when its machine starts again
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    lines.append(group.come(2, 3))
    assert [line.result(LONG).index for line in lines] == [0, 2]
    said = ("Process 1 was lost: it ended without a word.", 4)
    assert [group.ended[index].wait() for index in (0, 2)] == [said] * 2


def test_a_process_lost_after_another_was_done(group: Group) -> None:
    """The goodbye of one process does not hide the loss of another."""
    lines = [group.come(index, 3) for index in range(2)]
    with group.hello(2, 3) as peer:
        assert peer.recv(100) == b'{"go": 3}\n'
        lines[1].result(LONG).close()
        time.sleep(0.1)
    assert group.ended[0].wait() == ("Process 2 was lost: it ended without a word.", 4)
    assert group.ended[1].said == []


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_failure_reaches_all(group: Group, failing: int) -> None:
    """The reason and the code of a process that fails are those of all others, once."""
    coming = [group.come(index, 3) for index in range(3)]
    lines = [line.result(LONG) for line in coming]
    lines[failing].fail("Cannot räume auf: expected room, got\nnone.", 3)
    said = (f"Process {failing} ended: Cannot räume auf: expected room, got\nnone.", 3)
    others = [group.ended[index] for index in range(3) if index != failing]
    assert [ended.wait() for ended in others] == [said, said]
    for line in lines:
        line.close()
    time.sleep(0.1)
    assert [len(ended.said) for ended in others] == [1, 1]
    assert group.ended[failing].said == []


def test_a_long_reason_arrives(group: Group) -> None:
    """A reason of many lines, as a compiler gives, may be cut, and names the process and code."""
    coming = [group.come(index, 3) for index in range(3)]
    coming[1].result(LONG).fail("Zu heiß\n" * 5_000, 3)
    for index in (0, 2):
        reason, code = group.ended[index].wait()
        assert reason.startswith("Process 1 ended: Zu heiß\n")
        assert code == 3


def test_the_end_is_said_once(group: Group) -> None:
    """When several processes are lost together, one of them is named, once."""
    first = group.come(0, 4)
    peers = [group.hello(index, 4) for index in (1, 2, 3)]
    first.result(LONG)
    for peer in peers:
        peer.close()
    assert group.ended[0].wait()[0].endswith("was lost: it ended without a word.")
    time.sleep(0.1)
    assert len(group.ended[0].said) == 1


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    """Start three processes that have met; kill what is left of them."""
    address, started = free_address(), []
    with contextlib.ExitStack() as stack:
        for index in range(3):
            command = [sys.executable, "-c", CHILD, address, str(index), "3"]
            pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            child = subprocess.Popen(command, **pipes, text=True, cwd=ROOT)
            started.append(stack.enter_context(child))
            stack.callback(child.kill)
        assert [child.stdout.readline() for child in started] == ["met\n"] * 3
        yield started


@pytest.mark.parametrize("killed", [0, 1, 2])
def test_a_killed_process_takes_the_others_with_it(
    children: list[subprocess.Popen[str]], killed: int
) -> None:
    """When a process is killed, the others end with code 4 and name it on stderr."""
    children[killed].kill()
    for index, child in enumerate(children):
        if index != killed:
            assert child.wait(LONG) == 4
            said = f"Process {killed} was lost: it ended without a word.\n"
            assert (child.stdout.read(), child.stderr.read()) == ("", said)


def test_processes_that_fail_and_are_done(children: list[subprocess.Popen[str]]) -> None:
    """One is done, which ends nobody; then one fails, and the last ends with its code."""
    for index, order in {1: "close", 2: "Too hot"}.items():
        children[index].stdin.write(f"{order}\n")
        children[index].stdin.close()
        assert children[index].wait(LONG) == 0
    assert children[0].wait(LONG) == 7
    assert children[0].stderr.read() == "Process 2 ended: Too hot.\n"


def test_the_end_does_not_wait() -> None:
    """`end_process` prints what is due and ends, without what Python does at its end."""
    script = """
import atexit, sys, threading, time
from reproducibility.scale.lifeline import end_process
atexit.register(print, "tidied up")
threading.Thread(target=time.sleep, args=(600,)).start()
print("before", end="")
sys.argv[1] == "closed" and sys.stderr.close()
end_process("A reason.", 5)
"""
    for how, said in {"open": "A reason.\n", "closed": ""}.items():
        command = [sys.executable, "-c", script, how]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=LONG,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )
        assert (done.returncode, done.stderr) == (5, said)
        assert done.stdout == "before" or how == "closed"
