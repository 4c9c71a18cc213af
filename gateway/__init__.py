"""pki-gateway: a registration authority that enrolls devices over SCEP, EST, ACME and CMP."""
