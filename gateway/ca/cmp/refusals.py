"""What a CMP server's refusal means: whether it processed anything, and whose fault it is (RFC 9810 §5.2.3)."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.asn1.cmp import FailInfo
from gateway.ca.interfaces import AuthFailed, NotSent, Unavailable, UnknownResult, UpstreamError, UpstreamRejected
from gateway.ca.shown import public_text

UNAVAILABLE_RETRY = 30
"""Seconds until a server that cannot work now is asked again; CMP does not say."""
_NOT_US = frozenset({FailInfo.BAD_MESSAGE_CHECK, FailInfo.WRONG_INTEGRITY, FailInfo.SIGNER_NOT_TRUSTED})
"""It does not take the protection of our messages, and has read no further."""
_NOT_NOW = frozenset({FailInfo.BAD_TIME, FailInfo.UNSUPPORTED_VERSION, FailInfo.BAD_SENDER_NONCE})
"""It refuses the header of any message of ours: a clock or a server of another kind."""
_NO_ANSWER = frozenset({FailInfo.SYSTEM_FAILURE, FailInfo.TRANSACTION_ID_IN_USE, FailInfo.DUPLICATE_CERT_REQ})
"""It may have issued: it broke down over the request, or has had it before."""


def error_of(fail_info: Iterable[FailInfo], text: str) -> UpstreamError:
    """Return the error that a refusal means; its text is public and may end up at the device."""
    bits = frozenset(fail_info)
    named = name_of(bits)
    said = public_text(text)
    told = f"({named})" + (f": {said}" if said else "")
    if FailInfo.SYSTEM_UNAVAIL in bits:
        return Unavailable(f"the CMP server cannot work now {told}", UNAVAILABLE_RETRY)
    if bits & _NO_ANSWER:
        return UnknownResult(f"the CMP server does not say what became of the request {told}")
    if bits & _NOT_US:
        return AuthFailed(f"the CMP server does not take the protection of the gateway's messages {told}")
    if bits & _NOT_NOW:
        return NotSent(f"the CMP server takes no messages of the gateway {told}: look at the clocks of both")
    return UpstreamRejected(f"the CA refused the request {told}")


def name_of(bits: Iterable[FailInfo]) -> str:
    """Return the RFC's names of failure bits: `badCertTemplate`."""
    return ", ".join(_camel(bit) for bit in sorted(bits)) or "no reason"


def _camel(bit: FailInfo) -> str:
    if bit is FailInfo.BAD_POP:
        return "badPOP"
    first, *rest = bit.name.lower().split("_")
    return first + "".join(map(str.capitalize, rest))
