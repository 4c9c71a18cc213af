"""Credentials of EST as strangers send them: whatever comes is refused in the words of the house, or is nothing to look at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Rejection
from gateway.pki.certificate import parse_certificate
from gateway.pki.ocsp import read_ocsp_response
from gateway.ra.credentials.basic import BasicCredential
from gateway.ra.credentials.digest import parse_digest_file
from gateway.ra.credentials.interfaces import CredentialProvider, ScryptParameters
from gateway.ra.credentials.passwords import parse_password_file
from gateway.ra.credentials.tls_certificate import TlsCertificateCredential
from tests.golden_challenges import NOW as TOKEN_TIME
from tests.golden_challenges import sign_challenge
from tests.unit.pki.test_ocsp import CA_PARSED, LEAF_PARSED, named
from tests.unit.pki.test_path_building import LEAF, LOW, MID
from tests.unit.ra.credentials.test_basic import USERS
from tests.unit.ra.credentials.test_bearer import EC, TOKEN
from tests.unit.ra.credentials.test_bearer import provider as bearer
from tests.unit.ra.credentials.test_digest import header, nonce_of
from tests.unit.ra.credentials.test_digest import provider as digest
from tests.unit.ra.est import est_request
from tests.unit.ra.fleet import NOW
from tests.unit.ra.test_client_path import clients

OCSP_RESPONSE = named()
DIGEST = digest()
DIGEST_HEADER = header(nonce_of(DIGEST))


async def no_derivation(secret: bytes, parameters: ScryptParameters, source: str) -> bytes:
    return bytes(32)


HEADERS: dict[str, tuple[CredentialProvider, str]] = {
    "basic": (BasicCredential(USERS, "x", "any", no_derivation), "Basic YWxpY2U6c2VjcmV0"),
    "digest": (DIGEST, DIGEST_HEADER),
    "bearer": (bearer(), f"Bearer {sign_challenge(EC, TOKEN)}"),
}


def changed(data: bytes) -> st.SearchStrategy[bytes]:
    """The same bytes with some of them overwritten, cut out or put in."""

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        found = data
        for position, removed, added in edits:
            at = position % (len(found) + 1)
            found = found[:at] + added + found[at + removed :]
        return found

    return st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=4).map(apply)


def answer_of(work: Awaitable[Any]) -> Any:
    """What a provider says; None for a refusal."""

    async def run() -> Any:
        with suppress(Rejection):
            return await work
        return None

    return asyncio.run(run())


@pytest.mark.parametrize("scheme", HEADERS)
@given(text=st.text(max_size=300))
def test_any_header(scheme: str, text: str) -> None:
    provider, good = HEADERS[scheme]
    for sent in (text, f"{good.split(' ', 1)[0]} {text}"):
        assert answer_of(provider.authenticate(est_request(authorization=sent), NOW)) is None


@pytest.mark.parametrize("scheme", ["digest", "bearer"])
@given(data=st.data())
def test_a_changed_header(scheme: str, data: st.DataObject) -> None:
    provider, good = HEADERS[scheme]
    now = TOKEN_TIME if scheme == "bearer" else NOW
    sent = data.draw(changed(good.encode())).decode("latin-1")
    answer_of(provider.authenticate(est_request(authorization=sent), now))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(claims=st.dictionaries(st.sampled_from([*TOKEN, "nbf", "nonce", "typ"]), JSON, max_size=6))
def test_signed_tokens_of_any_claims(claims: dict[str, Any]) -> None:
    whole = TOKEN | claims
    request = est_request(authorization=f"Bearer {sign_challenge(EC, json.dumps(whole).encode())}")
    requester = answer_of(HEADERS["bearer"][0].authenticate(request, TOKEN_TIME))
    if requester is not None:
        assert whole["iss"] == TOKEN["iss"]
        assert TOKEN["aud"] in whole["aud"]
        assert requester.owner == whole["sub"]
        assert "nonce" not in whole


@given(data=st.binary(max_size=200) | changed(OCSP_RESPONSE))
def test_ocsp_responses(data: bytes) -> None:
    with suppress(Rejection):
        read_ocsp_response(data, LEAF_PARSED, CA_PARSED, NOW)


@given(leaf=changed(LEAF), sent=st.lists(st.binary(max_size=50) | changed(LOW) | changed(MID), max_size=6))
def test_client_certificates(leaf: bytes, sent: list[bytes]) -> None:
    credential = TlsCertificateCredential(clients(), "any")
    request = est_request(client_certificate=leaf, client_chain=tuple(sent))
    assert answer_of(credential.authenticate(request, NOW)) is None
    with suppress(Rejection):
        parse_certificate(leaf)


@given(data=st.binary(max_size=300) | changed(USERS))
def test_files_of_users(data: bytes) -> None:
    for parse in (parse_password_file, parse_digest_file):
        with suppress(ValueError):
            parse(data)
