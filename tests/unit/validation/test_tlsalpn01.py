"""tls-alpn-01: every rule of RFC 8737 §3 and RFC 8738 §6, broken one at a time."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from gateway.errors import Reason
from gateway.model import ChallengeType
from gateway.validation.interfaces import Validated, ValidationFailed
from tests.conftest import free_port
from tests.dns_server import DnsServer, dns_server
from tests.unit.validation.certificates import (
    DIGEST,
    OTHER_KEY,
    challenge_certificate,
    server_context,
)
from tests.unit.validation.site import NOW, dns_name, ip_name, refused, serving, task, validation

ALPN = "acme-tls/1"
TLS, UNAUTHORIZED, CONNECTION = Reason.VALIDATION_TLS, Reason.VALIDATION_UNAUTHORIZED, Reason.VALIDATION_CONNECTION
TASK = task(ChallengeType.TLS_ALPN_01)


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with dns_server() as server:
        yield server


async def idle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


def names_asked_for(context: ssl.SSLContext) -> list[str | None]:
    """Return a list that gets the server name of each handshake."""
    names: list[str | None] = []
    context.sni_callback = lambda _tls, name, _context: names.append(name)
    return names


async def test_good(dns: DnsServer, tmp_path: Path) -> None:
    context = server_context(tmp_path, "www.acme.test", alpn=[ALPN])
    names = names_asked_for(context)
    async with serving(idle, ssl=context) as port:
        assert await validation(dns.address, tlsalpn01_port=port).validate(TASK, NOW) == Validated()
    assert names == ["www.acme.test"]


async def test_name_of_the_certificate_in_capitals(dns: DnsServer, tmp_path: Path) -> None:
    async with serving(idle, ssl=server_context(tmp_path, "WWW.Acme.Test", alpn=[ALPN])) as port:
        await validation(dns.address, tlsalpn01_port=port).validate(TASK, NOW)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("127.0.0.1", "1.0.0.127.in-addr.arpa"),
        ("::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa"),
    ],
)
async def test_address(tmp_path: Path, address: str, name: str) -> None:
    context = server_context(tmp_path, address, alpn=[ALPN])
    names = names_asked_for(context)
    async with serving(idle, host=address, ssl=context) as port:
        work = validation(tlsalpn01_port=port, allow_cidrs=["127.0.0.0/8", "::1/128"])
        await work.validate(task(ChallengeType.TLS_ALPN_01, ip_name(address)), NOW)
    assert names == [name]


WRONG = {
    "other_name": challenge_certificate(["other.acme.test"]),
    "two_names": challenge_certificate(["www.acme.test", "other.acme.test"]),
    "name_twice": challenge_certificate(["www.acme.test", "www.acme.test"]),
    "name_and_address": challenge_certificate(["www.acme.test", "127.0.0.1"]),
    "wildcard": challenge_certificate(["*.acme.test"]),
    "address_for_a_name": challenge_certificate(["127.0.0.1"]),
    "uri_for_a_name": challenge_certificate([x509.UniformResourceIdentifier("www.acme.test")]),
    "no_names": challenge_certificate([]),
    "no_acme_identifier": challenge_certificate(value=None),
    "not_critical": challenge_certificate(critical=False),
    "other_digest": challenge_certificate(value=b"\x04\x20" + bytes(32)),
    "digest_without_octet_string": challenge_certificate(value=DIGEST),
    "digest_in_two_octet_strings": challenge_certificate(value=b"\x04\x22\x04\x20" + DIGEST),
    "digest_and_more": challenge_certificate(value=b"\x04\x20" + DIGEST + b"\x00"),
    "half_a_digest": challenge_certificate(value=b"\x04\x10" + DIGEST[:16]),
    "empty_value": challenge_certificate(value=b""),
    "signed_by_another_key": challenge_certificate(signer=OTHER_KEY),
    "issued_by_another_name": challenge_certificate(issuer="somebody"),
}


@pytest.mark.parametrize("certificate", WRONG.values(), ids=WRONG)
async def test_wrong_certificate(dns: DnsServer, tmp_path: Path, certificate: x509.Certificate) -> None:
    # A server signs the handshake with its key, whoever signed its certificate.
    async with serving(idle, ssl=server_context(tmp_path, chain=[certificate], alpn=[ALPN])) as port:
        await refused(validation(dns.address, tlsalpn01_port=port).validate(TASK, NOW), UNAUTHORIZED)


async def test_address_where_a_name_is_to_be_proved(tmp_path: Path) -> None:
    async with serving(idle, ssl=server_context(tmp_path, "1.0.0.127.in-addr.arpa", alpn=[ALPN])) as port:
        work = validation(tlsalpn01_port=port).validate(task(ChallengeType.TLS_ALPN_01, ip_name("127.0.0.1")), NOW)
        await refused(work, UNAUTHORIZED, "subjectAltName")


async def test_more_than_one_certificate(dns: DnsServer, tmp_path: Path) -> None:
    chain = [challenge_certificate(), challenge_certificate(["ca.test"])]
    async with serving(idle, ssl=server_context(tmp_path, chain=chain, alpn=[ALPN])) as port:
        await refused(validation(dns.address, tlsalpn01_port=port).validate(TASK, NOW), UNAUTHORIZED, "more than one")


async def test_server_that_knows_no_alpn(dns: DnsServer, tmp_path: Path) -> None:
    async with serving(idle, ssl=server_context(tmp_path, "www.acme.test")) as port:
        await refused(validation(dns.address, tlsalpn01_port=port).validate(TASK, NOW), UNAUTHORIZED, "acme-tls/1")


async def test_server_of_another_protocol(dns: DnsServer, tmp_path: Path) -> None:
    async with serving(idle, ssl=server_context(tmp_path, "www.acme.test", alpn=["h2", "http/1.1"])) as port:
        with pytest.raises(ValidationFailed) as caught:
            await validation(dns.address, tlsalpn01_port=port).validate(TASK, NOW)
    # Some servers end the handshake where no protocol fits, others go on without any.
    assert caught.value.reason in {TLS, UNAUTHORIZED}


async def test_old_tls(dns: DnsServer, tmp_path: Path) -> None:
    context = server_context(tmp_path, "www.acme.test", alpn=[ALPN])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    async with serving(idle, ssl=context) as port:
        await refused(validation(dns.address, tlsalpn01_port=port).validate(TASK, NOW), TLS)


async def test_tls_1_2(dns: DnsServer, tmp_path: Path) -> None:
    context = server_context(tmp_path, "www.acme.test", alpn=[ALPN])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(idle, ssl=context) as port:
        await validation(dns.address, tlsalpn01_port=port).validate(TASK, NOW)


async def test_no_tls(dns: DnsServer) -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP secret\r\n")
        await writer.drain()

    async with serving(speak) as port:
        failure = await refused(validation(dns.address, tlsalpn01_port=port).validate(TASK, NOW), TLS)
    assert "secret" not in failure.detail


async def test_nobody_listens(dns: DnsServer) -> None:
    await refused(validation(dns.address, tlsalpn01_port=free_port()).validate(TASK, NOW), CONNECTION)


async def test_silence(dns: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.validation.tlsalpn01.SECONDS", 0.3)
    async with serving(idle) as port:
        await refused(validation(dns.address, tlsalpn01_port=port).validate(TASK, NOW), CONNECTION, "in time")


async def test_address_that_may_not_be_connected_to(dns: DnsServer) -> None:
    dns.add("meta.test", "A", "169.254.169.254")
    work = validation(dns.address).validate(task(ChallengeType.TLS_ALPN_01, dns_name("meta.test")), NOW)
    await refused(work, CONNECTION)
