"""The owner's side of the guardian: start it, hand it undos, ask it to carry them out."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

import blackstart
from blackstart.engine import journal, openruns
from blackstart.engine.oversight import HALTED
from blackstart.errors import BlackstartError, FaultError
from blackstart.host import procs
from blackstart.host.lifeline import Lifeline
from blackstart.model.record import Reverted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from blackstart.engine.trial import Guarding
    from blackstart.model.fault import Undo

_START_LIMIT_S = 10.0
_ANSWER_LIMIT_S = 5.0
_PATIENCE = 6
_LINE_LIMIT = 1 << 24


class Guard:
    """A running guardian.

    `on_halt` is called when somebody pulled the kill switch, or when the guardian itself died.
    """

    def __init__(
        self,
        run: Path,
        process: asyncio.subprocess.Process,
        link: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        lifeline: Lifeline,
        on_halt: Callable[[str], None],
    ) -> None:
        self._run = run
        self.process = process
        reader, self._writer = link
        self._lifeline = lifeline
        self._on_halt = on_halt
        self._answers: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._turn = asyncio.Lock()
        self._number = 0
        self._closing = False
        self._lost = False
        self._expired: list[Reverted] = []
        self._listener = asyncio.ensure_future(self._listen(reader))

    async def protect(self, undos: Iterable[Undo]) -> None:
        """Return once all `undos` are on disk and in the guardian's hands.

        Raises FaultError when it is not there, OSError when the disk has no room for them.
        """
        entries = [msgspec.to_builtins(undo) for undo in undos]
        answer = await self._ask({"protect": entries}) if entries else {}
        if "refused" in answer:
            raise OSError(answer["errno"], answer["refused"], str(self._run / journal.OWED))

    async def undo(self, ids: Sequence[str] | None = None) -> list[Reverted]:
        """Have some undos (or all that are owed) carried out and verified.

        Of all those, too, that the guardian had to carry out before, because their time was over.
        Raises FaultError when the guardian is gone or does not answer.
        """
        answer = await self._ask({"undo": ids if ids is None else list(ids)})
        undone = [reverted(one) for one in answer["undone"]]
        if ids is None:
            undone, self._expired = [*self._expired, *undone], []
        return undone

    async def close(self) -> None:
        """Say goodbye; what is still owed stays in the journal for the next start.

        A guardian that does not go within 5 s is ended: a stopped one would be waited for without end.
        """
        self._closing = True
        self._say({"close": True})
        try:
            async with asyncio.timeout(0 if self._lost else _ANSWER_LIMIT_S):
                await self.process.wait()
        except TimeoutError:
            if not self._lost:  # a second signal looks for its end first, and takes it from asyncio's watcher
                self.process.kill()
            await self.process.wait()
        await self._listener
        self._writer.close()
        self._lifeline.let_go()
        if self._lost:
            _strike(self._run)

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        async with self._turn:
            if self._lost:
                raise self._gone()
            self._number += 1
            self._say({**request, "number": self._number})
            answer = await self._answer()
        if answer is None:
            self._answers.put_nowait(None)
            raise self._gone()
        return answer

    def _say(self, request: dict[str, Any]) -> None:
        """Write to the guardian, unless the link has ended: uvloop takes that for an error."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(request).encode() + b"\n")

    async def _answer(self) -> dict[str, Any] | None:
        """Wait 5 s, and longer only for one that is at work: a victim may take its time to end."""
        for _ in range(_PATIENCE):
            try:
                async with asyncio.timeout(_ANSWER_LIMIT_S):
                    return await self._matching()
            except TimeoutError:
                found = procs.stat(self.process.pid)
                if found is None or found.stopped:
                    break
        self._lose()
        raise self._gone()

    async def _matching(self) -> dict[str, Any] | None:
        """Pass over answers to questions whose asker was cancelled before they came."""
        while (answer := await self._answers.get()) is not None and answer["number"] != self._number:
            continue
        return answer

    def _lose(self) -> None:
        """End a guardian that does not answer, so that it cannot take back the same later, beside us."""
        self._lost = True
        self.process.kill()
        if not self._closing:
            self._closing = True  # its end is told here, not once more by the listener
            self._on_halt("guardian-lost")

    def _gone(self) -> FaultError:
        return FaultError(
            "the guardian is gone: nothing may be broken without it",
            where=str(self._run),
            hint="what it held is taken back at the next start (`blackstart halt` does it now)",
        )

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        halting = False
        while line := await _line(reader):
            answer = json.loads(line)
            if "halting" in answer:
                halting = True
                self._on_halt(HALTED)
                continue
            if "halted" in answer:
                break
            if "expired" in answer:
                self._expired += [reverted(one) for one in answer["expired"]]
                continue
            self._answers.put_nowait(answer)
        self._answers.put_nowait(None)
        if not self._closing and not halting:
            self._on_halt("guardian-lost")


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ConnectionError:
        return b""


