"""Half-open: connections that exist fall silent without an end, new ones work (R77).

By default nothing reaches the client any more: it believes that the connection lives, and so does the server.
"""

from __future__ import annotations

from blackstart.faults.network.kind import TO_CLIENT, Kind, Treatment

KIND = Kind(
    "half_open",
    "existing TCP connections fall silent without an end",
    lambda _: Treatment("drop", existing=True),
    direction=TO_CLIENT,
    protocols=("tcp",),
)
