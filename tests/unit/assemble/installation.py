"""What `init` writes, with more certificates and keys beside it and a configuration that a test changes as data."""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from gateway.assemble.judgement import Judgement, judge
from gateway.cli.init import make_files, write_directory
from gateway.config.load import Sources, read
from gateway.config.schema import GatewayConfig
from gateway.model import Grant, RevocationReason
from gateway.pki.certificate import (
    Issuer,
    build_certificate,
    der_to_pem,
    new_serial,
    parse_certificate,
    pem_to_ders,
    self_signed_ca,
)
from gateway.pki.crl import build_crl
from gateway.pki.extensions import eku_oid
from gateway.pki.keys import PrivateKey, generate_private_key, load_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from gateway.ra.credentials.digest import digest_ha1
from gateway.ra.credentials.passwords import hash_password

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
YEAR = timedelta(days=365)
SCEP = "profiles.demo.endpoints.scep"
PASSWORD = "correct horse battery"
BOTH = ("digitalSignature", "keyEncipherment")


@functools.cache
def first_files() -> tuple[Any, ...]:
    """The files of one installation; keys are drawn once."""
    return make_files("rsa-2048", "rsa-2048", 1, 2, NOW)


@functools.cache
def password_hash() -> str:
    """The hash of `PASSWORD`; made once."""
    return hash_password(PASSWORD.encode())


@functools.cache
def key(spec: str, name: str) -> PrivateKey:
    """A key of its own for every name, drawn once."""
    return generate_private_key(spec)


def signed(anchors: str) -> list[dict[str, object]]:
    """Credentials of a profile that takes signed challenges alone."""
    return [{"type": "intune_jws", "anchors": anchors}]


