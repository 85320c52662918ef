"""Public kit: written conversations, played against any acceptor, or a session without network and clock.

`script` and `player` read and play them, `tcp` and `memory` are the sides to play against, `endpoint` carries
a session over asyncio streams.
"""
