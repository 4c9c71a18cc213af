"""Runs a signing program and spoils its answer, as the next line of CA_DIR/faults says."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(os.environ["CA_DIR"])


def next_fault() -> str:
    """Take the first line; a fault meets one run only."""
    path = FOLDER / "faults"
    lines = path.read_text().splitlines() if path.exists() else []
    if lines:
        path.write_text("".join(f"{line}\n" for line in lines[1:]))
    return lines[0] if lines else ""


def sign(request: dict[str, object]) -> bytes:
    return subprocess.run(
        [sys.executable, "-I", sys.argv[1]], input=json.dumps(request).encode(), stdout=subprocess.PIPE, check=True
    ).stdout


def with_another_key(request: dict[str, object]) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "openssl",
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=other",
        ]
        done = subprocess.run([*command, "-keyout", f"{folder}/key"], capture_output=True, text=True, check=True)
    return {**request, "csr": done.stdout}


def with_grant(request: dict[str, object], **changes: object) -> dict[str, object]:
    grant = request["grant"]
    assert isinstance(grant, dict)
    return {**request, "grant": {**grant, **changes}}


def misbehave(fault: str, request: dict[str, object]) -> None:
    """Each fault that follows `sign` leaves a certificate behind."""
    out = sys.stdout.buffer
    match fault:
        case "crash before":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stall before":
            time.sleep(60)
        case "not sent":
            out.write(b'{"status": "not_sent", "message": "the CA is away", "retry_after": 7}')
        case "garbage before":
            out.write(b"Segmentation fault\n")
        case "ignore sigterm":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            sign(request)
            while True:
                time.sleep(60)
        case "wrong key":
            out.write(sign(with_another_key(request)))
        case "wrong names":
            out.write(sign(with_grant(request, sans_der=None, sans=[])))
        case "wrong usage":
            out.write(sign(with_grant(request, ekus=["2.5.29.37.0"])))
        case "too long":
            out.write(sign(with_grant(request, not_after="9999-12-31T23:59:59Z")))
        case "":
            out.write(sign(request))
        case _:
            misbehave_after(fault, sign(request))


def misbehave_after(fault: str, answer: bytes) -> None:
    out = sys.stdout.buffer
    match fault:
        case "reply lost":
            return
        case "reply cut":
            out.write(answer[: len(answer) // 2])
        case "stall after":
            time.sleep(60)
        case "crash after":
            os.kill(os.getpid(), signal.SIGKILL)
        case "status":
            out.write(answer)
            out.flush()
            sys.exit(1)
        case "garbage":
            out.write(b"\xff\xfe\x00 {" * 100)
        case "deep":
            out.write(b"[" * 200_000)
        case "huge":
            out.write(answer.rjust(2_000_000))
        case "child":
            out.write(answer)
            out.flush()
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        case _:
            raise ValueError(fault)


misbehave(next_fault(), json.load(sys.stdin))
