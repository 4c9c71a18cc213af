"""Codecs of ACME: JWS, requests, objects, problems and what challenges are made of (RFC 8555, RFC 9773)."""
