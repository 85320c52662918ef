"""A database that runs and refuses its clients: connections are cut, new ones turned away (R8, R30)."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from blackstart.contracts import FaultContext, HasDatabases, HasProcesses
from blackstart.errors import BlackstartError, FaultError, TargetError
from blackstart.faults import death
from blackstart.host import procs
from blackstart.model.fault import Receipt, Undo, Witness

if TYPE_CHECKING:
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1"
_STATE = "SELECT datallowconn FROM pg_database WHERE datname = $1"


class RefuseService:
    """PostgreSQL: `ALTER DATABASE … ALLOW_CONNECTIONS false`, then every backend of that database is ended.

    For services without such a switch, cut their link with a network fault.
    """

    name = "refuse_service"
    exclusive = True

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """See `contracts.Fault`."""
        names = death.members(target, step.components)
        if len(names) != 1:
            return "exactly one component is to refuse its clients"
        spec = target.components.get(names[0])
        if spec is None:
            return f"`{names[0]}` is not a component of {target.name}"
        if not _packages():
            return "talking to a database needs the package asyncpg: pip install 'blackstart[targets]'"
        missing = f"nobody says how to tell it: give `dsn` in [components.{names[0]}]"
        return None if spec.dsn else missing

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Shut the door, then send everybody out; the way back is in the guardian's hands first."""
        databases, component = _databases(ctx), step.components[0]
        name = await databases.ask(component, "SELECT current_database()")
        if name is None:
            raise FaultError("did not say which database it is", where=component)
        quoted = '"' + str(name).replace('"', '""') + '"'
        undo = Undo(
            id=f"refuse:{component}:{name}:{ctx.clock.now().mono_ns}",
            action="sql",
            arguments={
                "dsn": databases.dsn(component),
                "statement": f"ALTER DATABASE {quoted} ALLOW_CONNECTIONS true",
                "look": _STATE,
                "database": str(name),
                "private": await _private(ctx, component),
                "packages": _packages(),
            },
        )
        await ctx.protect([undo])
        before = ctx.clock.now().mono_ns
        shut = f"ALTER DATABASE {quoted} ALLOW_CONNECTIONS false"
        await databases.ask(component, shut, from_outside=True)
        cut = await databases.ask(component, _CUT, str(name), from_outside=True)
        after = ctx.clock.now().mono_ns
        return Receipt(
            fault=self.name,
            mechanism="ALTER DATABASE … ALLOW_CONNECTIONS false, pg_terminate_backend",
            t0_mono_ns=after,
            t0_source="the answer of the database",
            uncertainty_ns=after - before,
            undo=(undo,),
            data={"component": component, "database": name, "connections_cut": cut},
        )

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Try to connect as a client does."""
        cut = {"connections_cut": receipt.data["connections_cut"]}
        try:
            await _databases(ctx).ask(receipt.data["component"], "SELECT 1")
        except BlackstartError as error:
            refused = "not currently accepting connections" in error.what
            return Witness(bit=refused or None, evidence={"answer": error.what, **cut})
        return Witness(bit=False, evidence={"answer": "a new connection was taken", **cut})

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Open the door; idempotent. Of one that does not answer now the guardian's undo goes on asking."""
        name = str(receipt.data["database"]).replace('"', '""')
        opened = f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'
        with contextlib.suppress(TargetError):
            await _databases(ctx).ask(receipt.data["component"], opened, from_outside=True)


def _packages() -> str:
    """Return the folder of the database's client, for the guardian."""
    found = importlib.util.find_spec("asyncpg")
    return str(Path(found.origin).parents[1]) if found and found.origin else ""


async def _private(ctx: FaultContext, component: str) -> bool:
    """Say whether the database ends with the trial: it was started for it, by us or by what we started."""
    if ctx.target.manifest.components[component].process is not None:
        return True
    if not isinstance(ctx.target, HasProcesses):
        return False
    try:
        found = await ctx.target.process(component)
    except TargetError:
        return False
    return found.pid in {one.pid for one in procs.started_in(str(ctx.folder.resolve()))}


def _databases(ctx: FaultContext) -> HasDatabases:
    if not isinstance(ctx.target, HasDatabases):
        raise FaultError("the target's databases cannot be spoken to", where=ctx.target.name)
    return ctx.target
