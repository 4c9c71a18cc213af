"""Full PKI Requests as strangers send them: whatever comes is read, or refused in the words of the house (RFC 5272)."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Rejection
from gateway.pki import der
from gateway.wire.est import cmc
from gateway.wire.est.cmc import CmcRefusal
from tests.fuzz.test_est_credentials import changed
from tests.unit.wire.est.cmc_messages import KEY, pki_data, read_response, sign_by_certificate, sign_by_key_id, tcr
from tests.unit.wire.est.test_cmc import CONTROLS, OTHER, OURS, OWN, RA, UNKNOWN, spki

MESSAGES = (sign_by_key_id(pki_data(controls=CONTROLS)), sign_by_certificate(pki_data(), OWN, KEY))
CONTENTS = (
    pki_data(controls=CONTROLS),
    pki_data((tcr(), der.context(1, der.sequence(der.integer(9), der.sequence())))),
    pki_data((der.context(2, der.integer(9), der.oid(UNKNOWN), der.null()),)),
)


def read(message: bytes, client: bytes | None) -> None:
    """Read a message; what CMC has a word for can be answered."""
    with suppress(Rejection):
        try:
            cmc.decode_request(message, client)
        except CmcRefusal as refusal:
            read_response(cmc.encode_unread(refusal, RA, OURS), spki())
            raise


@given(st.sampled_from(MESSAGES).flatmap(changed), st.sampled_from((None, OTHER, OWN, b"\x30\x00")))
def test_messages(message: bytes, client: bytes | None) -> None:
    read(message, client)


@given(st.sampled_from(CONTENTS).flatmap(changed))
def test_contents_that_are_signed(content: bytes) -> None:
    read(sign_by_key_id(content), None)


@given(st.binary(max_size=200))
def test_anything(message: bytes) -> None:
    read(message, None)
