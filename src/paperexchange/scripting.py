"""Scripts against the exchange itself: FIX as any script has it, and its control, ledger and market data.

    control METHOD PATH [JSON]        ask the HTTP interface; the answer must be a success
    until PATH FIELD=VALUE …          GET until the answer is so; `sessions.FIRM.conn` reaches inside
    ledger KIND FIELD=VALUE …         such an entry comes, behind the one that was looked for before
    refused GATEWAY                   connections to the gateway are refused by the kernel
    accepted GATEWAY                  they are taken (again)
    restart recover|fresh             SIGKILL, then start again with the ledger or without
    subscribe SYMBOL …                follow market data
    data FIELD=VALUE …                such a market-data message comes; those before it are skipped

Gateways (`at`): `primary` (in force at the beginning), `backup`, `drop_copy`. In `needs`, `exchange.X` is a
setting of the exchange, `account.X` one of account FIRM, anything else one of FIRM's sessions;
`@time+SECONDS` is that time of day (UTC).
"""

import json
import re
import socket
import time
import tomllib
import urllib.error
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fixsession.testing.player import Player, ScriptFailure, fits
from fixsession.testing.script import Script, fields_of, read_script
from fixsession.testing.tcp import TcpPeer
from paperexchange.testing import Running, running

WORDS = ("control", "until", "ledger", "refused", "accepted", "restart", "subscribe", "data")
_GATEWAYS = {"primary": "fix", "backup": "fix_backup", "drop_copy": "drop_copy"}
_LIMIT_S = 15.0
_POLL_S = 0.02
_SUBSCRIBE_S = 1.0
_OK = range(200, 300)


def read(path: Path | str) -> Script:
    """Read a script that may use the words of the exchange."""
    return read_script(path, WORDS)


def needs_its_own(script: Script) -> bool:
    """Whether the script cannot share an exchange with others: settings, restarts, counted market data."""
    return bool(script.needs) or any(
        step.word in ("restart", "subscribe", "refused") for step in script.steps
    )


def configuration(needs: Mapping[str, str]) -> str:
    """Write the TOML for what a script needs."""
    tables: dict[str, list[str]] = {"": []}
    for name, value in needs.items():
        table, key = _place(name)
        tables.setdefault(table, []).append(f"{key} = {_toml(_times(value))}")
    lines = [line for table, keys in tables.items() for line in ([f"[{table}]"] if table else []) + keys]
    return "\n".join(lines) + "\n"


def _place(name: str) -> tuple[str, str]:
    first, _, rest = name.partition(".")
    if first == "exchange":
        table, _, key = rest.rpartition(".")
        return table, key
    return ("accounts.FIRM", rest) if first == "account" else ("accounts.FIRM.session", name)


def _times(value: str) -> str:
    def moment(found: re.Match[str]) -> str:
        return time.strftime("%H:%M:%S", time.gmtime(time.time() + float(found[1] or 0)))

    return re.sub(r"@time([+-]\d+)?", moment, value)


def _toml(value: str) -> str:
    """Leave numbers, booleans and lists as they are; anything else is a string."""
    try:
        read_value = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return f'"{value}"'
    return value if isinstance(read_value, bool | int | float | list) else f'"{value}"'


class Stage:
    """An exchange that scripts are played against, and killed and started again by."""

    def __init__(self, directory: Path, stack: ExitStack, needs: Mapping[str, str] | None = None) -> None:
        """Start it, with what a script needs."""
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "script.toml"
        config.write_text(configuration(needs or {}))
        self._directory = directory
        self._arguments = ("--participants", "0", "--config", str(config))
        self._stack = stack
        self.exchange = self._start()

    def _start(self, *more: str) -> Running:
        return self._stack.enter_context(running(self._directory / "x", *self._arguments, *more))

    def restart(self, how: str) -> None:
        """Kill it, and start it with its ledger (`recover`) or without (`fresh`), at the same ports."""
        self.exchange.kill()
        self.exchange = self._start(f"--{how}")

    def play(self, script: Script) -> None:
        """Play a script; raises ScriptFailure at the first difference."""
        endpoints = self.exchange.endpoints
        gateways = {name: endpoints[key] for name, key in _GATEWAYS.items()}
        addresses = {name: (found["host"], found["port"]) for name, found in gateways.items()}
        peer = TcpPeer(*addresses["primary"], limit_s=_LIMIT_S, gateways=addresses)
        run = f"{script.name[:20]}-{peer.wall_ns() // 1000}"
        with ExitStack() as opened:
            words = _Words(self, opened).steps()
            Player(peer, run=run, limit_s=_LIMIT_S, gateway="primary", more=words).play(script)


