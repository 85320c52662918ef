"""A client of many requests at once notices a server that hangs, and bears with one that only takes long."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from blackstart.target.pipelined import Pipelined

SILENT_S = 0.1


async def _asked(server: Literal["hangs", "answers the beat", "answers late"], *, beat: bool) -> bytes:
    """Ask for `a`: nobody answers, or only the beat is answered, or the question as well a second later."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line == b"beat\n" and server != "hangs":
                writer.write(b"beat\n")
            if line == b"a\n" and server == "answers late":
                asyncio.get_running_loop().call_later(SILENT_S * 8, writer.write, b"a\n")

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    options = {"beat": b"beat", "silent_s": SILENT_S} if beat else {}
    client = await Pipelined.open(f"127.0.0.1:{port}", bytes.strip, **options)  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(SILENT_S * 20):
            return await client.ask(b"a", b"a")
    finally:
        client.close()
        listening.close()


def test_a_server_that_hangs_is_taken_for_dead() -> None:
    """It keeps its connections open for ever; who sends no beat waits for ever, too."""
    with pytest.raises(ConnectionError):
        asyncio.run(_asked("hangs", beat=True))
    with pytest.raises(TimeoutError):
        asyncio.run(_asked("hangs", beat=False))


def test_an_answer_that_takes_long_is_waited_for_while_the_server_answers_the_beat() -> None:
    """As a request to an exchange that cannot be reached: the server lives, and the connection is kept."""
    assert asyncio.run(_asked("answers late", beat=True)) == b"a\n"
    with pytest.raises(TimeoutError):
        asyncio.run(_asked("answers the beat", beat=True))
