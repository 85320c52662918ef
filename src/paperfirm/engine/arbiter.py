"""The supervisor as arbiter of who is primary: epochs by compare-and-set, standby in step or not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from paperfirm.engine.errors import EngineError
from paperfirm.http import HttpError, fetch
from paperfirm.wire import Promote, Promoted, Replication, Restart

if TYPE_CHECKING:
    from collections.abc import Callable

CONFLICT = 409
OK = 200


class _Components(msgspec.Struct, frozen=True):
    primary: str | None = None
    epoch: int = 0


_components = msgspec.json.Decoder(_Components).decode
_promoted = msgspec.json.Decoder(Promoted).decode


class Arbiter:
    """Client of the supervisor for one engine."""

    def __init__(self, port: int, engine: str, *, emit: Callable[..., int]) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._engine = engine
        self._emit = emit

    async def present(self) -> tuple[str | None, int]:
        """Who is primary, and of which epoch; raises EngineError when the supervisor does not answer."""
        try:
            _, body = await fetch(f"{self._base}/components", limit_s=2.0)
            found: _Components = _components(body)
        except (HttpError, msgspec.DecodeError) as error:
            raise EngineError(f"supervisor: {error}; without it nobody becomes primary") from error
        return found.primary, found.epoch

    async def promote(self, epoch: int, *, silent: bool = False) -> Promoted:
        """Ask for `epoch` + 1; raises EngineError when there is no answer."""
        body = msgspec.json.encode(Promote(self._engine, epoch, silent))
        try:
            _, answer = await fetch(f"{self._base}/promote", method="POST", body=body, limit_s=2.0)
            promoted: Promoted = _promoted(answer)
        except (HttpError, msgspec.DecodeError) as error:
            raise EngineError(f"supervisor: {error}; without it nobody becomes primary") from error
        return promoted

    async def restart(self, component: str, reason: str) -> None:
        """Ask for another life of a server; nothing happens when it is not ours."""
        body = msgspec.json.encode(Restart(component, self._engine, reason))
        try:
            await fetch(f"{self._base}/restart", method="POST", body=body, limit_s=2.0)
        except HttpError as error:
            self._emit("supervisor_silent", reason=str(error))

    async def register(self, epoch: int, *, in_sync: bool) -> bool:
        """Persist whether the standby is in step; tries until there is an answer.

        False: a higher epoch exists.
        """
        body = msgspec.json.encode(Replication(self._engine, epoch, in_sync))
        while True:
            try:
                status, answer = await fetch(
                    f"{self._base}/replication", method="POST", body=body, limit_s=2.0
                )
            except HttpError as error:
                self._emit("supervisor_silent", reason=str(error))
                await asyncio.sleep(0.05)
                continue
            if status in {OK, CONFLICT}:
                return status == OK
            self._emit("supervisor_trouble", status=status, answer=answer.decode(errors="replace")[:200])
            await asyncio.sleep(0.05)
