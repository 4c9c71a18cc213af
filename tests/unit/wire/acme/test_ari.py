"""Certificates have one name each in renewal information (RFC 9773 §4.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MalformedMessage
from gateway.wire.acme.ari import format_certificate_id, parse_certificate_id


def test_the_example_of_the_standard() -> None:
    found = parse_certificate_id("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE")
    assert found.authority_key_id.hex() == "69885b6b87464041e1b37b847ba0ae2cde01c8d4"
    assert found.serial == 0x87654321
    assert found.text == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


@given(st.binary(min_size=1, max_size=64), st.integers(min_value=0, max_value=2**160 - 1))
def test_names_go_both_ways(key_id: bytes, serial: int) -> None:
    found = parse_certificate_id(format_certificate_id(key_id, serial))
    assert (found.authority_key_id, found.serial) == (key_id, serial)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("aYhba4dGQEHhs3uEe6CuLN4ByNQ", id="no serial"),
        pytest.param("aYhba4dGQEHhs3uEe6CuLN4ByNQ.", id="an empty serial"),
        pytest.param(".AIdlQyE", id="no key"),
        pytest.param("aYhba4dGQEHhs3uEe6CuLN4ByNQ=.AIdlQyE=", id="padding, which is forbidden"),
        pytest.param("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE.AQ", id="three parts"),
        pytest.param("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AAABAg", id="a serial with zeros that DER does not have"),
        pytest.param("aYhba4dGQEHhs3uEe6CuLN4ByNR.AIdlQyE", id="bits left over"),
        pytest.param("aYhb/4dG.AIdl", id="the other alphabet"),
        pytest.param("aYhb.AIdl\n", id="a line break"),
        pytest.param("aYhb." + "A" * 40, id="a long serial"),
        pytest.param("A" * 200 + ".AIdl", id="a long key"),
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(MalformedMessage):
        parse_certificate_id(text)
