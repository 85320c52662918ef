"""Our end of the helper on another host: one `ssh` connection, requests and answers, and its own words."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.errors import AbsentError, TargetError
from blackstart.host import refs, ssh
from blackstart.host.offset import Moment, Offset
from blackstart.model.fault import RemoteRef, Undo

if TYPE_CHECKING:
    import signal
    from asyncio.subprocess import Process
    from collections.abc import Callable, Mapping, Sequence

    from blackstart.contracts import Clock, Protect

EXCHANGES = 16
BEAT_S = 0.25
ANSWER_LIMIT_S = 3.0
"""A host that does not answer for so long is lost; its helper takes everything back soon (`SILENCE_S`)."""

JUMP_NS = 5_000_000
"""More than steered clocks part between two beats: what was stamped in between cannot be compared."""

_START_LIMIT_S = ssh.CONNECT_LIMIT_S + 10.0
_END_LIMIT_S = 20.0
_LINE_LIMIT = 1 << 26
_MAGIC = b'{"blackstart"'


class Link:
    """A connection to one host. `told` of a watch gets each word about it and when it reached us."""

    def __init__(self, name: str, command: Sequence[str], clock: Clock) -> None:
        self.name, self.command = name, list(command)
        self.offset = Offset()
        self.about: dict[str, Any] = {}
        self.lost = asyncio.Event()
        self.why = ""
        self._clock = clock
        self._process: Process | None = None
        self._asked: dict[int, asyncio.Future[tuple[dict[str, Any], int]]] = {}
        self._told: dict[int, Callable[[dict[str, Any], int], None]] = {}
        self._number = 0
        self._said = bytearray()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    async def open(self, protect: Protect) -> None:
        """Connect, send the helper over, and compare the clocks. Raises TargetError saying what is wrong."""
        self._process = process = await self._spawn()
        ref = refs.reference(process.pid)
        if ref is not None:
            arguments = msgspec.to_builtins(ref)
            await protect([Undo(id=f"ssh:{self.name}:{ref.pid}", action="kill", arguments=arguments)])
        self._tasks.append(asyncio.ensure_future(self._overhear(process)))
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):
            process.stdin.write(ssh.bundle())
        self.about = await self._hello(process)
        self._tasks.append(asyncio.ensure_future(self._listen(process)))
        for _ in range(EXCHANGES):
            await self._compare()
        self._tasks.append(asyncio.ensure_future(self._beat()))

    async def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Have something done there. Raises TargetError when it says no, or cannot be reached.

        AbsentError when it says that there certainly is no such process.
        """
        return (await self.answer(do, **values))[0]

    async def answer(self, do: str, **values: Any) -> tuple[dict[str, Any], int]:
        """Like `ask`; says when the answer reached us, too."""
        answer, seen = await self._exchange(do, values)
        if "error" in answer:
            kind = AbsentError if answer.get("absent") else TargetError
            raise kind(str(answer["error"]), where=f"hosts.{self.name}")
        return answer, seen

    def now(self) -> int:
        """Read our own monotonic clock."""
        return self._clock.now().mono_ns

    def watch(self, told: Callable[[dict[str, Any], int], None]) -> int:
        """Return a number for `id` under which words will come, each handed to `told`."""
        self._number += 1
        self._told[self._number] = told
        return self._number

    def unwatch(self, identifier: int) -> None:
        """Listen no more; idempotent."""
        if self._told.pop(identifier, None) is not None and not self.lost.is_set():
            self._say({"do": "release", "id": identifier, "n": 0})

    def here(self, there_ns: int, seen_ns: int) -> Moment:
        """Turn an instant there, of which we heard at `seen_ns`, into one of ours."""
        return self.offset.here(there_ns, seen_ns)

    def undo(self, identifier: str, values: Mapping[str, Any], by_hand: Sequence[str]) -> Undo:
        """How the guardian has something taken back there; `by_hand`: what an operator would say."""
        arguments = {"command": self.command, "values": dict(values), "by_hand": list(by_hand)}
        self._number += 1  # the same may be done twice, and is owed each time
        return Undo(id=f"{self.name}:{identifier}#{self._number}", action="remote", arguments=arguments)

    async def close(self) -> None:
        """Say goodbye and see the connection end; whatever was ours there is then taken back. Idempotent."""
        self._closing = True
        process = self._process
        if process is None:
            return
        if not self.lost.is_set():
            self._say({"do": "bye", "n": 0})
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_END_LIMIT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._process = None

    async def _spawn(self) -> Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LINE_LIMIT,
                start_new_session=True,
            )
        except FileNotFoundError:
            hint = "apt-get install openssh-client"
            raise TargetError("there is no `ssh` program", where=f"hosts.{self.name}", hint=hint) from None

    async def _hello(self, process: Process) -> dict[str, Any]:
        """Wait for the helper's first word; a shell's greeting before it is passed over."""
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_START_LIMIT_S):
                while line := await process.stdout.readline():
                    if line.startswith(_MAGIC):
                        found: dict[str, Any] = json.loads(line)
                        return found
                await process.wait()
                await self._tasks[0]
        except TimeoutError:
            process.kill()
            self._said += b"\nit took too long"
        what, hint = ssh.explain(self._said.decode("utf-8", "replace"), process.returncode)
        raise TargetError(f"cannot be used: {what}", where=f"hosts.{self.name}", hint=hint)

    async def _overhear(self, process: Process) -> None:
        """Keep the last of what `ssh` complains of."""
        assert process.stderr is not None
        while data := await process.stderr.read(1 << 12):
            self._said += data
            del self._said[: -(1 << 14)]

    async def _listen(self, process: Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            seen = self.now()
            word = json.loads(line)
            told = self._told.get(word.get("id", 0))
            if "n" not in word:
                if told is not None:
                    told(word, seen)
            elif (asked := self._asked.pop(word["n"], None)) is not None and not asked.done():
                asked.set_result((word, seen))
        what, _ = ssh.explain(self._said.decode("utf-8", "replace"), None)
        self._lose(f"the connection ended: {what}" if self._said else "the connection ended")

    async def _exchange(self, do: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        if self.lost.is_set() or self._process is None:
            raise self._gone()
        self._number += 1
        number = self._number
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        self._say({"do": do, "n": number, **values})
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                answered: tuple[dict[str, Any], int] = await asked
                return answered
        except TimeoutError:
            self._lose(f"no answer for {ANSWER_LIMIT_S:g} s")
        finally:
            self._asked.pop(number, None)
        raise self._gone()

    async def _compare(self) -> None:
        asked = self.now()
        answer, heard = await self._exchange("clock", {})
        apart = self.offset.heard(asked, answer["at"], heard)
        if apart > JUMP_NS:
            self._lose(
                f"its clock and ours ran apart by {apart / 1e6:,.1f} ms at once: did one of them sleep?"
            )

    async def _beat(self) -> None:
        """Keep the helper from taking us for dead, and the difference of the clocks fresh."""
        with contextlib.suppress(TargetError):
            while True:
                await asyncio.sleep(BEAT_S)
                await self._compare()

    def _say(self, word: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(word).encode() + b"\n")

    def _lose(self, why: str) -> None:
        if self.lost.is_set():
            return
        self.why = why
        self.lost.set()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(self._gone())
        if self._process is not None and self._process.returncode is None and not self._closing:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def _gone(self) -> TargetError:
        return TargetError(
            f"lost: {self.why or 'not connected'}",
            where=f"hosts.{self.name}",
            hint="its helper takes back what it did there, the guardian looks over a connection of its own",
        )


class RemoteHold:
    """Implements `contracts.Hold`."""

    def __init__(self, link: Link, ref: RemoteRef, told: Callable[[int], None]) -> None:
        self.ref, self._link, self._told = ref, link, told
        self._id = link.watch(self._died)
        self._death: asyncio.Future[Moment] = asyncio.get_running_loop().create_future()

    @property
    def _who(self) -> dict[str, int]:
        return {"pid": self.ref.pid, "start_ticks": self.ref.start_ticks}

    async def take(self) -> RemoteHold:
        """Have the helper open its handle. Raises TargetError when it has ended, or we may not signal it."""
        try:
            await self._link.ask("hold", id=self._id, **self._who)
        except TargetError:
            self.close()
            raise
        return self

    async def signal(self, number: signal.Signals) -> tuple[int, int]:
        """See `contracts.Hold`."""
        asked = self._link.now()
        answer, seen = await self._link.answer("signal", id=self._id, signal=int(number))
        before, after = (self._link.here(answer[one], seen) for one in ("before", "after"))
        return max(asked, before.mono_ns - before.uncertainty_ns), after.mono_ns

    async def death(self) -> Moment:
        """Wait for its end. Raises TargetError when the host is lost: nobody would tell us."""
        lost = asyncio.ensure_future(self._link.lost.wait())
        either: list[asyncio.Future[Any]] = [self._death, lost]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
        if not self._death.done():
            raise TargetError(f"lost: {self._link.why}", where=f"hosts.{self._link.name}")
        return self._death.result()

    async def state(self) -> str:
        """See `contracts.Hold`."""
        return str((await self._link.ask("state", **self._who))["state"])

    def undo(self) -> Undo:
        """See `contracts.Hold`."""
        values = {"what": "continue", **self._who}
        by_hand = ("kill", "-CONT", str(self.ref.pid))
        return self._link.undo(f"continue:{self.ref.pid}", values, by_hand)

    def close(self) -> None:
        """See `contracts.Hold`."""
        self._link.unwatch(self._id)

    def _died(self, word: dict[str, Any], seen_ns: int) -> None:
        if word["event"] == "died":
            moment = self._link.here(word["at"], seen_ns)
            self._death.set_result(moment)
            self.close()
            self._told(moment.mono_ns)
