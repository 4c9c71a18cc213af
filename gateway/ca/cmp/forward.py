"""How a request of a device goes on to a CMP server: as PKCS#10, as a template of ours, or as it came (RFC 9483 §5.2)."""

from __future__ import annotations

import hashlib
from typing import Literal

from gateway.ca.interfaces import IssueRequest, UpstreamRejected
from gateway.cmp import BodyType, Possession
from gateway.errors import Rejection
from gateway.model import RequestForm
from gateway.pki import crmf_writer
from gateway.pki.crmf import parse_cert_req_msg
from gateway.wire.cmp import requests

Forward = Literal["p10cr", "ra_verified", "nested"]
TRANSACTION_BYTES = 16
"""Of a transactionID (RFC 9810 §5.1.1)."""


def transaction_of(request: IssueRequest) -> bytes:
    """Return the transactionID of a request: always the same for it, and never another's."""
    return hashlib.sha256(request.request_id.encode() + b"\0" + request.public_key).digest()[:TRANSACTION_BYTES]


def encode_request(request: IssueRequest, forward: Forward) -> bytes:
    """Return the PKIBody, DER, that asks for the certificate; raises UpstreamRejected for a request that cannot be read.

    It is the same each time. Requests of devices become `ir`, for renewals, too: `kur` is for whoever has the old key.
    """
    if forward == "ra_verified":
        template = crmf_writer.template_of_grant(request.grant, request.public_key)
        asked = crmf_writer.encode_cert_request(0, template)
        return requests.enrollment(BodyType.IR, (crmf_writer.encode_cert_req_msg(asked, crmf_writer.RA_VERIFIED),))
    if request.form is RequestForm.PKCS10:
        return requests.p10cr(request.request)
    if forward == "p10cr":
        raise UpstreamRejected("the CA takes PKCS#10 requests only")
    return requests.enrollment(BodyType.IR, (_with_own_proof(request.request),))


def _with_own_proof(data: bytes) -> bytes:
    """Return a CertReqMsg as it came where its signature says all, else with raVerified in place of its proof (RFC 4211 §4).

    A proof over the sender's name or under its secret means nothing in a message of ours; it was verified before.
    """
    try:
        message = parse_cert_req_msg(data)
        stands = message.authenticated_sender is None and message.public_key_mac is None
        if message.possession is Possession.SIGNATURE and not message.possession_problem and stands:
            return data
        request, _ = crmf_writer.split_cert_req_msg(data)
    except Rejection as error:
        raise UpstreamRejected("the request cannot be read") from error
    return crmf_writer.encode_cert_req_msg(request, crmf_writer.RA_VERIFIED)
