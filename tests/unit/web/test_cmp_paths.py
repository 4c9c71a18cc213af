"""Which path means which service and operation."""

from __future__ import annotations

from typing import cast

import pytest

from gateway.web.cmp_paths import find_target
from gateway.web.generation import CmpService

CORP, DEFAULT, TOWERS = (cast("CmpService", name) for name in ("corp", "default", "towers"))
SERVICES = {
    ".well-known/cmp/p/corp": CORP,
    ".well-known/cmp": DEFAULT,
    ".well-known/cmp/p/initialization": TOWERS,
    "pkix": TOWERS,
    "ejbca/publicweb/cmp/towers": TOWERS,
}


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        pytest.param("/.well-known/cmp/p/corp", (CORP, None), id="profile"),
        pytest.param("/.well-known/cmp/p/corp/", (CORP, None), id="slash-at-the-end"),
        pytest.param("/.well-known/cmp/p/corp/initialization", (CORP, "initialization"), id="operation"),
        pytest.param("//.well-known//cmp/p/corp//keyupdate//", (CORP, "keyupdate"), id="doubled-slashes"),
        pytest.param("/.well-known/cmp", (DEFAULT, None), id="default"),
        pytest.param("/.well-known/cmp/getcacerts", (DEFAULT, "getcacerts"), id="default-operation"),
        pytest.param("/.well-known/cmp/p/initialization", (TOWERS, None), id="profile-called-like-an-operation"),
        pytest.param("/.well-known/cmp/p/initialization/initialization", (TOWERS, "initialization"), id="its-operation"),
        pytest.param("/pkix/", (TOWERS, None), id="alias"),
        pytest.param("/ejbca/publicweb/cmp/towers/pkcs10", (TOWERS, "pkcs10"), id="alias-operation"),
        pytest.param("/.well-known/cmp/p/nobody", None, id="unknown-profile"),
        pytest.param("/.well-known/cmp/p", None, id="no-profile"),
        pytest.param("/.well-known/cmp/p/corp/enroll", None, id="unknown-operation"),
        pytest.param("/.well-known/cmp/p/corp/Initialization", None, id="case-counts"),
        pytest.param("/.well-known/cmp/p/corp/initialization/keyupdate", None, id="two-operations"),
        pytest.param("/.well-known/cmp/p/corp%2Finitialization", None, id="escaped-slash"),
        pytest.param("/", None, id="nothing"),
        pytest.param("/initialization", None, id="operation-alone"),
        pytest.param("/" * 60 + "pkix", None, id="too-many-slashes"),
    ],
)
def test_a_path(path: str, meant: tuple[CmpService, str | None] | None) -> None:
    assert find_target(SERVICES, path) == meant
