"""Credentials of one profile that cannot serve, or that let in more than the file says (RFC 8894 §2.4, §7.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from gateway.config.credentials import IntuneJwsCredential, OneTimeCredential, StaticCredential
from gateway.config.document import DataPath, Problem
from gateway.config.parts import PolicyRules, ProfileParts
from gateway.config.policy_checks import check_static_names
from gateway.config.sources import Sources

MIN_CHALLENGE = 8
"""Shortest static challenge, in characters; guesses are limited, but not to a handful."""
MIN_PWRI_CHALLENGE = 16
"""Shortest one that messages are encrypted under: whoever records a message can guess at it, as often as he likes."""
MAX_CHALLENGE = 255
"""RFC 2985 §5.4.1 (pkcs-9-ub-challengePassword)."""
MAX_AGE = timedelta(days=7)
"""Most that `max_age` may be: a used challenge is remembered as long as it could be presented again."""
MAX_SKEW = timedelta(hours=1)
_ZERO = timedelta(0)
_PROVE_TIME = ("iat", "exp")


def positive(path: DataPath, duration: timedelta | None) -> Iterator[Problem]:
    """Yield a problem where a duration is there and not longer than zero."""
    if duration is not None and duration <= _ZERO:
        yield Problem(path, "must be longer than zero")


def check_credentials(profile: ProfileParts, sources: Sources) -> Iterator[Problem]:
    """Yield what is wrong with the credentials of one profile; paths begin at the profile."""
    for number, credential in enumerate(profile.credentials):
        if credential is not None:
            found = _check_credential(credential, profile.policy, sources)
            yield from (Problem(("credentials", number, *problem.path), problem.sentence) for problem in found)
    types = written_types(profile.written)
    if types.count("one_time") > 1:
        yield Problem(("credentials",), "names one_time twice; once is enough")
    if types.count("intune_jws") > 1:
        # The first one refuses what it cannot verify, so that the second would never be asked.
        yield Problem(("credentials",), "names intune_jws twice; put all certificates into one file of anchors")
    for number, credential in enumerate(profile.credentials):
        if isinstance(credential, IntuneJwsCredential) and len(types) > types.count("intune_jws"):
            yield from _check_others(("credentials", number), credential, types)
    if profile.endpoints is not None and profile.endpoints.scep is not None and profile.endpoints.scep.pwri:
        yield from _check_pwri(profile, types, sources)


def written_types(written: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the type of every credential of a profile that is plain data, be it right otherwise or not."""
    credentials = written.get("credentials")
    items = credentials if isinstance(credentials, list) else []
    return tuple(str(item.get("type")) for item in items if isinstance(item, dict))


def _check_credential(
    credential: StaticCredential | OneTimeCredential | IntuneJwsCredential, rules: PolicyRules, sources: Sources
) -> Iterator[Problem]:
    match credential:
        case OneTimeCredential():
            yield from positive(("ttl",), credential.ttl)
            if credential.ttl > credential.max_ttl:
                yield Problem(("ttl",), "must not be longer than max_ttl")
        case StaticCredential():
            yield from _check_challenge(sources.secrets.get(str(credential.challenge)))
            if not credential.any_name:
                yield from check_static_names(rules)
        case IntuneJwsCredential():
            yield from _check_signed(credential)


def _check_challenge(secret: bytes | None) -> Iterator[Problem]:
    """Judge a challenge by what SCEP clients can carry: one line of printable characters. None was not readable."""
    if secret is None:
        return
    checks: tuple[tuple[Callable[[bytes], bool], str], ...] = (
        (lambda s: len(s) < MIN_CHALLENGE, f"is shorter than {MIN_CHALLENGE} characters"),
        (lambda s: len(s) > MAX_CHALLENGE, f"is longer than {MAX_CHALLENGE} characters"),
        (lambda s: any(not 0x20 <= byte < 0x7F for byte in s), "must be one line of printable ASCII"),
    )
    for fails, sentence in checks:
        if fails(secret):
            yield Problem(("challenge",), sentence)


def _check_signed(credential: IntuneJwsCredential) -> Iterator[Problem]:
    """Judge times and claims of signed challenges."""
    yield from positive(("max_age",), credential.max_age)
    if credential.max_age > MAX_AGE:
        yield Problem(("max_age",), f"must not be longer than {MAX_AGE.days}d")
    if credential.skew > MAX_SKEW:
        yield Problem(("skew",), "must not be longer than 1h: so wrong a clock must be set")
    if credential.skew >= credential.max_age > _ZERO:
        yield Problem(("skew",), "must be shorter than max_age")
    if not set(_PROVE_TIME) & set(credential.required_claims):
        # Without either a challenge would be good for ever, and no memory of used ones is that long.
        yield Problem(("required_claims",), 'must hold "exp" or "iat": without both a challenge has no end')
    if credential.per_device is not None:
        yield from positive(("per_device", "window"), credential.per_device.window)


def _check_others(path: DataPath, credential: IntuneJwsCredential, types: Iterable[str]) -> Iterator[Problem]:
    """A profile of signed challenges takes no other kind by accident: the weakest one would be as good as the best."""
    if not credential.with_other_challenges:
        others = ", ".join(dict.fromkeys(kind for kind in types if kind != "intune_jws"))
        yield Problem(path, f"the profile takes {others} too; say with_other_challenges: true if that is meant")


def _check_pwri(profile: ProfileParts, types: tuple[str, ...], sources: Sources) -> Iterator[Problem]:
    """Messages under a password need to know which (RFC 8894 §3.1): the profile's one static challenge."""
    path: DataPath = ("endpoints", "scep", "pwri")
    if types.count("static") != 1:
        yield Problem(path, f"needs exactly one static credential, whose challenge encrypts; here are {types.count('static')}")
        return
    for number, credential in enumerate(profile.credentials):
        if isinstance(credential, StaticCredential):
            secret = sources.secrets.get(str(credential.challenge))
            if secret is not None and MIN_CHALLENGE <= len(secret) < MIN_PWRI_CHALLENGE:
                sentence = f"is shorter than {MIN_PWRI_CHALLENGE} characters, and pwri encrypts under it: it could be guessed"
                yield Problem(("credentials", number, "challenge"), sentence)
