"""ASN.1 identifiers and codes of the protocols; declarations only."""
