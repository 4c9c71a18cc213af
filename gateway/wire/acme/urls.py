"""The plan of URLs below an ACME directory's folder; a client knows none of them but by links (RFC 8555 §7.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

DIRECTORY = "directory"
NEW_NONCE = "new-nonce"
NEW_ACCOUNT = "new-account"
NEW_ORDER = "new-order"
NEW_AUTHZ = "new-authz"
REVOKE_CERT = "revoke-cert"
KEY_CHANGE = "key-change"
RENEWAL_INFO = "renewal-info"
ACCOUNT = "acct"
ORDER = "order"
AUTHORIZATION = "authz"
CHALLENGE = "chall"
CERTIFICATE = "cert"
ORDERS = "orders"
FINALIZE = "finalize"


@dataclass(frozen=True, slots=True)
class Urls:
    """Makes URLs below `base`, the URL of the directory's folder without a slash at the end."""

    base: str

    @property
    def directory(self) -> str:
        """Of the directory (§7.1.1)."""
        return f"{self.base}/{DIRECTORY}"

    def account(self, id: str) -> str:
        """Of an account, which is its `kid` too (§6.2, §7.1.2)."""
        return f"{self.base}/{ACCOUNT}/{id}"

    def orders(self, account: str, cursor: str | None = None) -> str:
        """Of an account's orders, from the one after `cursor` on (§7.1.2.1)."""
        query = "" if cursor is None else f"?cursor={cursor}"
        return f"{self.base}/{ACCOUNT}/{account}/{ORDERS}{query}"

    def order(self, id: str) -> str:
        """Of an order (§7.1.3)."""
        return f"{self.base}/{ORDER}/{id}"

    def finalize(self, order: str) -> str:
        """Where an order is finalized (§7.4)."""
        return f"{self.base}/{ORDER}/{order}/{FINALIZE}"

    def authorization(self, id: str) -> str:
        """Of an authorization (§7.1.4)."""
        return f"{self.base}/{AUTHORIZATION}/{id}"

    def challenge(self, authorization: str, id: str) -> str:
        """Of a challenge (§7.1.5)."""
        return f"{self.base}/{CHALLENGE}/{authorization}/{id}"

    def certificate(self, order: str, chain: int = 0) -> str:
        """Of an order's certificate; `chain` from 1 on are alternate ones (§7.4.2)."""
        return f"{self.base}/{CERTIFICATE}/{order}" + (f"/{chain}" if chain else "")


def read_account_url(url: str, bases: Iterable[str]) -> str | None:
    """Return the ID of the account that `url` is of; None where it is of none of these directories."""
    for base in bases:
        prefix = f"{base}/{ACCOUNT}/"
        if url.startswith(prefix):
            id = url[len(prefix) :]
            return id if id and "/" not in id and "?" not in id else None
    return None
