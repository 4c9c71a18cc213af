"""Words and numbers about worker processes."""

from gateway.supervise.process import WorkerRefusedError, WorkerSilentError, describe_status, worker_count


def test_worker_count() -> None:
    assert worker_count(3) == 3
    assert worker_count("cores") >= 1


def test_statuses_are_words() -> None:
    assert (describe_status(3), describe_status(-9)) == ("exit 3", "SIGKILL")


def test_only_what_may_pass_is_tried_again() -> None:
    assert [WorkerRefusedError("", code).lasting for code in (1, 3)] == [True, True]
    assert not WorkerSilentError("").lasting
