"""Pure functions of bytes and keys: DER, names, CSRs, CMS, certificates."""
