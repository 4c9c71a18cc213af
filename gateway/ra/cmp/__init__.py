"""The state machine of CMP around the registration authority's verbs (RFC 9810, RFC 9483)."""
