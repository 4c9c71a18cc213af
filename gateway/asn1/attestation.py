"""Object identifiers of what devices attest: Apple's, the Trusted Computing Group's and Yubico's."""

from __future__ import annotations

OID_APPLE_SERIAL_NUMBER = "1.2.840.113635.100.8.9.1"
OID_APPLE_UDID = "1.2.840.113635.100.8.9.2"
OID_APPLE_OS_VERSION = "1.2.840.113635.100.8.10.1"
OID_APPLE_SEPOS_VERSION = "1.2.840.113635.100.8.10.2"
"""Of the Secure Enclave's operating system."""
OID_APPLE_LLB_VERSION = "1.2.840.113635.100.8.10.3"
"""Of the low-level boot loader."""
OID_APPLE_NONCE = "1.2.840.113635.100.8.11.1"
"""Freshness code: here the SHA-256 of the challenge's token."""

OID_TCG_AIK_CERTIFICATE = "2.23.133.8.3"
"""tcg-kp-AIKCertificate, the extended key usage of an attestation key (TCG EK Credential Profile §3.2.15)."""
OID_TPM_MANUFACTURER = "2.23.133.2.1"
OID_TPM_MODEL = "2.23.133.2.2"
OID_TPM_VERSION = "2.23.133.2.3"

OID_YUBICO_FIRMWARE = "1.3.6.1.4.1.41482.3.3"
OID_YUBICO_SERIAL_NUMBER = "1.3.6.1.4.1.41482.3.7"
OID_YUBICO_POLICIES = "1.3.6.1.4.1.41482.3.8"
"""When the key asks for its PIN and for a touch."""
OID_YUBICO_FORM_FACTOR = "1.3.6.1.4.1.41482.3.9"
OID_STEP_MANAGED_DEVICE = "1.3.6.1.4.1.37476.9000.64.4"
"""The name that a CA of the operator's own gave a device."""
