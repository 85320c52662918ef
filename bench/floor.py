"""What the machine itself takes for the same work: the floors that other programs divide their figures by."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ECHO = """\
import asyncio, sys
async def serve(reader, writer):
    while line := await reader.readline():
        writer.write(line)
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
import uvloop; uvloop.run(main())
"""
ORDER = b"x" * 200 + b"\n"


async def order_path_ms(folder: Path, orders: int = 500, rate: float = 300.0) -> float:
    """Time an order's bare necessities: one turn to another process and back, and one fdatasync. The median.

    At the rate of the real thing: processors that fall asleep in between are part of it.
    """
    program = [sys.executable, "-c", ECHO]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as server:  # noqa: ASYNC220
        assert server.stdout is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.stdout.readline()))
        file = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        times = []
        for _ in range(orders):
            await asyncio.sleep(1 / rate)
            began = time.monotonic_ns()
            writer.write(ORDER)
            await reader.readline()
            os.write(file, ORDER)
            os.fdatasync(file)
            times.append(time.monotonic_ns() - began)
        os.close(file)
        writer.close()
        server.kill()
    return statistics.median(times) / 1e6


def read_s(files: Iterable[Path]) -> float:
    """Time to start an interpreter, and to read all bytes of the files and their CRC."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import asyncio, msgspec"], check=True)
    for path in files:
        zlib.crc32(path.read_bytes())
    return time.monotonic() - began
