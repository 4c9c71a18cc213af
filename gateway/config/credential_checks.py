"""Credentials of one profile that cannot serve, or that let in more than the file says (RFC 8894 §2.4, §7.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from gateway.config.credentials import (
    AllOfCredential,
    IntuneJwsCredential,
    OneTimeCredential,
    SingleCredential,
    StaticCredential,
)
from gateway.config.document import DataPath, Problem
from gateway.config.duration_checks import check_token_times, positive
from gateway.config.est_credential_checks import check_all_of, check_carriers, check_est_credential, check_once
from gateway.config.listener_checks import each_credential
from gateway.config.parts import PolicyRules, ProfileParts
from gateway.config.policy_checks import check_static_names
from gateway.config.sources import Sources

MIN_CHALLENGE = 8
"""Shortest static challenge, in characters; guesses are limited, but not to a handful."""
MIN_PWRI_CHALLENGE = 16
"""Shortest one that messages are encrypted under: whoever records a message can guess at it, as often as he likes."""
MAX_CHALLENGE = 255
"""RFC 2985 §5.4.1 (pkcs-9-ub-challengePassword)."""
_PROVE_TIME = ("iat", "exp")


def check_credentials(profile: ProfileParts, sources: Sources) -> Iterator[Problem]:
    """Yield what is wrong with the credentials of one profile; paths begin at the profile."""
    for path, member in each_credential(profile.credentials):
        found = _check_credential(member, profile.policy, sources)
        yield from (Problem((*path, *problem.path), problem.sentence) for problem in found)
    for number, credential in enumerate(profile.credentials):
        if isinstance(credential, AllOfCredential):
            found = check_all_of(credential)
            yield from (Problem(("credentials", number, *problem.path), problem.sentence) for problem in found)
    yield from check_carriers(profile)
    types = written_types(profile.written)
    yield from check_once(types)
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


def _check_credential(credential: SingleCredential, rules: PolicyRules, sources: Sources) -> Iterator[Problem]:
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
        case _:
            yield from check_est_credential(credential, rules)


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
    yield from check_token_times(credential.max_age, credential.skew)
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
