"""EST endpoints that contradict themselves, each other, their profile's policy, or the listeners that they need (RFC 7030)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network

from gateway.config.document import DataPath, Problem
from gateway.config.est import EstEndpoint, ServerKeygen
from gateway.config.parts import Parts, ProfileParts
from gateway.config.policy import KeyRule, RuleMode
from gateway.config.schema import Server
from gateway.config.sources import Sources
from gateway.wire.est.messages import OPERATIONS

_KEY_BYTES = frozenset({16, 24, 32})
"""AES-128, -192 and -256 (RFC 3394 §2)."""
_CURVES = {"ec-p256": "P-256", "ec-p384": "P-384", "ec-p521": "P-521"}


def check_est(profile: ProfileParts, sources: Sources) -> Iterator[Problem]:
    """Yield what is wrong with the EST endpoint of one profile; paths begin at it."""
    endpoint = profile.endpoints.est if profile.endpoints is not None else None
    if endpoint is None:
        return
    if endpoint.renewal_info and "renewal" not in profile.written:
        yield Problem(("renewal_info",), "tells clients when to renew, and this profile has no renewal")
    if endpoint.server_keygen is None:
        return
    yield from _check_wrapping_keys(endpoint.server_keygen, sources)
    yield from _check_signer(endpoint.server_keygen)
    if profile.policy.key is not None:
        yield from _check_drawn_keys(endpoint.server_keygen, profile.policy.key)
    if profile.written.get("approval") == "manual":
        sentence = "hands out a key at once or not at all, and approval: manual makes every request wait"
        yield Problem(("server_keygen",), sentence)


def _check_wrapping_keys(keygen: ServerKeygen, sources: Sources) -> Iterator[Problem]:
    """Yield keys that are no AES keys; nothing of them is shown."""
    for identifier, source in keygen.symmetric_keys.items():
        path: DataPath = ("server_keygen", "symmetric_keys", identifier)
        if key_identifier(identifier) is None:
            yield Problem(path, "must have 2 hexadecimal digits for each byte after hex:")
        secret = sources.secrets.get(str(source))
        if secret is not None and wrapping_key(secret) is None:
            yield Problem(path, "must be 16, 24 or 32 bytes in hex")


def _check_signer(keygen: ServerKeygen) -> Iterator[Problem]:
    """Yield what needs encrypted keys where none can be made: SignedData is inside of the EnvelopedData (RFC 7030 §4.4.2)."""
    if keygen.signer is not None:
        return
    wanted = {
        "symmetric_keys": bool(keygen.symmetric_keys),
        "recipients": keygen.recipients is not None,
        "require_encryption": keygen.require_encryption,
    }
    for field in (name for name, is_there in wanted.items() if is_there):
        yield Problem(("server_keygen", field), "needs signer: private keys are signed before they are encrypted")


def key_identifier(text: str) -> bytes | None:
    """Return the identifier that a request names: the text in UTF-8, or after `hex:` its bytes; None where these are none."""
    if not text.startswith("hex:"):
        return text.encode("utf-8")
    try:
        return bytes.fromhex(text.removeprefix("hex:")) or None
    except ValueError:
        return None


def wrapping_key(secret: bytes) -> bytes | None:
    """Return a key-encryption key that is written in hex; None where it is none."""
    try:
        key = bytes.fromhex(secret.decode("ascii"))
    except ValueError:
        return None
    return key if len(key) in _KEY_BYTES else None


def _check_drawn_keys(keygen: ServerKeygen, rule: KeyRule) -> Iterator[Problem]:
    """Yield kinds of key that the profile's own policy refuses."""
    if rule.mode is not RuleMode.ENFORCE:
        return
    for number, kind in enumerate(keygen.keys):
        if not may_be_certified(kind, rule):
            yield Problem(("server_keygen", "keys", number), f"{kind} is refused by policy.key: no certificate would come of it")


def may_be_certified(kind: str, rule: KeyRule) -> bool:
    """Say whether a rule takes keys of a kind that the server draws."""
    curve = _CURVES.get(kind)
    if curve is not None:
        return curve in rule.ec
    return rule.rsa is not None and rule.rsa.min_bits <= int(kind.removeprefix("rsa-")) <= rule.rsa.max_bits


def check_labels(parts: Parts) -> Iterator[Problem]:
    """Yield labels that two profiles have, or that are the name of an operation, and a second profile without one."""
    labels: dict[str, str] = {}
    default: str | None = None
    for name, endpoint in _endpoints(parts):
        where: DataPath = ("profiles", name, "endpoints", "est")
        label, at = (name, where) if endpoint.label is None else (endpoint.label, (*where, "label"))
        if label in OPERATIONS:
            sentence = f"{label} is the name of an operation, and cannot be the label of a service"
            yield Problem(at, sentence if endpoint.label else f"{sentence}; give it another label than the profile's name")
        elif label in labels:
            yield Problem(at, f"the label {label} is that of profile {labels[label]} too")
        labels.setdefault(label, name)
        if endpoint.default and default is not None:
            yield Problem((*where, "default"), f"profile {default} is served without a label already; only one can be")
        if endpoint.default:
            default = default or name


def check_linking(parts: Parts) -> Iterator[Problem]:
    """Yield profiles that must see the TLS connection itself where nobody can have such a one (RFC 7030 §3.5, RFC 9266 §1)."""
    server = parts.server
    if server is None:
        return
    for name, endpoint in _endpoints(parts):
        path = ("profiles", name, "endpoints", "est", "pop_linking")
        if endpoint.pop_linking != "require":
            continue
        if not _speaks_tls_1_2(server):
            yield Problem(path, 'needs TLS 1.2, the last that has tls-unique: set server.https.min_version: "1.2"')
        if server.proxies:
            yield Problem(
                path, "needs the client's own TLS connection, and the proxies in server.proxies end it before it comes here"
            )


def _speaks_tls_1_2(server: Server) -> bool:
    return any(listener is not None and listener.min_version == "1.2" for listener in (server.https, server.https_mtls))


def check_proxies(server: Server) -> Iterator[Problem]:
    """Yield proxies that are everybody, or that cannot be told apart; paths begin at the server."""
    seen: list[tuple[int, IPv4Network | IPv6Network]] = []
    for number, proxy in enumerate(server.proxies):
        for place, network in enumerate(proxy.addresses):
            path = ("proxies", number, "addresses", place)
            if network.prefixlen == 0:
                yield Problem(path, "is everybody: whoever connects could name himself any client")
            for other, listed in seen:
                if other != number and network.version == listed.version and network.overlaps(listed):
                    yield Problem(path, f"{network} overlaps {listed} of server.proxies[{other}]: which one it is cannot be told")
            seen.append((number, network))


def _endpoints(parts: Parts) -> Iterable[tuple[str, EstEndpoint]]:
    for name, profile in parts.profiles.items():
        if profile.endpoints is not None and profile.endpoints.est is not None:
            yield name, profile.endpoints.est
