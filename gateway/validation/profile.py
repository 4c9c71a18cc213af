"""How one profile has control of names proved, under one trust mode; built from its configuration."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from gateway.config.acme import AcmeValidation, Prevalidated, TrustMode
from gateway.errors import Reason
from gateway.model import ChallengeType, Identifier, IdentifierType
from gateway.validation.addresses import AddressPolicy
from gateway.validation.caa import Caa
from gateway.validation.client_address import ClientAddress
from gateway.validation.dns import Dns01, DnsPersist01
from gateway.validation.http01 import Http01
from gateway.validation.interfaces import Validated, ValidationFailed, ValidationTask
from gateway.validation.reach import Reach, ValidationRoom, as_address
from gateway.validation.resolve import Resolver
from gateway.validation.tlsalpn01 import TlsAlpn01
from gateway.validation.webhook import Webhook

__all__ = ["ProfileValidation", "ValidationRoom", "build_validation"]


class Attestations(Protocol):
    """Judges statements of devices (draft-ietf-acme-device-attest)."""

    def judge(self, task: ValidationTask, now: datetime) -> Validated:
        """Say what a device attests; raises ValidationFailed BAD_ATTESTATION."""


def build_validation(
    config: AcmeValidation,
    mode: TrustMode,
    room: ValidationRoom,
    *,
    attestation: Attestations | None = None,
    webhook_secret: bytes = b"",
) -> ProfileValidation:
    """Build what validates for a profile under `mode`; nothing is connected to before the first attempt.

    Raises ValueError for a DNS server or an address that cannot be read, and for a mode whose settings are not there.
    """
    return ProfileValidation(config, mode, room, attestation, webhook_secret)


class ProfileValidation:
    """The `Validation` of one profile and trust mode."""

    def __init__(
        self,
        config: AcmeValidation,
        mode: TrustMode,
        room: ValidationRoom,
        attestation: Attestations | None,
        webhook_secret: bytes,
    ) -> None:
        resolver = Resolver(config.resolver)
        reach = Reach(resolver, AddressPolicy(config.allow_cidrs, config.deny_cidrs), room)
        http_port, tls_port = config.http01_port or 80, config.tlsalpn01_port or 443
        self._mode = mode
        self.asks_nobody = mode == "none" and config.caa.mode != "enforce"
        self._http = Http01(reach, http_port, frozenset({tls_port}))
        self._tls = TlsAlpn01(reach, tls_port)
        self._dns = Dns01(resolver)
        self._persistent = DnsPersist01(resolver, config.caa.identities)
        self._caa = Caa(resolver, config.caa.mode, config.caa.identities)
        self._attestation = attestation
        self._prevalidated = config.prevalidated
        self._addresses = ClientAddress(resolver, room.proxies, reverse=mode == "client_ip_reverse")
        self._webhook = _webhook(config, mode, webhook_secret)

    async def validate(self, task: ValidationTask, now: datetime) -> Validated:
        """Make one attempt. Raises ValidationFailed."""
        if self._mode == "none":
            await self.check_caa(task.identifier, None, task.account_url, wildcard=task.wildcard)
            return Validated(by_challenge=False)
        if self._mode == "attestation" and task.type is not ChallengeType.DEVICE_ATTEST_01:
            raise _refuse("only an attestation proves anything here")
        _check_fit(task)
        validated = Validated()
        match task.type:
            case ChallengeType.HTTP_01:
                await self._http.check(task)
            case ChallengeType.TLS_ALPN_01:
                await self._tls.check(task)
            case ChallengeType.DNS_01 | ChallengeType.DNS_ACCOUNT_01:
                await self._dns.check(task)
            case ChallengeType.DNS_PERSIST_01:
                await self._persistent.check(task, now)
            case ChallengeType.DEVICE_ATTEST_01:
                validated = self._attest(task, now)
        await self.check_caa(task.identifier, task.type, task.account_url, wildcard=task.wildcard)
        return validated

    def _attest(self, task: ValidationTask, now: datetime) -> Validated:
        if self._attestation is None:
            raise ValidationFailed(Reason.BAD_ATTESTATION, "this profile trusts no maker of attestations", final=True)
        return self._attestation.judge(task, now)

    async def check_caa(
        self, identifier: Identifier, challenge: ChallengeType | None, account_url: str, *, wildcard: bool
    ) -> None:
        """Judge CAA records as the profile says. Raises ValidationFailed VALIDATION_CAA, VALIDATION_DNS."""
        await self._caa.check(identifier, challenge, account_url, wildcard=wildcard)

    async def vouch(self, identifier: Identifier, source: str, *, account: str = "", external_account: str | None = None) -> bool:
        """Say whether this mode stands for the name without a challenge. Raises ValidationFailed."""
        match self._mode:
            case "standard" | "attestation" | "none":
                return False
            case "prevalidated":
                return is_prevalidated(self._prevalidated, identifier)
            case "client_ip_forward" | "client_ip_reverse":
                await self._addresses.vouch(identifier, source)
                return True
            case "webhook":
                if self._webhook is None:
                    raise _refuse("there is nobody to ask")
                await self._webhook.vouch(identifier, source, account, external_account)
                return True


def is_prevalidated(names: Prevalidated, identifier: Identifier) -> bool:
    """Say whether a pattern matches the whole name, a wildcard with its `*.`, or a network holds the address."""
    if identifier.type is IdentifierType.DNS:
        return any(pattern.matches(identifier.value) for pattern in names.dns)
    if identifier.type is IdentifierType.IP:
        address = as_address(identifier.value)
        return address is not None and any(address.version == network.version and address in network for network in names.ip)
    return False


def _webhook(config: AcmeValidation, mode: TrustMode, secret: bytes) -> Webhook | None:
    if mode != "webhook":
        return None
    if config.webhook is None or not secret:
        raise ValueError("mode webhook needs the service's URL and secret")
    return Webhook(config.webhook, secret)


_FITS = {
    ChallengeType.HTTP_01: frozenset({IdentifierType.DNS, IdentifierType.IP}),
    ChallengeType.TLS_ALPN_01: frozenset({IdentifierType.DNS, IdentifierType.IP}),
    ChallengeType.DNS_01: frozenset({IdentifierType.DNS}),
    ChallengeType.DNS_ACCOUNT_01: frozenset({IdentifierType.DNS}),
    ChallengeType.DNS_PERSIST_01: frozenset({IdentifierType.DNS}),
    ChallengeType.DEVICE_ATTEST_01: frozenset({IdentifierType.PERMANENT_IDENTIFIER, IdentifierType.HARDWARE_MODULE}),
}
"""What each challenge can prove (RFC 8555 §8, RFC 8738 §7, draft-ietf-acme-device-attest §5)."""
_ONE_HOST = frozenset({ChallengeType.HTTP_01, ChallengeType.TLS_ALPN_01})
"""They prove control of one host, and of no name below it (RFC 8555 §8.3, RFC 8737 §3, RFC 9444 §4)."""


def _check_fit(task: ValidationTask) -> None:
    """Refuse a challenge that proves nothing about such a name; none should have been offered."""
    if task.identifier.type not in _FITS[task.type]:
        raise _refuse(f"{task.type} proves nothing about identifiers of type {task.identifier.type}")
    if task.type in _ONE_HOST and (task.wildcard or task.subdomains):
        raise _refuse(f"{task.type} proves nothing about the names below a domain")


def _refuse(detail: str) -> ValidationFailed:
    return ValidationFailed(Reason.VALIDATION_UNAUTHORIZED, detail, final=True)
