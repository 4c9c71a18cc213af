"""Whose account key answers http-01."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from gateway.assemble.http01 import check_http01, http01_thumbprints
from gateway.ca.bootstrap import KeyChoice, create_hierarchy
from gateway.ca.circuit import GuardedCA
from gateway.ca.local import CaUrls
from gateway.ca.setup import utc_now
from gateway.model import UpstreamCAName
from tests.peers.opening import make_ca
from tests.peers.pebble import write_key


def acme(folder: Path, key: str, *, http01: bool = True) -> GuardedCA:
    chain = folder / "chain.pem"
    if not chain.exists():
        made = create_hierarchy(KeyChoice(), CaUrls(), utc_now())
        chain.write_bytes(made.issuing.certificate + made.root.certificate)
    if not (folder / key).exists():
        write_key(folder / key, ec.generate_private_key(ec.SECP256R1()))
    proof = {"http01": True} if http01 else {"dns": {"type": "hook", "command": ["true"]}}
    return make_ca(
        {
            "type": "acme",
            "directory": "https://ca.example.org/directory",
            "chain": [str(chain)],
            "account_key": {"file": str(folder / key)},
            **proof,
        }
    )


def test_one_key_may_serve_several(tmp_path: Path) -> None:
    cas = {
        UpstreamCAName("a"): acme(tmp_path, "one"),
        UpstreamCAName("b"): acme(tmp_path, "one"),
        UpstreamCAName("c"): acme(tmp_path, "two", http01=False),
    }
    assert check_http01(cas) == []
    assert list(http01_thumbprints(cas)) == ["a", "b"]
    assert len(set(http01_thumbprints(cas).values())) == 1


def test_another_key_is_refused(tmp_path: Path) -> None:
    cas = {UpstreamCAName("a"): acme(tmp_path, "one"), UpstreamCAName("b"): acme(tmp_path, "two")}
    [problem] = check_http01(cas)
    assert problem.path == ("upstream_cas", "b", "account_key")
    assert "the same key as that of a" in problem.sentence


def test_nobody() -> None:
    assert check_http01({}) == []
    assert http01_thumbprints({}) == {}
