"""serverkeygen: a key that is drawn for a device, handed out with its certificate and kept nowhere (RFC 7030 §4.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime

from gateway.errors import Rejection
from gateway.model import EnrollmentRequest, IssuedWithKey
from gateway.pki.csr import EST_LINKING_ATTRIBUTES, parse_csr, read_est_attributes
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.profile import Snapshot
from gateway.ra.server_keys import choose_kind
from gateway.web.est_operations import Asked, EstAnswer, EstBody
from gateway.web.generation import EstService, KeygenService
from gateway.wire.est import messages
from gateway.wire.est.server_keygen import Protection, encode_answer, find_protection


@dataclass(frozen=True, slots=True)
class Wanted:
    """The key that a request asks for."""

    kind: str
    protection: Protection | None


class ServerKeygen:
    """`serverkeygen`: a PKCS#10 whose key and signature say nothing, answered with a private key and its certificate."""

    name = messages.SERVERKEYGEN
    media_type = messages.MEDIA_PKCS10

    def __init__(self, executor: Executor, _clock: Callable[[], datetime]) -> None:
        self._executor = executor

    def is_offered(self, service: EstService) -> bool:
        """Whether the profile draws keys."""
        return service.server_keygen is not None

    async def decode(self, service: EstService, body: bytes, client: bytes | None) -> Asked:
        """Read a PKCS#10 without its signature, and find out how the key is to be encrypted (RFC 7030 §4.4.1)."""
        keygen = _keygen(service)
        csr = parse_csr(messages.decode_request(body), linking=EST_LINKING_ATTRIBUTES, proof=False)
        attributes = read_est_attributes(csr.der)
        protection = find_protection(attributes, keygen.recipients, client)
        return Asked(csr, attributes, Wanted(choose_kind(keygen.keys, csr.public_key), protection))

    async def ask(
        self, authority: RegistrationAuthority, snapshot: Snapshot, request: EnrollmentRequest, asked: Asked
    ) -> EstAnswer:
        """Have a key drawn and certified."""
        return await authority.generate(snapshot, request, _wanted(asked).kind)

    async def encode(self, _service: EstService, asked: Asked | Rejection, answer: EstAnswer, *, wrap: bool) -> EstBody | None:
        """Return key and certificate in two parts (RFC 7030 §4.4.2); refusals are plain text."""
        if not isinstance(answer, IssuedWithKey) or isinstance(asked, Rejection):
            return None
        arguments = (answer.key, answer.issued.certificate, _wanted(asked).protection, wrap)
        loop = asyncio.get_running_loop()
        body, media_type = await loop.run_in_executor(self._executor, encode_answer, *arguments)
        return EstBody(media_type, body)


def _keygen(service: EstService) -> KeygenService:
    if service.server_keygen is None:
        raise ValueError(f"profile {service.profile} draws no keys")
    return service.server_keygen


def _wanted(asked: Asked) -> Wanted:
    if not isinstance(asked.details, Wanted):
        raise TypeError("the request was read by another operation")
    return asked.details
