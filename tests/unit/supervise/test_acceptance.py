"""What is read for a reload, and how it differs from what is in force."""

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from gateway.config.load import read
from gateway.errors import ConfigurationError
from gateway.supervise.acceptance import Accepted, NeedsRestartError, compare, read_next
from tests.unit.assemble.installation import Installation

NOW = datetime.now(UTC)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    Installation.create(tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
def accepted(state: Path) -> Accepted:
    return Accepted.first(*read(state / "profiles.yaml"), ())


def rewrite(state: Path, change: Callable[[dict[str, object]], None]) -> None:
    data = yaml.safe_load((state / "profiles.yaml").read_text())
    change(data)
    (state / "profiles.yaml").write_text(yaml.safe_dump(data))


def names(state: Path, accepted: Accepted) -> tuple[str, ...]:
    return compare(accepted, read_next(state / "profiles.yaml", {}, accepted, 2, NOW)).names


def test_nothing_differs(state: Path, accepted: Accepted) -> None:
    again = read_next(state / "profiles.yaml", {}, accepted, 2, NOW)
    assert (again.generation, again.packed) == (2, accepted.packed)
    assert compare(accepted, again).names == ()


def test_a_value_and_a_block_and_the_content_of_a_file(state: Path, accepted: Accepted) -> None:
    def change(data: dict[str, object]) -> None:
        data["profiles"]["demo"]["retransmission_window"] = "2h"  # type: ignore[index]
        data["profiles"]["other"] = copy.deepcopy(data["profiles"]["demo"])  # type: ignore[index]
        data["profiles"]["other"]["endpoints"]["est"]["default"] = False  # type: ignore[index]

    rewrite(state, change)
    chain = state / "ca" / "ra.pem"
    chain.write_bytes(chain.read_bytes() + b"\n")
    assert names(state, accepted) == ("profiles.demo.retransmission_window", "profiles.other", "content of ca/ra.pem")


def test_what_is_wrong_and_what_needs_a_restart(state: Path, accepted: Accepted) -> None:
    rewrite(state, lambda data: data["server"].update(workers=7))  # type: ignore[attr-defined]
    with pytest.raises(NeedsRestartError, match=r"server\.workers"):
        names(state, accepted)
    rewrite(state, lambda data: data.pop("audit"))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="audit"):
        names(state, accepted)


def test_no_secret_shows_where_it_is_printed(accepted: Accepted) -> None:
    assert "packed" not in repr(accepted)
    assert "BEGIN" not in repr(accepted)
