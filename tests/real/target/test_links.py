"""Links of a target: their ports, and the proxy through which one may lead."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest
from target_kit import manifest, rig

from blackstart.errors import ManifestError, TargetError
from blackstart.host import refs
from blackstart.model.fault import ProcessRef
from blackstart.model.manifest import Link, Manifest, ProxySpec, Ready
from blackstart.target import links

if TYPE_CHECKING:
    from pathlib import Path

ECHO = """
import socket, sys
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    c, _ = s.accept()
    c.sendall(sys.argv[2].encode())
    c.close()
"""


def proxied() -> Manifest:
    """Return a manifest whose server is told the address of its proxy, and tells it to whoever connects."""
    command = ["{python}", "-c", ECHO, "{port.back}", "{proxy.line}"]
    described = manifest(command, ready=Ready(tcp="127.0.0.1:{port.back}", limit_s=10.0))
    proxy = ProxySpec(listen="127.0.0.1:{port.front}", upstream="127.0.0.1:{port.back}")
    return msgspec.structs.replace(described, ports=("back", "front"), links={"line": Link(proxy=proxy)})


async def ask(address: str) -> str:
    """Read everything that comes from there."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(10):
            return (await reader.read()).decode()
    finally:
        writer.close()


def test_a_link_leads_through_its_proxy_from_before_the_target_starts(tmp_path: Path) -> None:
    """The target is told the proxy's address, is reached through it, and the proxy ends with the target."""

    async def run() -> ProcessRef:
        async with rig(proxied(), tmp_path / "run") as (made, notes):
            address = made.target.values["proxy"]["line"]
            assert await ask(address) == address
            assert made.target.link_ports("line") == [int(address.rpartition(":")[2])]
            undo = next(one for one in notes.undos if one.arguments["pid"] == made.target.proxy_pid)
            return ProcessRef(undo.arguments["pid"], undo.arguments["start_ticks"])

    assert not refs.alive(asyncio.run(run()))


def test_ports_are_read_out_of_numbers_addresses_urls_and_lists() -> None:
    """Whatever a variable holds: one port or several, bare or within an address."""
    values = {
        "x": {"one": 7, "url": "nats://user:secret@127.0.0.1:8", "all": ["127.0.0.1:9", "http://[::1]:10/"]}
    }
    described = Manifest(schema=1, name="x", links={"a": Link(ports=("{x.one}", "{x.url}", "{x.all}", "7"))})
    assert links.ports(described, "a", values) == [7, 8, 9, 10]


def test_what_is_no_port_is_said() -> None:
    """A link that is not there and a text without a port are errors that name it."""
    described = Manifest(schema=1, name="x", links={"a": Link(ports=("localhost",))})
    with pytest.raises(ManifestError, match="names no port"):
        links.ports(described, "a", {})
    with pytest.raises(TargetError, match="no link `b`"):
        links.ports(described, "b", {})
