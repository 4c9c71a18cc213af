"""Private keys from wherever the configuration says that they are: PEM that was read with it, or a token."""

from __future__ import annotations

from gateway.ca.pin_guard import PinGuard
from gateway.ca.token import KeyName, TokenFault, find_token
from gateway.ca.token_keys import TokenPrivateKey, open_key
from gateway.config.fields import KeySource, TokenKey
from gateway.config.load import Sources, parse
from gateway.errors import ConfigurationError, KeyUnavailable
from gateway.pki.keys import PrivateKey, load_private_key

__all__ = ["is_in_token", "read_key"]


def read_key(source: KeySource, sources: Sources, password: bytes | None = None) -> PrivateKey:
    """Return a private key; one in a token is looked up and tried. Raises ValueError with a sentence; may take seconds."""
    if source.pkcs11 is None:
        return load_private_key(sources.secret(source), password)
    if password is not None:
        raise ValueError("a key in a token has a PIN and no password")
    try:
        return _open(source.pkcs11, sources)
    except KeyUnavailable as error:
        raise TokenFault(str(error)) from error


def is_in_token(key: PrivateKey) -> bool:
    """Whether using a key means to wait for a token, which nothing may do on the event loop."""
    return isinstance(key, TokenPrivateKey)


def _open(named: TokenKey, sources: Sources) -> PrivateKey:
    token = find_token(str(sources.resolve(named.module)), named.token)
    token.log_in(sources.secret(named.pin), _guard(sources))
    return open_key(token, KeyName(named.label, None if named.id is None else bytes.fromhex(named.id)))


def _guard(sources: Sources) -> PinGuard:
    """Return the record of refused PINs, which lies beside the store and is keyed by the store's key."""
    try:
        store = parse(sources).store
    except ConfigurationError as error:
        raise TokenFault("the configuration has faults; no PIN is tried before they are mended") from error
    return PinGuard(sources.resolve(store.path).parent, sources.secret(store.key))
