"""The paths of Vault's and OpenBao's PKI engine, tokens and logins that the gateway uses, with their quirks and with faults.

Names come from the request or the body as the role says, what cannot be said is left out, other names are refused in Vault's
words, and what goes wrong after signing leaves a certificate behind.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.ca.bootstrap import Hierarchy

ROOT_TOKEN = "hvs.root"
ROLE: Mapping[str, Any] = {
    "allow_any_name": True,
    "allowed_other_sans": ["*"],
    "allowed_uri_sans": ["*"],
    "use_csr_common_name": True,
    "use_csr_sans": True,
    "require_cn": True,
    "no_store": False,
    "key_usage": ["DigitalSignature", "KeyAgreement", "KeyEncipherment"],
    "server_flag": True,
    "client_flag": True,
    "ext_key_usage": [],
    "ext_key_usage_oids": [],
    "organization": [],
    "ou": [],
    "country": [],
    "not_before_duration": 30,
    "not_after": "",
    "issuer_ref": "default",
}
_FIXED = {"country": NameOID.COUNTRY_NAME, "organization": NameOID.ORGANIZATION_NAME, "ou": NameOID.ORGANIZATIONAL_UNIT_NAME}
_HOST = re.compile(r"(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")
_EKUS = {
    "serverauth": ExtendedKeyUsageOID.SERVER_AUTH,
    "clientauth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "codesigning": ExtendedKeyUsageOID.CODE_SIGNING,
}
_PATH = re.compile(r'path\s+"([^"]+)"\s*\{\s*capabilities\s*=\s*\[([^\]]*)\]\s*\}')


@dataclass
class FakeToken:
    """A token; `until` is a time of the monotonic clock."""

    policy: dict[str, set[str]]
    until: float | None = None
    period: float = 0.0
    uses_left: int | None = None
    renewable: bool = True

    def may(self, path: str, right: str) -> bool:
        rules = [(rule, rights) for rule, rights in self.policy.items() if _covers(rule, path)]
        return any(right in rights or "root" in rights for _, rights in rules)


def _covers(rule: str, path: str) -> bool:
    return path.startswith(rule[:-1]) if rule.endswith("*") else rule == path


ANYTHING = {"*": {"root"}}
DEFAULT_POLICY = {
    "auth/token/lookup-self": {"read"},
    "auth/token/renew-self": {"update"},
    "auth/token/revoke-self": {"update"},
    "sys/capabilities-self": {"update"},
}


def read_policy(text: str) -> dict[str, set[str]]:
    """Read paths with capabilities, which is all of HCL that policies here use."""
    return {path: set(re.findall(r'"(\w+)"', rights)) for path, rights in _PATH.findall(text)}


@dataclass
class FakeVault:
    """One server; tests look at what it did and tell it what to do next."""

    hierarchy: Hierarchy
    mount: str = "pki"
    url: str = ""
    sealed: bool = False
    faults: deque[str] = field(default_factory=deque)
    """What befalls the next requests for a signature, one each."""
    roles: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, FakeToken] = field(default_factory=dict)
    approles: dict[str, tuple[str, dict[str, set[str]]]] = field(default_factory=dict)
    certificate_policy: dict[str, set[str]] | None = None
    service_accounts: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    token_ttl: float = 3600.0
    logins: int = 0
    renewals: int = 0
    seen: list[tuple[str, str]] = field(default_factory=list)
    namespaces: set[str | None] = field(default_factory=set)
    stored: dict[str, bytes] = field(default_factory=dict)
    revoked: dict[str, int] = field(default_factory=dict)
    signed: list[bytes] = field(default_factory=list)
    """Everything that was ever signed, stored or not, DER."""

    def __post_init__(self) -> None:
        self.tokens[ROOT_TOKEN] = FakeToken(ANYTHING, renewable=False)
        self._issuer = x509.load_pem_x509_certificate(self.hierarchy.issuing.certificate)
        self._key = serialization.load_pem_private_key(self.hierarchy.issuing.key, None)
        for certificate in (self.hierarchy.issuing.certificate, self.hierarchy.root.certificate):
            ca = x509.load_pem_x509_certificate(certificate)
            self.stored[_colons(ca.serial_number)] = ca.public_bytes(serialization.Encoding.DER)
        self._own = frozenset(self.stored)

    # what tests do with any Vault, this or a real one

    async def set_role(self, name: str, **fields: Any) -> None:
        self.roles[name] = {**ROLE, **fields}

    async def new_approle(self, policy: str) -> tuple[str, str]:
        role_id, secret_id = secrets.token_hex(8), secrets.token_hex(8)
        self.approles[role_id] = (secret_id, DEFAULT_POLICY | read_policy(policy))
        return role_id, secret_id

    async def new_token(self, policy: str, *, ttl: float | None = None, renewable: bool = True) -> str:
        token = "hvs." + secrets.token_urlsafe(16)
        until = None if ttl is None else time.monotonic() + ttl
        self.tokens[token] = FakeToken(DEFAULT_POLICY | read_policy(policy), until, ttl or 0.0, renewable=renewable)
        return token

    async def issued(self) -> list[bytes]:
        """Every certificate but the CA's own, DER."""
        return list(self.signed)

    # requests

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/v1/")
        self.seen.append((request.method, path))
        if path != "sys/health":
            self.namespaces.add(request.headers.get("X-Vault-Namespace"))
        if self.sealed:
            status = 503 if path != "sys/health" else int(request.query.get("sealedcode", "503"))
            return web.json_response({"errors": ["Vault is sealed"], "sealed": True}, status=status)
        body = await request.json() if request.can_read_body and request.content_type == "application/json" else {}
        listing = request.query.get("list") == "true" or request.method == "LIST"
        right = "list" if listing else "read" if request.method == "GET" else "update"
        if path == "sys/health":
            return web.json_response(
                {"initialized": True, "sealed": False, "version": "2.6.2", "server_time_utc": int(time.time())}
            )
        if path.endswith("/login") and path.startswith("auth/"):
            return self._log_in(path, body, request)
        if not listing and self._is_open(path):
            return self._read(path)
        text = request.headers.get("X-Vault-Token", "")
        token = self.tokens.get(text)
        if token is None or (token.until is not None and token.until < time.monotonic()):
            return _errors(403, "permission denied", "invalid token")
        if not token.may(path, right):
            return _errors(403, "1 error occurred:\n\t* permission denied\n\n")
        if path.startswith("auth/token/"):
            return self._own_token(path, text, token)
        if path == "sys/capabilities-self":
            rights = ("read", "update", "list")
            told = {p: [r for r in rights if token.may(p, r)] or ["deny"] for p in body["paths"]}
            told = {p: ["root"] if "root" in token.policy.get("*", ()) else listed for p, listed in told.items()}
            return web.json_response({"data": told, **told})
        return await self._use_engine(path, body, listing, request)

    def _is_open(self, path: str) -> bool:
        inside = path.removeprefix(f"{self.mount}/")
        return bool(re.fullmatch(r"cert/[^/]+|crl|ca_chain|issuer/[^/]+/(json|crl/der)", inside)) and inside != path

    def _log_in(self, path: str, body: dict[str, Any], request: web.Request) -> web.Response:
        self.logins += 1
        method = path.split("/")[1]
        policy: dict[str, set[str]] | None = None
        if method == "approle":
            secret_id, found = self.approles.get(body.get("role_id", ""), ("", None))
            policy = found if secret_id and secret_id == body.get("secret_id") else None
        elif method == "cert":
            transport = request.transport
            shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True) if transport else None
            policy = self.certificate_policy if shown else None
        elif method == "kubernetes":
            policy = self.service_accounts.get(body.get("jwt", "")) if body.get("role") == "gateway" else None
        else:
            return _errors(404, f'no handler for route "{path}". route entry not found.')
        if policy is None:
            return _errors(403 if method == "kubernetes" else 400, "invalid role or secret ID")
        text = "hvs." + secrets.token_urlsafe(16)
        self.tokens[text] = FakeToken(policy, time.monotonic() + self.token_ttl, self.token_ttl)
        return web.json_response({"auth": self._auth(text)})

    def _auth(self, text: str) -> dict[str, Any]:
        token = self.tokens[text]
        return {
            "client_token": text,
            "lease_duration": _whole(token.period),
            "renewable": token.renewable,
            "policies": ["default"],
        }

    def _own_token(self, path: str, text: str, token: FakeToken) -> web.Response:
        match path.removeprefix("auth/token/"):
            case "lookup-self":
                ttl = 0 if token.until is None else token.until - time.monotonic()
                policies = ["root"] if token.policy is ANYTHING else ["default", "gateway"]
                return web.json_response({"data": {"ttl": _whole(ttl), "renewable": token.renewable, "policies": policies}})
            case "renew-self":
                if not token.renewable:
                    return _errors(400, "lease is not renewable")
                self.renewals += 1
                token.until = time.monotonic() + token.period
                return web.json_response({"auth": self._auth(text)})
            case "revoke-self":
                del self.tokens[text]
                return web.Response(status=204)
            case _:
                return _errors(404, "unsupported path")

    def _read(self, path: str) -> web.Response:
        inside = path.removeprefix(f"{self.mount}/")
        if inside.startswith("cert/"):
            serial = inside.removeprefix("cert/").replace("-", ":")
            if serial not in self.stored:
                return _errors(404)
            data = {"certificate": _pem(self.stored[serial]), "revocation_time": self.revoked.get(serial, 0)}
            return web.json_response({"data": data})
        if inside.endswith("/json") and inside.split("/")[1] in {"default", "spare"}:
            chain = [self.hierarchy.issuing.certificate.decode(), self.hierarchy.root.certificate.decode()]
            return web.json_response({"data": {"certificate": chain[0], "ca_chain": chain}})
        if inside.endswith("crl/der") or inside == "crl":
            return web.Response(body=self.crl(), content_type="application/pkix-crl")
        return _errors(404)

    def crl(self) -> bytes:
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder(self._issuer.subject, now, now + timedelta(days=3))
        for serial, when in self.revoked.items():
            entry = x509.RevokedCertificateBuilder(int(serial.replace(":", ""), 16), datetime.fromtimestamp(when, UTC))
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)  # type: ignore[arg-type]

    async def _use_engine(self, path: str, body: dict[str, Any], listing: bool, request: web.Request) -> web.StreamResponse:
        inside = path.removeprefix(f"{self.mount}/")
        if inside == path:
            return _errors(404, f'no handler for route "{path}". route entry not found.')
        if inside == "certs" and listing:
            return web.json_response({"data": {"keys": sorted(self.stored)}}) if self.stored else _errors(404)
        if inside.startswith("roles/"):
            role = self.roles.get(inside.removeprefix("roles/"))
            return web.json_response({"data": role}) if role is not None else _errors(404)
        if inside == "revoke":
            return self._revoke(body)
        signing = re.fullmatch(r"(?:issuer/([^/]+)/)?(sign|sign-verbatim)(?:/([^/]+))?", inside)
        if signing is None:
            return _errors(404, f"unsupported path {inside}")
        if signing[1] not in {None, "default", "spare"}:
            return _errors(500, f"unable to find PKI issuer for reference: {signing[1]}")
        if signing[3] is not None and signing[3] not in self.roles:
            return _errors(400, f"unknown role: {signing[3]}")
        return await self._sign(signing[2] == "sign-verbatim", self.roles.get(signing[3] or "", dict(ROLE)), body, request)

    def _revoke(self, body: dict[str, Any]) -> web.Response:
        if "certificate" in body:
            certificate = x509.load_pem_x509_certificate(body["certificate"].encode())
            serial = _colons(certificate.serial_number)
            if certificate.issuer != self._issuer.subject:
                return _errors(500, "1 error occurred:\n\t* unable to verify signature on presented cert\n\n")
            self.stored.setdefault(serial, certificate.public_bytes(serialization.Encoding.DER))
        else:
            serial = body["serial_number"]
            if serial not in self.stored:
                return _errors(400, f"certificate with serial {serial} not found.")
        when = self.revoked.setdefault(serial, int(time.time()))
        return web.json_response({"data": {"revocation_time": when, "state": "revoked"}})

    async def _sign(self, verbatim: bool, role: dict[str, Any], body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        fault = self.faults.popleft() if self.faults else ""
        match fault:
            case "stall before":
                await asyncio.sleep(3600)
            case "reset before":
                return _reset(request)
            case "429" | "503" | "473":
                return web.json_response({"errors": ["later"]}, status=int(fault), headers={"Retry-After": "17"})
            case "307":
                return web.Response(status=307, headers={"Location": "http://127.0.0.1:9/v1/x"})
            case "403 page":
                return web.Response(status=403, text="<html>no</html>", content_type="text/html")
            case "500 before":
                return _errors(500, "1 error occurred:\n\t* internal error\n\n")
            case _:
                pass
        try:
            certificate = self._make(verbatim, role, body, other_key=fault == "wrong key")
        except ValueError as error:
            return _errors(400, str(error))
        der = certificate.public_bytes(serialization.Encoding.DER)
        serial = _colons(certificate.serial_number)
        self.signed.append(der)
        if not role["no_store"]:
            self.stored[serial] = der
        return await self._answer(fault, der, serial, request)

    async def _answer(self, fault: str, der: bytes, serial: str, request: web.Request) -> web.StreamResponse:
        chain = [self.hierarchy.issuing.certificate.decode(), self.hierarchy.root.certificate.decode()]
        data = {"certificate": _pem(der), "issuing_ca": chain[0], "ca_chain": chain, "serial_number": serial}
        match fault:
            case "reply lost" | "reset after":
                return _reset(request)
            case "stall after":
                await asyncio.sleep(3600)
            case "500 after":
                return _errors(500, "1 error occurred:\n\t* internal error\n\n")
            case "502 after":
                return web.Response(status=502, text="<html>Bad Gateway</html>", content_type="text/html")
            case "html":
                return web.Response(text="<html>Welcome</html>", content_type="text/html")
            case "no data":
                return web.json_response({"request_id": "x"})
            case "no certificate":
                data["certificate"] = "-----BEGIN CERTIFICATE-----\n@@@\n-----END CERTIFICATE-----"
            case "truncated chain":
                data = {name: data[name] for name in ("certificate", "serial_number")}
            case "foreign chain":
                data |= {"issuing_ca": _pem(der), "ca_chain": [_pem(der)]}
            case "huge":
                data["padding"] = "x" * 400_000
            case "deep":
                return web.Response(text="[" * 100_000, content_type="application/json")
            case "cut":
                response = web.StreamResponse(headers={"Content-Length": "4000", "Content-Type": "application/json"})
                await response.prepare(request)
                await response.write(b'{"data": {"certificate": "')
                return _reset(request)
            case _:
                pass
        return web.json_response({"request_id": "x", "lease_duration": 0, "data": data, "warnings": None})

    def _make(self, verbatim: bool, role: dict[str, Any], body: dict[str, Any], *, other_key: bool) -> x509.Certificate:
        csr = x509.load_pem_x509_csr(body["csr"].encode())
        if not csr.is_signature_valid:
            raise ValueError("request signature invalid")
        key = csr.public_key()
        if other_key:
            key = ec.generate_private_key(ec.SECP256R1()).public_key()
        now = datetime.now(UTC).replace(microsecond=0)
        builder = (
            x509.CertificateBuilder()
            .serial_number(x509.random_serial_number())
            .issuer_name(self._issuer.subject)
            .public_key(key)
            .not_valid_before(now - timedelta(seconds=role["not_before_duration"]))
            .not_valid_after(_not_after(role, body, now))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._issuer.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
        )
        builder = _verbatim(builder, csr, body) if verbatim else _by_role(builder, csr, role, body)
        return builder.sign(self._key, hashes.SHA256())  # type: ignore[arg-type]


def _by_role(
    builder: x509.CertificateBuilder, csr: x509.CertificateSigningRequest, role: dict[str, Any], body: dict[str, Any]
) -> x509.CertificateBuilder:
    builder = builder.subject_name(_subject(csr, role, body))
    sans = _sans_of(csr) if role["use_csr_sans"] else _sans_in(body)
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    flags = [ExtendedKeyUsageOID.SERVER_AUTH] if role["server_flag"] else []
    flags += [ExtendedKeyUsageOID.CLIENT_AUTH] if role["client_flag"] else []
    flags += [_EKUS[name.lower()] for name in role["ext_key_usage"]]
    oids = [x509.ObjectIdentifier(oid) for oid in role["ext_key_usage_oids"]]
    return _usages(builder, role["key_usage"], list(dict.fromkeys(flags + oids)))


def _verbatim(
    builder: x509.CertificateBuilder, csr: x509.CertificateSigningRequest, body: dict[str, Any]
) -> x509.CertificateBuilder:
    """The request's own extensions come first; the body fills what is missing."""
    builder = builder.subject_name(csr.subject)
    copied = set()
    for extension in csr.extensions:
        if not isinstance(extension.value, x509.BasicConstraints | x509.SubjectKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
            copied.add(type(extension.value))
    ekus = [x509.ObjectIdentifier(oid) for oid in body.get("ext_key_usage_oids", [])]
    usage = body.get("key_usage", ROLE["key_usage"])
    return _usages(builder, [] if x509.KeyUsage in copied else usage, [] if x509.ExtendedKeyUsage in copied else ekus)


def _subject(csr: x509.CertificateSigningRequest, role: dict[str, Any], body: dict[str, Any]) -> x509.Name:
    asked = [str(a.value) for a in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    name = (asked[-1] if asked and role["use_csr_common_name"] else "") or body.get("common_name", "")
    if not name and role["require_cn"]:
        raise ValueError("the common_name field is required, or must be provided in a CSR with use_csr_common_name set to true")
    if "allowed_domains" in role and not any(name.endswith(f".{domain}") for domain in role["allowed_domains"]):
        raise ValueError(f"common name {name} not allowed by this role")
    rdns = [
        x509.RelativeDistinguishedName([x509.NameAttribute(oid, value) for value in dict.fromkeys(role[field])])
        for field, oid in _FIXED.items()
        if role[field]
    ]
    numbers = [str(a.value) for a in csr.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
    number = body.get("serial_number") or (numbers[-1] if numbers else "")
    users = body.get("user_ids") or [str(a.value) for a in csr.subject.get_attributes_for_oid(NameOID.USER_ID)]
    single = [(NameOID.COMMON_NAME, name), (NameOID.SERIAL_NUMBER, number), *((NameOID.USER_ID, user) for user in users)]
    rdns += [x509.RelativeDistinguishedName([x509.NameAttribute(oid, value)]) for oid, value in single if value]
    return x509.Name(rdns)


def _sans_of(csr: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name for name in names if not isinstance(name, x509.DirectoryName | x509.RegisteredID)]


def _sans_in(body: dict[str, Any]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for text in filter(None, body.get("alt_names", "").split(",")):
        if "@" in text:
            names.append(x509.RFC822Name(text))
        elif _HOST.fullmatch(text):
            names.append(x509.DNSName(text))
    names += [x509.IPAddress(ipaddress.ip_address(text)) for text in body.get("ip_sans", [])]
    names += [x509.UniformResourceIdentifier(text) for text in body.get("uri_sans", [])]
    for text in body.get("other_sans", []):
        oid, _, value = text.partition(";")
        encoded = value.partition(":")[2].encode()
        names.append(x509.OtherName(x509.ObjectIdentifier(oid), b"\x0c" + bytes([len(encoded)]) + encoded))
    return names


def _usages(builder: x509.CertificateBuilder, usage: list[str], ekus: list[x509.ObjectIdentifier]) -> x509.CertificateBuilder:
    if usage:
        words = ("DigitalSignature", "ContentCommitment", "KeyEncipherment", "DataEncipherment", "KeyAgreement", "CertSign",
                 "CRLSign", "EncipherOnly", "DecipherOnly")  # fmt: skip
        given = {word.lower() for word in usage}
        builder = builder.add_extension(x509.KeyUsage(*(word.lower() in given for word in words)), critical=True)
    if ekus:
        builder = builder.add_extension(x509.ExtendedKeyUsage(ekus), critical=False)
    return builder


def _not_after(role: dict[str, Any], body: dict[str, Any], now: datetime) -> datetime:
    told = role["not_after"] or body.get("not_after")
    if not told:
        return now + timedelta(seconds=int(body.get("ttl", "2764800s").removesuffix("s")))
    if role.get("not_after_bound") == "forbid":
        raise ValueError("not_after_bound is set to forbid. not_after cannot be provided.")
    return datetime.strptime(told, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _colons(serial: int) -> str:
    text = f"{serial:x}"
    text = text.zfill(len(text) + len(text) % 2)
    return ":".join(text[i : i + 2] for i in range(0, len(text), 2))


def _pem(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM).decode().strip()


def _whole(seconds: float) -> int:
    return max(0, round(seconds))


def _errors(status: int, *texts: str) -> web.Response:
    return web.json_response({"errors": list(texts)}, status=status)


def _reset(request: web.Request) -> web.Response:
    """Cut the connection: the client sees no end of the answer."""
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


@asynccontextmanager
async def serve(vault: FakeVault, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeVault]:
    """Serve on a free port of loopback."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", vault.handle)
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    [address] = runner.addresses
    vault.url = f"{'https' if tls else 'http'}://127.0.0.1:{address[1]}"
    try:
        yield vault
    finally:
        await runner.cleanup()
