"""How Blackstart talks to Redis: connect, write one record and wait for "yes", read everything back."""

import redis.asyncio as redis

NO = (redis.ResponseError,)  # Redis itself said "no"; after any other error nobody knows


async def connect(settings):
    port = int(settings["port"])
    client = redis.Redis(port=port, single_connection_client=True, retry=None, decode_responses=True)
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
