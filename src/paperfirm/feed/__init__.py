"""The market-data feed: the exchange's incremental UDP feed turned into true best prices, or none at all."""
