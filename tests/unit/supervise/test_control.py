"""Order and answer on the control socket."""

import io
from dataclasses import replace

import pytest

from gateway.supervise.control import Answer, Order
from gateway.supervise.supervisor import describe_status, worker_count

ORDER = Order("host:1:ab", 1, 5, 6, 7, "json", "info", 30.0)


@pytest.mark.parametrize("https_mtls", [None, 8])
def test_an_order_and_its_bytes_come_through(https_mtls: int | None) -> None:
    order, sources = replace(ORDER, https_mtls=https_mtls), bytes(range(256)) * 1000
    assert Order.read(io.BytesIO(order.encode(sources))) == (order, sources)


@pytest.mark.parametrize("left", [0, 1, 8, 50, -1])
def test_a_supervisor_that_dies_meanwhile(left: int) -> None:
    with pytest.raises(EOFError):
        Order.read(io.BytesIO(ORDER.encode(b"sources")[:left]))


@pytest.mark.parametrize("answer", [Answer(ready=True), Answer(ready=False, code=3, message="two\nlines, and ünicode")])
def test_an_answer_is_one_line(answer: Answer) -> None:
    line = answer.encode()
    assert line.count(b"\n") == 1
    assert Answer.decode(line) == answer


def test_worker_count() -> None:
    assert worker_count(3) == 3
    assert worker_count("cores") >= 1


def test_statuses_are_words() -> None:
    assert (describe_status(3), describe_status(-9)) == ("exit 3", "SIGKILL")
