"""For tests: an exchange in a process of its own, and a small blocking FIX member to talk to it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fixsession.config import Role, SessionConfig
from fixsession.effects import Deliver, Disconnect, Effect, LoggedOn, Transmit
from fixsession.message import Message
from fixsession.session import Session
from fixsession.store import MemoryStore
from paperexchange.clock import now

_LIMIT_S = 15.0


class Running:
    """A running exchange: `endpoints` is what it printed."""

    def __init__(self, process: subprocess.Popen[bytes], endpoints: dict[str, Any]) -> None:
        """Talk to `process`."""
        self.process = process
        self.endpoints = endpoints
        self.ledger = Path(endpoints["ledger"])

    def request(self, method: str, path: str, body: Any = None, *, at: str = "http") -> tuple[int, Any]:
        """Send an HTTP request to that endpoint; status and decoded answer, errors too."""
        data = None if body is None else json.dumps(body).encode()
        url = self.endpoints[at] + path
        request = urllib.request.Request(url, data=data, method=method)  # noqa: S310 - loopback HTTP
        try:
            with urllib.request.urlopen(request, timeout=_LIMIT_S) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def get(self, path: str) -> Any:
        """GET; the answer must be a success."""
        status, answer = self.request("GET", path)
        assert status == 200, answer  # noqa: PLR2004
        return answer

    def post(self, path: str, **body: Any) -> Any:
        """POST; the answer must be a success."""
        status, answer = self.request("POST", path, body)
        assert status == 200, answer  # noqa: PLR2004
        return answer

    def until(self, path: str, fits: Callable[[Any], bool]) -> Any:
        """GET until the answer fits."""
        end = time.monotonic() + _LIMIT_S
        while not fits(answer := self.get(path)):
            assert time.monotonic() < end, f"{path} did not become what was expected: {answer}"
        return answer

    def member(self, gateway: str = "fix", **options: Any) -> "Member":
        """Make a member that is not connected yet."""
        return Member(self.endpoints[gateway], **options)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it with SIGTERM; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_LIMIT_S)


def command(*arguments: str) -> list[str]:
    """Give the command line of `paperexchange` in this interpreter."""
    return [sys.executable, "-m", "paperexchange", *arguments]


@contextlib.contextmanager
def running(directory: Path, *arguments: str) -> Iterator[Running]:
    """Start `paperexchange serve --dir DIRECTORY …`; whatever happens, it is gone afterwards."""
    process = subprocess.Popen(command("serve", "--dir", str(directory), *arguments), stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the exchange did not start, exit status {process.wait()}"
        yield Running(process, json.loads(line))
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Member:
    """A blocking FIX initiator that keeps every application message in `inbox`."""

    def __init__(self, endpoint: dict[str, Any], *, comp_id: str = "FIRM", target: str = "PAPEREX") -> None:
        """Begin at sequence number 1; `reconnect` goes on with the same numbers."""
        self._address = (endpoint["host"], endpoint["port"])
        config = SessionConfig(sender=comp_id, target=target, role=Role.INITIATOR, heartbeat_s=30)
        self.store = MemoryStore()
        self.session = Session(config, self.store)
        self.sock: socket.socket | None = None
        self.inbox: list[Message] = []
        self.duplicates: list[Message] = []
        self.received = b""
        self._ids = 0

    def connect(self) -> "Member":
        """Connect and log on."""
        self.sock = socket.create_connection(self._address, timeout=_LIMIT_S)
        self.carry_out(self.session.connected(now()))
        end = time.monotonic() + _LIMIT_S
        while not self.session.logged_on:
            assert time.monotonic() < end, "no logon"
            if not self.pump():
                raise ConnectionError("the exchange closed the connection before logon")
        return self

    def connect_when_possible(self) -> "Member":
        """Connect, again and again while logons are refused."""
        end = time.monotonic() + _LIMIT_S
        while True:
            try:
                return self.connect()
            except ConnectionError:
                assert time.monotonic() < end, "logons stayed refused"
                time.sleep(0.02)

    def carry_out(self, effects: list[Effect]) -> None:
        """Write, keep what is delivered, and hang up when the session says so."""
        for effect in effects:
            if isinstance(effect, Transmit) and self.sock is not None:
                self.sock.sendall(effect.data)
            elif isinstance(effect, Deliver):
                self.inbox.append(effect.message)
            elif isinstance(effect, Disconnect):
                self.disconnect()
            elif isinstance(effect, LoggedOn):
                pass
        self.session.commit(now())

    def pump(self, limit_s: float = _LIMIT_S) -> bool:
        """Take in one read; False when the connection is closed. Raises TimeoutError after `limit_s`."""
        if self.sock is None:
            return False
        self.sock.settimeout(limit_s)
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        self.received += data
        if not data:
            self.disconnect()
            return False
        self.carry_out(self.session.received(data, now()))
        return True

    def disconnect(self) -> None:
        """Close the connection without a Logout."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        self.session.disconnected(now())

    def log_out(self) -> None:
        """End in order."""
        self.carry_out(self.session.logout("done", now()))
        while self.pump():
            pass

    def send(self, msg_type: str, fields: Any) -> None:
        """Send an application message."""
        self.carry_out(self.session.send(Message.of(msg_type, fields), now()))

    def order(
        self, *, side: str = "1", quantity: int = 100, price: str | None = "90.00", **extra: Any
    ) -> str:
        """Send a limit order (market without price) in ALFA; its ClOrdID. `t59="3"` sets field 59."""
        self._ids += 1
        cl_ord_id = extra.pop("t11", f"C{self._ids}-{id(self)}")
        fields = {
            11: cl_ord_id,
            1: "FIRM",
            55: "ALFA",
            54: side,
            38: quantity,
            40: "2" if price else "1",
            44: price,
        }
        fields |= {int(name[1:]): value for name, value in extra.items()}
        self.send("D", fields)
        return str(cl_ord_id)

    def cancel(self, orig: str, **extra: Any) -> str:
        """Send a cancel request; its ClOrdID."""
        self._ids += 1
        cl_ord_id = f"K{self._ids}-{id(self)}"
        fields = {11: cl_ord_id, 41: orig, 55: "ALFA", 54: "1"}
        self.send("F", fields | {int(name[1:]): value for name, value in extra.items()})
        return cl_ord_id

    def wait(self, fits: Callable[[Message], bool]) -> Message:
        """Give the first message that fits, and forget it and what came before it."""
        end = time.monotonic() + _LIMIT_S
        while True:
            for index, message in enumerate(self.inbox):
                if fits(message):
                    del self.inbox[: index + 1]
                    return message
            assert time.monotonic() < end, f"it did not come; {list(map(str, self.inbox))}"
            assert self.pump(), "the exchange closed the connection"

    def report(self, cl_ord_id: str, exec_type: str) -> Message:
        """Wait for an execution report of an order."""
        return self.wait(lambda m: m.msg_type == "8" and m.get(11) == cl_ord_id and m.get(150) == exec_type)

    def closed(self) -> bool:
        """Wait until the exchange closes the connection."""
        while self.pump():
            pass
        return True


def pid_lives(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
