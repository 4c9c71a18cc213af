import re

import pytest

from gateway.errors import AUTHENTICATION_REASONS, Reason
from gateway.metrics.registry import FAMILIES, Family, Kind, LegacyAlgorithm, Operation
from gateway.wire.scep.pkimessage import _OPERATIONS, LEGACY


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_follow_the_conventions(family: Family) -> None:
    assert re.fullmatch(r"gateway(_[a-z]+)+", family.name)
    assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert bool(family.buckets) == (family.kind is Kind.HISTOGRAM)
    assert list(family.buckets) == sorted(family.buckets)
    assert family.merge is None or family.kind is Kind.GAUGE
    assert family.help.endswith(".")


def test_names_are_given_once() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_every_request_of_scep_has_an_operation() -> None:
    assert {name for name in _OPERATIONS.values() if name != "CertRep"} <= set(Operation)


def test_every_legacy_algorithm_is_counted() -> None:
    assert set(LEGACY) == set(LegacyAlgorithm)


def test_who_asked_is_every_reason_about_credentials() -> None:
    assert {reason for reason in Reason if reason.startswith("credential_")} < AUTHENTICATION_REASONS
    assert not {reason for reason in AUTHENTICATION_REASONS if reason.startswith(("policy_", "upstream_", "store_"))}