class _Words:
    """What the added words do during one script."""

    def __init__(self, stage: Stage, opened: ExitStack) -> None:
        self._stage = stage
        self._opened = opened
        self._offset = stage.exchange.ledger.stat().st_size
        self._feed: socket.socket | None = None
        self._symbols: list[str] = []
        self._subscribed_s = 0.0
        self._messages: list[dict[str, Any]] = []

    def steps(self) -> dict[str, Callable[[str], None]]:
        return {
            "control": self._control,
            "until": self._until,
            "ledger": self._ledger,
            "refused": lambda gateway: self._reach(gateway, "refused"),
            "accepted": lambda gateway: self._reach(gateway, "accepted"),
            "restart": self._restart,
            "subscribe": self._subscribe,
            "data": self._data,
        }

    def _control(self, text: str) -> None:
        method, path, body = (*text.split(None, 2), "")[:3]
        status, answer = self._stage.exchange.request(method, path, json.loads(body) if body else None)
        if status not in _OK:
            raise ScriptFailure(f"status {status}: {answer}")

    def _until(self, text: str) -> None:
        path, _, rest = text.partition(" ")
        expected = fields_of(rest)
        _poll(lambda: self._answer(path), lambda answer: _all_fit(answer, expected), path)

    def _answer(self, path: str) -> Any:
        try:
            return self._stage.exchange.request("GET", path)[1]
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:  # it is being started again
            return {"error": str(error)}

    def _ledger(self, text: str) -> None:
        kind, _, rest = text.partition(" ")
        expected = {"kind": kind, **fields_of(rest)}
        _poll(lambda: self._entry(expected), bool, f"ledger entry {text}")

    def _entry(self, expected: Mapping[str, str]) -> bool:
        """Look for the entry behind the last one found; a half-written line waits for the next look."""
        with self._stage.exchange.ledger.open("rb") as file:
            file.seek(self._offset)
            place = self._offset
            for line in file:
                place += len(line)
                if line.endswith(b"\n") and _all_fit(json.loads(line.split(b" ", 1)[1]), expected):
                    self._offset = place
                    return True
        return False

    def _reach(self, gateway: str, wanted: str) -> None:
        endpoint = self._stage.exchange.endpoints[_GATEWAYS[gateway]]

        def attempt() -> str:
            try:
                socket.create_connection((endpoint["host"], endpoint["port"]), timeout=_LIMIT_S).close()
            except ConnectionRefusedError:
                return "refused"
            return "accepted"

        _poll(attempt, lambda answer: answer == wanted, f"connection to {gateway}, {wanted},")

    def _restart(self, how: str) -> None:
        self._stage.restart(how)
        self._offset = (
            min(self._offset, self._stage.exchange.ledger.stat().st_size) if how == "recover" else 0
        )

    def _subscribe(self, text: str) -> None:
        self._symbols = text.split()
        self._feed = self._opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._feed.settimeout(0.2)
        self._next_messages()

    def _next_messages(self) -> None:
        """Read one datagram; the subscription is renewed on the way."""
        assert self._feed is not None, "subscribe first"
        endpoint = self._stage.exchange.endpoints["market_data"]
        if time.monotonic() - self._subscribed_s > _SUBSCRIBE_S:
            self._subscribed_s = time.monotonic()
            request = json.dumps({"subscribe": "*" if self._symbols == ["*"] else self._symbols}).encode()
            self._feed.sendto(request, (endpoint["host"], endpoint["port"]))
        try:
            self._messages += json.loads(self._feed.recv(65536))
        except TimeoutError:
            return

    def _data(self, text: str) -> None:
        expected = fields_of(text)

        def look() -> bool:
            self._next_messages()
            while self._messages:
                if _all_fit(self._messages.pop(0), expected):
                    return True
            return False

        _poll(look, bool, f"market data {text}")


def _poll(look: Callable[[], Any], enough: Callable[[Any], bool], what: str) -> None:
    end_s = time.monotonic() + _LIMIT_S
    while not enough(seen := look()):
        if time.monotonic() > end_s:
            raise ScriptFailure(f"{what} did not come; at last it was {seen}")
        time.sleep(_POLL_S)


def _all_fit(answer: Any, expected: Mapping[str, str]) -> bool:
    return all(fits(_inside(answer, name), pattern) for name, pattern in expected.items())


def _inside(answer: Any, name: str) -> str | None:
    """Give the value at a dotted name, as text; None where there is none."""
    for part in name.split("."):
        if isinstance(answer, list) and part.isdecimal() and int(part) < len(answer):
            answer = answer[int(part)]
        elif isinstance(answer, dict) and part in answer:
            answer = answer[part]
        else:
            return None
    return answer if isinstance(answer, str) else json.dumps(answer, separators=(",", ":"))
