"""Trust modes by address: a name is good for the host that has it, as DNS says."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from gateway.errors import Reason
from gateway.model import Identifier, IdentifierType
from gateway.validation.addresses import Address, canonical
from gateway.validation.interfaces import ValidationFailed
from gateway.validation.reach import as_address
from gateway.validation.resolve import DnsFailed, Resolver


class ClientAddress:
    """Stands for a name whose address the client's is; in reverse, the client's address must have that name, too."""

    def __init__(self, resolver: Resolver, proxies: tuple[IPv4Network | IPv6Network, ...] = (), *, reverse: bool) -> None:
        self._resolver = resolver
        self._proxies = proxies
        self._reverse = reverse

    async def vouch(self, identifier: Identifier, source: str) -> None:
        """Return where the address fits; raises ValidationFailed.

        Whoever has a network writes its PTR records and may name anybody's host: a name counts only where it leads back.
        """
        client = as_address(source.partition("%")[0])
        client = None if client is None else canonical(client)
        if client is None or any(client in network for network in self._proxies):
            raise _refuse(identifier, "it is not known where the request came from")
        if identifier.type is IdentifierType.IP:
            if as_address(identifier.value) != client:
                raise _refuse(identifier, "it is not the address that the request came from")
            return
        if identifier.type is not IdentifierType.DNS or identifier.wildcard:
            raise _refuse(identifier, "an address says nothing about names of this kind")
        if self._reverse:
            await self._check_pointer(identifier, client)
        if client not in map(canonical, await self._resolver.addresses(identifier.value)):
            raise _refuse(identifier, "its address is not the one that the request came from")

    async def _check_pointer(self, identifier: Identifier, client: Address) -> None:
        try:
            names = await self._resolver.pointers(client)
        except DnsFailed as error:
            raise ValidationFailed(Reason.VALIDATION_DNS, str(error)) from None
        if identifier.value not in names:
            raise _refuse(identifier, "the address that the request came from does not have this name")


def _refuse(identifier: Identifier, why: str) -> ValidationFailed:
    return ValidationFailed(Reason.VALIDATION_UNAUTHORIZED, f"{identifier.value}: {why}", final=True)
