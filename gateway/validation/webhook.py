"""Trust mode by webhook: a service of the operator's says who may have a name; whatever is not a clear yes is a no."""

from __future__ import annotations

import hashlib
import hmac
import json

import aiohttp

from gateway.config.acme import ValidationWebhook
from gateway.errors import Reason
from gateway.model import Identifier
from gateway.validation.interfaces import ValidationFailed

SIGNATURE = "X-Gateway-Signature"
MAX_ANSWER = 16384


class Webhook:
    """Asks one service."""

    def __init__(self, settings: ValidationWebhook, secret: bytes) -> None:
        self._url = settings.url
        self._seconds = settings.timeout.total_seconds()
        self._secret = secret

    async def vouch(self, identifier: Identifier, source: str, account: str, external_account: str | None) -> None:
        """Return where the service allows it; raises ValidationFailed."""
        question = {
            "identifier": {"type": identifier.type.value, "value": identifier.value},
            "account": account,
            "external_account": external_account,
            "address": source,
        }
        body = json.dumps(question, separators=(",", ":"), sort_keys=True).encode("utf-8")
        try:
            allowed = await self._ask(body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            text = f"{identifier.value}: whether you may have it cannot be found out now"
            cause = f"{self._url}: {type(error).__name__}: {error}"
            raise ValidationFailed(Reason.VALIDATION_UNAUTHORIZED, text, cause) from None
        if not allowed:
            raise ValidationFailed(Reason.VALIDATION_UNAUTHORIZED, f"{identifier.value}: you may not have it", final=True)

    async def _ask(self, body: bytes) -> bool:
        """Return its word; ValueError for what is no answer."""
        headers = {"Content-Type": "application/json", SIGNATURE: hmac.new(self._secret, body, hashlib.sha256).hexdigest()}
        limit = aiohttp.ClientTimeout(total=self._seconds)
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=limit) as session,
            session.post(self._url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            data = bytearray()
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > MAX_ANSWER:
                    raise ValueError("the answer is too large")
        return _read_answer(bytes(data))


def _read_answer(data: bytes) -> bool:
    try:
        answer = json.loads(data)
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None
    allow = answer.get("allow") if isinstance(answer, dict) else None
    if not isinstance(allow, bool):
        raise ValueError('the answer has no "allow" that is true or false')  # noqa: TRY004  caught as one
    return allow
