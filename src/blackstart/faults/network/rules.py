"""From a treatment and the ports of links to packet filter rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.errors import FaultError
from blackstart.faults.network.kind import BOTH, TO_CLIENT, TO_SERVER, Treatment
from blackstart.host import connections
from blackstart.host.netfilter import Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from blackstart.model.manifest import Link


def rules(
    links: Mapping[str, Link], ports: Mapping[str, Sequence[int]], treated: Treatment, way: str, queue: int
) -> list[Rule]:
    """Write one rule for each port and direction, or for each connection that exists.

    Raises FaultError where only existing connections are meant and there are none.
    """
    found = [
        Rule(
            links[name].protocol,
            port,
            side,
            treated.verdict,
            peer=peer,
            share=treated.share,
            group=links[name].group,
            queue=queue,
        )
        for name in links
        for port in ports[name]
        for side in _sides(links[name], way)
        for peer in (connections.peers(port) if treated.existing else (None,))
    ]
    if not found:
        raise FaultError("has no connection now", where=f"links {', '.join(links)}")
    return found


def _sides(link: Link, way: str) -> Iterable[str]:
    """Of a multicast link there is one side only: what is sent to the group."""
    if link.group is not None:
        return (TO_CLIENT,)
    return (TO_SERVER, TO_CLIENT) if way == BOTH else (way,)
