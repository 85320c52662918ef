"""A client of the reference firm: small orders on both sides of the market.

To whichever engine is the primary. And where the firm's data lie (docs/reference/firm-interface.md), to be
damaged.
"""

import asyncio
import json
import struct
from collections import deque
from pathlib import Path

import msgspec

from blackstart.target.http import fetch_json
from blackstart.target.pipelined import Pipelined

RESTING = 150  # so many of our orders rest at most; then the oldest is cancelled
HELLO = b'{"cancel": "HELLO"}'  # a primary answers, a standby closes the connection, who hangs is silent
_mids = {}  # symbol -> middle of the market, in ticks of 0.0001
_resting = deque()
_tasks = set()


async def connect(settings):
    await _look(settings["exchange"])
    for address in settings["addresses"]:
        try:
            client = await Pipelined.open(address, _key_of, beat=HELLO)
        except OSError:
            continue
        try:
            async with asyncio.timeout(0.5):
                await client.ask("HELLO", HELLO)
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


POSITION = struct.Struct(">16sqqqI")  # symbol, quantity, cash, cost, CRC
LEVEL = struct.Struct(">16s8sqqI")  # symbol, side, price, quantity, CRC
ORDER = struct.Struct(">64s16s8s20sqqqI")  # ClOrdID, symbol, side, status, price, quantity, filled, CRC
CHECKPOINT_HEAD = struct.Struct(">8sQQQ")  # magic, sequence number, wall clock, length of the payload
RECORD_HEAD = struct.Struct(">II")  # length, CRC
POSITIONS_IN_IMAGE = 9


async def position_quantities(settings):
    path = await _shared(settings, "positions")
    rows = _rows(path, POSITION.size)
    return [_place(path, offset + 16, 8, f"{_text(row[:16])}.quantity") for offset, row in rows]


async def open_order_rows(settings):
    path = await _shared(settings, "orders")
    return [_place(path, offset, ORDER.size, _text(row[:64])) for offset, row in _rows(path, ORDER.size)]


async def market_book_rows(settings):
    path = _state(settings) / "feed" / "shm" / "book"
    rows = _rows(path, LEVEL.size)
    return [_place(path, at, LEVEL.size, " ".join(map(_text, (row[:16], row[16:24])))) for at, row in rows]


async def journal_records(settings):
    newest = [max(folder.glob("*.seg")) for folder in _state(settings).glob("engine-*/journal")]
    return [place for path in newest for place in _records(path, path.read_bytes())]


async def checkpoint_quantities(settings):
    newest = [max(folder.glob("*.ckpt")) for folder in _state(settings).glob("engine-*/checkpoint")]
    return [place for path in newest for place in _quantities(path, path.read_bytes())]


def _records(path, data):
    """Yield the place of each record; after the last one the file holds zeros."""
    offset = 0
    while offset + RECORD_HEAD.size <= len(data):
        length, _ = RECORD_HEAD.unpack_from(data, offset)
        if not length:
            return
        yield _place(path, offset, RECORD_HEAD.size + length, f"record at {offset}")
        offset += RECORD_HEAD.size + length


def _quantities(path, data):
    """Yield the place of each quantity; a position in the payload is `[symbol, quantity, …]`."""
    payload = data[CHECKPOINT_HEAD.size : -32]
    for position in msgspec.msgpack.decode(payload)[POSITIONS_IN_IMAGE]:
        symbol, quantity = map(msgspec.msgpack.encode, position[:2])
        begin = payload.index(msgspec.msgpack.encode(position)) + 1 + len(symbol)
        # Its last byte holds the lowest bits, whatever its length.
        yield _place(path, CHECKPOINT_HEAD.size + begin + len(quantity) - 1, 1, f"{position[0]}.quantity")


async def _shared(settings, table):
    firm = json.loads((Path(settings["run"]) / "firm" / "endpoints.json").read_text())
    primary = (await fetch_json(f"{firm['http']}/components"))["primary"]
    return _state(settings) / primary / "shm" / table


def _state(settings):
    return Path(settings["run"]) / "firm" / "state"


def _rows(path, width):
    data = path.read_bytes()
    rows = [(offset, data[offset : offset + width]) for offset in range(0, len(data), width)]
    return [(offset, row) for offset, row in rows if any(row)]


def _text(field):
    return field.rstrip(b"\0").decode()


def _place(path, offset, length, name):
    return {"path": str(path), "offset": offset, "length": length, "name": name}
