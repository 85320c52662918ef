"""How Blackstart talks to NATS JetStream: publish and wait for the answer, read back, find the leader."""

import asyncio
import json

import nats

ONCE = {"allow_reconnect": False, "connect_timeout": 1, "reconnect_time_wait": 0.02}


async def connect(settings):
    under_way = set()

    async def lost():  # the library would go on waiting for the answers of a server that is gone
        for task in under_way:
            task.cancel()

    client = await nats.connect(settings["servers"], disconnected_cb=lost, **ONCE)
    client.stream, client.under_way = client.jetstream(timeout=2), under_way
    await client.stream.add_stream(name="LEDGER", subjects=["ledger"], num_replicas=settings["replicas"])
    return client


async def write(client, record):
    client.under_way.add(task := asyncio.current_task())
    task.add_done_callback(client.under_way.discard)
    await client.stream.publish("ledger", json.dumps(record).encode())


async def read(settings):
    client = await nats.connect(settings["servers"], connect_timeout=1)
    try:
        messages = await client.jetstream().subscribe("ledger", ordered_consumer=True)
        count = (await client.jetstream().stream_info("LEDGER")).state.messages
        found = [await messages.next_msg(timeout=5) for _ in range(count)]
        return [{**json.loads(one.data), "seq": one.metadata.sequence.stream} for one in found]
    finally:
        await client.close()


async def leader(settings):  # the name of its server, which is that of our process
    client = await nats.connect(settings["servers"], **ONCE)
    try:
        return (await client.jetstream(timeout=1).stream_info("LEDGER")).cluster.leader
    finally:
        await client.close()
