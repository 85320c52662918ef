"""How Blackstart talks to PostgreSQL: a few connections, one row a transaction."""

import asyncpg

NO = (asyncpg.IntegrityConstraintViolationError,)  # PostgreSQL said "no"; after any other error nobody knows


async def connect(settings):
    pool = await asyncpg.create_pool(settings["dsn"], min_size=4, max_size=4)
    await pool.execute("CREATE TABLE IF NOT EXISTS ledger (id text PRIMARY KEY, value bigint NOT NULL)")
    return pool


async def write(pool, record):
    await pool.execute("INSERT INTO ledger VALUES ($1, $2)", record["id"], record["value"])
