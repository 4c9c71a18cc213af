"""fullcmc: a Full PKI Request with one PKCS#10, answered and refused in CMC's own words (RFC 7030 §4.3)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime, timedelta
from functools import partial

from gateway.errors import Rejection
from gateway.model import EnrollmentRequest, Issued, Pending, Rejected, Unavailable
from gateway.pki.cms import Signer
from gateway.pki.csr import read_est_attributes
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.profile import Snapshot
from gateway.web.est_operations import Asked, EstAnswer, EstBody
from gateway.web.generation import EstService
from gateway.wire.est import cmc, messages
from gateway.wire.est.cmc import CmcRefusal, CmcRequest

NONCE_BYTES = 16


class FullCmc:
    """`fullcmc`, for clients that speak nothing simpler; the registration authority sees an ordinary enrollment."""

    name = messages.FULLCMC
    media_type = messages.MEDIA_CMC_REQUEST

    def __init__(self, executor: Executor, clock: Callable[[], datetime]) -> None:
        self._executor = executor
        self._clock = clock

    def is_offered(self, service: EstService) -> bool:
        """Whether the profile has a certificate to sign answers with."""
        return service.cmc is not None

    async def decode(self, _service: EstService, body: bytes, client: bytes | None) -> Asked:
        """Read a Full PKI Request and verify its signature."""
        request = cmc.decode_request(messages.decode_request(body), client)
        try:
            attributes = read_est_attributes(request.csr.der)
        except Rejection as error:
            raise CmcRefusal(error.reason, error.detail, (request.body_part,), cause=error.cause, echo=request.echo) from None
        return Asked(request.csr, attributes, request)

    async def ask(
        self, authority: RegistrationAuthority, snapshot: Snapshot, request: EnrollmentRequest, _asked: Asked
    ) -> EstAnswer:
        """Enroll."""
        return await authority.enroll(snapshot, request)

    async def encode(self, service: EstService, asked: Asked | Rejection, answer: EstAnswer, *, wrap: bool) -> EstBody | None:
        """Return a Full PKI Response, refusals too (RFC 7030 §4.3.2); what was no CMC message is answered in plain text."""
        if service.cmc is None:
            return None
        if isinstance(asked, CmcRefusal):
            work: Callable[[], bytes] = partial(cmc.encode_unread, asked, service.cmc, secrets.token_bytes(NONCE_BYTES))
        elif isinstance(asked, Asked) and isinstance(asked.details, CmcRequest):
            work = self._spell(asked.details, service.cmc, answer)
        else:
            return None
        message = await asyncio.get_running_loop().run_in_executor(self._executor, work)
        return EstBody(messages.MEDIA_CMC_RESPONSE, messages.encode_base64(message, wrap))

    def _spell(self, request: CmcRequest, signer: Signer, answer: EstAnswer) -> Callable[[], bytes]:
        nonce = secrets.token_bytes(NONCE_BYTES)
        match answer:
            case Issued():
                return partial(cmc.encode_success, request, signer, (answer.certificate, *answer.chain), nonce)
            case Pending():
                at = self._clock() + timedelta(seconds=answer.retry_after)
                return partial(cmc.encode_pending, request, signer, answer, at, nonce)
            case Rejected() | Unavailable():
                return partial(cmc.encode_refusal, request, signer, answer, nonce)
            case _:
                raise TypeError(f"{type(answer).__name__} has no CMC response")
