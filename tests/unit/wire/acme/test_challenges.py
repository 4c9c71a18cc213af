"""What challenges are made of, as the standards' and other implementations' examples have it."""

import hashlib
from datetime import UTC, datetime

import pytest

from gateway.wire.acme.challenges import (
    PersistRecord,
    account_label,
    alpn_digest,
    dns_value,
    format_persistent,
    judge_persistent,
    key_authorization,
    parse_persistent,
    reverse_name,
)

ACCOUNT = "https://ca.example/acct/123"
RECORD = f"authority.example; accounturi={ACCOUNT}"
NOW = datetime(2027, 1, 1, tzinfo=UTC)
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"


def test_key_authorization() -> None:
    assert key_authorization(TOKEN, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs") == (
        "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    )


def test_dns_value_is_a_digest_without_padding() -> None:
    assert dns_value("a.b") == "LnM23I66h-9HLfVow1SCq_JXXcPl6sDFxiuP-urCyTQ"


def test_alpn_digest() -> None:
    assert alpn_digest("a.b") == hashlib.sha256(b"a.b").digest()


def test_account_label_of_the_draft() -> None:
    assert account_label("https://example.com/acme/acct/ExampleAccount") == "_ujmmovf2vn55tgye"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        pytest.param("192.0.2.1", "1.2.0.192.in-addr.arpa", id="ipv4"),
        pytest.param("2001:db8::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", id="ipv6"),
    ],
)
def test_reverse_names(address: str, name: str) -> None:
    assert reverse_name(address) == name


@pytest.mark.parametrize(
    ("text", "record"),
    [
        pytest.param(RECORD, PersistRecord("authority.example", ACCOUNT, False, None), id="plain"),
        pytest.param(
            f"  Authority.Example.  ;  AccountURI =  {ACCOUNT} ; Policy = WildCard ; persistUntil=4102444800  ",
            PersistRecord("authority.example", ACCOUNT, True, 4102444800),
            id="spaces and case",
        ),
        pytest.param(f"{RECORD}; policy=other", PersistRecord("authority.example", ACCOUNT, False, None), id="unknown policy"),
        pytest.param(f"{RECORD}; policy=", PersistRecord("authority.example", ACCOUNT, False, None), id="empty policy"),
        pytest.param(f"{RECORD}; foo=bar", PersistRecord("authority.example", ACCOUNT, False, None), id="unknown parameter"),
        pytest.param(f"{RECORD}; foo=a=b", PersistRecord("authority.example", ACCOUNT, False, None), id="= in a value"),
        pytest.param(f"{RECORD};persistUntil=-1", PersistRecord("authority.example", ACCOUNT, False, -1), id="before 1970"),
    ],
)
def test_records_of_dns_persist(text: str, record: PersistRecord) -> None:
    assert parse_persistent(text) == record


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("authority.example", id="no parameters"),
        pytest.param("authority.example;", id="no parameters behind a semicolon"),
        pytest.param("authority.example; policy=wildcard", id="no accounturi"),
        pytest.param("authority.example; accounturi=", id="empty accounturi"),
        pytest.param(f"{RECORD};", id="trailing semicolon"),
        pytest.param(f"authority.example;; accounturi={ACCOUNT}", id="empty parameter"),
        pytest.param(f"{RECORD}; =value", id="no tag"),
        pytest.param(f"{RECORD}; word", id="no value"),
        pytest.param(f"{RECORD}; accounturi={ACCOUNT}", id="twice"),
        pytest.param(f"{RECORD}; AccountURI={ACCOUNT}", id="twice in another case"),
        pytest.param(f"{RECORD}; foo=1; FOO=2", id="an unknown one twice"),
        pytest.param(f"{RECORD}; foo=b ar", id="a space in a value"),
        pytest.param(f"{RECORD}; foo=b\x7fr", id="a control character"),
        pytest.param(f"{RECORD}; foo=bär", id="no ASCII"),
        pytest.param(f"{RECORD}; persistUntil=", id="no time"),
        pytest.param(f"{RECORD}; persistUntil=tomorrow", id="a time in words"),
        pytest.param(f"{RECORD}; persistUntil=1.5", id="half a second"),
        pytest.param(f"{RECORD}; persistUntil={'9' * 20}", id="a time that is too long"),
        pytest.param(f"{RECORD}; persistUntil=٣", id="another script's digits"),
    ],
)
def test_broken_records_of_dns_persist(text: str) -> None:
    with pytest.raises(ValueError):
        parse_persistent(text)
    assert not judge_persistent([text.encode()], ["authority.example"], ACCOUNT, False, NOW)


@pytest.mark.parametrize(
    ("records", "wildcard", "good"),
    [
        pytest.param([RECORD], False, True, id="plain"),
        pytest.param([RECORD], True, False, id="a wildcard needs a policy"),
        pytest.param([f"{RECORD}; policy=wildcard"], True, True, id="a wildcard with it"),
        pytest.param([f"{RECORD}; policy=wildcard"], False, True, id="the policy is good for the name itself"),
        pytest.param(["AUTHORITY.example.; accounturi=" + ACCOUNT], False, True, id="case and dot of the issuer"),
        pytest.param([], False, False, id="none"),
        pytest.param(["other.example; accounturi=" + ACCOUNT], False, False, id="another issuer"),
        pytest.param(["authority.example.evil; accounturi=" + ACCOUNT], False, False, id="an issuer that begins so"),
        pytest.param([RECORD + "4"], False, False, id="another account"),
        pytest.param([RECORD[:-1]], False, False, id="the beginning of the account"),
        pytest.param([f"{RECORD}; persistUntil={int(NOW.timestamp()) - 1}"], False, False, id="has ended"),
        pytest.param([f"{RECORD}; persistUntil={int(NOW.timestamp())}"], False, True, id="ends now"),
        pytest.param([f"{RECORD};", RECORD], False, True, id="a good one after a broken one"),
        pytest.param(["other.example", "v=spf1 -all", RECORD], False, True, id="among others"),
        pytest.param([RECORD + "; a=" + "b" * 3000], False, False, id="too long"),
    ],
)
def test_one_good_record_lets_the_account_have_the_name(records: list[str], wildcard: bool, good: bool) -> None:
    found = judge_persistent([r.encode() for r in records], ["other-name.example", "Authority.example"], ACCOUNT, wildcard, NOW)
    assert found is good


def test_bytes_that_are_no_text() -> None:
    assert not judge_persistent([b"\xff\xfe"], ["authority.example"], ACCOUNT, False, NOW)


@pytest.mark.parametrize(
    ("wildcard", "until"),
    [pytest.param(False, None, id="plain"), pytest.param(True, 4102444800, id="everything")],
)
def test_records_are_written_as_they_are_read(wildcard: bool, until: int | None) -> None:
    text = format_persistent("authority.example", ACCOUNT, wildcard=wildcard, until=until)
    assert parse_persistent(text) == PersistRecord("authority.example", ACCOUNT, wildcard, until)
