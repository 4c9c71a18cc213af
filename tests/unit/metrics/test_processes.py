import os
import time
from pathlib import Path

from gateway.metrics.processes import ProcessCollector, Usage, read_usage

GONE = 2**22 + 1
STAT = "77 (a) b (c) S 1 77 77 0 -1 4194560 4 0 0 0 250 150 0 0 20 0 1 0 100 0 0"


def test_this_process() -> None:
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    used = read_usage(os.getpid())
    assert used is not None
    assert used.cpu > 0
    assert 10**6 < used.resident < 10**10
    assert used.open_files >= 3


def test_a_process_that_is_gone() -> None:
    assert read_usage(GONE) is None


def test_fields_count_from_behind_the_name(tmp_path: Path) -> None:
    folder = tmp_path / "77"
    (folder / "fd").mkdir(parents=True)
    (folder / "fd" / "0").touch()
    (folder / "stat").write_text(STAT)
    (folder / "statm").write_text("900 40 20 1 0 30 0\n")
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    assert read_usage(77, tmp_path) == Usage(cpu=400 / ticks, resident=40 * page, open_files=1)


def test_slots_are_the_labels() -> None:
    families = {family.name: family for family in ProcessCollector(lambda: {2: os.getpid(), 1: GONE}).collect()}
    assert [sample.value for sample in families["gateway_workers"].samples] == [2]
    assert [sample.labels for sample in families["gateway_worker_resident_memory_bytes"].samples] == [{"worker": "2"}]
    assert families["gateway_worker_cpu_seconds"].type == "counter"
