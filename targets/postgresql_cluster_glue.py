"""How Blackstart talks to two PostgreSQL nodes: to whichever is primary. And how it finds who that is."""

import asyncpg

NO = (asyncpg.IntegrityConstraintViolationError,)  # PostgreSQL said "no"; after any other error nobody knows


async def connect(settings):
    pool = await asyncpg.create_pool(settings["dsn"], min_size=4, max_size=4)
    await pool.execute("CREATE TABLE IF NOT EXISTS ledger (id text PRIMARY KEY, value bigint NOT NULL)")
    return pool


async def write(pool, record):
    await pool.execute("INSERT INTO ledger VALUES ($1, $2)", record["id"], record["value"])


async def primary(settings):
    return int((await ask(settings["dsn"], "SELECT pg_read_file('postmaster.pid')")).split()[0])


async def standby(settings):
    dsn = settings["dsn"].replace("=primary", "=standby")
    return int((await ask(dsn, "SELECT pg_read_file('postmaster.pid')")).split()[0])


async def replication(settings):  # the primary's process that sends its log to the standby
    return await ask(
        settings["dsn"], "SELECT pid FROM pg_stat_replication WHERE application_name = 'walreceiver'"
    )


async def ask(dsn, question):
    connection = await asyncpg.connect(dsn, timeout=2)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()
