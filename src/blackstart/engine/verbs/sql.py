"""Undos in a database: one statement, verified by a question. Its client is imported when it is needed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.engine.verbs.verb import Outcome, Verb, Verify

OUTSIDE = ("postgres", "template1")
_LIMIT_S = 5.0


def _sql(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Carry out `statement` at `dsn`, from another database than `database`; then `look` must answer true.

    A database that is gone is taken back only if it was the target's own (`private`), which ends with it.
    The guardian starts without the installed packages: `packages` is the folder in which the client lies.
    """
    packages = str(arguments.get("packages", ""))
    if packages and packages not in sys.path:
        sys.path.append(packages)

    async def work() -> Outcome:
        import asyncpg  # noqa: PLC0415 - the guardian starts quicker without, and does without it

        outside = next(one for one in OUTSIDE if one != arguments["database"])
        try:
            link = await asyncpg.connect(str(arguments["dsn"]), database=outside, timeout=_LIMIT_S)
        except (OSError, asyncpg.CannotConnectNowError) as error:
            return bool(arguments.get("private")), {"gone": str(error)}
        try:
            await link.execute(str(arguments["statement"]), timeout=_LIMIT_S)
            opened = await link.fetchval(str(arguments["look"]), str(arguments["database"]))
        finally:
            await link.close(timeout=_LIMIT_S)
        return opened is True, {"database": arguments["database"], "answer": opened}

    def verify() -> Outcome:
        import asyncio  # noqa: PLC0415 - see above

        return asyncio.run(work())

    return verify


VERBS: dict[str, Verb] = {"sql": _sql}
