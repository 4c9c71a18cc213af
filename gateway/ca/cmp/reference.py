"""What is remembered of a transaction that waits at a CMP server, as text for the ledger."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from gateway.ca.interfaces import UnknownResult

MAX_TEXT = 65_536
_MAX_CERT_REQ_ID = 2**62


@dataclass(frozen=True, slots=True)
class Waiting:
    """The request that a pollReq or certConf speaks of, and the server's last nonce, which it repeats (RFC 9810 §5.1.1).

    `first` is our own nonce of the request itself, which the answer to a poll may repeat (§5.3.22). `certificate`, DER, is what
    came and is still to be confirmed; None: nothing came yet.
    """

    cert_req_id: int
    nonce: bytes | None
    first: bytes | None = None
    certificate: bytes | None = field(default=None, repr=False)

    def to_text(self) -> str:
        """Return it as one line of ASCII; `from_text` reverses it."""
        fields: dict[str, Any] = {"id": self.cert_req_id}
        for name, nonce in (("nonce", self.nonce), ("first", self.first)):
            if nonce is not None:
                fields[name] = nonce.hex()
        if self.certificate is not None:
            fields["certificate"] = base64.b64encode(self.certificate).decode("ascii")
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Waiting:
        """Read what `to_text` wrote; raises UnknownResult for anything else."""
        try:
            return _parse(json.loads(text[: MAX_TEXT + 1]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UnknownResult("what was remembered of the transaction cannot be read") from error


def _parse(fields: Any) -> Waiting:
    number, certificate = fields["id"], fields.get("certificate")
    nonce, first = [None if fields.get(name) is None else bytes.fromhex(fields[name]) for name in ("nonce", "first")]
    if type(number) is not int or abs(number) > _MAX_CERT_REQ_ID:
        raise ValueError("certReqId is none")
    return Waiting(number, nonce, first, None if certificate is None else base64.b64decode(certificate, validate=True))
