"""Makes a Typer option from the field of a config, which describes it: see `gpt2cli.bounds.described`."""

from typing import Any

import typer

from gpt2cli.bounds import BELOW_1, FROM_0_TO_1, UP_TO_1, Bounds, choices


def option(panel: str, config: type[Any], name: str, *flags: str) -> Any:
    """The option that sets the field `name` of a config: `learning_rate` by `--learning-rate`, or else by `flags`.

    panel  the heading that the option stands under on the help page
    """
    field = config.__dataclass_fields__[name]
    named = field.metadata["name"] or name
    return typer.Option(
        *(flags or (f"--{named.replace('_', '-')}",)),
        help=field.metadata["help"],
        metavar=_metavar(field.type, field.metadata["bounds"]),
        show_default=field.metadata["means"] or True,
        rich_help_panel=panel,
    )


def _metavar(kind: Any, bounds: Bounds | None) -> str | None:
    """How the help page writes a value of this type; None where the page knows it."""
    if bounds in (BELOW_1, UP_TO_1, FROM_0_TO_1):
        return "FRACTION"
    return "NAME" if kind is str else "|".join(choices(kind)) or None