@dataclass
class Installation:
    """A folder with a configuration whose one profile is `demo`."""

    folder: Path
    data: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def create(cls, folder: Path) -> Installation:
        write_directory(folder, first_files())
        return cls(folder, yaml.safe_load((folder / "profiles.yaml").read_text()))

    @property
    def profile(self) -> dict[str, Any]:
        profile: dict[str, Any] = self.data["profiles"]["demo"]
        return profile

    @property
    def scep(self) -> dict[str, Any]:
        endpoint: dict[str, Any] = self.profile["endpoints"]["scep"]
        return endpoint

    def issuer(self, name: str = "issuing") -> Issuer:
        """The root or the issuing CA."""
        signing = load_private_key((self.folder / f"secrets/{name}.key").read_bytes())
        return Issuer.from_certificate(pem_to_ders((self.folder / f"ca/{name}.pem").read_bytes())[0], signing)

    def write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o600)
        return name

    def pair(
        self,
        name: str,
        spec: str = "rsa-2048",
        *,
        usage: tuple[str, ...] = BOTH,
        ekus: tuple[str, ...] = ("certificateRequestAgent",),
        start: datetime = NOW - DAY,
        end: datetime = NOW + YEAR,
        issuer: Issuer | None = None,
        of: PrivateKey | None = None,
    ) -> dict[str, Any]:
        """Write NAME.pem and NAME.key, and return how the configuration names them."""
        own = key(spec, name)
        grant = Grant(parse_name_text(f"CN={name}").der, (), usage, tuple(map(eku_oid, ekus)), start, end)
        signer = issuer or Issuer.create(parse_name_text(f"CN={name}").der, own, b"\1" * 20)
        self.write(f"{name}.pem", der_to_pem(build_certificate(signer, new_serial(), grant, public_key_der(own))))
        self.write(f"{name}.key", serialize_private_key(of or own))
        return {"certificate": f"{name}.pem", "key": {"file": f"{name}.key"}}

    def ca(self, name: str, *, start: datetime = NOW - DAY, end: datetime = NOW + YEAR) -> str:
        """Write NAME.pem, a self-signed CA, and return the name of the file."""
        return self.write(f"{name}.pem", der_to_pem(self_signed_ca(key("ec-p256", name), f"CN={name}", start, end)))

    def crl(self, name: str, *, end: datetime = NOW + DAY, serials: tuple[int, ...] = ()) -> str:
        """Write NAME-crl.pem, a CRL of that CA, and return the name of the file."""
        issuer = Issuer.from_certificate(pem_to_ders((self.folder / f"{name}.pem").read_bytes())[0], key("ec-p256", name))
        entries = ((serial, NOW - DAY, RevocationReason.KEY_COMPROMISE) for serial in serials)
        crl = build_crl(issuer, 1, NOW - 2 * DAY, end, entries)
        return self.write(f"{name}-crl.pem", der_to_pem(crl, "X509 CRL"))

    def read(self) -> tuple[GatewayConfig, Sources]:
        """Write the configuration and read it; it must have no problems of its own."""
        (self.folder / "profiles.yaml").write_text(json.dumps(self.data))
        return read(self.folder / "profiles.yaml")

    def judged(self, now: datetime = NOW) -> Judgement:
        return judge(*self.read(), now)

    def problems(self, now: datetime = NOW) -> dict[str, str]:
        """Return what keeps the service from starting, by field."""
        return {problem.field: problem.sentence for problem in self.judged(now).problems}

    def expiring(self, now: datetime = NOW) -> dict[str, str]:
        """Return what is said of dates, where nothing keeps the service from starting."""
        found = self.judged(now)
        assert found.problems == ()
        return {problem.field: problem.sentence for problem in found.expiring}

    def warnings(self, now: datetime = NOW) -> dict[str, str]:
        """Return all else that is said, where nothing keeps the service from starting."""
        found = self.judged(now)
        assert found.problems == ()
        return {problem.field: problem.sentence for problem in found.warnings}

    def require_client_certificate(self, anchors: str, crls: str | None = None) -> None:
        """Serve `demo` to TLS clients with a certificate, by SCEP alone."""
        self.profile["endpoints"].pop("est", None)
        self.profile["credentials"] = [one for one in self.profile["credentials"] if one["type"] != "basic"]
        https = self.data["server"]["https"]
        self.data["server"]["https_mtls"] = {**https, "listen": "127.0.0.1:3"}
        self.scep.update({"client_certificate": "require", "client_anchors": anchors} | ({"client_crls": crls} if crls else {}))

    def use_every_key(self) -> None:
        """Configure all that SCEP endpoints, credentials and renewals take, spread over profiles that can have it."""
        base = {**copy.deepcopy(self.profile), "credentials": [{"type": "one_time"}]}
        base.pop("renewal")
        renewals = {"certificates": self.ca("former"), "crls": self.crl("former")}
        self.scep.update(
            previous_ra=[self.pair("previous")],
            next_ca=self.ca("next", start=NOW + DAY),
            legacy={"sha1": True, "md5": True, "triple_des": True, "des": True},
            signing_time_skew="1h",
            reply_chain=True,
        )
        self.profile["renewal"]["anchors"] = renewals
        self.profile["limits"] = {"failures_per_address": {"count": 1000, "window": "1h"}}
        self.profile["policy"]["key"]["allow_md5_signature"] = True
        ra = {"ra_certificate": "ca/ra.pem", "ra_key": {"file": "secrets/ra.key"}}
        self.data["profiles"].update(
            sensors={**base, "endpoints": {"scep": {**ra, "pwri": True}}, "credentials": [self.static("sensors")]},
            kiosks={**base, "endpoints": {"scep": self._split_ra()}},
            laptops={**base, "endpoints": {"scep": ra}, "credentials": [self._signed(), {"type": "one_time"}]},
        )
        self.data["server"]["https_mtls"] = {"listen": "127.0.0.1:3", **self.pair("mtls", "ec-p256"), "min_version": "1.2"}
        self._use_every_key_of_est(base)
        self._use_every_key_of_acme({name: value for name, value in base.items() if name != "credentials"})
        self._use_every_key_of_cmp(base)

    def _use_every_key_of_est(self, base: dict[str, Any]) -> None:
        """Two profiles that are reached by EST alone: passwords and tokens in one, certificates and drawn keys in the other."""
        self.profile["endpoints"]["est"]["default"] = False
        self.data["server"]["proxies"] = [
            {"addresses": ["192.0.2.9/32"], "client_certificate": "rfc9440", "client_address": True},
        ]
        routers = {"label": "ca:1", "default": True, "pop_linking": "if_present", "csrattrs": "both", "base64_wrap": "auto"}
        fleet = {"certificates": self.ca("fleet"), "crls": self.crl("fleet")}
        renewal = {"from": ["routers"], "messages": ["simplereenroll"], "anchors": fleet}
        robots = {
            "server_keygen": {
                "keys": ["ec-p256", "rsa-2048"],
                "symmetric_keys": {"dock-7": {"file": self.write("dock-7", b"0a" * 16)}},
                "recipients": self.pair("recipient", usage=("keyEncipherment",), ekus=("clientAuth",))["certificate"],
                "signer": self.pair("keygen", "ec-p256", usage=("digitalSignature",), issuer=self.issuer()),
                "require_encryption": True,
            },
            "cmc": self.pair("cmc", usage=("digitalSignature",), ekus=("cmcRA",), issuer=self.issuer()),
        }
        self.data["profiles"].update(
            routers={
                **base,
                "endpoints": {"est": {**routers, "rollover": self.ca("rollover"), "renewal_info": True}},
                "credentials": [self.basic("routers", "router-1"), self._token(), self._digest()],
                "renewal": renewal,
            },
            robots={**base, "endpoints": {"est": robots}, "credentials": self._certificates()},
        )

    def _use_every_key_of_acme(self, base: dict[str, Any]) -> None:
        """Two profiles that are reached by ACME alone, one of which orders at the other may ask for."""
        validation = {
            "mode": "standard",
            "challenges": ["http-01", "dns-01", "tls-alpn-01", "dns-account-01", "dns-persist-01", "device-attest-01"],
            "allow_cidrs": ["10.0.0.0/8", "127.0.0.0/8"],
            "deny_cidrs": ["10.66.0.0/16"],
            "http01_port": 5002,
            "tlsalpn01_port": 5001,
            "resolver": {
                "servers": ["192.0.2.53", "[2001:db8::53]:5353"],
                "hosts": {"*.web.test": ["127.0.0.1"]},
                "timeout": "2s",
                "tcp": True,
            },
            "caa": {"mode": "log", "identities": ["pki.example.com"]},
            "prevalidated": {"dns": ["[a-z]+\\.ready\\.test"], "ip": ["10.1.0.0/16"]},
            "webhook": {
                "url": "https://cmdb.example.com",
                "secret": {"file": self.write("cmdb", b"5f0c9a41d27e")},
                "timeout": "2s",
            },
            "attestation": {name: self.ca(name) for name in ("apple", "tpm", "step")},
            "acknowledge_no_validation": False,
            "attempts": 3,
            "attempt_every": "1s",
        }
        quota = {"count": 1000, "window": "1h"}
        limits = ("orders_per_account", "orders_per_external_account", "orders", "accounts_per_address", "failed_validations")
        web = {
            "external_account": "optional",
            "validation": validation,
            "profiles": {"web-short": "Six days"},
            "terms_of_service": "https://pki.example.com/terms",
            "website": "https://pki.example.com",
            "aliases": ["https://old.example.com/acme"],
            "cors_origins": ["https://app.example.com"],
            "subdomains": True,
            "authorization_reuse": "1h",
            "order_lifetime": "1d",
            "max_identifiers": 10,
            "finalize_wait": "5s",
            "ml_dsa_accounts": True,
            "padded_csr": True,
            "revocation_reasons": ["keyCompromise", "superseded"],
            "alternate_chains": [self.another_chain("alternate")],
            "renewal": {"before": "30d", "retry_after": "1h", "foreign_replaces": "reject"},
            "limits": dict.fromkeys(limits, quota),
        }
        self.data["profiles"].update(
            {"web": {**base, "endpoints": {"acme": web}}, "web-short": {**base, "endpoints": {"acme": {}}}},
        )

    def _use_every_key_of_cmp(self, base: dict[str, Any]) -> None:
        """Two profiles that are reached by CMP alone, one of which requests at the other may ask for."""
        signer = self.cmp_signer("cmp")
        towers = {
            "signer": signer,
            "default": True,
            "aliases": ["pkix", "ejbca/publicweb/cmp/towers"],
            "strictness": "rfc4210",
            "message_time_skew": "10m",
            "mac": {"iterations": [100, 10000], "pbmac1_iterations": [1000, 100000], "hmac_sha1": True},
            "confirmation": {"implicit": "refuse", "wait": "5m", "on_timeout": "keep"},
            "same_key": "allow",
            "key_generation": {"keys": ["ec-p256", "rsa-2048"], "signer": self.cmp_signer("drawing", "cmKGA")},
            "encrypted_certificates": True,
            "extra_certificates": "ca/root.pem",
            "root_update": self.ca("newest"),
            "batch": 8,
            "cert_profiles": {"small": "towers-small"},
        }
        devices = self.write("towers", b"# two of them\nSN-1\nSN-2 # the other\n")
        maker = {"type": "vendor_certificate", "anchors": self.ca("towers"), "crls": self.crl("towers"), "inventory": devices}
        ra = {"type": "ra_certificate", "anchors": self.ca("forwarders"), "crls": self.crl("forwarders"), "subjects": ["CN=ra1"]}
        may = ["enroll", "update", "revoke", "forward"]
        secret = {"type": "cmp_secret", "ttl": "1d", "max_ttl": "30d", "max_uses": 3}
        others = {"any_device": False, "identity_from": "serial_number", "names": "identity"}
        self.data["profiles"].update(
            {
                "towers": {
                    **base,
                    "endpoints": {"cmp": towers},
                    "credentials": [secret, {**maker, **others}, {**ra, "may": may}],
                    "renewal": {"from": ["towers"], "messages": ["kur", "cr", "p10cr"]},
                },
                "towers-small": {**base, "endpoints": {"cmp": {"signer": signer}}, "credentials": [secret]},
            }
        )

    def cmp_signer(self, name: str, eku: str = "cmcRA", **more: Any) -> dict[str, Any]:
        """Write the pair of what signs CMP answers, or keys that are drawn."""
        settings: dict[str, Any] = {"usage": ("digitalSignature",), "ekus": (eku,), "issuer": self.issuer(), **more}
        return self.pair(name, "ec-p256", **settings)

    def another_chain(self, name: str, *, with_issuing: bool = True) -> str:
        """Write NAME.pem, a root that has certified our issuing CA too, below that certificate or alone; returns the name."""
        ours = parse_certificate(pem_to_ders((self.folder / "ca/issuing.pem").read_bytes())[0])
        issuing = load_private_key((self.folder / "secrets/issuing.key").read_bytes())
        root = self_signed_ca(key("ec-p256", name), f"CN={name}", NOW - DAY, NOW + YEAR)
        grant = Grant(ours.subject.der, (), ("keyCertSign", "cRLSign"), (), NOW - DAY, NOW + YEAR)
        signer = Issuer.from_certificate(root, key("ec-p256", name))
        crossed = build_certificate(signer, new_serial(), grant, public_key_der(issuing), is_ca=True)
        return self.write(f"{name}.pem", b"".join(map(der_to_pem, (crossed, root) if with_issuing else (root,))))

    def basic(self, name: str, user: str, **more: Any) -> dict[str, Any]:
        """Write a file of one user, whose password is `PASSWORD`, and return the credential."""
        self.write(f"{name}-users", f"{user}:{password_hash()}\n".encode())
        return {"type": "basic", "users": {"file": f"{name}-users"}, "realm": name, "names": "user", "sans": "bound", **more}

    def _token(self) -> dict[str, Any]:
        return {
            "type": "bearer",
            "anchors": self.ca("tokens"),
            "issuer": "https://login.example.com",
            "audience": "https://pki.example.com/est",
            "max_age": "10m",
            "skew": "1m",
            "names": "any",
            "sans": "policy",
        }

    def _digest(self) -> dict[str, Any]:
        users = self.write("routers-digests", f"router-2:{digest_ha1('router-2', 'routers', PASSWORD)}\n".encode())
        return {"type": "digest_md5_legacy", "users": {"file": users}, "realm": "routers", "names": "user", "sans": "bound"}

    def _certificates(self) -> list[dict[str, Any]]:
        ocsp = {"url": "http://ocsp.example.com", "timeout": "2s", "if_unavailable": "refuse"}
        device = {
            "type": "tls_certificate",
            "anchors": self.ca("robots"),
            "crls": self.crl("robots"),
            "names": "serial_number",
            "sans": "bound",
        }
        subjects = {"subjects": ["CN=gateway-1,O=Example"]}
        return [
            device,
            {"type": "ra_certificate", "anchors": self.ca("gateways"), "crls": self.crl("gateways"), **subjects},
            {"type": "ra_certificate", "anchors": self.ca("partners"), "ocsp": ocsp, **subjects},
            {"type": "all_of", "of": [{**device, "crls": None, "ocsp": ocsp}, {"type": "one_time"}]},
        ]

    def static(self, name: str) -> dict[str, Any]:
        self.write(f"{name}-challenge", f"{name}-0123456789abcdef".encode())
        return {"type": "static", "challenge": {"file": f"{name}-challenge"}, "any_name": True}

    def _split_ra(self) -> dict[str, Any]:
        signing = self.pair("signing", usage=("digitalSignature",), issuer=self.issuer())
        return {
            "ra_certificate": signing["certificate"],
            "ra_key": signing["key"],
            "ra_encryption": self.pair("encrypting", usage=("keyEncipherment",), issuer=self.issuer()),
            "client_certificate": "require",
            "client_anchors": self.ca("maker"),
            "client_crls": self.crl("maker"),
        }

    def _signed(self) -> dict[str, Any]:
        return {
            "type": "intune_jws",
            "anchors": self.ca("mdm"),
            "audience": "https://pki.example.com/scep/laptops",
            "max_age": "30m",
            "skew": "2m",
            "required_claims": ["iss", "sub", "iat", "exp", "nonce", "aud"],
            "absent_claims": "unconstrained",
            "per_device": {"count": 2, "window": "1h"},
            "replay_capacity": 1000,
            "with_other_challenges": True,
        }
