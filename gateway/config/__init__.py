"""One YAML file to frozen, typed models; no network, no keys."""
