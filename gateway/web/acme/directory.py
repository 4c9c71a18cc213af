"""What everybody gets without an account: the directory and fresh nonces (RFC 8555 §7.1.1, §7.2)."""

from __future__ import annotations

from gateway.web.acme.requests import Addressed
from gateway.web.acme.responses import Reply


def show_directory(at: Addressed) -> Reply:
    """Return the directory as it reads at the URL that it was asked at."""
    return Reply(body=at.service.directories[at.urls.base], is_directory=True)


def new_nonce(method: str) -> Reply:
    """Return nothing but the header that carries the nonce: 200 to HEAD, 204 to all others (RFC 8555 §7.2)."""
    return Reply(200 if method == "HEAD" else 204)
