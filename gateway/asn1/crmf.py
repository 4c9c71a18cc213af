"""CRMF's controls and the tags of its templates (RFC 4211 §5-§7, RFC 9810 Appendix F)."""

from __future__ import annotations

_CONTROL = "1.3.6.1.5.5.7.5.1."
"""id-regCtrl (RFC 4211 §6)."""
OID_REG_TOKEN = f"{_CONTROL}1"
OID_AUTHENTICATOR = f"{_CONTROL}2"
OID_PKI_PUBLICATION_INFO = f"{_CONTROL}3"
OID_PKI_ARCHIVE_OPTIONS = f"{_CONTROL}4"
OID_OLD_CERT_ID = f"{_CONTROL}5"
OID_PROTOCOL_ENCR_KEY = f"{_CONTROL}6"
OID_ALG_ID = f"{_CONTROL}11"
"""id-regCtrl-algId: the kind of key that a template asks for (RFC 9810 §5.3.19.16)."""
OID_RSA_KEY_LEN = f"{_CONTROL}12"
