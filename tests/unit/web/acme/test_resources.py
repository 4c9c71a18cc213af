"""Which resource of which directory a path is of."""

import pytest
from aiohttp.test_utils import make_mocked_request

from gateway.model import ProfileName
from gateway.web.acme import resources
from gateway.web.acme.resources import Folders, Target
from gateway.web.generation import AcmeService


def service(profile: str, base: str, *aliases: str) -> AcmeService:
    return AcmeService(ProfileName(profile), base, aliases, {}, None, ("*",), (), False, (), 21600, None)


CORP = service("corp", "https://pki.example.com/acme/corp", "https://acme.example.com/acme", "https://acme.example.org:8443")
PREFIXED = service("iot", "https://pki.example.com/gw/acme/iot")
SHARED = service("lab", "https://pki.example.com/acme/lab", "https://lab.example.com/acme")
FOLDERS = Folders({each.profile: each for each in (CORP, PREFIXED, SHARED)})


def find(path: str, host: str = "pki.example.com") -> Target | None:
    return FOLDERS.find(make_mocked_request("POST", path, headers={"Host": host}))


@pytest.mark.parametrize(
    ("path", "resource", "ids"),
    [
        ("directory", resources.DIRECTORY, ()),
        ("new-nonce", resources.NEW_NONCE, ()),
        ("new-account", resources.NEW_ACCOUNT, ()),
        ("new-order", resources.NEW_ORDER, ()),
        ("new-authz", resources.NEW_AUTHORIZATION, ()),
        ("revoke-cert", resources.REVOKE_CERT, ()),
        ("key-change", resources.KEY_CHANGE, ()),
        ("acct/a", resources.ACCOUNT, ("a",)),
        ("acct/a/orders", resources.ORDERS, ("a",)),
        ("order/o", resources.ORDER, ("o",)),
        ("order/o/finalize", resources.FINALIZE, ("o",)),
        ("authz/z", resources.AUTHORIZATION, ("z",)),
        ("chall/z/c", resources.CHALLENGE, ("z", "c")),
        ("cert/o", resources.CERTIFICATE, ("o",)),
        ("cert/o/2", resources.CERTIFICATE, ("o", "2")),
        ("renewal-info/a.b", resources.RENEWAL_INFO, ("a.b",)),
    ],
)
def test_resources(path: str, resource: resources.Resource, ids: tuple[str, ...]) -> None:
    for folder, host in (("/acme/corp", "pki.example.com"), ("/acme", "acme.example.com"), ("", "acme.example.org:8443")):
        target = find(f"{folder}/{path}", host)
        assert target is not None
        assert (target.resource, target.at.ids, target.at.path) == (resource, ids, path)
        assert target.at.service is CORP


@pytest.mark.parametrize(
    "path",
    [
        "",
        "order",
        "order/",
        "order//finalize",
        "order/o/x",
        "acct/a/finalize",
        "chall/z",
        "cert/o/1/2",
        "directory/x",
        "order/a%20b",
        "order/" + "a" * 129,
        "directory?x=1",
        "acct/a/orders?cursor=",
        "acct/a/orders?cursor=a&x=1",
        "order/o?cursor=a",
    ],
)
def test_what_there_is_not(path: str) -> None:
    target = find(f"/acme/corp/{path}")
    assert target is not None
    assert target.resource is None


def test_cursor_is_part_of_what_is_signed() -> None:
    target = find("/acme/corp/acct/a/orders?cursor=o-1_x")
    assert target is not None
    assert (target.at.cursor, target.at.path) == ("o-1_x", "acct/a/orders?cursor=o-1_x")


@pytest.mark.parametrize(
    ("path", "host", "base"),
    [
        ("/acme/corp/directory", "pki.example.com", CORP.base),
        ("/acme/corp/directory", "PKI.example.com:443", CORP.base),
        ("/acme/corp/directory", "anything.example", CORP.base),
        ("/acme/corp/directory", "", CORP.base),
        ("/acme/directory", "acme.example.com", "https://acme.example.com/acme"),
        ("/directory", "acme.example.org:8443", "https://acme.example.org:8443"),
        ("/acme/directory", "lab.example.com", "https://lab.example.com/acme"),
        ("/gw/acme/iot/directory", "pki.example.com", PREFIXED.base),
        ("/acme/iot/directory", "pki.example.com", PREFIXED.base),
        ("https://pki.example.com/acme/corp/directory", "pki.example.com", CORP.base),
    ],
    ids=[
        "own",
        "own-port",
        "other-host",
        "no-host",
        "alias",
        "alias-root",
        "shared-path",
        "prefix",
        "prefix-stripped",
        "absolute",
    ],
)
def test_clients_are_answered_below_the_url_that_they_know(path: str, host: str, base: str) -> None:
    target = find(path, host)
    assert target is not None
    assert target.at.urls.base == base


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/acme/directory", "pki.example.com"),
        ("/directory", "acme.example.org"),
        ("/acme/other/directory", "pki.example.com"),
        ("/x/acme/iot/directory", "pki.example.com"),
        ("/acme/nothing", "acme.example.com"),
        ("//acme/corp/directory", "pki.example.com"),
    ],
    ids=["not-the-alias", "not-the-port", "profile", "folder", "no-resource", "slashes"],
)
def test_nothing_else_is_a_directory(path: str, host: str) -> None:
    assert find(path, host) is None
