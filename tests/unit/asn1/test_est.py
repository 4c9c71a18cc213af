"""Our object identifiers against those of an independent library."""

from pyasn1_alt_modules import rfc4108, rfc5751, rfc6402, rfc7030, rfc7894, rfc9908

from gateway.asn1 import est


def test_identifiers_are_the_standards() -> None:
    assert {name: getattr(est, name) for name in dir(est) if name.startswith("OID_")} == {
        "OID_OTP_CHALLENGE": str(rfc7894.id_aa_otpChallenge),
        "OID_REVOCATION_CHALLENGE": str(rfc7894.id_aa_revocationChallenge),
        "OID_EST_IDENTITY_LINKING": str(rfc7894.id_aa_estIdentityLinking),
        "OID_DECRYPT_KEY_ID": str(rfc4108.id_aa_decryptKeyID),
        "OID_ASYMMETRIC_DECRYPT_KEY_ID": str(rfc7030.id_aa_asymmDecryptKeyID),
        "OID_SMIME_CAPABILITIES": str(rfc5751.smimeCapabilities),
        "OID_CHANGE_SUBJECT_NAME": str(rfc6402.id_cmc_changeSubjectName),
        "OID_REQUEST_INFO_TEMPLATE": str(rfc9908.id_aa_certificationRequestInfoTemplate),
        "OID_EXTENSION_REQUEST_TEMPLATE": str(rfc9908.id_aa_extensionReqTemplate),
    }
