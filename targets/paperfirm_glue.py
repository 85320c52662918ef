"""A client of the reference firm: small orders on both sides of the market.

Tto whichever engine is the primary.
"""

import asyncio
import json
from collections import deque

from blackstart.target.http import fetch_json
from blackstart.target.pipelined import Pipelined

RESTING = 150  # so many of our orders rest at most; then the oldest is cancelled
_mids = {}  # symbol -> middle of the market, in ticks of 0.0001
_resting = deque()
_tasks = set()


async def connect(settings):
    await _look(settings["exchange"])
    for address in settings["addresses"]:
        try:
            client = await Pipelined.open(address, _key_of)
        except OSError:
            continue
        try:  # a primary answers, a standby closes the connection
            async with asyncio.timeout(1.0):
                await client.ask("HELLO", b'{"cancel": "HELLO"}')
        except (OSError, TimeoutError):
            client.close()
        else:
            return client
    raise ConnectionError("no engine is primary")


def make(n, rng):
    symbol = rng.choice(list(_mids))
    buys = n % 2 == 1  # as much bought as sold: positions stay small
    takes = rng.randrange(4) == 0  # a quarter crosses the market, the others rest beside it
    away = rng.randint(2, 6) * 100 * (1 if buys == takes else -1)
    price = round(_mids[symbol] / 100) * 100 + away
    order = {
        "symbol": symbol,
        "side": "buy" if buys else "sell",
        "quantity": rng.randint(1, 9),
        "price": price,
    }
    return {"client_order_id": f"W-{n}", **order, "tif": "ioc" if takes else "day"}


async def write(client, record):
    name = record["client_order_id"]
    answer = json.loads(await client.ask(name, json.dumps({"new": record}).encode()))
    if "accepted" not in answer:
        raise ValueError(answer["reason"])  # the firm's "no"; after any other error nobody knows
    if record["tif"] == "day" and name.startswith("W-"):  # what a scenario submits itself is left alone
        _resting.append(name)
    if len(_resting) > RESTING:
        client.tell(json.dumps({"cancel": _resting.popleft()}).encode())
    return {"cl_ord_id": answer["cl_ord_id"]}


def _key_of(line):
    answer = json.loads(line)
    return answer.get("accepted") or answer.get("rejected") or answer.get("cancel_rejected")


async def _look(exchange):
    """Learn where the market is; later in the background, so that reconnecting is not delayed."""
    if not _mids:
        books = (await fetch_json(f"{exchange}/market_data/snapshot"))["books"]
        _mids.update({s: _mid(book) for s, book in books.items() if book["bids"] and book["asks"]})
        _tasks.add(asyncio.create_task(_keep_looking(exchange)))


def _mid(book):
    return (book["bids"][0][0] + book["asks"][0][0]) // 2


async def _keep_looking(exchange):
    while True:
        await asyncio.sleep(1.0)
        books = (await fetch_json(f"{exchange}/market_data/snapshot"))["books"]
        _mids.update({s: _mid(book) for s, book in books.items() if book["bids"] and book["asks"]})
