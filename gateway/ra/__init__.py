"""The registration authority: authenticate, decide, reserve, issue, verify, record."""
