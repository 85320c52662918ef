"""The command `paperfirm`: bring the reference firm up and down, look at it, verify its files."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from paperfirm.config import ConfigError, UpOptions, load_exchange, load_settings

app = typer.Typer(no_args_is_help=True, add_completion=True, help=__doc__, pretty_exceptions_enable=False)

Directory = Annotated[
    Path, typer.Option("--dir", help="The firm's directory: state, events, endpoints.json.")
]


@app.command()
def up(  # noqa: PLR0917 - typer passes options by name
    directory: Directory,
    exchange: Annotated[Path, typer.Option(help="endpoints.json of the exchange to trade on.")],
    config: Annotated[
        Path | None, typer.Option(help="TOML: account, limits, strategy, engine, supervisor.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the strategy's randomness.")] = 1,
    postgres_url: Annotated[str | None, typer.Option(help="Use this PostgreSQL, start none.")] = None,
    nats_url: Annotated[str | None, typer.Option(help="Use this NATS JetStream, start none.")] = None,
) -> None:
    """Run the firm in the foreground until SIGTERM or SIGINT; state found in DIR is taken up again."""
    load_exchange(exchange)
    load_settings(config)
    from paperfirm.supervisor.main import run  # noqa: PLC0415 - only this command needs the servers' packages

    options = UpOptions(directory.absolute(), exchange.absolute(), config, seed, postgres_url, nats_url)
    raise typer.Exit(run(options))


def _endpoints(directory: Path) -> dict[str, object]:
    path = directory / "endpoints.json"
    try:
        found: dict[str, object] = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path}: {error}. Is a firm up in this directory?") from error
    return found


@app.command()
def down(
    directory: Directory, limit_s: Annotated[float, typer.Option(help="How long to wait, seconds.")] = 30.0
) -> None:
    """Stop the firm cleanly (SIGTERM to its supervisor) and wait for its end."""
    pid = int(str(_endpoints(directory)["pid"]))
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        print(f"no process {pid}; the firm in {directory} is down already")
        return
    import select  # noqa: PLC0415 - only here

    signal.pidfd_send_signal(fd, signal.SIGTERM)
    gone, _, _ = select.select([fd], [], [], limit_s)
    if not gone:
        raise ConfigError(f"process {pid} did not end within {limit_s} s; look at {directory}/events")
    print(f"stopped {pid}")


@app.command()
def status(directory: Directory) -> None:
    """Show each component, its role, restarts, and whether the firm trades."""
    import urllib.error  # noqa: PLC0415 - only here
    import urllib.request  # noqa: PLC0415

    base = str(_endpoints(directory)["http"])
    try:
        with urllib.request.urlopen(f"{base}/components", timeout=5) as answer:  # noqa: S310 - http of our own
            found = msgspec.json.decode(answer.read())
    except OSError as error:
        raise ConfigError(f"{base}: {error}. The firm in {directory} does not answer.") from error
    for name, part in found["components"].items():
        role = part.get("role") or ""
        print(
            f"{name:12} {part.get('state', ''):10} {role:8} pid {part.get('pid')} "
            f"restarts {part.get('restarts')}"
        )
    try:
        with urllib.request.urlopen(f"{base}/ready", timeout=5):  # noqa: S310
            print("ready: the firm trades")
    except urllib.error.HTTPError as error:
        print(f"not ready: {error.read().decode()}")
        raise typer.Exit(1) from error


@app.command()
def journal(
    files: list[Path],
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only check; print nothing of the content.")
    ] = False,
) -> None:
    """Dump or verify journal segments; damage is named with segment and offset (exit status 1)."""
    from paperfirm.engine.inspection import dump_journal  # noqa: PLC0415 - keeps the start of `up` fast

    raise typer.Exit(dump_journal(files, verify=verify, out=sys.stdout))


@app.command()
def checkpoint(files: list[Path]) -> None:
    """Verify checkpoints: sequence, size, SHA-256 (exit status 1 if any is damaged)."""
    from paperfirm.engine.inspection import describe_checkpoints  # noqa: PLC0415 - as above

    raise typer.Exit(describe_checkpoints(files, out=sys.stdout))


def main() -> None:
    """Entry point; a ConfigError becomes one line on standard error and exit status 64."""
    try:
        app()
    except ConfigError as error:
        print(f"paperfirm: {error}", file=sys.stderr)
        sys.exit(64)


if __name__ == "__main__":
    main()
