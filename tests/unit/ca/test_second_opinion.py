"""pkilint's findings: logged or enforced as configured; a linter that fails has not said that a certificate is good."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal

import pytest
from structlog.testing import capture_logs

from gateway.ca import second_opinion
from gateway.ca.circuit import GuardedCA
from gateway.ca.second_opinion import PUBLIC_DETAIL, MissingPackage, SecondOpinion
from gateway.errors import Reason, Rejection
from gateway.model import SanKind, UpstreamCAName
from gateway.pki.certificate import Issuer, build_certificate
from gateway.pki.extensions import make_san
from tests.unit.ca.conftest import make_issuing, make_request, make_root
from tests.unit.ca.test_group import NORTH, SOUTH, Member, group, make_leaf

NAME = UpstreamCAName("corp")
SEVERE, MILD = "severe", "mild"


def finding(code: str, severity: str) -> Any:
    return SimpleNamespace(finding=SimpleNamespace(code=code, severity=severity), message="CN=what a device asked for")


class Linter:
    """Stands for pkilint: says what it is told to, of any certificate."""

    def __init__(self, *findings: Any, fails: bool = False) -> None:
        self._findings = findings
        self._fails = fails
        self.seen: list[bytes] = []

    def load_der_document(self, data: bytes, _name: str) -> Any:
        self.seen.append(data)
        if self._fails:
            raise RecursionError
        return SimpleNamespace(root=data)

    def validate(self, _root: bytes) -> list[Any]:
        return [SimpleNamespace(finding_descriptions=self._findings)]


@pytest.fixture
def opinion(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(mode: Literal["warn", "enforce"], linter: Linter) -> SecondOpinion:
        monkeypatch.setattr(second_opinion, "_load", lambda: (linter, linter, frozenset({SEVERE})))
        return SecondOpinion(NAME, mode)

    return make


BAD = (finding("pkix.a", SEVERE), finding("pkix.a", SEVERE), finding("pkix.b", MILD), finding("pkix.c", SEVERE))


async def test_what_is_good_passes(opinion: Any) -> None:
    with capture_logs() as lines:
        await opinion("enforce", Linter(finding("pkix.b", MILD))).judge(b"leaf")
    assert lines == []


async def test_what_is_found_is_logged_by_its_code(opinion: Any) -> None:
    with capture_logs() as lines:
        await opinion("warn", Linter(*BAD)).judge(b"leaf")
    assert [(line["upstream_ca"], line["findings"]) for line in lines] == [("corp", "pkix.a, pkix.c")]


async def test_what_is_found_is_enforced(opinion: Any) -> None:
    with pytest.raises(Rejection) as raised:
        await opinion("enforce", Linter(*BAD)).judge(b"leaf")
    assert (raised.value.reason, raised.value.detail) == (Reason.UPSTREAM_MISMATCH, PUBLIC_DETAIL)
    assert raised.value.cause == "pkilint: pkix.a, pkix.c"


async def test_many_findings_are_not_all_named(opinion: Any) -> None:
    with pytest.raises(Rejection) as raised:
        await opinion("enforce", Linter(*(finding(f"pkix.{n}", SEVERE) for n in range(100)))).judge(b"leaf")
    assert raised.value.cause == "pkilint: pkix.0, pkix.1, pkix.2, pkix.3, pkix.4"


async def test_a_linter_that_fails(opinion: Any) -> None:
    with pytest.raises(Rejection, match="RecursionError"):
        await opinion("enforce", Linter(fails=True)).judge(b"leaf")
    with capture_logs() as lines:
        await opinion("warn", Linter(fails=True)).judge(b"leaf")
    assert len(lines) == 1


async def test_a_group_asks_for_its_issuer(opinion: Any) -> None:
    linter = Linter(*BAD)
    north, south = GuardedCA(Member("north", NORTH), second_opinion=opinion("enforce", linter)), Member("south", SOUTH)
    both = group(north, south)  # type: ignore[arg-type]  # one of them guarded
    await both.inspect(make_leaf(SOUTH))
    assert linter.seen == []
    with pytest.raises(Rejection):
        await both.inspect(leaf := make_leaf(NORTH))
    assert linter.seen == [leaf]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pkilint", None)
    with pytest.raises(MissingPackage, match=r"pip install 'pki-gateway\[pkilint\]'"):
        SecondOpinion(NAME, "warn")


@pytest.mark.extra
async def test_the_real_one() -> None:
    pytest.importorskip("pkilint", reason="pkilint is not installed")
    root = make_root()
    issuing = make_issuing(root)
    request = make_request()
    issuer = Issuer.from_certificate(issuing.der, issuing.key)
    judge = SecondOpinion(NAME, "enforce")
    await judge.judge(build_certificate(issuer, 2**100 + 1, request.grant, request.public_key))
    short = make_request(sans=(make_san(SanKind.DNS, "localhost"),))
    with pytest.raises(Rejection, match="invalid_domain_name_syntax"):
        await judge.judge(build_certificate(issuer, 2**100 + 2, short.grant, request.public_key))
