"""ASN.1 declarations that asn1crypto lacks; declarations only."""
