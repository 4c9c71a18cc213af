"""`python -m gateway` is the pki-gateway command."""

from gateway.cli import main

main()
