"""`blackstart`: the commands and their options. Each command's work is imported only when it is called."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import blackstart
from blackstart.cli import approve, chaos
from blackstart.errors import BlackstartError

app = typer.Typer(
    name="blackstart",
    help="Break a trading system on purpose, measure how long it is gone, and prove what came back.",
    epilog="Exit status: 0 all pass, 1 any fail, 2 any unknown or broken off, 3 not permitted, 64 usage,"
    " 70 a bug of Blackstart. A command other than `suite` and `run` that Ctrl-C ends: 130.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Target = Annotated[
    str,
    typer.Option("--target", "-t", metavar="MANIFEST", help="A manifest file, or the name of a shipped one."),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where run folders are made.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Everything random comes from it.")]
Repeat = Annotated[int, typer.Option("--repeat", metavar="N", min=1, help="Run each trial N times.")]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        min=1,
        help="Run so many trials side by side; 1 for figures that nothing disturbs.",
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="ID", help="Only this scenario or trial (R25:router); may be repeated."),
]
Everything = Annotated[bool, typer.Option("--all", help="Also those that are otherwise run by name only.")]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout, progress on stderr.")]

DEFAULT_TARGET = "paperfirm"
DEFAULT_OUT = Path("runs")
SIDE_BY_SIDE = min(4, len(os.sched_getaffinity(0)))
"""A trial keeps about one processor busy."""


def _version(wanted: bool) -> None:  # noqa: FBT001  # typer calls it with the option's value
    if wanted:
        print(f"blackstart {blackstart.__version__}")
        raise typer.Exit


app.add_typer(chaos.app, name="chaos")


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Take the options of all commands."""


@app.command()
def suite(
    *,
    target: Target = DEFAULT_TARGET,
    out: Out = DEFAULT_OUT,
    seed: Seed = 7,
    only: Only = None,
    repeat: Repeat = 1,
    jobs: Jobs = SIDE_BY_SIDE,
    approvals: chaos.Approvals = chaos.DEFAULT_APPROVALS,
    everything: Everything = False,
    as_json: Json = False,
) -> int:
    """Run all standard scenarios that the target can carry."""
    from blackstart.cli import run as command  # noqa: PLC0415

    if only and everything:
        raise typer.BadParameter("--only names scenarios, --all takes every one: give one of them")
    status: int = command.suite(
        target,
        out=out,
        seed=seed,
        only=only or [],
        everything=everything,
        repeat=repeat,
        as_json=as_json,
        jobs=jobs,
        approvals=approvals,
    )
    return status


@app.command()
def run(
    scenario: Annotated[
        list[str], typer.Argument(help="A scenario (R1), one trial (R25:router), or a scenario file.")
    ],
    *,
    target: Target = DEFAULT_TARGET,
    out: Out = DEFAULT_OUT,
    seed: Seed = 7,
    repeat: Repeat = 1,
    jobs: Jobs = 1,
    approvals: chaos.Approvals = chaos.DEFAULT_APPROVALS,
    as_json: Json = False,
) -> int:
    """Run one scenario, or several.

    `blackstart validate` lists them all, also those that are not in the standard suite.
    """
    from blackstart.cli import run as command  # noqa: PLC0415

    status: int = command.suite(
        target,
        out=out,
        seed=seed,
        only=scenario,
        repeat=repeat,
        as_json=as_json,
        jobs=jobs,
        approvals=approvals,
    )
    return status


@app.command()
def validate(*, target: Target = DEFAULT_TARGET, as_json: Json = False) -> int:
    """Check a manifest, and say which scenarios it can carry.

    For the others it says why not.
    """
    from blackstart.cli import validate as command  # noqa: PLC0415

    status: int = command.validate(target, as_json=as_json)
    return status


@app.command()
def up(
    *,
    target: Target = DEFAULT_TARGET,
    out: Out = DEFAULT_OUT,
    seed: Seed = 7,
    again: Annotated[bool, typer.Option("--again", help="One more, though it is up already.")] = False,
) -> int:
    """Start the target and keep it up in the background."""
    from blackstart.cli import keep  # noqa: PLC0415

    status: int = keep.up(target, out=out, seed=seed, again=again)
    return status


@app.command()
def down(
    folder: Annotated[Path | None, typer.Argument(help="Its run folder, if several are up.")] = None,
    *,
    out: Out = DEFAULT_OUT,
    everything: Annotated[bool, typer.Option("--all", help="All that `up` started.")] = False,
) -> int:
    """Stop what `up` started."""
    from blackstart.cli import keep  # noqa: PLC0415

    status: int = keep.down(folder, out=out, everything=everything)
    return status


