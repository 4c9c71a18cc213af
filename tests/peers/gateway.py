"""Another pki-gateway, which the gateway asks by EST, SCEP and CMP as its registration authority."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.model import Grant
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial, parse_certificate, pem_to_ders
from gateway.pki.extensions import eku_oid
from gateway.pki.keys import generate_private_key, load_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from tests.conftest import RunningServer, free_port, launch
from tests.interop.settings import Change, edit

RA_SUBJECT = "CN=gateway,O=Example"
WAITING = "waiting"
"""A profile that issues nothing before somebody approves."""
CAREFUL = "careful"
"""A profile whose certificates are confirmed by all who ask by CMP."""


@dataclass(frozen=True)
class GatewayPeer:
    """The other gateway; its profiles take the registration authority's certificate by all of them.

    By CMP they take shared secrets, too.
    """

    server: RunningServer
    mtls_port: int

    @property
    def state(self) -> Path:
        return self.server.state

    @property
    def chain(self) -> list[str]:
        """Its CA certificates, issuing CA first."""
        return [str(self.state / "ca" / "issuing.pem"), str(self.state / "ca" / "root.pem")]

    @property
    def pair(self) -> dict[str, Any]:
        """The registration authority's certificate and key."""
        return {
            "certificate": str(self.state / "ca" / "gateway.pem"),
            "key": {"file": str(self.state / "secrets" / "gateway.key")},
        }

    def est(self, profile: str = "demo", url: str | None = None, **more: Any) -> dict[str, Any]:
        """The section of an upstream CA that asks by EST, known by its TLS client certificate."""
        connection = {"anchors": str(self.server.root), "client_certificate": self.pair}
        base = url or f"https://localhost:{self.mtls_port}"
        section = {"type": "est", "url": f"{base}/.well-known/est/{profile}", "connection": connection}
        return {**section, "chain": self.chain, "remembers": "50m", **more}

    def scep(self, profile: str = "demo", url: str | None = None, **more: Any) -> dict[str, Any]:
        """The section of an upstream CA that asks by SCEP, known by the certificate that signs its messages."""
        section = {"type": "scep", "url": f"{url or self.server.url}/scep/{profile}", "signer": self.pair}
        ra = str(self.state / "ca" / "ra.pem")
        return {**section, "ra": ra, "chain": self.chain, "remembers": "50m", **more}

    def cmp(self, profile: str = "demo", url: str | None = None, *, secret: Path | None = None, **more: Any) -> dict[str, Any]:
        """The section of an upstream CA that asks by CMP, known by the certificate that signs its messages, or by a secret.

        `secret` is the folder where that is kept.
        """
        auth: dict[str, Any] = {"type": "signature", "signer": self.pair}
        if secret is not None:
            created = self.server.cli("cmp-secret", "create", profile, "--uses", "100", "--format", "json")
            made = json.loads(created.stdout)
            file = secret / f"{made['reference']}.secret"
            file.touch(0o600)
            file.write_text(made["secret"])
            auth = {"type": "secret", "reference": made["reference"], "secret": {"file": str(file)}}
        base = f"{url or self.server.url}/.well-known/cmp/p/{profile}"
        return {"type": "cmp", "url": base, "auth": auth, "chain": self.chain, "remembers": "50m", **more}

    def issued(self, public_key: bytes) -> list[bytes]:
        """Return every certificate for a key, DER."""
        rows = json.loads(self.server.cli("certs", "list", "--format", "json").stdout)
        shown = (json.loads(self.server.cli("certs", "show", row["sha256"], "--format", "json").stdout) for row in rows)
        ders = [pem_to_ders(one["pem"].encode())[0] for one in shown]
        return [der for der in ders if parse_certificate(der).public_key.der == public_key]

    def approve(self) -> None:
        """Approve all that waits."""
        for row in json.loads(self.server.cli("requests", "list", "--format", "json").stdout):
            if row["state"] == "pending":
                self.server.cli("requests", "approve", row["id"])


def issue_authority(state: Path, spec: str = "rsa-2048") -> None:
    """Write a registration authority's certificate and key of the CA in `state`: `gateway.pem`, `gateway.key`."""
    issuer_key = load_private_key((state / "secrets" / "issuing.key").read_bytes())
    issuer = Issuer.from_certificate(pem_to_ders((state / "ca" / "issuing.pem").read_bytes())[0], issuer_key)
    key, now = generate_private_key(spec), datetime.now(UTC).replace(microsecond=0)
    grant = Grant(
        parse_name_text(RA_SUBJECT).der,
        (),
        ("digitalSignature", "keyEncipherment"),
        (eku_oid("clientAuth"), eku_oid("cmcRA")),
        now - timedelta(hours=1),
        now + timedelta(days=30),
    )
    (state / "ca" / "gateway.pem").write_bytes(der_to_pem(build_certificate(issuer, new_serial(), grant, public_key_der(key))))
    secret = state / "secrets" / "gateway.key"
    secret.touch(0o600)
    secret.write_bytes(serialize_private_key(key))


def _profiles(port: int) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["server"]["https_mtls"] = {**document["server"]["https"], "listen": f"127.0.0.1:{port}"}
        demo = document["profiles"]["demo"]
        may = ["enroll", "revoke", "forward"]
        authority = {"type": "ra_certificate", "anchors": "ca/issuing.pem", "subjects": [RA_SUBJECT], "may": may}
        demo["credentials"] = [authority, {"type": "cmp_secret", "max_uses": 100}]
        demo["endpoints"].pop("acme", None)
        demo.pop("renewal", None)
        waiting = json.loads(json.dumps(demo))
        waiting["endpoints"]["est"].pop("default", None)
        document["profiles"][WAITING] = {**waiting, "approval": "manual"}
        careful = json.loads(json.dumps(waiting))
        careful["endpoints"] = {"cmp": {**demo["endpoints"]["cmp"], "confirmation": {"implicit": "refuse"}}}
        document["profiles"][CAREFUL] = careful

    return change


@contextmanager
def running(state: Path, *changes: Change) -> Iterator[GatewayPeer]:
    """Serve it from `state`, with two workers."""
    port = free_port()

    def apply(text: str) -> str:
        issue_authority(state)
        return edit(_profiles(port), *changes)(text)

    server = launch(state, workers=2, edit=apply)
    try:
        yield GatewayPeer(server, port)
    finally:
        assert server.stop() == 0
