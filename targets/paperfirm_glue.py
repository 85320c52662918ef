"""A client of the reference firm: small orders on both sides of the market, over JSON lines, to whichever engine is the primary."""

import asyncio
import json
from collections import deque

from blackstart.target.http import fetch_json

RESTING = 150  # so many of our orders rest at most; then the oldest is cancelled
_mids = {}  # symbol -> middle of the market, in ticks of 0.0001


class Client:
    """One connection; requests are pipelined, answers are told apart by client_order_id."""

    def __init__(self, reader, writer, watching):
        self.writer, self._waiting, self._resting = writer, {}, deque()
        self._tasks = [asyncio.create_task(job) for job in (self._read(reader), watching)]

    async def ask(self, key, request):
        self._waiting[key] = answer = asyncio.get_running_loop().create_future()
        self.writer.write(json.dumps(request).encode() + b"\n")
        return await answer

    def rests(self, client_order_id):
        self._resting.append(client_order_id)
        if len(self._resting) > RESTING:
            self.writer.write(json.dumps({"cancel": self._resting.popleft()}).encode() + b"\n")

    def close(self):
        for task in self._tasks:
            task.cancel()
        self.writer.close()
        self._fail(ConnectionError("closed"))

    async def _read(self, reader):
        try:
            while line := await reader.readline():
                answer = json.loads(line)
                key = answer.get("accepted") or answer.get("rejected") or answer.get("cancel_rejected")
                if "update" not in answer and (waiting := self._waiting.pop(key, None)):
                    waiting.set_result(answer)
        finally:
            self._fail(ConnectionError("the engine closed the connection"))

    def _fail(self, error):
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)
        self._waiting.clear()


async def connect(settings):
    if not _mids:
        await _look(settings["exchange"])
    for address in settings["addresses"]:
        try:
            host, port = address.split(":")
            client = Client(*await asyncio.open_connection(host, port), _keep_looking(settings["exchange"]))
        except OSError:
            continue
        try:  # a primary answers at once; a standby closes the connection
            await asyncio.wait_for(client.ask("HELLO", {"cancel": "HELLO"}), 1.0)
        except (OSError, TimeoutError):
            client.close()
        else:
            return client
    raise ConnectionError("no engine is primary")


def make(n, rng):
    symbol = rng.choice(list(_mids))
    side = "buy" if n % 2 else "sell"  # as much bought as sold: positions stay small
    takes = rng.random() < 0.25  # a quarter crosses the market, the others rest beside it
    away = rng.randint(2, 6) * 100 * (-1 if (side == "buy") == takes else 1)
    price = (
        round(_mids[symbol] / 100) * 100 - away if side == "buy" else round(_mids[symbol] / 100) * 100 + away
    )
    order = {"symbol": symbol, "side": side, "quantity": rng.randint(1, 9), "price": price}
    return {"client_order_id": f"W-{n}", **order, "tif": "ioc" if takes else "day"}


async def write(client, record):
    answer = await client.ask(record["client_order_id"], {"new": record})
    if "accepted" not in answer:
        raise ValueError(answer["reason"])  # the firm's "no"; after any other error nobody knows
    if record["tif"] == "day":
        client.rests(record["client_order_id"])
    return {"cl_ord_id": answer["cl_ord_id"]}


async def _look(exchange):
    books = (await fetch_json(f"{exchange}/market_data/snapshot"))["books"]
    _mids.update(
        {s: (b["bids"][0][0] + b["asks"][0][0]) // 2 for s, b in books.items() if b["bids"] and b["asks"]}
    )


async def _keep_looking(exchange):
    while True:
        await asyncio.sleep(1.0)
        await _look(exchange)
