"""The client of the benchmarks: what it sends is HTTP, and it takes no part of an answer for the whole."""

import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.client import Client, build_post, read_answer, read_frames, write_frames

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: x\r\n"
WHOLE = HEAD + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe\r\n0\r\n3;x=y\r\n\r\n!\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        pytest.param(WHOLE, b"hello", id="length"),
        pytest.param(WHOLE.replace(b"Content-Length", b"content-length"), b"hello", id="lower case"),
        pytest.param(HEAD + b"Content-Length: 0\r\n\r\n", b"", id="empty"),
        pytest.param(CHUNKED.replace(b";x=y", b""), b"he\r\n0\r\n!", id="chunks that look like their end"),
    ],
)
def test_an_answer_is_whole_with_its_last_byte(answer: bytes, body: bytes) -> None:
    assert read_answer(answer) == body
    assert all(read_answer(answer[:length]) is None for length in range(len(answer)))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", id="status"),
        pytest.param(HEAD + b"\r\n", id="no length"),
    ],
)
def test_what_is_no_answer_ends_the_benchmark(answer: bytes) -> None:
    with pytest.raises(RuntimeError):
        read_answer(answer)


def test_a_post_names_its_target_and_length() -> None:
    post = build_post("http://127.0.0.1:8080/scep/demo?operation=PKIOperation", b"0123")
    assert post.startswith(b"POST /scep/demo?operation=PKIOperation HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n")
    assert post.endswith(b"\r\nContent-Length: 4\r\n\r\n0123")


class Echo(socketserver.StreamRequestHandler):
    """Answers with the body that was sent, and counts connections."""

    connections = 0

    def handle(self) -> None:
        Echo.connections += 1
        while head := self.rfile.readline():
            while (line := self.rfile.readline()) != b"\r\n":
                head += line
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            self.wfile.write(HEAD + b"Content-Length: %d\r\n\r\n" % length + self.rfile.read(length))


@pytest.fixture
def url() -> Iterator[str]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/?x"
        server.shutdown()
        thread.join()


def test_answers_come_in_the_order_of_the_requests_over_kept_connections(url: str, tmp_path: Path) -> None:
    messages, answers = tmp_path / "messages", tmp_path / "answers"
    sent = [f"{number}".encode() * 3000 for number in range(20)]
    write_frames(messages, sent)
    client = Client(url, messages, answers, 3)
    seen = [client.send(0, 10), client.send(10, 20)]
    client.close()
    assert read_frames(answers) == sent
    assert [len(one.latencies) for one in seen] == [10, 10]
    assert all(one.cpu > 0 for one in seen)
    assert Echo.connections == 3
