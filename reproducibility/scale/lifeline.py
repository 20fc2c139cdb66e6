"""Processes of one run find each other, and end together.

The rule: nobody waits for a process that is gone. A process that does not come is named within a
deadline; one that dies takes the others with it at once.
Chapter: docs/scale/scaling_out.md

Without this, a process that is killed leaves the others waiting in a sum until JAX's heartbeat has
run out, and JAX then ends them from C++, without a word that a program could read. Here process 0
holds a connection to every other: the system closes it when a process ends, however that happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from reproducibility.errors import ExitCode, ProcessError, and_more

LINE = 4096  # bytes of the longest message
PROCESSES_SHOWN = 20  # missing processes that are named
REASON = 500  # characters of a reason that others are told, each up to 6 bytes of JSON
RETRY = 0.1  # seconds between two attempts to reach process 0
HANDSHAKE = 2.0  # seconds in which a process that connects has to say which it is
LINGER = 2.0  # seconds that the end of this process waits for others, or for what is printed

Ended = Callable[[str, int], None]


class Lifeline:
    """The connections of one process to the others; `connect` makes it.

    Args:
        index: of this process.
        peers: connections by the index of the process at the other end: all of them in process 0,
            that to process 0 in the others.
        ended: called from a thread, at most once, with a sentence and an exit code when another
            process has died or failed.
    """

    def __init__(self, index: int, peers: Mapping[int, socket.socket], ended: Ended) -> None:
        self.index, self._peers, self._ended = index, dict(peers), ended
        self._over, self._lost = threading.Event(), threading.Event()
        self._selector = selectors.DefaultSelector()
        for each, peer in self._peers.items():  # here: `close` may come before the thread begins
            self._selector.register(peer, selectors.EVENT_READ, each)
        threading.Thread(target=self._watch, daemon=True, name="lifeline").start()

    def fail(self, reason: str, code: int = ExitCode.FAILED) -> None:
        """Tell the others that this process ends, and why; theirs end too.

        Args:
            reason: one sentence.
            code: the exit code for all.
        """
        self._over.set()
        self._tell({"failed": f"Process {self.index} ended: {reason[:REASON]}", "code": code})
        self._wait_for_others()

    def close(self, *, last: bool = False) -> None:
        """Say goodbye: this process is done.

        Args:
            last: the others end at the same time; if this is process 0, wait for them.
        """
        self._over.set()
        self._tell({"done": self.index})
        if last:
            self._wait_for_others()
        for peer in self._peers.values():
            peer.close()

    def await_the_cause(self, seconds: float) -> None:
        """Wait a moment, and for ever if another process has died: then that is what to report.

        Args:
            seconds: until it would be known. A sum that waits for a dead process may fail first.
        """
        if self._lost.wait(seconds):
            threading.Event().wait()  # `ended` is being called

    def _tell(self, message: dict[str, Any]) -> None:
        for peer in self._peers.values():
            with contextlib.suppress(OSError):  # it is gone, and known to be
                peer.sendall(_line(message))

    def _wait_for_others(self) -> None:
        """Wait, in process 0, until the others have gone: JAX aborts where it is gone first."""
        end = time.monotonic() + LINGER
        for peer in self._peers.values() if self.index == 0 else ():
            with contextlib.suppress(OSError):
                while (left := end - time.monotonic()) > 0:
                    peer.settimeout(left)
                    if not peer.recv(LINE):
                        break

    def _watch(self) -> None:
        with self._selector as selector:
            while selector.get_map() and not self._over.is_set():
                for key, _ in selector.select(timeout=1.0):
                    message = _read_message(key.fileobj)  # type: ignore[arg-type]
                    if "done" not in message and not self._over.is_set():
                        self._lost.set()
                        self._over.set()
                        reason = f"Process {key.data} was lost: it ended without a word."
                        message = {"failed": reason, "code": ExitCode.FAILED, **message}
                        self._tell(message)  # process 0 knows of all, the others of process 0
                        self._wait_for_others()
                        return self._ended(str(message["failed"]), int(message["code"]))
                    selector.unregister(key.fileobj)
        return None


def connect(
    address: str,
    index: int,
    count: int,
    *,
    deadline: float,
    ended: Ended,
    handshake: float = HANDSHAKE,
) -> Lifeline:
    """Wait until all processes of a run are there, and stay connected.

    Process 0 listens at the address until the others have come, and then frees it.

    Args:
        address: "host:port" of process 0.
        index: of this process, 0 ≤ index < count.
        count: how many processes there are.
        deadline: seconds to wait for the others.
        ended: as for `Lifeline`.
        handshake: seconds in which a process that connects has to say which it is.

    Raises:
        ProcessError: a process did not come in time, and is named; or is there already; or
            was told of another number of processes; or the address cannot be used.
    """
    host, _, port = address.rpartition(":")
    place = (host.strip("[]"), int(port))
    if index == 0:
        peers = _gather(place, count, deadline, handshake)
    else:
        peers = _join(place, index, count, deadline, handshake)
    return Lifeline(index, peers, ended)


def end_process(reason: str, code: int) -> NoReturn:
    """End this process at once, saying why.

    Nothing is tidied up: that would wait for processes that are gone. A run directory is made for
    it.

    Args:
        reason: one sentence.
        code: the exit code.
    """
    stuck = threading.Timer(LINGER, os._exit, (code,))  # another thread may hold what prints
    stuck.daemon = True
    stuck.start()
    with contextlib.suppress(OSError, ValueError):
        print(reason, file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(code)


def _gather(
    place: tuple[str, int], count: int, deadline: float, handshake: float
) -> dict[int, socket.socket]:
    """Collect the other processes at process 0, then let all of them go."""
    end, peers = time.monotonic() + deadline, dict[int, socket.socket]()
    with _listening(*place) as server:
        while len(peers) < count - 1:
            try:
                if (left := end - time.monotonic()) <= 0:  # also while strangers keep coming
                    raise TimeoutError
                server.settimeout(left)
                peer, _ = server.accept()
            except TimeoutError:
                lacking = [str(i) for i in range(1, count) if i not in peers]
                absent = and_more(lacking, PROCESSES_SHOWN)
                facts = (f"all {count} processes within {deadline:g} s", f"no process {absent}")
                for peer in peers.values():
                    _dismiss(peer, *facts)
                raise _not_begun(*facts) from None
            peer.settimeout(handshake)
            _admit(peer, peers, count)
    for peer in peers.values():
        with contextlib.suppress(OSError):
            peer.sendall(_line({"go": count}))
        peer.settimeout(None)
    return peers


def _admit(peer: socket.socket, peers: dict[int, socket.socket], count: int) -> None:
    """Hear which process has connected, and keep the connection if it is one that is awaited."""
    hello = _read_message(peer)
    index, processes = hello.get("process"), hello.get("processes")
    if processes is None:  # not one of ours
        peer.close()
    elif processes != count:
        _dismiss(peer, f"{count} processes, as on process 0", f"{processes} on process {index}")
    elif not isinstance(index, int) or index in peers or not 0 < index < count:
        _dismiss(peer, "each process once", f"process {index} a second time")
    else:
        peers[index] = peer


def _join(
    place: tuple[str, int], index: int, count: int, deadline: float, handshake: float
) -> dict[int, socket.socket]:
    """Reach process 0 and wait for its answer, which comes when all are there."""
    end, got = time.monotonic() + deadline, "none"
    while time.monotonic() < end:
        try:
            peer = socket.create_connection(place, timeout=max(0.01, end - time.monotonic()))
            peer.sendall(_line({"process": index, "processes": count}))
        except (OSError, UnicodeError) as error:  # a name can be none
            got = getattr(error, "strerror", None) or str(error) or got
            time.sleep(RETRY)
            continue
        # Process 0 names who is absent.
        peer.settimeout(max(0.01, end - time.monotonic()) + handshake)
        answer = _read_message(peer)
        if "go" in answer:
            peer.settimeout(None)
            return {0: peer}
        peer.close()
        if "expected" in answer:
            raise _not_begun(str(answer["expected"]), str(answer["got"]))
        got = "another one, as if the run had begun already"
        time.sleep(RETRY)
    raise ProcessError(
        "reach",
        f"process 0 at {place[0]}:{place[1]}",
        expected=f"an answer within {deadline:g} s",
        got=got,
        do="Start process 0, or give all processes its address: --coordinator.",
    )


def _not_begun(expected: str, got: str) -> ProcessError:
    return ProcessError(
        "begin",
        "with several processes",
        expected=expected,
        got=got,
        do="Start each process once, with the same --processes and --coordinator.",
    )


def _dismiss(peer: socket.socket, expected: str, got: str) -> None:
    with contextlib.suppress(OSError), peer:
        peer.sendall(_line({"expected": expected, "got": got}))


def _listening(host: str, port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():  # where JAX listens too
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise ProcessError(
            "listen",
            f"at {host}:{port}",
            expected="a free port",
            got=error.strerror or str(error),
            do="Give all processes another --coordinator.",
        ) from error


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _read_message(peer: socket.socket) -> dict[str, Any]:
    """Return the next message; nothing where the connection has ended or speaks otherwise."""
    text, end = b"", time.monotonic() + (peer.gettimeout() or float("inf"))
    with contextlib.suppress(OSError, ValueError, RecursionError):
        while not text.endswith(b"\n") and len(text) < LINE and time.monotonic() < end:
            byte = peer.recv(1)
            if not byte:
                return {}
            text += byte
        found = json.loads(text)
        return found if isinstance(found, dict) else {}
    return {}
