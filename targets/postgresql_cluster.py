"""Two PostgreSQL nodes and who decides between them: the system under test of postgresql-*.toml.

`node BIN DATA PORT OTHER_PORT SETTING…` becomes a PostgreSQL server: a standby built anew from the other
node when that one is primary, else what its folder holds. `manager PORT PORT EVENTS` promotes the
standby when the primary has refused three times, 50 ms apart.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import asyncpg

REFUSALS, PERIOD_S = 3, 0.05


def node(tools, data, port, other, *settings):
    source = f"host=127.0.0.1 port={other} user=test dbname=postgres"
    ask = [f"{tools}/psql", "-At", "-d", source, "-c", "SELECT pg_is_in_recovery()"]
    if subprocess.run(ask, check=False, capture_output=True, text=True).stdout.strip() == "f":
        shutil.rmtree(data, ignore_errors=True)  # what only an old primary has was lost at the promotion
        copy = [f"{tools}/pg_basebackup", "-D", data, "-d", source, "-R", "--checkpoint=fast", "--no-sync"]
        subprocess.run(copy, check=True)
    elif not Path(data).exists():
        shared = "dynamic_shared_memory_type=mmap"  # what a killed server has in /dev/shm would stay there
        create = [f"{tools}/initdb", "-D", data, "-U", "test", "--auth=trust", "--no-locale", "--no-sync"]
        subprocess.run([*create, f"--set={shared}"], check=True)
    options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", *settings]
    command = [f"{tools}/postgres", "-D", data, "-p", port, *(f"--{one}" for one in options)]
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


async def in_recovery(port):
    """Whether that node is a standby; None when it does not answer."""
    try:
        connection = await asyncpg.connect(f"postgresql://test@127.0.0.1:{port}/postgres", timeout=1)
        try:
            return await connection.fetchval("SELECT pg_is_in_recovery()", timeout=1)
        finally:
            connection.terminate()
    except Exception:  # noqa: BLE001 - whatever a dying server does to the driver: no answer
        return None


async def promote(port, tell):
    connection = await asyncpg.connect(f"postgresql://test@127.0.0.1:{port}/postgres")
    tell("promoting", time.monotonic_ns())
    await connection.fetchval("SELECT pg_promote(wait => false)")
    standby = True
    while standby:
        asked_ns = time.monotonic_ns()
        standby = await connection.fetchval("SELECT pg_is_in_recovery()")
        await asyncio.sleep(0.002)
    tell("promoted", asked_ns)
    connection.terminate()


async def manager(*arguments):
    *ports, events = arguments
    refusals = 0

    def tell(event, mono_ns):
        with Path(events).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"mono_ns": mono_ns, "event": event}) + "\n")

    while True:
        roles = {port: await in_recovery(port) for port in ports}
        refusals = 0 if False in roles.values() else refusals + 1
        standbys = [port for port, role in roles.items() if role]
        if refusals >= REFUSALS and standbys:
            tell("primary_lost", time.monotonic_ns())
            await promote(standbys[0], tell)
        await asyncio.sleep(PERIOD_S)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    node(*arguments) if what == "node" else asyncio.run(manager(*arguments))
