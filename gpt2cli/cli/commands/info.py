"""`gpt2 info`: what gpt2cli keeps on disk, how large it is, and how to delete it."""

from dataclasses import asdict

import typer

from gpt2cli import paths
from gpt2cli.cli import options
from gpt2cli.cli.terminal import Console, visible_line
from gpt2cli.counted import counted

EXAMPLES = """
gpt2 info  # every place, its size, and the command that deletes it
gpt2 info --json  # the same for programs
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(info)


def info(json: options.Json = False, debug: options.Debug = False) -> None:
    """Show what is on disk, and how to delete it.

    The weights that you write with --out, and runs with --run-dir, are not among them.
    """
    from rich.filesize import decimal

    from gpt2cli.cli.stored_files import places, remove_all

    console = Console()
    found = places()
    if json:
        listed = [asdict(place) | {"path": str(place.path)} for place in found]
        console.json({"home": str(paths.home()), "places": listed, "remove_all": remove_all(found)})
        return
    for place in filter(lambda place: place.bytes, found):
        console.write(f"{counted(place.count, place.name.removesuffix('s'))}, {decimal(place.bytes)}\n", "bold")
        console.write(f"  {visible_line(str(place.path))}\n")
        console.write(f"  {visible_line(place.remove)}\n", "dim")
    total = sum(place.bytes for place in found)
    everything = remove_all(found)
    last = f"to delete everything: {visible_line(everything)}" if everything else "nothing is on disk yet"
    console.write(f"{decimal(total)} in all; {last}\n")
    console.note("the files that you wrote with --out are not among them")
