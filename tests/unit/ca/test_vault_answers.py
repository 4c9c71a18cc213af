"""What an answer of Vault's means: nothing is believed to be Vault's that is not."""

from __future__ import annotations

import json

import pytest

from gateway.ca.http import Response
from gateway.ca.interfaces import NotSent, Unavailable, UnknownResult, UpstreamError
from gateway.ca.vault_answers import Denied, errors, first_error, judge, member, read_answer, read_certificates
from gateway.pki.certificate import der_to_pem


def answer(status: int, body: object = None, failed: type[NotSent] | type[UnknownResult] = UnknownResult) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, {"content-type": "application/json"}, data, failed)


@pytest.mark.parametrize("failed", [NotSent, UnknownResult])
@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        pytest.param(403, {"errors": ["permission denied"]}, Denied, id="denied"),
        pytest.param(403, b"<html>", None, id="a proxy's 403"),
        pytest.param(403, {"message": "no"}, None, id="a 403 of something else"),
        pytest.param(400, b"<html>", None, id="a proxy's 400"),
        pytest.param(404, {"errors": "x"}, None, id="errors that are no list"),
        pytest.param(429, b"", Unavailable, id="too many"),
        pytest.param(503, {"errors": ["sealed"]}, Unavailable, id="sealed"),
        pytest.param(472, b"", Unavailable, id="standby for disasters"),
        pytest.param(412, {"errors": []}, Unavailable, id="behind"),
        pytest.param(307, b"", Unavailable, id="elsewhere"),
        pytest.param(500, {"errors": ["internal error"]}, None, id="internal error"),
        pytest.param(502, b"<html>", None, id="bad gateway"),
        pytest.param(201, {}, None, id="a status that Vault does not use"),
    ],
)
def test_what_raises(
    status: int, body: object, error: type[UpstreamError] | None, failed: type[NotSent] | type[UnknownResult]
) -> None:
    with pytest.raises(error or failed) as caught:
        judge(answer(status, body, failed))
    assert type(caught.value) is (error or failed)


def test_definite_answers() -> None:
    refusal = judge(answer(400, {"errors": ["no\r\n\x1b[31m" + "x" * 1000, 7, "two"]}))
    assert first_error(refusal) == "no   [31m" + "x" * (300 - 9)
    assert len(errors(refusal)) == 2
    assert first_error(judge(answer(404, {"errors": []}))) == ""
    assert judge(answer(204, b"")).status == 204
    assert read_answer(answer(200, {"data": 1})) == {"data": 1}
    with pytest.raises(UnknownResult):
        read_answer(answer(400, {"errors": ["x"]}))
    with pytest.raises(NotSent):
        member({"auth": None}, "auth")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("no PEM", id="no PEM"),
        pytest.param(7, id="number"),
        pytest.param({"a": 1}, id="object"),
        pytest.param([7], id="list of numbers"),
        pytest.param(["x"] * 9, id="long list"),
        pytest.param(der_to_pem(b"0").decode() * 9, id="many in one"),
    ],
)
def test_certificates_of_another_form(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_certificates({"certificate": value}, "certificate")


def test_certificates() -> None:
    pem = der_to_pem(b"0\x00").decode()
    assert read_certificates({"a": pem}, "a") == (b"0\x00",)
    assert read_certificates({"a": [pem, pem]}, "a") == (b"0\x00", b"0\x00")
    assert read_certificates({}, "a") == ()
