"""The order router: one FIX 4.4 session, a durable log of what came in, and a fence against old primaries."""
