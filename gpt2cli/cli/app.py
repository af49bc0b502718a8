"""The `gpt2` command and the list of its subcommands."""

from typing import Annotated

import typer

from gpt2cli.cli.command_line import App, CommandGroup

START = """
gpt2 generate "Once upon a time" --model tiny  # continue a text
gpt2 chat --model tiny  # ask something; Ctrl-D leaves
gpt2 finetune --model tiny --data lessons --max-steps 20 --out mine.pt  # teach it more
gpt2 evaluate --model tiny --ckpt mine.pt --data lessons --split val  # is it better now?
"""
"""Commands for a first try. They need no network, because the model and the data come with the package."""

app = App(
    name="gpt2",
    cls=CommandGroup,
    help="GPT-2 in your terminal: generate, chat, serve, fine-tune, measure, look inside.",
    epilog=START,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def top(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from gpt2cli.cli.version import print_version

        print_version()
    elif ctx.invoked_subcommand is None:
        from gpt2cli.cli.help_pages import show_page

        show_page(ctx.command, ctx)
