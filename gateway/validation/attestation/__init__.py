"""What devices attest of themselves and of their keys (draft-ietf-acme-device-attest §5)."""

from gateway.validation.attestation.device import DeviceAttestation

__all__ = ["DeviceAttestation"]
