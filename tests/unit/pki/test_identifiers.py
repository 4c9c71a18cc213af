"""Identifiers of orders and alternative names of certificates stand for each other."""

import pytest

from gateway.model import Identifier, IdentifierType, SanKind
from gateway.pki.extensions import make_san
from gateway.pki.identifiers import to_identifier, to_san


@pytest.mark.parametrize(
    ("identifier", "kind"),
    [
        pytest.param(Identifier(IdentifierType.DNS, "*.a.example"), SanKind.DNS, id="dns"),
        pytest.param(Identifier(IdentifierType.IP, "2001:db8::1"), SanKind.IP, id="ip"),
        pytest.param(Identifier(IdentifierType.PERMANENT_IDENTIFIER, "C02X/1.2.3"), SanKind.PERMANENT_IDENTIFIER, id="device"),
        pytest.param(Identifier(IdentifierType.HARDWARE_MODULE, "4711/1.2.3"), SanKind.HARDWARE_MODULE, id="module"),
    ],
)
def test_they_go_both_ways(identifier: Identifier, kind: SanKind) -> None:
    san = to_san(identifier)
    assert (san.kind, san.value) == (kind, identifier.value)
    assert to_identifier(san) == identifier


@pytest.mark.parametrize(
    ("kind", "value", "identifier"),
    [
        pytest.param(SanKind.DNS, "A.Example", Identifier(IdentifierType.DNS, "a.example"), id="case of a DNS name"),
        pytest.param(SanKind.EMAIL, "a@b.example", None, id="e-mail"),
        pytest.param(SanKind.URI, "urn:a:b", None, id="uri"),
        pytest.param(SanKind.UPN, "a@b", None, id="upn"),
    ],
)
def test_names_are_compared_in_one_form(kind: SanKind, value: str, identifier: Identifier | None) -> None:
    assert to_identifier(make_san(kind, value)) == identifier


def test_what_is_no_name() -> None:
    with pytest.raises(ValueError):
        to_san(Identifier(IdentifierType.IP, "localhost"))
