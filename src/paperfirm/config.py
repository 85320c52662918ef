"""Configuration: what a person writes.

(TOML), and `firm.json`, which the supervisor writes and every component reads.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from paperfirm import defects

ENGINES = ("engine-a", "engine-b")
COMPONENTS = ("risk", "feed", "router", "recorder", *ENGINES)


class ConfigError(Exception):
    """A configuration cannot be used; says which file, what is wrong and what to write instead."""


class Ports(msgspec.Struct, frozen=True):
    """Loopback ports of one component; 0: it has no such listener."""

    http: int
    service: int = 0
    order_entry: int = 0
    replication: int = 0


CONCENTRATION_FLOOR_PCT = 1.0
"""Concentration is not limited while gross notional is below this share of its limit.

A first order is always 100 %.
"""


class Limits(msgspec.Struct, frozen=True):
    """Risk limits.

    `position`: |position incl. open orders| a symbol, `*` for all others; `gross_notional` in ticks.
    """

    position: dict[str, int] = msgspec.field(default_factory=lambda: {"*": 200_000})
    gross_notional: int = 2_000_000_000_000
    concentration_pct: float = 100.0

    @property
    def concentration_from(self) -> float:
        """Gross notional, in ticks, above which concentration is limited."""
        return self.gross_notional * CONCENTRATION_FLOOR_PCT / 100


class StrategySettings(msgspec.Struct, frozen=True):
    """The market maker; `quote_ms` is the period of re-quoting one symbol, prices in ticks."""

    enabled: bool = True
    quote_ms: int = 500
    quantity: int = 100
    half_spread: int = 300
    skew_per_lot: int = 10
    max_position: int = 2_000
    ema_half_life_s: float = 5.0
    volatility_half_life_s: float = 20.0
    stale_ms: int = 1_000
    price_step: int = 100


class EngineSettings(msgspec.Struct, frozen=True):
    """Durability of the engine.

    When to checkpoint (whichever comes first), how many to keep, segment size in bytes. `disk_low_mb`: each
    component calls an operator when the disk of its state has less room than that.
    """

    checkpoint_s: float = 30.0
    checkpoint_events: int = 50_000
    checkpoints_kept: int = 3
    segment_bytes: int = 16 << 20
    standby_timeout_ms: int = 500
    reconcile_s: float = 1.0
    disk_low_mb: float = 16.0


class SupervisorSettings(msgspec.Struct, frozen=True):
    """How a component that dies is started again.

    At once the first time; then after `first_s`, doubling up to `longest_s`. After `rapid_deaths` in a row an
    operator is called and the pause is `longest_s`. Who has stayed up for `stable_s` begins anew.
    """

    first_s: float = 0.1
    longest_s: float = 2.0
    stable_s: float = 10.0
    rapid_deaths: int = 8
    silent_s: float = 1.0
    """A component of ours that answers nobody for so long is an alert,"""
    hung_s: float = 30.0
    """and for so long is killed."""


class RouterSettings(msgspec.Struct, frozen=True):
    """Whether the session moves to the exchange's backup gateway, and after how long without one."""

    backup_gateway: bool = False
    backup_after_s: float = 1.0


class Endpoint(msgspec.Struct, frozen=True):
    """Where a listener of the exchange is."""

    host: str
    port: int


class Account(msgspec.Struct, frozen=True):
    """FIX identities of an account at the exchange."""

    comp_id: str
    drop_copy_comp_id: str = ""


class Exchange(msgspec.Struct, frozen=True):
    """The exchange's endpoints.json, as far as the firm uses it."""

    http: str
    fix: Endpoint
    market_data: Endpoint
    symbols: list[str]
    comp_id: str
    accounts: dict[str, Account]
    drop_copy: Endpoint | None = None
    fix_backup: Endpoint | None = None
    member: str = ""

    @property
    def office(self) -> str:
        """Where members are told of their executions, orders and positions: a place of its own, or `http`."""
        return self.member or self.http


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person may write into the TOML file given by `--config`; everything has a default."""

    account: str = "FIRM"
    limits: Limits = Limits()
    strategy: StrategySettings = StrategySettings()
    engine: EngineSettings = EngineSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    router: RouterSettings = RouterSettings()
    defects: list[str] = []


class Firm(msgspec.Struct, frozen=True):
    """`DIR/firm.json`: everything a component needs to know, written before any component starts."""

    dir: str
    ports: dict[str, Ports]
    exchange: Exchange
    postgres: str
    nats: str
    seed: int = 1
    account: str = "FIRM"
    limits: Limits = Limits()
    strategy: StrategySettings = StrategySettings()
    engine: EngineSettings = EngineSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    router: RouterSettings = RouterSettings()
    defects: list[str] = []
    """Deliberate defects that were asked for by name (`paperfirm.defects`)."""
    configuration: str = ""
    """Path of the person's file, empty if there is none."""
    sha256: str = ""
    """SHA-256 of that file's bytes (of nothing, if there is none)."""

    @property
    def path(self) -> Path:
        """The firm's directory."""
        return Path(self.dir)


class UpOptions(msgspec.Struct, frozen=True):
    """Options of `paperfirm up`; handed to `paperfirm.supervisor.main.run(options) -> exit status`."""

    dir: Path
    exchange: Path
    config: Path | None = None
    seed: int = 1
    postgres_url: str | None = None
    nats_url: str | None = None


def _decode(path: Path, data: bytes, kind: type[Any], hint: str) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: {error}. {hint}") from error


def _read(path: Path, hint: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}. {hint}") from error


def load_firm(directory: Path) -> Firm:
    """Read `DIR/firm.json`; raises ConfigError."""
    path = directory / "firm.json"
    hint = "It is written by `paperfirm up`; start components through it."
    firm: Firm = _decode(path, _read(path, hint), Firm, hint)
    return firm


def save_firm(firm: Firm) -> Path:
    """Write `DIR/firm.json` atomically."""
    path = firm.path / "firm.json"
    write_atomically(path, msgspec.json.format(msgspec.json.encode(firm)))
    return path


def load_exchange(path: Path) -> Exchange:
    """Read an exchange's endpoints.json; raises ConfigError."""
    hint = "Give the endpoints.json of a running `paperexchange serve`."
    exchange: Exchange = _decode(path, _read(path, hint), Exchange, hint)
    return exchange


def load_settings(path: Path | None) -> tuple[Settings, str]:
    """Read the person's TOML (None: all defaults); returns it with its SHA-256. Raises ConfigError."""
    if path is None:
        return Settings(), hashlib.sha256(b"").hexdigest()
    data = _read(path, "Give an existing TOML file or leave --config out.")
    try:
        raw = tomllib.loads(data.decode())
        settings = msgspec.convert(raw, Settings)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"{path}: {error}. See docs/reference/firm-interface.md for what may stand there."
        ) from error
    if names := defects.unknown(settings.defects):
        raise ConfigError(f"{path}: no such defect: {', '.join(names)}. Known: {', '.join(defects.KNOWN)}.")
    return settings, hashlib.sha256(data).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old or the new content, also after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
