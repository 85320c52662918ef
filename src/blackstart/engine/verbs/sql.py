"""Undos in a database: one statement, verified by a question. Its client is imported when it is needed."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from blackstart.host import procs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.engine.verbs.verb import Outcome, Verb, Verify

OUTSIDE = ("postgres", "template1")
_LIMIT_S = 5.0
_ANSWERS_LIMIT_S = 15.0
_FIRST_AGAIN_S, _AGAIN_S = 0.005, 0.05


def _sql(arguments: Mapping[str, Any], run: str) -> Verify:
    """Carry out `statement` at `dsn`, from another database than `database`; then `look` must answer true.

    One that does not answer may be on its way back, with the fault on its disk: it is asked again, and stays
    owed when it goes on so. It is gone for good only if it was the target's own (`private`) and nothing that
    was started in the run folder lives any more.
    The guardian starts without the installed packages: `packages` is the folder in which the client lies.
    """
    _find_client(arguments)
    folder = os.path.realpath(run)

    async def work() -> Outcome:
        import asyncio  # noqa: PLC0415 - the guardian starts quicker without, and does without it

        import asyncpg  # noqa: PLC0415 - see above

        passing = (
            OSError,
            asyncpg.InterfaceError,
            asyncpg.PostgresConnectionError,
            asyncpg.OperatorInterventionError,
            asyncpg.TooManyConnectionsError,
        )
        end, pause_s = time.monotonic() + _ANSWERS_LIMIT_S, _FIRST_AGAIN_S
        while True:
            try:
                return await _carried_out(arguments)
            except passing as error:
                why = f"{type(error).__name__}: {error}"
            if arguments.get("private") and not procs.started_in(folder):
                return True, {"gone": why}
            if time.monotonic() > end:
                return False, {"error": f"does not answer: {why}"}
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _AGAIN_S)

    def verify() -> Outcome:
        import asyncio  # noqa: PLC0415 - the guardian starts quicker without

        return asyncio.run(work())

    return verify


async def _carried_out(arguments: Mapping[str, Any]) -> Outcome:
    import asyncpg  # noqa: PLC0415 - see `_sql`

    outside = next(one for one in OUTSIDE if one != arguments["database"])
    link = await asyncpg.connect(str(arguments["dsn"]), database=outside, timeout=_LIMIT_S)
    try:
        await link.execute(str(arguments["statement"]), timeout=_LIMIT_S)
        opened = await link.fetchval(str(arguments["look"]), str(arguments["database"]))
    finally:
        await link.close(timeout=_LIMIT_S)
    return opened is True, {"database": arguments["database"], "answer": opened}


def _find_client(arguments: Mapping[str, Any]) -> None:
    packages = str(arguments.get("packages", ""))
    if packages and packages not in sys.path:
        sys.path.append(packages)


def make_ready(arguments: Mapping[str, Any]) -> None:
    """Import the client beforehand: it takes longer than the statement does."""
    _find_client(arguments)
    with contextlib.suppress(ImportError):  # told when it is needed
        import asyncio  # noqa: F401, PLC0415 - the guardian starts quicker without

        import asyncpg  # noqa: F401, PLC0415 - see above


VERBS: dict[str, Verb] = {"sql": _sql}
