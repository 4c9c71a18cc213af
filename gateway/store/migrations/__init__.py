"""Schema migrations, run by `pki-gateway store migrate` from wherever the package is installed."""
