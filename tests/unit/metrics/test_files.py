import os
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.metrics.files import clear, keep, readable, reserve

ENROLLED = {"protocol": "scep", "profile": "demo", "operation": "PKCSReq"}
Count = Callable[[Path, int], int]


def read(folder: Path, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return registry.get_sample_value(name, labels)


def enrolled(folder: Path) -> float | None:
    return read(folder, "gateway_enrollments_total", **ENROLLED, result="issued", reason="")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    clear(tmp_path / "run" / "admin.metrics")
    return tmp_path / "run" / "admin.metrics"


def test_nothing_is_lost_with_the_process_that_counted(folder: Path, count: Count) -> None:
    process = count(folder, 5)
    assert enrolled(folder) == 5
    keep(folder, process)
    assert enrolled(folder) == 5
    assert read(folder, "gateway_request_duration_seconds_count", **ENROLLED) == 6
    assert read(folder, "gateway_request_duration_seconds_bucket", **ENROLLED, le="0.005") == 5
    assert read(folder, "gateway_request_duration_seconds_bucket", **ENROLLED, le="+Inf") == 6
    assert read(folder, "gateway_request_duration_seconds_sum", **ENROLLED) == pytest.approx(20.02)


def test_processes_add_up_whether_they_run_or_ended(folder: Path, count: Count) -> None:
    keep(folder, count(folder, 5))
    running = count(folder, 7)
    assert enrolled(folder) == 12
    keep(folder, running)
    keep(folder, count(folder, 1))
    assert enrolled(folder) == 13
    assert read(folder, "gateway_store_commit_seconds_count", result="durable") == 3


def test_gauges_go_with_their_process(folder: Path, count: Count) -> None:
    process = count(folder, 1)
    assert read(folder, "gateway_connections") == 7
    keep(folder, process)
    assert read(folder, "gateway_connections") is None


def test_two_files_stay_however_many_processes_there_were(folder: Path, count: Count) -> None:
    for _ in range(3):
        keep(folder, count(folder, 1))
    assert sorted(path.name for path in folder.iterdir()) == ["counter_ended.db", "histogram_ended.db"]


def test_what_never_counted_is_kept_too(folder: Path) -> None:
    keep(folder, 4711)
    reserve(folder, 4712)
    keep(folder, 4712)
    assert sorted(path.name for path in folder.iterdir()) == ["counter_ended.db", "histogram_ended.db"]


def test_a_new_service_begins_with_nothing(folder: Path, count: Count) -> None:
    keep(folder, count(folder, 5))
    count(folder, 5)
    clear(folder)
    assert enrolled(folder) is None


def test_files_have_no_holes_and_are_private(folder: Path) -> None:
    reserve(folder, 1)
    files = list(folder.iterdir())
    assert len(files) == 6
    for path in files:
        found = path.stat()
        assert found.st_blocks * 512 >= found.st_size > 0
        assert found.st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_full_disk_is_found_before_anything_is_mapped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        reserve(folder, 1)
    with pytest.raises(OSError, match="No space left"):
        clear(folder)


def test_a_file_that_no_room_was_left_for_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(folder.iterdir())
    allocate = os.posix_fallocate

    def full(descriptor: int, offset: int, size: int) -> None:
        if len(list(folder.iterdir())) > 4:
            raise OSError(28, os.strerror(28))
        allocate(descriptor, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        reserve(folder, 1)
    assert len(list(folder.iterdir())) == 4
    keep(folder, 1)
    assert sorted(folder.iterdir()) == before


def test_what_a_process_left_unfinished_goes_with_it(folder: Path) -> None:
    for name in ("counter_1.db.new", "counter_2.db.new"):
        (folder / name).touch()
    keep(folder, 1)
    assert [path.name for path in folder.glob("*.new")] == ["counter_2.db.new"]
    clear(folder)
    assert not list(folder.glob("*.new"))


def test_a_file_without_a_header_is_passed_over(folder: Path, count: Count) -> None:
    process = count(folder, 5)
    (folder / f"histogram_{process}.db").write_bytes(b"")
    (folder / "counter_4711.db").write_bytes(b"")
    assert str(folder / "counter_4711.db") not in readable(folder)
    keep(folder, process)
    keep(folder, 4711)
    assert enrolled(folder) == 5
    assert sorted(path.name for path in folder.iterdir()) == ["counter_ended.db", "histogram_ended.db"]


def test_a_file_that_cannot_be_read_is_deleted_all_the_same(folder: Path) -> None:
    (folder / "counter_1.db").write_bytes(b"\xff\xff\x00\x00" + bytes(60))
    with pytest.raises(Exception):  # noqa: B017  whatever the library makes of it
        keep(folder, 1)
    assert sorted(path.name for path in folder.iterdir()) == ["counter_ended.db", "histogram_ended.db"]
