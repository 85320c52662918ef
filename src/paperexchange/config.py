"""Configuration: everything has a default; a TOML file and the command line may change it."""

import tomllib
from datetime import time
from pathlib import Path
from typing import Any, Literal

import msgspec

from fixsession.config import SessionConfig
from fixsession.errors import FixError
from fixsession.schedule import Schedule
from paperexchange.errors import ExchangeError
from paperexchange.model import Instrument, parse_price
from paperexchange.participants import ParticipantSettings

_MIDS = {
    "ALFA": "100.00",
    "BRAVO": "50.00",
    "CHARLIE": "75.50",
    "DELTA": "150.00",
    "ECHO": "200.00",
    "FOXTROT": "250.00",
    "GOLF": "320.00",
    "HOTEL": "400.00",
}


class AccountConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One member: `drop_copy*` rule its drop copy (FIX 24), `cancel_*` its cancel on disconnect (23)."""

    comp_id: str = ""
    drop_copy_comp_id: str = ""
    drop_copy: Literal["all", "fills", "off"] = "all"
    drop_copy_buffered: bool = True
    drop_copy_lag_ms: float = 0.0
    cancel_on_disconnect: bool = False
    cancel_grace_ms: float = 0.0
    cancel_causes: tuple[Literal["disconnect", "logout"], ...] = ("disconnect", "logout")
    cancel_orders: Literal["all", "connection"] = "all"
    """Every open order of the account, or those that came over the connection that is gone."""
    session: dict[str, Any] = msgspec.field(default_factory=dict)
    """Any setting of `fixsession.SessionConfig`, for example `last_processed = true`."""


class Ports(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """0 is any free port."""

    http: int = 0
    member: int = 0
    fix: int = 0
    fix_backup: int = 0
    drop_copy: int = 0
    market_data: int = 0


class Config(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration; `symbols` maps a name to its first mid price in decimals."""

    host: str = "127.0.0.1"
    comp_id: str = "PAPEREX"
    seed: int = 1
    calendar: str = "always"
    echo: bool = False
    session_start: str = ""
    session_end: str = ""
    """Sessions may be logged on daily from `session_start` to `session_end` (HH:MM or HH:MM:SS, UTC).

    They number from 1 in each such window (FIX 12). Both empty: at any time.
    """
    end_of_day_reset: bool = False
    """A new trading day of the calendar logs everybody out; sessions begin at 1 (FIX 12)."""
    bad_logon_limit: int = 0
    """So many bad logons within `bad_logon_window_s` close the port (FIX 12 names five in 60 s); 0: never."""
    bad_logon_window_s: float = 60.0
    bad_logon_closed_s: float = 60.0
    ports: Ports = msgspec.field(default_factory=Ports)
    accounts: dict[str, AccountConfig] = msgspec.field(default_factory=lambda: {"FIRM": AccountConfig()})
    symbols: dict[str, str] = msgspec.field(default_factory=lambda: dict(_MIDS))
    participants: ParticipantSettings = msgspec.field(default_factory=ParticipantSettings)

    def instruments(self) -> list[Instrument]:
        """Give the tradable symbols; ExchangeError for a price that is none."""
        try:
            return [Instrument(symbol, parse_price(mid)) for symbol, mid in self.symbols.items()]
        except ValueError as error:
            raise ExchangeError(str(error), where="symbols", hint='for example ALFA = "100.00"') from error

    def session_of(self, account: str, comp_id: str) -> SessionConfig:
        """Give the settings of a session with the member's `comp_id`; ExchangeError for one that is wrong."""
        given = self.accounts[account].session
        where = f"accounts.{account}.session"
        hint = "docs/reference/fixsession.md lists the settings"
        if unknown := set(given) - set(SessionConfig.__struct_fields__):
            raise ExchangeError(f"no setting {' '.join(sorted(unknown))}", where=where, hint=hint)
        try:
            return msgspec.convert(
                {**given, "sender": self.comp_id, "target": comp_id}, SessionConfig, strict=False
            )
        except (msgspec.ValidationError, FixError) as error:
            raise ExchangeError(str(error), where=where, hint=hint) from error

    def schedule(self) -> Schedule | None:
        """Give the daily window of sessions; ExchangeError where it is none."""
        given = (self.session_start, self.session_end)
        if given == ("", ""):
            return None
        try:
            start, end = (time.fromisoformat(text) for text in given)
        except ValueError as error:
            raise ExchangeError(
                str(error),
                where="session_start, session_end",
                hint='give both, for example "08:00" and "17:30"',
            ) from error
        return Schedule(_second_of(start), _second_of(end))

    def account_ids(self, account: str) -> tuple[str, str]:
        """CompIDs of an account: order entry and drop copy."""
        settings = self.accounts[account]
        comp_id = settings.comp_id or account
        return comp_id, settings.drop_copy_comp_id or f"{comp_id}DC"


def _second_of(moment: time) -> int:
    return moment.hour * 3600 + moment.minute * 60 + moment.second


def load(path: Path | None) -> Config:
    """Read a TOML file (None: defaults). ExchangeError names the file and the field."""
    if path is None:
        return Config()
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), Config)
    except OSError as error:
        raise ExchangeError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ExchangeError(
            str(error), where=str(path), hint="docs/reference/exchange-interface.md lists the fields"
        ) from error
