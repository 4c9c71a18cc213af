"""Listed proxies are believed, to the letter of the form that they are configured with; nobody else is (RFC 9440)."""

import base64
import hashlib
from ipaddress import ip_network
from urllib.parse import quote

import pytest
from multidict import CIMultiDict

from gateway.errors import MalformedMessage
from gateway.pki.certificate import der_to_pem
from gateway.web.proxies import MAX_CHAIN, CertificateForm, Proxies, Shown, TrustedProxy, is_encrypted, read_certificate

LEAF, CA, ROOT = b"\x30\x04LEAF", b"\x30\x02CA", b"\x30\x04ROOT"


def encoded(der: bytes) -> str:
    return base64.b64encode(der).decode()


def byte_sequence(der: bytes) -> str:
    return f":{encoded(der)}:"


def escaped(*ders: bytes) -> str:
    return quote(b"".join(map(der_to_pem, ders)), safe="")


def read(form: CertificateForm | None, *headers: tuple[str, str]) -> Shown:
    return read_certificate(TrustedProxy((), form), CIMultiDict(headers))


def envoy(value: str, leaf: bytes | None = LEAF) -> tuple[str, str]:
    """One element of Envoy's, which begins with By and Hash."""
    known = f"By=spiffe://a/b;Hash={hashlib.sha256(leaf).hexdigest()};" if leaf else ""
    return "X-Forwarded-Client-Cert", known + value


