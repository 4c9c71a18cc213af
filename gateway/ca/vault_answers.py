"""What answers of Vault and OpenBao mean: which say that nothing was done, and what stands in the others."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from gateway.ca.http import Response, refuse_unavailable
from gateway.ca.interfaces import AuthFailed, NotSent, Unavailable, UpstreamError
from gateway.pki.certificate import pem_to_ders

MAX_ERRORS = 8
MAX_ERROR_TEXT = 300
MAX_CHAIN = 8

_DEFINITE = frozenset({200, 204, 400, 404})
"""What Vault answers a request with that it has judged; all else says that it was not processed, or nothing."""
_ELSEWHERE = frozenset({301, 302, 307, 308})
_NOT_NOW = frozenset({412, 472, 473})
"""Behind in replication; a standby of one kind or another."""


class Denied(AuthFailed):
    """Vault refuses the token for a path."""


def judge(answer: Response) -> Response:
    """Return an answer that Vault gave with thought; raises what another one means."""
    if is_denied(answer):
        raise Denied(f"the CA refuses the token, or it has no right to this path: {first_error(answer) or 'no reason given'}")
    if answer.status in _ELSEWHERE:
        raise Unavailable("a standby node answered and points elsewhere: the URL has to lead to the active one")
    if answer.status in _NOT_NOW:
        raise Unavailable(f"the CA answered {answer.status}: this node is a standby or behind")
    refuse_unavailable(answer)
    if answer.status not in _DEFINITE:
        raise answer.failed(f"the CA answered {answer.status}: {_told(answer)}")
    if answer.status >= 400:
        errors(answer)
    return answer


def is_denied(answer: Response) -> bool:
    """Say whether Vault itself refused the token or the path; raises `failed` for a 403 that is not Vault's."""
    return answer.status == 403 and errors(answer) is not None


def errors(answer: Response) -> tuple[str, ...]:
    """Return what Vault says went wrong, in its own words, printable and short; raises `failed` where that is not Vault."""
    listed = answer.json().get("errors")
    if not isinstance(listed, list):
        raise answer.failed(f"the CA answered {answer.status} with what is not Vault's")
    return tuple(_printable(text) for text in listed[:MAX_ERRORS] if isinstance(text, str))


def first_error(answer: Response) -> str:
    """Return the first error, empty where there is none; raises like `errors`."""
    return next(iter(errors(answer)), "")


def read_answer(answer: Response) -> Mapping[str, Any]:
    """Return the object of an answer of status 200; raises what any other means."""
    if judge(answer).status != 200:
        raise answer.failed(f"the CA answered {answer.status}: {_told(answer)}")
    return answer.json()


def _told(answer: Response) -> str:
    try:
        return first_error(answer) or "no reason given"
    except UpstreamError:
        return "no words of Vault's"


def member(answer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object inside an answer; raises NotSent where it is missing."""
    found = answer.get(name)
    if not isinstance(found, dict):
        raise NotSent(f'the CA answered without "{name}"')
    return found


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:MAX_ERROR_TEXT]).strip()


def _read(text: str) -> tuple[bytes, ...]:
    return pem_to_ders(text.encode("ascii", "replace"))


_read_issuers = lru_cache(maxsize=32)(_read)
"""The certificates of CAs come with every answer, and are the same ones."""


def read_certificates(data: Mapping[str, Any], name: str) -> tuple[bytes, ...]:
    """Return the certificates, DER, in a field that is PEM, a list of PEM, or not there. Raises ValueError."""
    value = data.get(name)
    texts = value if isinstance(value, list) else [value] if value else []
    if len(texts) > MAX_CHAIN or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} is no list of certificates")
    read = _read if name == "certificate" else _read_issuers
    ders = tuple([der for text in texts for der in read(text)])
    if len(ders) > MAX_CHAIN:
        raise ValueError(f"{name} has more than {MAX_CHAIN} certificates")
    return ders
