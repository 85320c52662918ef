"""How Blackstart talks to RabbitMQ: publish, wait for the confirmation; read the queue, which stays full."""

import json

import aio_pika


async def connect(settings):
    connection = await aio_pika.connect(settings["url"], timeout=2)
    connection.ours = await connection.channel()  # with publisher confirms
    await connection.ours.declare_queue("ledger", durable=True)
    return connection


async def write(connection, record):
    message = aio_pika.Message(json.dumps(record).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await connection.ours.default_exchange.publish(message, routing_key="ledger")


async def read(settings):  # takes all, and puts all back before it goes: the next reader finds all
    async with await aio_pika.connect(settings["url"], timeout=2) as connection:
        queue = await (channel := await connection.channel()).declare_queue("ledger", durable=True)
        taken = [await queue.get() for _ in range(queue.declaration_result.message_count)]
        await taken[-1].nack(multiple=True) if taken else None
        await channel.declare_queue("ledger", passive=True)  # answered when they are back
        return [json.loads(message.body) for message in taken]
