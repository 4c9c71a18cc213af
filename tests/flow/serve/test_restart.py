"""`pki-gateway restart` and SIGUSR2: every worker is replaced, one after another, and somebody always accepts."""

import os
import signal

from tests.conftest import StartServer
from tests.flow.serve.conftest import Faults
from tests.flow.serve.processes import audited, begin, generations, kill, logged, requests_meanwhile, wait_for, workers


def test_every_worker_is_replaced_and_no_request_fails(start_server: StartServer) -> None:
    server = start_server(workers=2)
    before = workers(server)
    with requests_meanwhile(server) as answers:
        assert server.cli("restart").stdout == "2 workers were replaced.\n"
    assert set(answers) == {"ok"}
    wait_for(lambda: len(workers(server)) == 2)
    assert not workers(server) & before
    assert generations(server) == {1}
    [row] = audited(server, "service.restarted")
    assert row["actor"].startswith("uid:")
    assert not logged(server, "a worker died and is replaced")


def test_a_signal_does_the_same(start_server: StartServer) -> None:
    server = start_server(workers=1)
    [before] = workers(server)
    # Sent to a worker it does nothing.
    os.kill(before, signal.SIGUSR2)
    os.kill(server.process.pid, signal.SIGUSR2)
    wait_for(lambda: bool(logged(server, "rolling restart is done: the last worker drains")))
    wait_for(lambda: len(workers(server)) == 1 and before not in workers(server))
    assert b"POSTPKIOperation" in server.get("/scep/demo?operation=GetCACaps")


def test_new_workers_serve_what_was_accepted_whatever_is_on_disk(start_server: StartServer) -> None:
    server = start_server(workers=1)
    server.config.write_text("broken: [")
    assert server.cli("restart").returncode == 0
    assert b"POSTPKIOperation" in server.get("/scep/demo?operation=GetCACaps")


def test_a_restart_during_a_restart_is_refused(faults: Faults, start_server: StartServer) -> None:
    server = start_server(workers=2)
    faults.lay("slow-in-start")
    first = begin(server, "restart")
    wait_for(lambda: faults.struck("slow-in-start"))
    done = server.cli("restart", check=False)
    assert (done.returncode, done.stderr) == (1, "a rolling restart is under way already\n")
    said, _ = first.communicate(timeout=60)
    assert (first.returncode, said) == (0, "2 workers were replaced.\n")


def test_a_worker_that_cannot_begin_stops_it_and_the_old_ones_go_on(faults: Faults, start_server: StartServer) -> None:
    server = start_server(workers=2)
    before = workers(server)
    faults.lay("dies-in-start")
    done = server.cli("restart", check=False)
    assert (done.returncode, done.stderr.startswith("stopped, the other workers go on: ")) == (1, True)
    assert workers(server) == before
    assert server.cli("restart").returncode == 0


def test_a_worker_that_dies_meanwhile_is_replaced_once(faults: Faults, start_server: StartServer) -> None:
    server = start_server(workers=1)
    [before] = workers(server)
    faults.lay("slow-in-start")
    command = begin(server, "restart")
    wait_for(lambda: faults.struck("slow-in-start"))
    kill(before)
    # The operator's connection died with the worker that had it.
    command.communicate(timeout=60)
    wait_for(lambda: bool(logged(server, "rolling restart is done: the last worker drains")))
    wait_for(lambda: len(workers(server)) == 1)
    assert b"POSTPKIOperation" in server.get("/scep/demo?operation=GetCACaps")


def test_the_end_of_the_service_ends_a_restart(faults: Faults, start_server: StartServer) -> None:
    server = start_server(workers=2)
    faults.lay("slow-in-start")
    command = begin(server, "restart")
    wait_for(lambda: faults.struck("slow-in-start"))
    assert server.stop() == 0
    _, said = command.communicate(timeout=30)
    assert (command.returncode, said) == (1, "the service ends\n")
