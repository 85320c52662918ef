"""How Blackstart talks to Redis: connect, write one record and wait for "yes", read everything back."""

import redis.asyncio as redis

LOST = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.BusyLoadingError,
)  # no answer: it may have been written


async def connect(settings):
    client = redis.Redis(
        port=int(settings["port"]), single_connection_client=True, retry=None, decode_responses=True
    )
    await client.ping()
    return client


async def write(client, record):
    await client.xadd("ledger", record)


async def read(settings):
    client = await connect(settings)
    try:
        return [fields for _, fields in await client.xrange("ledger")]
    finally:
        await client.aclose()