@app.command()
def snapshot(
    file: Annotated[Path | None, typer.Argument(help="Where to write it; default: standard output.")] = None,
    *,
    folder: Annotated[Path | None, typer.Option("--of", help="Its run folder, if several are up.")] = None,
    out: Out = DEFAULT_OUT,
) -> int:
    """Read the state of a target that is up, as JSON.

    Positions, orders, risk, P&L and so on, as the target has them and as its oracle has them.
    """
    from blackstart.cli import keep  # noqa: PLC0415

    status: int = keep.snapshot(file, folder=folder, out=out)
    return status


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="A snapshot.")],
    after: Annotated[Path, typer.Argument(help="A later one.")],
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every difference, not three examples.")] = False,
    as_json: Json = False,
) -> int:
    """Compare two snapshots by meaning.

    Exit status 1 when positions, orders or anything else differ.
    """
    from blackstart.cli import diff as command  # noqa: PLC0415

    status: int = command.diff(before, after, as_json=as_json, everything=everything)
    return status


@app.command()
def audit(
    ledger: Annotated[Path, typer.Argument(help="What was acknowledged: .parquet or .jsonl (.gz, .zst).")],
    recovered: Annotated[Path, typer.Argument(help="What was found afterwards.")],
    *,
    lists: Annotated[Path | None, typer.Option(help="Folder for the whole lists.")] = None,
    listed: Annotated[int, typer.Option(metavar="N", min=0, help="How many identifiers to name here.")] = 10,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Bound on memory.")] = "1GB",
    as_json: Json = False,
) -> int:
    """Compare two event files, event by event.

    Exit status 1 when anything is lost, duplicated, invented, corrupted or reordered; 2 when nothing was
    acknowledged, a file is damaged, or only one file states content or order.
    """
    from blackstart.cli import audit as command  # noqa: PLC0415

    status: int = command.audit(ledger, recovered, lists=lists, listed=listed, memory=memory, as_json=as_json)
    return status


@app.command()
def recheck(
    trial: Annotated[list[Path], typer.Argument(help="A trial's folder, or a run's.")],
    *,
    as_json: Json = False,
) -> int:
    """Run today's checkers on stored histories."""
    from blackstart.cli import recheck as command  # noqa: PLC0415

    status: int = command.recheck(trial, as_json=as_json)
    return status


@app.command()
def doctor(*, target: Target = DEFAULT_TARGET, as_json: Json = False) -> int:
    """Say what works on this machine, and what to install."""
    from blackstart.cli import doctor as command  # noqa: PLC0415

    status: int = command.doctor(target, as_json=as_json)
    return status


@app.command()
def calibrate(
    *,
    outages: Annotated[
        int, typer.Option(metavar="N", min=1, help="Programmed outages of 5 to 500 ms.")
    ] = 200,
    kills: Annotated[int, typer.Option(metavar="N", min=0, help="Kills whose notice is timed.")] = 200,
    seed: Seed = 7,
    out: Out = DEFAULT_OUT,
    as_json: Json = False,
) -> int:
    """Measure how wrong a measured RTO is.

    A target with programmed outages knows the truth; and deaths are timed from kill to notice.
    """
    from blackstart.cli import calibrate as command  # noqa: PLC0415

    status: int = command.calibrate(outages=outages, kills=kills, seed=seed, out=out, as_json=as_json)
    return status


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="The manifest to write.")] = Path("blackstart.toml"),
    *,
    name: Annotated[str | None, typer.Option(help="Name of the system.")] = None,
    environment: Annotated[str | None, typer.Option(help="sim, dev, test, staging or production.")] = None,
    command: Annotated[str | None, typer.Option(help="Command line that starts it.")] = None,
    health: Annotated[
        str | None, typer.Option(help="URL that answers 200, or HOST:PORT that accepts.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing, take the defaults.")] = False,
) -> int:
    """Ask a few questions and write a commented manifest."""
    from blackstart.cli import init as wizard  # noqa: PLC0415

    answers = {"name": name, "environment": environment, "command": command, "health": health}
    status: int = wizard.init(file, answers, ask=not yes)
    return status


@app.command()
def halt(*, out: Out = DEFAULT_OUT) -> int:
    """Pull the kill switch: take every fault back at once."""
    from blackstart.cli import halt as command  # noqa: PLC0415

    status: int = command.halt(out)
    return status


approve.add_to(app)


def main() -> None:
    """Entry point: run a command, end with its status. Errors are told in a few lines, not as tracebacks."""
    sys.exit(_status())


def _status() -> int:
    try:
        status = int(app(prog_name="blackstart", standalone_mode=False) or 0)
        sys.stdout.flush()
        return status  # noqa: TRY300 - what is flushed here may break, too
    except BlackstartError as error:
        print(f"blackstart: {error.render()}", file=sys.stderr)
        return error.exit_status
    except (KeyboardInterrupt, typer.Abort):
        print("blackstart: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone (`| head`): broken off, whatever was found
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except Exception as error:  # noqa: BLE001  # wrong options, or a bug of ours
        from blackstart.cli import bug  # noqa: PLC0415

        return bug.usage(error) if bug.is_usage(error) else bug.report(error)


if __name__ == "__main__":
    main()
