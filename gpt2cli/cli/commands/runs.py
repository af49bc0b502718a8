"""`gpt2 runs`: list the runs of `gpt2 finetune`, delete them, or delete only their checkpoints."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt2cli import paths
from gpt2cli.cli import options
from gpt2cli.cli.confirm import confirmed
from gpt2cli.cli.terminal import Console
from gpt2cli.counted import counted
from gpt2cli.errors import UsageError

if TYPE_CHECKING:
    from gpt2cli.training.run_list import RunInfo

EXAMPLES = """
gpt2 runs  # the runs in the data directory, the newest first
gpt2 runs --remove 20260131-142530-records  # delete one run
gpt2 runs --prune --yes  # delete the checkpoints of runs that are done
"""
of_disk = partial(typer.Option, rich_help_panel="On disk")


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(runs)


def complete_run(incomplete: str) -> list[str]:
    """Names of runs, for the shell's completion."""
    from gpt2cli.training.runs import all_runs

    return sorted((run.name for run in all_runs()), reverse=True)


def runs(
    remove: Annotated[
        list[str] | None,
        of_disk(
            "--remove",
            metavar="RUN",
            help="Delete a run, by its name or path. The file that it wrote to --out stays. Can be repeated.",
            autocompletion=complete_run,
        ),
    ] = None,
    prune: Annotated[
        bool,
        of_disk(
            "--prune",
            help="Delete the checkpoints of all runs that are done. Weights and summaries stay, but these runs can no "
            "longer be extended.",
        ),
    ] = False,
    yes: Annotated[bool, of_disk("--yes", "-y", help="Do not ask before deleting.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """List training runs, or delete them.

    The newest run is the first. A run with --run-dir outside of the data directory is not listed; --remove deletes it
    by its path.
    """
    if remove and prune:
        raise UsageError("--remove and --prune exclude each other: use one at a time")
    if yes and not (remove or prune):
        raise UsageError("--yes is for --remove and --prune: add one of them, or leave it out")
    console = Console(quiet)
    if remove:
        remove_runs(console, remove, yes=yes, json=json)
    elif prune:
        prune_runs(console, yes=yes, json=json)
    else:
        show_runs(console, json)


def show_runs(console: Console, json: bool) -> None:
    from rich.filesize import decimal

    from gpt2cli.cli.views.runs import print_runs
    from gpt2cli.training.run_list import list_runs

    found = list_runs()
    if json:
        for run in found:
            console.json(run_as_json(run))
        return
    if not found:
        console.note(f"no runs in {paths.runs()} yet: `gpt2 finetune` starts one, without --run-dir")
        return
    print_runs(found)
    total = f"{counted(len(found), 'run')} in {paths.runs()}, {decimal(sum(run.bytes for run in found))}"
    freed = sum(run.state_bytes for run in found if run.is_done)
    console.note(total + (f"; `gpt2 runs --prune` frees {decimal(freed)}" if freed else ""))


def remove_runs(console: Console, names: list[str], *, yes: bool, json: bool) -> None:
    from rich.filesize import decimal

    from gpt2cli.training.run_list import RUNNING
    from gpt2cli.training.run_removal import find_runs, remove_run

    found = find_runs(names)
    for run in found:
        if run.state == RUNNING:
            raise UsageError(f"{run.path} is running: stop it first (Ctrl-C saves it), or wait for its end")
    weights = [str(run.path / name) for run in found for name in run.weights]
    what = ", ".join(str(run.path) for run in found)
    size = decimal(sum(run.bytes for run in found))
    only = f" with the weights {', '.join(weights)}" if weights else ""
    if not confirmed(console, f"Delete {what} ({size}){only}?", yes=yes):
        console.note("nothing was deleted")
        return
    for run in found:
        remove_run(run)
        if json:
            console.json(run_as_json(run))
        console.note(f"deleted {run.path}, {decimal(run.bytes)}")


def prune_runs(console: Console, *, yes: bool, json: bool) -> None:
    from rich.filesize import decimal

    from gpt2cli.training.run_list import list_runs
    from gpt2cli.training.run_removal import prune_run

    found = {run: size for run in list_runs() if run.is_done and (size := run.state_bytes)}
    if not found:
        console.note("nothing to do: no run that is done has checkpoints")
        return
    total = decimal(sum(found.values()))
    if not confirmed(console, f"Delete the checkpoints of {counted(len(found), 'run')} ({total})?", yes=yes):
        console.note("nothing was deleted")
        return
    for run, size in found.items():
        prune_run(run)
        if json:
            console.json(run_as_json(run))
        console.note(f"deleted the checkpoints of {run.name}, {decimal(size)}")


def run_as_json(run: "RunInfo") -> dict[str, Any]:
    """The object for `--json`."""
    from dataclasses import asdict

    return {"run": run.name} | asdict(run) | {"path": str(run.path)}