async def start(
    run: Path, *, parents: int | None = None, on_halt: Callable[[str], None] = lambda _why: None
) -> Guard:
    """Start the guardian for a run folder. Raises FaultError when it does not come up.

    It acts when the calling thread dies; with the descriptor of our parent's lifeline also when that does.
    """
    ours, theirs = socket.socketpair()
    lifeline = Lifeline()
    with theirs:
        process = await _spawn(run, theirs, [lifeline.fd] if parents is None else [lifeline.fd, parents])
    reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE_LIMIT)
    try:
        async with asyncio.timeout(_START_LIMIT_S):
            ready = await _line(reader)
    except TimeoutError:
        ready = b""
    if not ready:
        writer.close()
        lifeline.let_go()
        raise FaultError("the guardian did not start", where=str(run), hint=_last_words(run))
    return Guard(run, process, (reader, writer), lifeline, on_halt)


async def _spawn(run: Path, link: socket.socket, lifelines: Sequence[int]) -> asyncio.subprocess.Process:
    environment = {k: v for k, v in os.environ.items() if k != procs.MARKER}
    environment["PYTHONPATH"] = str(Path(blackstart.__file__).parents[1])
    with (run / "guardian.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", "-s", "-m", "blackstart.engine.guardian", str(run), *map(str, lifelines)),
            pass_fds=lifelines,
            stdin=link.fileno(),
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def _last_words(run: Path) -> str:
    text = (run / "guardian.log").read_text(errors="replace").strip()
    return text.splitlines()[-1] if text else "is the disk full? see guardian.log"


def halt_now(guard: Guard) -> None:
    """Pull the kill switch of one guardian by signal."""
    guard.process.send_signal(signal.SIGUSR1)


async def last_undo(
    guarding: Guarding, folder: str, *, by: str, known: Collection[str] | None = None
) -> list[Reverted]:
    """Have the guardian take back whatever is still owed, and let it go; without one, do it ourselves.

    With `known` also told: what a guardian that was halted or is lost took back by itself, but for these.
    One that was halted looks once more when we say goodbye: what it is told to take back is at rest then.
    """
    try:
        outcomes = await guarding.undo()
    except BlackstartError:
        await guarding.close()
        told = {} if known is None else {journal.key(one): one for one in journal.read(folder, journal.PAID)}
        before = [one for one in told.values() if one["id"] not in (known or ())]
        paid = journal.pay(folder, journal.owed(folder), by=by)
        _strike(folder)
        return [reverted(one) for one in [*before, *paid]]
    await guarding.close()
    return outcomes


def _strike(run: str | Path) -> None:
    """Strike a run that owes nothing out of the open ones: a guardian that is lost could not do so itself."""
    if not journal.owed(str(run)):
        openruns.strike(str(run))


def reverted(outcome: journal.Entry) -> Reverted:
    """Turn an outcome of the undo journal into a record of the history."""
    evidence = {**outcome["evidence"], "by": outcome["by"]}
    return Reverted(
        undo_id=outcome["id"],
        verified=outcome["verified"],
        evidence=evidence,
        mono_ns=outcome.get("mono_ns"),
    )
