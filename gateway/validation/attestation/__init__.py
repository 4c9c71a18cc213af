"""What devices attest of themselves and of their keys (draft-ietf-acme-device-attest §5, draft-ietf-lamps-csr-attestation)."""

from gateway.validation.attestation.device import DeviceAttestation
from gateway.validation.attestation.requests import RequestAttestation

__all__ = ["DeviceAttestation", "RequestAttestation"]
