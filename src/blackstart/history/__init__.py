"""The history of one trial: append-only, hash-chained, readable up to the last complete record."""
