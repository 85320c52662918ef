"""How Blackstart gives orders to the client, and reads its list of fills."""

import json
from pathlib import Path

from blackstart.target.pipelined import Pipelined


async def connect(settings):
    return await Pipelined.open(f"127.0.0.1:{settings['port']}", lambda line: line.split()[0].decode())


def make(n, rng):
    side = n % 2 + 1  # 1 buy, 2 sell: as much bought as sold
    far = 100 if side == 1 else 9_000_000  # too far from the market to be filled; 0 is at market
    symbol = rng.choice(["ALFA", "BRAVO", "CHARLIE"])
    return {"id": f"Q{n}", "symbol": symbol, "side": side, "price": rng.choice([0, far]), "quantity": 1}


async def write(client, record):
    line = "{id} {symbol} {side} {price} {quantity}".format(**record)
    if (await client.ask(record["id"], line.encode())).endswith(b"no\n"):
        raise ValueError("refused")


async def read(settings):
    text = Path(settings["run"], "client", "fills.jsonl").read_text(encoding="utf-8")  # noqa: ASYNC240 - it is small
    return [json.loads(line) for line in text.split("\n")[:-1]]  # a kill may have cut the last one
