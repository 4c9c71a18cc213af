"""The ledger and all shared truth behind one interface."""
