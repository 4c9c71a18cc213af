"""A server with EST for real clients: a listener that asks for client certificates, and profiles that enroll in every way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.pki.certificate import der_to_pem
from gateway.pki.keys import generate_private_key, serialize_private_key
from gateway.ra.credentials.digest import digest_ha1
from tests.conftest import RunningServer, free_port, launch
from tests.flow.scep.other_ca import OtherCA
from tests.interop.authorities import issue_ra
from tests.interop.observed import Row
from tests.interop.settings import Change, edit, profile

MAKER = OtherCA.create("maker of devices")
MESSAGES = ["RenewalReq", "PKCSReq", "simplereenroll"]
KEYS = ["ec-p256", "rsa-2048"]
DIGEST_PASSWORD = "for old clients only"
TRANSPORT_KEY = "00112233445566778899aabbccddeeff"


@dataclass(frozen=True)
class Site:
    """The server and its listener that asks for client certificates; `url` is what clients are given."""

    server: RunningServer
    mtls_port: int

    @property
    def url(self) -> str:
        return f"https://localhost:{self.mtls_port}"

    @property
    def root(self) -> str:
        """The file of the CA that the server's TLS certificate leads to."""
        return str(self.server.state / "ca" / "root.pem")

    @property
    def userpass(self) -> str:
        return f"demo:{self.server.est_password}"

    def rows(self) -> list[Row]:
        """The log's lines about EST requests, in their order."""
        lines = [json.loads(line) for line in self.server.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == "est"]

    def asked(self, common_name: str) -> list[tuple[str, str]]:
        """Operation and outcome of all requests for a subject; no other test's name may begin with it."""
        found = [row for row in self.rows() if f"CN={common_name}" in (row.get("subject") or "")]
        return [(row["operation"], row["outcome"]) for row in found]


def est(name: str, **settings: Any) -> Change:
    """Set fields of a profile's EST endpoint; a new profile has EST alone, and renews from itself."""

    def change(document: dict[str, Any]) -> None:
        is_new = name not in document["profiles"]
        profile(name)(document)
        endpoints = document["profiles"][name]["endpoints"]
        if is_new:
            endpoints.pop("scep")
            endpoints["est"] = {}
            document["profiles"][name]["renewal"]["messages"] = ["simplereenroll"]
        endpoints["est"] |= settings

    return change


def est_alone(name: str) -> Change:
    """Serve this profile without a label, and no other."""

    def change(document: dict[str, Any]) -> None:
        for other, settings in document["profiles"].items():
            settings["endpoints"]["est"]["default"] = other == name

    return change


def _listen(port: int) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["server"]["https_mtls"] = {**document["server"]["https"], "listen": f"127.0.0.1:{port}"}
        document["profiles"]["demo"]["renewal"]["messages"] = MESSAGES

    return change


@contextmanager
def running(state: Path, *changes: Change, init_flags: tuple[str, ...] = ()) -> Iterator[Site]:
    """Serve `demo`, which draws keys and answers fullcmc, `linked`, `digest`, `waiting`, `maker` and what `changes` add."""
    port = free_port()

    def apply(text: str) -> str:
        cmc, signer = issue_ra(state, "cmc", decrypts=False), issue_ra(state, "keygen", decrypts=False)
        (state / "ca" / "maker.pem").write_bytes(MAKER.pem)
        (state / "secrets" / "transport.key").touch(0o600)
        (state / "secrets" / "transport.key").write_text(TRANSPORT_KEY)
        keygen = {"keys": KEYS, "signer": signer, "symmetric_keys": {"transport": {"file": "secrets/transport.key"}}}
        (state / "secrets" / "digests").touch(0o600)
        (state / "secrets" / "digests").write_text(f"demo:{digest_ha1('demo', 'pki-gateway', DIGEST_PASSWORD)}\n")
        digest = {"type": "digest_md5_legacy", "users": {"file": "secrets/digests"}, "names": "any"}
        maker = {"type": "tls_certificate", "anchors": "ca/maker.pem", "names": "any"}
        return edit(
            _listen(port),
            est("demo", cmc=cmc, server_keygen=keygen),
            est("linked", pop_linking="require"),
            est("digest"),
            profile("digest", credentials=[digest]),
            est("waiting"),
            profile("waiting", approval="manual"),
            est("maker"),
            profile("maker", credentials=[maker]),
            *changes,
        )(text)

    server = launch(state, workers=2, edit=apply, init_flags=init_flags)
    try:
        yield Site(server, port)
    finally:
        assert server.stop() == 0


def write_maker_pair(folder: Path, subject: str = "CN=made in a factory") -> None:
    """Write the certificate and key that a maker puts into a device: `maker.crt` and `maker.key`, PEM."""
    key = generate_private_key("ec-p256")
    (folder / "maker.crt").write_bytes(der_to_pem(MAKER.issue(key, subject)))
    (folder / "maker.key").touch(0o600)
    (folder / "maker.key").write_bytes(serialize_private_key(key))
