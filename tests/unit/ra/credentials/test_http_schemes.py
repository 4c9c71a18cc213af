"""What a refusal invites clients to send, and how their header is taken apart."""

from datetime import UTC, datetime
from typing import cast

import pytest

from gateway.config.credentials import BearerCredential as BearerConfig
from gateway.pki.certificate import parse_certificate
from gateway.ra.client_path import ClientCertificates
from gateway.ra.credentials.all_of import AllOfCredential
from gateway.ra.credentials.basic import BasicCredential
from gateway.ra.credentials.bearer import BearerCredential
from gateway.ra.credentials.http_schemes import read_authorization, takes_authorization, www_authenticate
from gateway.ra.credentials.interfaces import CredentialProvider, Derive
from gateway.ra.credentials.static import StaticCredential
from gateway.ra.credentials.tls_certificate import TlsCertificateCredential
from tests.unit.ra.credentials.test_basic import USERS
from tests.unit.ra.est import CORP
from tests.unit.ra.fleet import ca_of

NOW = datetime(2027, 1, 2, tzinfo=UTC)
BASIC = BasicCredential(USERS, "one", "user", cast("Derive", None))
STATIC = StaticCredential(CORP, b"secret-secret")
TLS = TlsCertificateCredential(cast("ClientCertificates", None), "any")
BEARER = BearerCredential(
    CORP,
    (parse_certificate(ca_of()),),
    BearerConfig.model_validate({"type": "bearer", "anchors": "a", "issuer": "i", "audience": "x"}, strict=False),
)
BASIC_SAID, BEARER_SAID = 'Basic realm="one", charset="UTF-8"', 'Bearer realm="pki-gateway"'


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        pytest.param((), (), id="nothing"),
        pytest.param((STATIC, TLS), (), id="nothing-in-the-header"),
        pytest.param((TLS, BASIC), (BASIC_SAID,), id="basic"),
        pytest.param((BEARER, BASIC), (BEARER_SAID, BASIC_SAID), id="in-their-order"),
        pytest.param((BASIC, BASIC), (BASIC_SAID,), id="once"),
        pytest.param((AllOfCredential((TLS, BASIC)),), (BASIC_SAID,), id="inside-all-of"),
        pytest.param((AllOfCredential((TLS, STATIC)),), (), id="nothing-inside-all-of"),
    ],
)
def test_invitations(credentials: tuple[CredentialProvider, ...], said: tuple[str, ...]) -> None:
    assert www_authenticate(credentials, NOW) == said
    assert takes_authorization(credentials) is bool(said)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        pytest.param("Bearer a.b.c", "a.b.c", id="plain"),
        pytest.param("  bearer    a.b.c  ", "a.b.c", id="spaces"),
        pytest.param("Basic a", None, id="another-scheme"),
        pytest.param("Bearer", None, id="nothing-behind-it"),
        pytest.param("Bearer a\r\nX-Evil: 1", None, id="line-break"),
        pytest.param("Bearer a\x00", None, id="nul"),
        pytest.param("Bearer é", None, id="beyond-ascii"),
        pytest.param("B(earer a", None, id="no-token"),
        pytest.param("Bearer " + "a" * 9000, None, id="too-long"),
        pytest.param(None, None, id="none"),
    ],
)
def test_the_header(header: str | None, found: str | None) -> None:
    assert read_authorization(header, "bearer") == found
