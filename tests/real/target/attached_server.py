"""Keeps lines: PORT FILE. "read" answers all of them as one JSON list."""

from __future__ import annotations

import asyncio
import os
import signal
import sys


async def main(port: int, path: str) -> None:
    """Serve until SIGTERM."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line == b"read\n":
                lines = os.pread(handle, 1 << 26, 0).splitlines()
                writer.write(b"[" + b",".join(lines) + b"]\n")
                continue
            os.write(handle, line)
            writer.write(b"yes\n")
        writer.close()

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await asyncio.start_server(serve, "127.0.0.1", port)
    await stop.wait()


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
