"""What tests of the vault backend need of a Vault, be it the fake or a real server, and how the gateway is set up for it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from gateway.ca import vault
from gateway.ca.setup import Setup
from gateway.config.load import Sources
from gateway.config.remote_cas import VaultCA as Config
from gateway.model import UpstreamCAName

NAME = UpstreamCAName("lab")
DOCUMENT = Path(__file__).parents[3] / "docs" / "upstream-cas.md"
ROLE: Mapping[str, Any] = {
    "use_csr_common_name": False,
    "use_csr_sans": False,
    "allow_any_name": True,
    "enforce_hostnames": False,
    "cn_validations": ["disabled"],
    "allowed_uri_sans": ["*"],
    "allowed_other_sans": ["*"],
    "allowed_serial_numbers": ["*"],
    "allowed_user_ids": ["*"],
    "allow_wildcard_certificates": True,
    "require_cn": False,
    "key_type": "any",
    "key_usage": ["DigitalSignature", "KeyAgreement"],
    "server_flag": True,
    "client_flag": True,
    "organization": ["Example AG"],
    "no_store": False,
}
"""A role whose certificates are what the requests of the contract tests are granted."""
SUBJECT = "CN=Gerät 7/3\\, Süd,O=Example AG"
POLICY = """
path "pki/sign/devices" { capabilities = ["update"] }
path "pki/roles/devices" { capabilities = ["read"] }
path "pki/certs" { capabilities = ["list"] }
path "pki/revoke" { capabilities = ["update"] }
"""


class VaultSite(Protocol):
    """A Vault with a PKI engine at `pki`, whose issuing CA is the hierarchy's."""

    @property
    def url(self) -> str:
        """Its address."""

    async def set_role(self, name: str, **fields: Any) -> None:
        """Write a role."""

    async def new_approle(self, policy: str) -> tuple[str, str]:
        """Return role ID and secret ID of a login with a policy, HCL."""

    async def issued(self) -> list[bytes]:
        """Return every certificate but the CA's own, DER."""


def secret(name: str) -> dict[str, str]:
    return {"env": name}


def sources(secrets: Mapping[str, str], files: Mapping[str, bytes] | None = None) -> Sources:
    named = {f"environment variable {name}": text.encode() for name, text in secrets.items()}
    return Sources(Path("/nowhere/profiles.yaml"), "profiles.yaml", b"", dict(files or {}), named)


def create(
    url: str,
    chain: tuple[bytes, ...],
    auth: Mapping[str, Any],
    secrets: Mapping[str, str],
    *,
    quiet: float = 0.0,
    files: Mapping[str, bytes] | None = None,
    **fields: Any,
) -> vault.VaultCA:
    """Return a backend, not started; `quiet` is short, since fakes end what they do at once."""
    raw = {"type": "vault", "url": url, "chain": ["ca.pem"], "auth": auth, "role": "devices", "queue": "1h", **fields}
    config = Config.model_validate_json(json.dumps(raw))
    return vault.create(config, Setup(NAME, chain, sources(secrets, files), config.queue), quiet=quiet)


@asynccontextmanager
async def connect(
    site: VaultSite, chain: tuple[bytes, ...], *, policy: str = POLICY, **fields: Any
) -> AsyncIterator[vault.VaultCA]:
    """Log in by AppRole with the least rights and yield the backend, started."""
    role_id, secret_id = await site.new_approle(policy)
    auth = {"type": "approle", "role_id": secret("ROLE_ID"), "secret_id": secret("SECRET_ID")}
    ca = create(site.url, chain, auth, {"ROLE_ID": role_id, "SECRET_ID": secret_id}, **fields)
    await ca.start()
    try:
        yield ca
    finally:
        await ca.close()


def documented_policy() -> str:
    """The policy of docs/upstream-cas.md, as an operator would copy it."""
    [policy] = re.findall(r"^```hcl\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    return str(policy)
