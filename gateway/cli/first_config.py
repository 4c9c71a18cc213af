"""The profiles.yaml that `init` writes: commented, ready to serve, and meant to be edited."""

from __future__ import annotations

CA_NAME = "local"
STORE_PATH = "store/gateway.db"


def format_first_config(http_port: int, https_port: int, monitoring_port: int) -> str:
    """Return profiles.yaml for a server on loopback with these ports."""
    ports = {"@HTTP@": http_port, "@HTTPS@": https_port, "@MONITORING@": monitoring_port}
    text = _TEMPLATE.replace("@STORE@", STORE_PATH)
    for mark, port in ports.items():
        text = text.replace(mark, str(port))
    return text


_TEMPLATE = """\
# pki-gateway: what is served, who may enroll, and which CA signs.
#
# Relative paths count from the folder of this file. Every field is explained in docs/configuration.md.
# After a change:  pki-gateway config check --config THIS-FILE

server:
  http: 127.0.0.1:@HTTP@            # SCEP, CMP, CRL and CA certificates; their clients expect plain HTTP
  https:                            # EST and ACME, and SCEP and CMP too
    listen: 127.0.0.1:@HTTPS@
    certificate: tls/server.pem     # trust ca/root.pem to connect
    key: {file: secrets/tls.key}
  external_url:                     # how clients reach this server; goes into certificates
    http: http://127.0.0.1:@HTTP@
    https: https://localhost:@HTTPS@
  monitoring: 127.0.0.1:@MONITORING@      # /metrics, /livez and /readyz: for your monitoring, not for clients
  admin_socket: run/admin.sock      # commands that change something talk to the server here
  workers: cores                    # processes: a number, or one a core

store:
  type: sqlite
  path: @STORE@
  key: {file: secrets/store.key}    # without it the store cannot be read: keep a copy apart from the backups

audit:
  key: {file: secrets/audit.key}    # proves that no row of the audit trail was changed
  heads: store/audit-heads.jsonl    # signed heads; copy them elsewhere, so that a cut tail shows
  head_interval: 60s

upstream_cas:
  local:                            # the CA in this process; secrets/root.key is not needed to run: take it offline
    type: local
    certificate: ca/issuing.pem
    key: {file: secrets/issuing.key}
    chain: [ca/root.pem]
    crl:
      lifetime: 7d
      refresh: 24h                  # and at once when a certificate is revoked

profiles:
  # A playground: `serve` refuses a profile of this name on any address but loopback. Copy it under another name,
  # and narrow credentials, names and renewal to what your devices need.
  demo:
    endpoints:
      scep:                         # http://127.0.0.1:@HTTP@/scep/demo
        ra_certificate: ca/ra.pem
        ra_key: {file: secrets/ra.key}
      est:                          # https://localhost:@HTTPS@/.well-known/est/demo
        default: true               # and without the label, for clients that know none: one profile only
      cmp:                          # http://127.0.0.1:@HTTP@/.well-known/cmp/p/demo, and by https too
        signer:                     # signs answers: a certificate of its own, whose key is no CA's and no listener's
          certificate: ca/cmp.pem
          key: {file: secrets/cmp.key}
      acme:                         # https://localhost:@HTTPS@/acme/demo/directory
        external_account: optional  # pki-gateway eab create demo; required: no account without one
        validation:                 # names under demo.test are this machine; connections go nowhere else
          challenges: [http-01, tls-alpn-01]    # dns-01 too, where there is a DNS server to write to
          resolver: {hosts: {demo.test: [127.0.0.1], '*.demo.test': [127.0.0.1]}}
          allow_cidrs: [127.0.0.0/8]    # never connected to unless it is said, and with these ports for trials only
          http01_port: 5002         # in place of 80
          tlsalpn01_port: 5001      # in place of 443
          caa: {mode: "off"}        # log: what CAA records forbid is logged; enforce: refused

    upstream_ca: local

    # Who may enroll: whoever brings one of these by SCEP, EST or CMP; by ACME who controls the names.
    credentials:
      - type: one_time              # pki-gateway challenge new demo
        ttl: 1h
        max_ttl: 7d
      - type: static                # one secret for all devices: convenient, and as good as the place where it is kept
        challenge: {file: secrets/demo-scep-challenge}
        any_name: true              # its holder may ask for any name that the policy below lets through
      - type: cmp_secret            # CMP only: pki-gateway cmp-secret create demo
        ttl: 7d
        max_uses: 10                # certificates that --uses may let one secret be good for
      - type: basic                 # EST only: names and passwords; `pki-gateway password hash NAME` makes a line
        users: {file: secrets/demo-est-users}   # one user, `demo`; the password is in secrets/demo-est-password
        names: any                  # `user`: the CN must be the user's name

    # A certificate of this profile may be renewed before it ends, without a challenge.
    renewal:
      from: [demo]
      messages: [RenewalReq, PKCSReq, kur]  # many renew with PKCSReq; EST: simplereenroll, with server.https_mtls
      grace: 0s                     # not after it has expired

    # What may be certified; the same for every endpoint. Each rule takes `mode: enforce | warn | off`.
    policy:
      key:
        rsa: {min_bits: 2048, max_bits: 4096}
        ec: [P-256, P-384, P-521]
        eddsa: [ed25519]
        ml_dsa: [ml-dsa-44, ml-dsa-65, ml-dsa-87]
      subject:
        allow: [CN, O, OU, C, ST, L, DC, UID, serialNumber, emailAddress]
        max_common_names: 1
        allow_empty: true           # ACME clients leave it out; a subject alternative name must be there then
      san:
        dns: {patterns: ['[a-z0-9_-]{1,63}(\\.[a-z0-9_-]{1,63})*'], wildcards: true, max: 10}
        ip: {networks: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 127.0.0.0/8, 'fc00::/7', '::1/128'], max: 4}
        email: {patterns: ['[^@]+@[a-z0-9.-]+'], max: 4}
        uri: {patterns: ['[a-z][a-z0-9+.-]*:.+'], max: 4}
        upn: {patterns: ['[^@]+@[A-Za-z0-9.-]+'], max: 1}
        unlisted: refuse            # any other kind of name
      key_usage:
        allow: [digitalSignature, keyEncipherment, keyAgreement]
        default: [digitalSignature, keyEncipherment]
        unlisted: drop
      eku:
        allow: [clientAuth, serverAuth]
        default: [clientAuth, serverAuth]   # ACME clients ask for none, and mean serverAuth
        unlisted: refuse
      validity:
        default: 365d
        max: 365d
        backdate: 1h                # device clocks run behind
      extensions:
        allow: []
        unlisted: drop

    # Same requester, same CSR, same answer for this long: a lost reply costs nothing.
    retransmission_window: 1h
"""