@pytest.mark.parametrize(
    ("form", "headers", "shown"),
    [
        pytest.param("rfc9440", [("Client-Cert", byte_sequence(LEAF))], Shown(LEAF), id="rfc9440"),
        pytest.param("rfc9440", [("client-cert", f"  {byte_sequence(LEAF)} ")], Shown(LEAF), id="rfc9440-lower-case"),
        pytest.param(
            "rfc9440",
            [("Client-Cert", byte_sequence(LEAF)), ("Client-Cert-Chain", f"{byte_sequence(CA)}, {byte_sequence(ROOT)}")],
            Shown(LEAF, (CA, ROOT)),
            id="rfc9440-chain",
        ),
        pytest.param(
            "rfc9440",
            [
                ("Client-Cert", byte_sequence(LEAF)),
                ("Client-Cert-Chain", byte_sequence(CA)),
                ("Client-Cert-Chain", byte_sequence(ROOT)),
            ],
            Shown(LEAF, (CA, ROOT)),
            id="rfc9440-chain-in-two-fields",
        ),
        pytest.param("rfc9440", [("Client-Cert-Chain", byte_sequence(CA))], Shown(), id="rfc9440-chain-alone"),
        pytest.param("rfc9440", [], Shown(), id="rfc9440-nothing"),
        pytest.param("nginx", [("X-SSL-Client-Cert", escaped(LEAF))], Shown(LEAF), id="nginx"),
        pytest.param("nginx", [("X-SSL-Client-Cert", "")], Shown(), id="nginx-empty"),
        pytest.param("nginx", [("X-SSL-Client-Cert", "-")], Shown(), id="nginx-dash"),
        pytest.param("haproxy", [("X-SSL-Client-Cert", encoded(LEAF))], Shown(LEAF), id="haproxy"),
        pytest.param("haproxy", [("X-SSL-Client-Cert", "")], Shown(), id="haproxy-empty"),
        pytest.param("envoy", [envoy(f'Cert="{escaped(LEAF)}"')], Shown(LEAF), id="envoy"),
        pytest.param(
            "envoy",
            [
                envoy(
                    rf'Subject="CN=\"b\", O=c;d";Cert="{escaped(LEAF)}";Chain="{escaped(LEAF, CA, ROOT)}";URI=a;URI=b;DNS=c;DNS=d'
                )
            ],
            Shown(LEAF, (CA, ROOT)),
            id="envoy-chain",
        ),
        pytest.param("envoy", [envoy(f"Chain={escaped(LEAF, CA)}")], Shown(LEAF, (CA,)), id="envoy-chain-alone"),
        pytest.param("envoy", [envoy("Subject=CN=a")], Shown(), id="envoy-without-certificate"),
        pytest.param(None, [("Client-Cert", byte_sequence(LEAF))], Shown(), id="not-configured"),
        pytest.param("nginx", [("Client-Cert", byte_sequence(LEAF))], Shown(), id="another-form"),
    ],
)
def test_certificates(form: CertificateForm | None, headers: list[tuple[str, str]], shown: Shown) -> None:
    assert read(form, *headers) == shown


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        pytest.param("rfc9440", [("Client-Cert", encoded(LEAF))], id="rfc9440-no-byte-sequence"),
        pytest.param("rfc9440", [("Client-Cert", f"{byte_sequence(LEAF)};a=b")], id="rfc9440-parameters"),
        pytest.param("rfc9440", [("Client-Cert", f"{byte_sequence(LEAF)}, {byte_sequence(CA)}")], id="rfc9440-list"),
        pytest.param("rfc9440", [("Client-Cert", byte_sequence(LEAF))] * 2, id="rfc9440-twice"),
        pytest.param("rfc9440", [("Client-Cert", ":AAA:")], id="rfc9440-broken-base64"),
        pytest.param("rfc9440", [("Client-Cert", byte_sequence(b"text"))], id="rfc9440-no-certificate"),
        pytest.param(
            "rfc9440",
            [
                ("Client-Cert", byte_sequence(LEAF)),
                ("Client-Cert-Chain", ",".join([byte_sequence(CA)] * (MAX_CHAIN + 1))),
            ],
            id="rfc9440-long-chain",
        ),
        pytest.param("nginx", [("X-SSL-Client-Cert", escaped(LEAF, CA))], id="nginx-two-certificates"),
        pytest.param("nginx", [("X-SSL-Client-Cert", encoded(LEAF))], id="nginx-no-pem"),
        pytest.param("nginx", [("X-SSL-Client-Cert", escaped(LEAF))] * 2, id="nginx-twice"),
        pytest.param("haproxy", [("X-SSL-Client-Cert", escaped(LEAF))], id="haproxy-pem"),
        pytest.param("haproxy", [("X-SSL-Client-Cert", "é")], id="haproxy-no-ascii"),
        pytest.param("haproxy", [("X-SSL-Client-Cert", encoded(LEAF) + "A" * 100_000)], id="haproxy-long"),
        pytest.param("envoy", [envoy(f'Cert="{escaped(CA)}",Cert="{escaped(LEAF)}"')], id="envoy-appended"),
        pytest.param("envoy", [envoy(f'Cert="{escaped(LEAF)}"', None)], id="envoy-without-hash"),
        pytest.param("envoy", [envoy(f'Cert="{escaped(LEAF)}"', CA)], id="envoy-hash-of-another"),
        pytest.param("envoy", [envoy(f'Cert="{escaped(LEAF)}";Chain="{escaped(CA, LEAF)}"')], id="envoy-chain-of-another"),
        pytest.param(
            "envoy", [envoy(f'Chain="{escaped(CA)}";URI=spiffe://x;Cert="{escaped(LEAF)}"', CA)], id="envoy-uri-that-is-a-pair"
        ),
        pytest.param("envoy", [envoy(f'Cert="{escaped(LEAF)}";URI=x;Hash={"0" * 64}')], id="envoy-hash-twice"),
        pytest.param("envoy", [envoy(f'Cert="{escaped(CA)}";Cert="{escaped(LEAF)}"')], id="envoy-key-twice"),
        pytest.param("envoy", [envoy("nonsense")], id="envoy-no-pairs"),
        pytest.param("envoy", [envoy('Cert="unfinished')], id="envoy-unfinished"),
        pytest.param("envoy", [envoy("Cert=text")], id="envoy-no-pem"),
        pytest.param("envoy", [envoy(f"Cert={escaped(LEAF)}")] * 2, id="envoy-twice"),
    ],
)
def test_what_a_proxy_must_not_say(form: CertificateForm, headers: list[tuple[str, str]]) -> None:
    with pytest.raises(MalformedMessage) as refused:
        read(form, *headers)
    assert refused.value.detail == "the proxy's word on the client's certificate cannot be read"


