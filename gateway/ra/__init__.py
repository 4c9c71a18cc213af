"""The corridor: authenticate, decide, reserve, issue, verify, record."""
