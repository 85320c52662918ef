"""A simulated exchange with a truth ledger: FIX 4.4, drop copy, market data, scripted misbehaviour."""
