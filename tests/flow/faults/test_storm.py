"""A hundred SIGHUPs a second, with files that may be put in force and files that must not, while devices enroll."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.load import Prepared, prepare_requests
from gateway.pki.certificate import parse_certificate
from gateway.wire.scep import client
from tests.conftest import RunningServer, StartServer
from tests.flow.serve.connections import Connection, LostError
from tests.flow.serve.processes import audited, generations, kill, wait_for, workers

STORM_SECONDS = 6.0
LONGEST = 20.0
PAUSE = 0.01
DEVICES = 3
ENROLLMENTS = 600

Shown = tuple[int, frozenset[str]]
"""Days and extended key usages of a certificate: two rules of one profile, changed together."""
FIRST: Shown = (365, frozenset({"1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"}))
SECOND: Shown = (200, frozenset({"1.3.6.1.5.5.7.3.1"}))


def second(text: str, days: int = 200) -> str:
    other = text.replace("default: 365d", f"default: {days}d")
    return other.replace("default: [clientAuth, serverAuth]", "default: [serverAuth]")


def bad(text: str) -> list[str]:
    """Files that must not be in force: no YAML, a wrong value, a pair that does not match, a file that is not there."""
    other = second(text, 100)
    return [
        "profiles: [",
        other.replace("backdate: 1h", "backdate: never"),
        other.replace("ca/ra.pem", "ca/issuing.pem"),
        other.replace("ca/ra.pem", "ca/gone.pem"),
    ]


@dataclass
class Enrollments:
    """Devices that enroll all the time, each over a connection that it keeps, and what their certificates show."""

    server: RunningServer
    requests: Iterator[Prepared]
    shown: Counter[Shown] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        connection = Connection(self.server)
        while not self.stopped.wait(10 * PAUSE):
            with self._lock:
                prepared = next(self.requests, None)
            if prepared is None:
                break
            message = prepared.request.message
            head = f"POST /scep/demo?operation=PKIOperation HTTP/1.1\r\nHost: x\r\nContent-Length: {len(message)}\r\n\r\n"
            try:
                answer = connection.ask(head.encode() + message)
                reply = client.decode_cert_rep(answer, prepared.request, prepared.signer, prepared.ra)
                self._note(reply.certificates[0])
            except (LostError, ValueError, IndexError) as error:
                self.failed.append(f"{type(error).__name__}: {error}")
                connection.end()
                connection = Connection(self.server)
        connection.end()

    def _note(self, leaf: bytes) -> None:
        certificate = parse_certificate(leaf)
        lives = round((certificate.not_after - certificate.not_before).total_seconds() / 86400)
        with self._lock:
            self.shown[lives, frozenset(certificate.ekus or ())] += 1


@contextmanager
def enrolling(server: RunningServer) -> Iterator[Enrollments]:
    enrollments = Enrollments(server, iter(prepare_requests(server, ENROLLMENTS)))
    threads = [threading.Thread(target=enrollments.run) for _ in range(DEVICES)]
    for thread in threads:
        thread.start()
    try:
        yield enrollments
    finally:
        enrollments.stopped.set()
        for thread in threads:
            thread.join()


def put(server: RunningServer, text: str) -> None:
    """Put a file in the place of the configuration, by a rename as editors do."""
    other = server.config.with_suffix(".new")
    other.write_text(text)
    other.chmod(0o600)
    other.rename(server.config)


def storm(server: RunningServer, texts: Sequence[str], seconds: float, enough: Callable[[], bool] = lambda: True) -> int:
    """Send SIGHUP all the time, each after another file was put there, on a slow machine until it is `enough`.

    Returns how many were sent.
    """
    began, sent = time.monotonic(), 0
    while time.monotonic() < began + (seconds if enough() else LONGEST):
        put(server, texts[sent % len(texts)])
        os.kill(server.process.pid, signal.SIGHUP)
        sent += 1
        time.sleep(PAUSE)
    return sent


def test_requests_see_one_configuration_that_was_accepted(start_server: StartServer) -> None:
    server = start_server(workers=2)
    good = server.config.read_text()
    # Neighbours of a good file are bad ones and the other good one, so that each follows each.
    texts = [text for one in bad(good) for text in (good, one, second(good))]
    with enrolling(server) as enrollments:
        sent = storm(server, texts, STORM_SECONDS, lambda: len(enrollments.shown) > 1)
    assert enrollments.failed == []
    assert set(enrollments.shown) == {FIRST, SECOND}
    assert sent > STORM_SECONDS * 30
    put(server, second(good))
    assert server.cli("reload").returncode == 0
    assert len(generations(server)) == 1
    assert audited(server, "configuration.refused")
    assert server.cli("audit", "verify").returncode == 0


def test_a_worker_killed_in_the_storm_comes_back_with_what_was_accepted(start_server: StartServer) -> None:
    server = start_server(workers=2)
    good = server.config.read_text()
    put(server, second(good))
    assert server.cli("reload").returncode == 0
    with enrolling(server) as enrollments:
        for number, victim in enumerate(sorted(workers(server)), 1):
            storm(server, bad(good), 1)
            kill(victim)
            storm(server, bad(good), 1)
            wait_for(lambda number=number: server.log.read_text().count("a worker was replaced") == number)  # type: ignore[misc]
        wait_for(lambda: len(workers(server)) == 2)
    # Who spoke to a worker that was killed lost a connection; nobody got anything that was not accepted.
    assert len(enrollments.failed) <= 2 * DEVICES
    assert set(enrollments.shown) == {SECOND}
    assert generations(server) == {2}
    assert server.process.poll() is None
