"""A program that is run is bounded in time, output and children, whatever it does."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

from gateway.ca.program import STDERR_KEPT, ProgramResult, ProgramStartError, run_program

PYTHON = sys.executable


async def run(code: str, data: bytes = b"", timeout: float = 5.0, max_output: int = 1000, *args: str) -> ProgramResult:
    return await run_program((PYTHON, "-I", "-S", "-c", code, *args), {"A": "1"}, data, timeout, max_output)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


async def wait_until_dead(pid: int) -> bool:
    for _ in range(100):
        if not is_alive(pid):
            return True
        await asyncio.sleep(0.02)
    return False


async def test_input_reaches_the_program_and_output_comes_back() -> None:
    result = await run("import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stderr.write('note')", b"hello")
    assert result == ProgramResult(0, b"HELLO", b"note")


async def test_environment_and_folder_are_minimal() -> None:
    result = await run(
        "import os; print(sorted(k for k in os.environ if k != 'LC_CTYPE'), os.getcwd(), os.getsid(0) == os.getpid())"
    )
    assert result.stdout == b"['A'] / True\n"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        pytest.param("import sys; sys.exit(3)", 3, id="status"),
        pytest.param("import os; os.kill(os.getpid(), 9)", -9, id="signal"),
    ],
)
async def test_exit_status(code: str, status: int) -> None:
    result = await run(code)
    assert result.status == status
    assert not result.timed_out


async def test_a_program_that_does_not_read_its_input() -> None:
    result = await run("print('ok')", b"x" * 1_000_000)
    assert (result.status, result.stdout) == (0, b"ok\n")


async def test_deadline_ends_a_stalled_program() -> None:
    began = time.monotonic()
    result = await run("import time; time.sleep(60)", timeout=0.3)
    assert result.timed_out
    assert time.monotonic() - began < 2


async def test_deadline_ends_a_program_that_ignores_sigterm() -> None:
    code = "import os, signal, sys, time; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(60)"
    result = await run(code, timeout=0.5)
    assert result.timed_out
    assert result.status == -9
    assert await wait_until_dead(int(result.stdout))


async def test_an_answer_given_on_sigterm_counts() -> None:
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: (print('late'), sys.exit(0)));"
        "print('up', flush=True); time.sleep(60)"
    )
    result = await run(code, timeout=0.5)
    assert (result.timed_out, result.status, result.stdout) == (False, 0, b"up\nlate\n")


async def test_too_much_output_ends_the_program_and_is_cut() -> None:
    result = await run("while True: print('x' * 10000)", timeout=20)
    assert result.overflowed
    assert len(result.stdout) == 1001


async def test_standard_error_keeps_its_end() -> None:
    result = await run("import sys; sys.stderr.write('x' * 500_000 + 'end')")
    assert result.status == 0
    assert len(result.stderr) == STDERR_KEPT
    assert result.stderr.endswith(b"end")


async def test_children_end_with_the_program() -> None:
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "print(p.pid, flush=True)"
    )
    began = time.monotonic()
    result = await run(code)
    assert result.status == 0
    assert time.monotonic() - began < 3
    assert await wait_until_dead(int(result.stdout))


async def test_children_end_at_the_deadline() -> None:
    code = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    result = await run(code, timeout=0.5)
    assert result.timed_out
    assert await wait_until_dead(int(result.stdout))


async def test_cancelling_the_caller_ends_the_program(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)"
    task = asyncio.create_task(run(code, b"", 30, 1000, str(pid_file)))
    while not pid_file.exists() or not pid_file.read_text():
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(int(pid_file.read_text()))


async def test_nothing_is_left_open() -> None:
    await run("print(1)")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        await run("print(1)")
        await run("import time; time.sleep(60)", timeout=0.05)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("/nonexistent/program", id="missing"),
        pytest.param("/etc/passwd", id="not executable"),
        pytest.param("a\0b", id="NUL"),
    ],
)
async def test_what_cannot_be_started(command: str) -> None:
    with pytest.raises(ProgramStartError):
        await run_program((command,), {}, b"", 1, 10)
