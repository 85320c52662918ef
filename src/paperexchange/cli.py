"""Command line of the exchange."""

from pathlib import Path
from typing import Annotated

import typer

from paperexchange.errors import ExchangeError

app = typer.Typer(
    help="A simulated exchange with a truth ledger: FIX 4.4, market data, scripted misbehaviour.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
ledger_app = typer.Typer(help="Check and export a truth ledger.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(ledger_app, name="ledger")

_USAGE, _DAMAGED = 64, 1
Url = Annotated[str, typer.Option(help="Address of the exchange's HTTP interface, from endpoints.json.")]


@app.command()
def serve(  # noqa: PLR0917 - options of a command line
    directory: Annotated[Path, typer.Option("--dir", help="Run directory: ledger, endpoints.json, lock.")],
    seed: Annotated[int | None, typer.Option(help="Seed of the participants.")] = None,
    config: Annotated[Path | None, typer.Option(help="Configuration in TOML.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    calendar: Annotated[str | None, typer.Option(help="always, clock, manual or compressed:SECONDS.")] = None,
    recover: Annotated[bool, typer.Option("--recover", help="Continue the ledger that is there.")] = False,  # noqa: FBT002
    fresh: Annotated[bool, typer.Option("--fresh", help="Set the ledger that is there aside.")] = False,  # noqa: FBT002
    preload_executions: Annotated[int, typer.Option(help="Book so many fills before opening.")] = 0,
    account: Annotated[str, typer.Option(help="Account of the preloaded fills.")] = "FIRM",
    participants: Annotated[
        float | None, typer.Option(help="Events a second of the others; 0: none.")
    ] = None,
    comp_id: Annotated[str | None, typer.Option(help="Our CompID.")] = None,
    member: Annotated[str | None, typer.Option(help="CompID of the first account.")] = None,
    echo: Annotated[bool, typer.Option("--echo", help="Give orders back as they come.")] = False,  # noqa: FBT002
    start_after_s: Annotated[float, typer.Option(hidden=True)] = 0.0,
) -> None:
    """Run the exchange until SIGTERM. The first line of standard output says where everything listens."""
    from paperexchange.config import load  # noqa: PLC0415 - keeps --help and other commands quick
    from paperexchange.server import serve as run  # noqa: PLC0415

    loaded = load(config)
    loaded.seed = loaded.seed if seed is None else seed
    loaded.host = host or loaded.host
    loaded.calendar = calendar or loaded.calendar
    loaded.comp_id = comp_id or loaded.comp_id
    loaded.echo = echo or loaded.echo
    import msgspec  # noqa: PLC0415

    if member:
        account_name, settings = next(iter(loaded.accounts.items()))
        loaded.accounts[account_name] = msgspec.structs.replace(settings, comp_id=member)
    if participants is not None:
        loaded.participants = msgspec.structs.replace(loaded.participants, events_per_s=participants)
    if recover and fresh:
        raise ExchangeError("--recover and --fresh exclude each other", where="serve", hint="give one")
    if preload_executions and account not in loaded.accounts:
        raise ExchangeError(f"unknown account {account!r}", where="--account", hint=" ".join(loaded.accounts))
    if start_after_s:
        import time  # noqa: PLC0415

        time.sleep(start_after_s)
    mode = "recover" if recover else "fresh" if fresh else "new"
    run(directory, loaded, mode=mode, preload=(account, preload_executions) if preload_executions else None)


@ledger_app.command("verify")
def verify_ledger(file: Annotated[Path, typer.Argument(help="The ledger.jsonl to check.")]) -> None:
    """Check every entry; name the place of the first damage (exit status 1)."""
    from paperexchange.ledger.lines import verify  # noqa: PLC0415

    if not file.is_file():
        raise ExchangeError("no such file", where=str(file), hint="give the path of a ledger.jsonl")
    result = verify(file)
    typer.echo(f"{result.entries} sound entries, last {result.last_seq}, {result.sound_bytes} bytes")
    if result.damage is not None:
        kind = "cut off" if result.damage.torn else "damaged"
        typer.echo(f"{kind} at {result.damage}", err=True)
        raise typer.Exit(_DAMAGED)
    typer.echo(
        "ended in order"
        if result.clean_end
        else "no end entry: still open, killed, or cut off between entries"
    )


@ledger_app.command("export")
def export_ledger(
    file: Annotated[Path, typer.Argument(help="The ledger.jsonl to read.")],
    out: Annotated[Path, typer.Option(help="Where to: NAME.parquet or NAME.jsonl.")],
    stream: Annotated[
        str, typer.Option(help="executions, orders, reports, or the kind of an entry.")
    ] = "executions",
    account: Annotated[str, typer.Option(help="Only this account.")] = "",
) -> None:
    """Write one stream of a ledger as Parquet or JSON lines."""
    from paperexchange.ledger.export import export  # noqa: PLC0415

    count = export(file, out, stream=stream, account=account)
    typer.echo(f"{count} entries to {out}")


@app.command()
def phase(
    url: Url,
    to: Annotated[
        str, typer.Argument(help="pre_open, open, continuous, close or settlement; empty: ask.")
    ] = "",
) -> None:
    """Show or change the phase of a running exchange."""
    from paperexchange.client import call  # noqa: PLC0415

    answer = call(url, "/control/phase", {"phase": to}) if to else call(url, "/phase")
    typer.echo(f"{answer['phase']} (day {answer['day']})")


@app.command()
def misbehave(  # noqa: PLR0917 - options of a command line
    url: Url,
    action: Annotated[str, typer.Argument(help="For example disconnect, delay, half_open.")],
    session: Annotated[str, typer.Option(help="Whose session.")] = "FIRM",
    on: Annotated[str, typer.Option(help='The event, as JSON: {"kind": "fill"}; empty: at once.')] = "",
    parameters: Annotated[str, typer.Option(help='As JSON: {"ms": 200}.')] = "{}",
    count: Annotated[int, typer.Option(help="How often.")] = 1,
) -> None:
    """Arm a misbehaviour on a running exchange."""
    import json  # noqa: PLC0415

    from paperexchange.client import call  # noqa: PLC0415

    try:
        body = {"on": json.loads(on) if on else None, "parameters": json.loads(parameters)}
    except ValueError as error:
        raise ExchangeError(f"no JSON: {error}", where="--on or --parameters") from error
    answer = call(url, "/control/misbehave", {"action": action, "session": session, "count": count, **body})
    typer.echo(json.dumps(answer))


def main() -> None:
    """Run the command line; errors say what to do and exit with 64."""
    try:
        app()
    except ExchangeError as error:
        typer.echo(f"paperexchange: {error}", err=True)
        raise SystemExit(_USAGE) from None
