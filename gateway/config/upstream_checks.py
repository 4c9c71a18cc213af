"""Upstream CAs that cannot work as they are written, and profiles that their CA can never satisfy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.config.credentials import StaticCredential
from gateway.config.defaults import UPSTREAM_CALL_SECONDS
from gateway.config.document import DataPath, Problem
from gateway.config.duration_checks import positive
from gateway.config.fields import SecretSource
from gateway.config.listener_checks import each_credential
from gateway.config.parts import Parts, ProfileParts
from gateway.config.policy import RuleMode, SanRule, SubjectRule
from gateway.config.remote_cas import (
    AcmeCA,
    AcmeDnsUpdate,
    CfsslCA,
    CmpCA,
    CmpSignature,
    Connection,
    EstCA,
    GroupCA,
    ScepCA,
    StepCA,
    VaultCA,
    VaultCertificate,
)
from gateway.config.upstream_cas import ExecCA, LocalCA, UpstreamCAConfig
from gateway.model import RequestForm

LONGEST_QUEUE = timedelta(days=30)
LONGEST_DNS_WAIT = timedelta(minutes=10)
LEAST_POLL = timedelta(seconds=5)
MOST_POLL = timedelta(days=1)
LEAST_MEMORY = timedelta(minutes=1)
MOST_MEMORY = timedelta(days=7)
_MOUNT = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
HttpCA = VaultCA | StepCA | CfsslCA | AcmeCA | EstCA | ScepCA | CmpCA
"""What is reached by HTTP."""
PKCS10_ALONE = frozenset({RequestForm.PKCS10})
EVERY_FORM = frozenset(RequestForm)


def accepted_forms(ca: UpstreamCAConfig, others: Mapping[str, UpstreamCAConfig | None]) -> frozenset[RequestForm]:
    """Return what requests a CA takes: PKCS#10 alone, or a public key with a template (CRMF), too; `others` has groups' members.

    The backends say the same by `UpstreamCA.accepts`.
    """
    match ca:
        case LocalCA():
            return EVERY_FORM
        case ExecCA():
            return frozenset(map(RequestForm, ca.forms))
        case CmpCA():
            return PKCS10_ALONE if ca.forward == "p10cr" else EVERY_FORM
        case GroupCA():
            members = (others.get(member) for member in ca.members)
            return EVERY_FORM.intersection(*(accepted_forms(member, others) for member in members if member is not None))
        case _:
            return PKCS10_ALONE


def check_upstream_ca(upstream_ca: UpstreamCAConfig | None) -> Iterator[Problem]:
    """Yield what is wrong with one upstream CA by itself; paths begin at it."""
    match upstream_ca:
        case LocalCA():
            yield from _check_local(upstream_ca)
        case ExecCA():
            yield from _check_exec(upstream_ca)
        case GroupCA() | None:
            return
        case _:
            yield from _check_remote(upstream_ca)
            yield from _check_backend(upstream_ca)


def _check_local(ca: LocalCA) -> Iterator[Problem]:
    if ca.crl is not None:
        yield from positive(("crl", "refresh"), ca.crl.refresh)
        if ca.crl.refresh >= ca.crl.lifetime:
            yield Problem(("crl", "refresh"), "must be shorter than lifetime, or clients meet an expired CRL")


def _check_exec(ca: ExecCA) -> Iterator[Problem]:
    yield from positive(("deadline",), ca.deadline)
    if ca.deadline > timedelta(seconds=UPSTREAM_CALL_SECONDS):
        sentence = f"must not be longer than {UPSTREAM_CALL_SECONDS}s; a program that needs longer answers pending"
        yield Problem(("deadline",), sentence)
    for name in ca.environment:
        if not name or "=" in name or "\0" in name:
            yield Problem(("environment", name), "is not the name of an environment variable")


def _check_remote(ca: HttpCA) -> Iterator[Problem]:
    """Yield what is wrong with how a CA is reached, and with how long is waited for it."""
    field, url = url_of(ca)
    if url.startswith("http://"):
        # these protect each message themselves (RFC 8894 §2, RFC 9811 §3)
        if not isinstance(ca, ScepCA | CmpCA) and not is_loopback(url):
            sentence = 'must begin with "https://": whoever is between could read the credentials and change what is signed'
            yield Problem((field,), sentence)
        for name in ("anchors", "client_certificate"):
            if getattr(ca.connection, name) is not None:
                yield Problem(("connection", name), f"is for TLS, and {field} begins with http://")
    yield from _check_connection(ca.connection)
    if ca.queue > LONGEST_QUEUE:
        yield Problem(("queue",), f"must not be longer than {LONGEST_QUEUE.days}d: who asked has long asked again")


def url_of(ca: HttpCA) -> tuple[str, str]:
    """Return the field that says where a CA is, and what it says."""
    return ("directory", ca.directory) if isinstance(ca, AcmeCA) else ("url", ca.url)


def is_loopback(url: str) -> bool:
    """Say whether a URL leads to this machine itself."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_connection(connection: Connection) -> Iterator[Problem]:
    yield from positive(("connection", "connect_timeout"), connection.connect_timeout)
    yield from positive(("connection", "timeout"), connection.timeout)
    if connection.timeout > timedelta(seconds=UPSTREAM_CALL_SECONDS):
        yield Problem(("connection", "timeout"), f"must not be longer than {UPSTREAM_CALL_SECONDS}s")
    if connection.connect_timeout > connection.timeout:
        yield Problem(("connection", "connect_timeout"), "must not be longer than timeout, of which it is a part")