FRONT = TrustedProxy((ip_network("192.0.2.0/28"), ip_network("2001:db8::/64")), client_address=True)
BACK = TrustedProxy((ip_network("10.0.0.1/32"),), client_address=True)
SILENT = TrustedProxy((ip_network("10.0.0.2/32"),))
PROXIES = Proxies([FRONT, BACK, SILENT])


@pytest.mark.parametrize(
    ("address", "proxy"),
    [
        pytest.param("192.0.2.15", FRONT, id="in-its-network"),
        pytest.param("192.0.2.16", None, id="beside-its-network"),
        pytest.param("2001:db8::7", FRONT, id="ipv6"),
        pytest.param("::ffff:10.0.0.1", BACK, id="ipv4-on-an-ipv6-socket"),
        pytest.param("10.0.0.2", SILENT, id="another"),
        pytest.param("", None, id="gone"),
        pytest.param("proxy.example", None, id="a-name"),
    ],
)
def test_who_is_a_proxy(address: str, proxy: TrustedProxy | None) -> None:
    assert PROXIES.find(address) == proxy
    assert Proxies().find(address) is None


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        pytest.param("192.0.2.1", ["203.0.113.9"], "203.0.113.9", id="one-hop"),
        pytest.param("192.0.2.1", ["198.51.100.1, 203.0.113.9"], "203.0.113.9", id="what-the-client-wrote-is-passed-over"),
        pytest.param("192.0.2.1", ["198.51.100.1", "203.0.113.9"], "203.0.113.9", id="two-fields"),
        pytest.param("10.0.0.1", ["198.51.100.1, 203.0.113.9, 192.0.2.1"], "203.0.113.9", id="two-proxies"),
        pytest.param("10.0.0.1", ["203.0.113.9, 10.0.0.2"], "10.0.0.2", id="a-proxy-that-says-no-address"),
        pytest.param("10.0.0.1", ["192.0.2.1"], "192.0.2.1", id="proxies-alone"),
        pytest.param("192.0.2.1", ["203.0.113.9:4711"], "203.0.113.9", id="with-its-port"),
        pytest.param("192.0.2.1", ["[2001:db8:1::9]:4711"], "2001:db8:1::9", id="ipv6-with-its-port"),
        pytest.param("192.0.2.1", ["2001:db8:1::9"], "2001:db8:1::9", id="ipv6"),
        pytest.param("192.0.2.1", ["unknown"], "192.0.2.1", id="unknown"),
        pytest.param("192.0.2.1", ["203.0.113.9, "], "192.0.2.1", id="an-empty-entry"),
        pytest.param("192.0.2.1", [], "192.0.2.1", id="says-nothing"),
        pytest.param("192.0.2.1", ["a," * 50_000 + "203.0.113.9"], "203.0.113.9", id="long"),
        pytest.param("10.0.0.2", ["203.0.113.9"], "10.0.0.2", id="may-not-say-it"),
        pytest.param("203.0.113.7", ["203.0.113.9"], "203.0.113.7", id="not-listed"),
        pytest.param("", ["203.0.113.9"], "", id="gone"),
    ],
)
def test_addresses_of_clients(peer: str, forwarded: list[str], client: str) -> None:
    headers = CIMultiDict(("X-Forwarded-For", value) for value in forwarded)
    assert PROXIES.client_address(peer, headers) == client


@pytest.mark.parametrize(
    ("values", "encrypted"),
    [
        pytest.param([], False, id="says-nothing"),
        pytest.param(["https"], True, id="https"),
        pytest.param(["HTTPS "], True, id="upper-case"),
        pytest.param(["http, https"], True, id="its-own-word-last"),
        pytest.param(["http"], False, id="http"),
        pytest.param(["https", "http"], False, id="http-last"),
        pytest.param([""], False, id="empty"),
    ],
)
def test_whether_the_client_spoke_tls(values: list[str], encrypted: bool) -> None:
    assert is_encrypted(CIMultiDict(("X-Forwarded-Proto", value) for value in values)) is encrypted
