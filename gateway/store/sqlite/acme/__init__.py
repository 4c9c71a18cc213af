"""ACME's records in SQL that every database understands."""
