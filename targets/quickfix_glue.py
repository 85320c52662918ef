"""How Blackstart gives orders to the client, and reads its list of fills."""

import json
from pathlib import Path

from blackstart.target.pipelined import Pipelined


async def connect(settings):
    return await Pipelined.open(f"127.0.0.1:{settings['port']}", lambda line: line.split()[0].decode())


def make(n, rng):
    side = n % 2 + 1
    price = (
        0 if n % 4 < 2 else (100 if side == 1 else 9_000_000)
    )  # half at market, half too far away for a fill
    return {"id": f"Q{n}", "symbol": rng.choice(["ALFA", "BRAVO", "CHARLIE"]), "side": side, "price": price}


async def write(client, record):
    answer = await client.ask(record["id"], "{id} {symbol} {side} {price}".format(**record).encode())
    if answer.endswith(b"no\n"):
        raise ValueError("refused")


async def read(settings):
    lines = Path(settings["run"], "client", "fills.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]  # what follows the last end of line was cut by a kill
