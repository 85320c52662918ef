"""How Blackstart talks to whichever Redis Sentinel calls master, and how it finds who that is."""

import redis.asyncio as redis

NO = (redis.ResponseError,)  # Redis itself said "no"; after any other error nobody knows


def client(port):
    return redis.Redis(port=int(port), single_connection_client=True, retry=None, decode_responses=True)


async def master(settings):
    async with client(settings["sentinel"]) as sentinel:
        return client((await sentinel.sentinel_get_master_addr_by_name("main"))[1])


async def connect(settings):
    found = await master(settings)
    if (await found.role())[0] != "master":
        raise ConnectionError("Sentinel's master does not know it yet")
    found.wait_for, found.padding = settings["wait"], "." * settings["padding"]
    return found


async def write(connection, record):
    await connection.xadd("ledger", {**record, "padding": connection.padding})
    if connection.wait_for and await connection.wait(connection.wait_for, 1000) < connection.wait_for:
        raise TimeoutError("not on the replica within 1 s")


async def read(settings):
    async with await master(settings) as found:
        return [fields for _, fields in await found.xrange("ledger")]


async def primary(settings):
    async with await master(settings) as found:
        return int((await found.info("server"))["process_id"])


async def replica(settings):
    async with await master(settings) as found:
        port = (await found.role())[2][0][1]
    async with client(port) as other:
        return int((await other.info("server"))["process_id"])
