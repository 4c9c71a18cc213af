"""Accounts: made, found, changed, given another key, ended, and the list of their orders (RFC 8555 §7.3, §7.1.2.1)."""

from __future__ import annotations

from gateway.acme import Account
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.ra.acme.authority import AcmeAuthority
from gateway.web.acme.requests import Asked
from gateway.web.acme.responses import Reply
from gateway.wire.acme.jws import parse_key_change
from gateway.wire.acme.objects import encode_account, encode_orders
from gateway.wire.acme.requests import check_empty, parse_account, parse_account_change
from gateway.wire.acme.urls import read_account_url


class Accounts:
    """Answers for accounts of every profile, for the whole life of one worker."""

    def __init__(self, authority: AcmeAuthority) -> None:
        self._authority = authority

    async def new_account(self, asked: Asked) -> Reply:
        """Make an account, 201, or find the one that the key has already, 200 (RFC 8555 §7.3, §7.3.1)."""
        request = parse_account(asked.payload, asked.signed.url, asked.key)
        account, created = await self._authority.new_account(asked.snapshot, asked.service.profile, request, asked.source)
        return _show(asked, account, status=201 if created else 200, changed=created)

    async def account(self, asked: Asked) -> Reply:
        """Show, change or end the account that signed (RFC 8555 §7.3.2, §7.3.3, §7.3.6)."""
        _check_own(asked)
        change = parse_account_change(asked.payload)
        if change.empty:
            return _show(asked, asked.owner)
        account = await self._authority.change_account(asked.snapshot, asked.service.profile, asked.owner, change, asked.source)
        return _show(asked, account, changed=True)

    async def orders(self, asked: Asked) -> Reply:
        """List the account's orders, a page at a time (RFC 8555 §7.1.2.1)."""
        _check_own(asked)
        check_empty(asked.signed)
        page = await self._authority.list_orders(asked.snapshot, asked.service.profile, asked.owner, asked.at.cursor)
        more = () if page.after is None else ((asked.urls.orders(asked.owner.id, page.after), "next"),)
        return Reply(body=encode_orders(page.orders, asked.urls), links=more)

    async def change_key(self, asked: Asked) -> Reply:
        """Give an account another key, which has signed within (RFC 8555 §7.3.5)."""
        change = parse_key_change(asked.payload, asked.signed.url, asked.service.algorithms)
        if read_account_url(change.account_url, asked.at.bases) != asked.owner.id:
            raise MalformedMessage("the inner JWS names another account than the one that signed")
        account = await self._authority.change_key(asked.snapshot, asked.service.profile, asked.owner, change, asked.source)
        return _show(asked, account, changed=True)


def _check_own(asked: Asked) -> None:
    """Refuse another account's; whether there is one is not said (RFC 8555 §10.5)."""
    if asked.at.ids[0] != asked.owner.id:
        raise Rejection(Reason.NOT_AUTHORIZED, "this is not the account that signed")


def _show(asked: Asked, account: Account, *, status: int = 200, changed: bool = False) -> Reply:
    terms = asked.service.terms_of_service
    return Reply(
        status,
        encode_account(account, asked.urls),
        location=asked.account_url(account),
        links=() if terms is None else ((terms, "terms-of-service"),),
        changed=changed,
        facts={"account": account.id, "external_account": account.external_account},
    )