def _check_backend(ca: HttpCA) -> Iterator[Problem]:
    match ca:
        case VaultCA():
            yield from _check_vault(ca)
        case AcmeCA():
            yield from _check_acme(ca)
        case EstCA():
            yield from _check_est(ca)
            yield from _check_remembers(ca)
        case ScepCA():
            yield from _check_poll(ca)
            yield from _check_remembers(ca)
        case CmpCA():
            yield from _check_poll(ca)
            yield from _check_remembers(ca)
            yield from _check_cmp(ca)
        case StepCA() | CfsslCA():
            return


def _check_vault(ca: VaultCA) -> Iterator[Problem]:
    if isinstance(ca.auth, VaultCertificate) and ca.connection.client_certificate is None:
        yield Problem(("auth", "type"), "cert needs connection.client_certificate: it is what Vault knows the gateway by")
    if ca.role is None and not ca.sign_verbatim:
        yield Problem(("role",), "is needed; only sign_verbatim may do without one")
    for path, text, pattern in (
        (("mount",), ca.mount, _MOUNT),
        (("auth", "mount"), getattr(ca.auth, "mount", None), _MOUNT),
        (("role",), ca.role, _SEGMENT),
        (("issuer",), ca.issuer, _SEGMENT),
        (("namespace",), ca.namespace, _MOUNT),
    ):
        if text is not None and (pattern.fullmatch(text) is None or {".", ".."} & set(text.split("/"))):
            yield Problem(path, "is a part of a URL: letters, digits and - _ . only, without a slash at either end")


def _check_acme(ca: AcmeCA) -> Iterator[Problem]:
    if ca.dns is None and not ca.http01:
        yield Problem(("dns",), "is needed, or http01: true: the CA has control of every name proved")
    if ca.dns is not None:
        if ca.dns.wait > LONGEST_DNS_WAIT:
            yield Problem(("dns", "wait"), f"must not be longer than {LONGEST_DNS_WAIT.seconds // 60}m")
        if not isinstance(ca.dns, AcmeDnsUpdate):
            yield from positive(("dns", "timeout"), ca.dns.timeout)
            if ca.dns.timeout > LONGEST_DNS_WAIT:
                yield Problem(("dns", "timeout"), f"must not be longer than {LONGEST_DNS_WAIT.seconds // 60}m")
    for number, contact in enumerate(ca.contact):
        if not contact.startswith("mailto:"):
            yield Problem(("contact", number), 'must begin with "mailto:" (RFC 8555 §7.3)')


def _check_est(ca: EstCA) -> Iterator[Problem]:
    if (ca.username is None) != (ca.password is None):
        missing = "password" if ca.password is None else "username"
        yield Problem((missing,), "is needed: username and password go together")
    if ca.username is None and ca.connection.client_certificate is None:
        yield Problem(("username",), "is needed, or connection.client_certificate: the server would not know who asks")
    if "/.well-known/est" not in ca.url:
        yield Problem(("url",), "must lead to /.well-known/est (RFC 7030 §3.2.2)")


def _check_cmp(ca: CmpCA) -> Iterator[Problem]:
    if ca.forward == "nested" and not isinstance(ca.auth, CmpSignature):
        sentence = "nested needs auth of type signature: no shared secret protects a nested message (RFC 9483 §5.2.2)"
        yield Problem(("forward",), sentence)


def _check_poll(ca: ScepCA | CmpCA) -> Iterator[Problem]:
    if not LEAST_POLL <= ca.poll_every <= MOST_POLL:
        yield Problem(("poll_every",), "must be from 5s to 24h")


def _check_remembers(ca: EstCA | ScepCA | CmpCA) -> Iterator[Problem]:
    if ca.remembers is not None and not LEAST_MEMORY <= ca.remembers <= MOST_MEMORY:
        sentence = "must be from 1m to 7d, and less than what the server says: with a longer one it may issue twice"
        yield Problem(("remembers",), sentence)


def check_upstream_across(parts: Parts) -> Iterator[Problem]:
    """Yield groups whose members cannot be, and profiles that their CA can never satisfy."""
    for name, ca in parts.upstream_cas.items():
        if isinstance(ca, GroupCA):
            for problem in _check_group(name, ca, parts):
                yield Problem(("upstream_cas", name, *problem.path), problem.sentence)
    for name, profile in parts.profiles.items():
        for ca_name, ca in _cas_of(profile, parts):
            for problem in _check_pairing(ca_name, ca, profile):
                yield Problem(("profiles", name, *problem.path), problem.sentence)


