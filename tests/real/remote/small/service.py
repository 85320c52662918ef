"""Keeps lines on its host: PORT FOLDER [forgetful]. "read" answers all of them as one JSON list.

It writes its pid, and what it does as JSON lines with the stamps of its own clock. A forgetful one says yes
before it has written anything, and has the last fifty lines in memory only.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path


async def main(port: int, folder: Path, behind: int) -> None:
    """Serve until SIGTERM."""
    handle = os.open(folder / "lines", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    waiting: list[bytes] = []

    def tell(event: str) -> None:
        with (folder / "events.jsonl").open("a") as file:
            file.write(
                json.dumps({"event": event, "mono_ns": time.monotonic_ns(), "pid": os.getpid()}) + "\n"
            )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line == b"read\n":
                lines = os.pread(handle, 1 << 26, 0).splitlines() + [one.strip() for one in waiting]
                writer.write(b"[" + b",".join(lines) + b"]\n")
                continue
            waiting.append(line)
            while len(waiting) > behind:
                os.write(handle, waiting.pop(0))
            writer.write(b"yes\n")
        writer.close()

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    tell("starting")
    await asyncio.start_server(serve, "127.0.0.1", port)
    (folder / "pid").write_text(f"{os.getpid()}\n")
    tell("serving")
    await stop.wait()


asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), 50 if sys.argv[3:] == ["forgetful"] else 0))
