"""Upstream CA backends behind one interface."""