def _check_group(name: str, group: GroupCA, parts: Parts) -> Iterator[Problem]:
    for number, member in enumerate(group.members):
        path: DataPath = ("members", number)
        if member == name:
            yield Problem(path, "is this group itself")
        elif member in group.members[:number]:
            yield Problem(path, f"{member} is written twice")
        elif member not in parts.upstream_cas:
            yield Problem(path, f"there is no upstream CA {member}; there are: {', '.join(parts.upstream_cas)}")
        elif isinstance(parts.upstream_cas[member], GroupCA):
            yield Problem(path, f"{member} is a group, and a group has no groups in it")
        elif isinstance(parts.upstream_cas[member], LocalCA):
            yield Problem(path, f"{member} is in this process, where there is nothing to stand in for")


def _cas_of(profile: ProfileParts, parts: Parts) -> Iterator[tuple[str, UpstreamCAConfig]]:
    """Yield the CAs that may sign for a profile: its own, or the members of its group."""
    name = profile.written.get("upstream_ca")
    ca = parts.upstream_cas.get(name) if isinstance(name, str) else None
    if isinstance(ca, GroupCA):
        members = ((member, parts.upstream_cas.get(member)) for member in ca.members)
        yield from ((member, found) for member, found in members if found is not None)
    elif isinstance(name, str) and ca is not None:
        yield name, ca


def _check_pairing(name: str, ca: UpstreamCAConfig, profile: ProfileParts) -> Iterator[Problem]:
    match ca:
        case AcmeCA():
            yield from _check_secrets(name, None, profile)
            yield from _check_acme_pairing(name, ca, profile)
        case EstCA():
            yield from _check_secrets(name, None, profile)
        case CmpCA() if ca.forward != "ra_verified":
            yield from _check_secrets(name, None, profile)
        case ScepCA():
            yield from _check_secrets(name, ca.challenge, profile)
        case _:
            return


def _check_secrets(name: str, theirs: SecretSource | None, profile: ProfileParts) -> Iterator[Problem]:
    """Yield challenges of ours that would go to a server of somebody else's, and the lack of the one that it wants.

    The request of a device goes on as it came, and the server reads what stands in it as challengePassword (RFC 8894 §2.3, RFC
    7030 §3.5); an ACME CA has no use for it, and may show it in its logs. A challenge that served once is of no use to anybody; a
    static one is.
    """
    brought = False
    for path, credential in each_credential(profile.credentials):
        if not isinstance(credential, StaticCredential):
            continue
        if credential.challenge == theirs:
            brought = True
        else:
            sentence = f"is in every request, and {name} gets requests as they came: whoever runs it could enroll here"
            yield Problem((*path, "challenge"), f"{sentence}; use one_time challenges")
    if theirs is not None and not brought and None not in profile.credentials:
        sentence = f"lack a static credential with the challenge of upstream_cas.{name}, which devices bring in their requests"
        yield Problem(("credentials",), sentence)


def _check_acme_pairing(name: str, ca: AcmeCA, profile: ProfileParts) -> Iterator[Problem]:
    """Yield what ACME CAs never certify: they know host names and addresses, and of a subject the common name (RFC 8555 §7.4)."""
    if profile.policy.san is not None:
        yield from _check_names(name, ca, profile.policy.san)
    if profile.policy.subject is not None:
        yield from _check_subject(name, profile.policy.subject)
    est = profile.endpoints.est if profile.endpoints is not None else None
    if est is not None and est.server_keygen is not None:
        sentence = f"draws keys that are kept nowhere, and {name} is an ACME CA, which is never ready at once"
        yield Problem(("endpoints", "est", "server_keygen"), sentence)


def _check_names(name: str, ca: AcmeCA, rule: SanRule) -> Iterator[Problem]:
    if rule.mode is not RuleMode.ENFORCE:
        return
    if rule.dns is None and rule.ip is None:
        yield Problem(("policy", "san"), f"names neither dns nor ip, and {name}, an ACME CA, certifies nothing else")
    if rule.dns is not None and rule.dns.wildcards and ca.dns is None:
        sentence = f"needs dns in upstream_cas.{name}: a wildcard is proved by dns-01 alone"
        yield Problem(("policy", "san", "dns", "wildcards"), sentence)


def _check_subject(name: str, rule: SubjectRule) -> Iterator[Problem]:
    if rule.mode is not RuleMode.ENFORCE:
        return
    sentence = f"asks for what {name}, an ACME CA, puts in no certificate: of a subject it knows the CN"
    for number, attribute in enumerate(rule.require):
        if attribute != "CN":
            yield Problem(("policy", "subject", "require", number), sentence)
    for attribute in rule.override:
        if attribute != "CN":
            yield Problem(("policy", "subject", "override", attribute), sentence)
