"""A proxy on the links that a manifest leads through it: `python -m blackstart.host.proxy PARENT_PID`.

It breaks links without any privilege. Spoken to in JSON lines: `listen`, `upstream`, `break`, `counts`,
`release`, each with the `link` that is meant. A link is broken by one fault at a time (`by`), which alone can
release it. It ends with its parent, and when its standard input closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import struct
import sys
import time
from typing import Any

import uvloop

from blackstart.host.proxied import Link, serve_tcp, serve_udp
from blackstart.host.shaping import Line, Shape

_PR_SET_PDEATHSIG = 1
_SERVE = {"tcp": serve_tcp, "udp": serve_udp}


class Proxy:
    """All links of one target."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request."""
        try:
            if request["do"] == "listen":
                return await self._listen(request)
            return self._about(self.links[request["link"]], request)
        except OSError as error:
            return {"error": error.strerror or str(error)}

    async def _listen(self, request: dict[str, Any]) -> dict[str, Any]:
        link = Link(stream=request["protocol"] == "tcp")
        port = await _SERVE[request["protocol"]](link, request["host"], request["port"])
        self.links[request["link"]] = link
        return {"port": port}

    async def released(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Whoever of our own uid names a fault here has it taken from all links: the guardian."""
        peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if struct.unpack("3i", peer)[1] == os.getuid() and (fault := await reader.readline()):
            by = json.loads(fault)["by"]
            for link in self.links.values():
                if link.broken_by == by:
                    link.release()
            writer.write(b"released\n")
        writer.close()

    def _about(self, link: Link, request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "upstream":
            link.upstream = (request["host"], request["port"])
        elif request["do"] == "break":
            if link.broken_by not in (None, request["by"]):
                return {"broken_by": link.broken_by}
            link.broken_by = request["by"]
            before = time.monotonic_ns()
            shape = Shape(**request["shape"])
            if link.stream:  # what has no room in the line waits with its sender
                shape = shape._replace(buffer_bytes=0)
            line = Line(shape, random.Random(request["seed"]))
            link.break_it(
                request["verdict"],
                request["direction"],
                share=request["share"],
                existing=request["existing"],
                line=line,
                seed=request["seed"],
            )
            return {"before_ns": before, "after_ns": time.monotonic_ns()}
        else:
            counted = {"rules": [{"seen": link.seen, "hit": link.hit}]}
            if request["do"] == "release" and link.broken_by == request["by"]:
                link.release()
            return counted
        return {}


async def serve() -> None:
    """Answer until standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    proxy = Proxy()
    await asyncio.start_unix_server(proxy.released, f"\0{control(os.getpid())}")
    _say({"ready": True})
    while line := await reader.readline():
        _say(await proxy.answer(json.loads(line)))


def control(pid: int) -> str:
    """Name the abstract socket at which the guardian has everything released."""
    return f"blackstart-proxy-{pid}"


def _say(answer: dict[str, Any]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


def main() -> None:
    """Run as a process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent died first")
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve())


if __name__ == "__main__":
    main()
