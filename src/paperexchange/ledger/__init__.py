"""The truth ledger: written first, synced before any effect leaves the exchange."""
