"""The commands of a chat, which begin with a slash."""

import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from gpt2cli import atomic, outputs, paths
from gpt2cli.bounds import FieldError
from gpt2cli.cli.chat_files import FORMATS, RECORDS, as_records, as_text, check_format, split_format
from gpt2cli.cli.describe import shortened
from gpt2cli.cli.options import unescape
from gpt2cli.cli.read_text import read_file
from gpt2cli.counted import counted
from gpt2cli.errors import UsageError
from gpt2cli.prompts import check_place_for_system
from gpt2cli.suggestions import did_you_mean
from gpt2cli.tokenizer import check_unicode

if TYPE_CHECKING:
    from gpt2cli.cli.chat_session import Session


def parse_seed(text: str) -> int | None:
    return None if text == "random" else int(text)


def parse_stop(text: str) -> tuple[str, ...]:
    """The stop texts: one without quotation marks, or several in them, as in a shell."""
    if text == "none":
        return ()
    texts = [text]
    if text[0] in "'\"":
        quoted = shlex.shlex(text, posix=True)
        quoted.whitespace_split, quoted.escape, quoted.commenters = True, "", ""
        with suppress(ValueError):  # no second quotation mark: the first is a part of the text
            texts = list(quoted)
    return tuple(unescape(texts) or ())


SETTINGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "temp": ("temperature", float),
    "top-k": ("top_k", int),
    "top-p": ("top_p", float),
    "min-p": ("min_p", float),
    "repetition-penalty": ("repetition_penalty", float),
    "max-new-tokens": ("max_new_tokens", int),
    "seed": ("seed", parse_seed),
    "stop": ("stop", parse_stop),
}
"""The settings of /set by option name: the field of SamplingConfig, and the function that reads its value."""
OTHER_NAMES = {"temperature": "temp"}
"""Settings by the names of their fields, which people type as well."""


def help_page(session: "Session", argument: str) -> None:
    session.console.table({command.usage: command.help for command in COMMANDS.values()} | {"": ""} | KEYS)


def set_value(session: "Session", argument: str) -> None:
    name, _, value = argument.partition(" ")
    name = OTHER_NAMES.get(name, name)
    if name and name not in SETTINGS:
        raise UsageError(f"there is no setting {shortened(name, 40)!r}: {nearest(name, SETTINGS)}")
    if not value.strip():
        raise UsageError(f"set {f'{name} to ' if name else ''}what? As in: /set temp 0.9")
    field, parse = SETTINGS[name]
    try:
        changed: dict[str, Any] = {field: parse(value.strip())}
        session.sampling = replace(session.sampling, **changed)
    except FieldError as error:
        raise UsageError(f"{name} {error.problem}") from None
    except ValueError:
        kind = "number" if parse is float else "whole number"
        raise UsageError(f"{name} must be a {kind}, not {shortened(value, 40)!r}") from None
    session.console.note(f"{name} is {shown(session, name)}")


def show_settings(session: "Session", argument: str) -> None:
    facts = {
        "model": f"{session.name}, with a window of {counted(session.model.config.block_size, 'token')}",
        **{name: shown(session, name) for name in SETTINGS},
        "turns": "all that fit" if session.has_all_turns else str(session.turns),
        "conversation": counted(len(session.exchanges), "exchange"),
    }
    if session.template is not None and session.template.has_place_for_system:
        facts["system"] = shortened(session.template.system, 200) or "the template's preamble"
    if session.input:
        facts["input"] = f"{counted(len(session.input), 'character')}, for the next instruction"
    session.console.table(facts)


def shown(session: "Session", name: str) -> str:
    value = getattr(session.sampling, SETTINGS[name][0])
    if name == "stop":
        return " ".join(map(repr, value)) or "none"
    return "random" if value is None else str(value)


def clear(session: "Session", argument: str) -> None:
    session.console.note(f"forgot {counted(len(session.exchanges), 'exchange')}")
    session.forget()


def read(session: "Session", argument: str) -> None:
    if not argument:
        raise UsageError("read what? As in: /read FILE")
    session.input = read_file(paths.expand(argument), "/read FILE")
    session.console.note(f"read {counted(len(session.input), 'character')}: type an instruction for them")


def save(session: "Session", argument: str) -> None:
    if not argument:
        raise UsageError("save to where? As in: /save FILE")
    if not session.exchanges:
        raise UsageError("nothing was asked yet: there is nothing to save")
    file, format = split_format(argument)
    path, template = paths.expand(file).absolute(), session.template
    check_format(path.name, format, is_text=template is None)
    replaces = path.exists()
    if replaces and path not in session.saved:
        raise UsageError(f"{path} is there already: choose another name")
    outputs.check_file(path)
    from gpt2cli.generation.conversation import transcript  # imports torch

    if template is None:
        content = transcript(session.exchanges) + "\n"
    elif (suffix := path.suffix.lower()) in RECORDS:
        content = as_records(session.exchanges, template.system, suffix, format or "instructions")
    else:
        content = as_text(session.exchanges)
    atomic.write_text(path, content)
    session.saved.add(path)
    exchanges = counted(len(session.exchanges), "exchange")
    session.console.note(f"replaced {path} with {exchanges}" if replaces else f"wrote {exchanges} to {path}")


def set_turns(session: "Session", argument: str) -> None:
    if session.template is None:
        raise UsageError("a text is continued with all of it that fits into the window; /clear begins a new one")
    try:
        turns = int(argument)
    except ValueError:  # also for thousands of digits
        turns = -1
    if turns < 0:
        raise UsageError(f"/turns takes a whole number, 0 or more, not {shortened(argument, 40)!r}")
    session.turns = turns
    included = f"up to {counted(turns, 'earlier exchange')}, as many as fit into the window"
    session.console.note(f"each prompt includes {included if turns else 'no earlier exchange'}")


def set_system(session: "Session", argument: str) -> None:
    check_unicode(argument)
    before, session.template = session.template, check_place_for_system(session.template).with_system(argument)
    what = f"is {shortened(argument, 200)!r}" if argument else "is the template's preamble"
    session.console.note(f"the system text {what}", wrap=True)
    if session.exchanges and session.template != before:  # /save writes one system text for all exchanges
        session.console.note(f"forgot {counted(len(session.exchanges), 'exchange')}")
        session.exchanges.clear()


class Leave(Exception):  # noqa: N818 (not an error)
    """Ends the conversation."""


def leave(session: "Session", argument: str) -> None:
    raise Leave


@dataclass(frozen=True)
class Command:
    """A command: its usage, a short help text, its function, and the completions of its argument."""

    usage: str
    help: str
    run: Callable[["Session", str], None]
    argument: Literal["path"] | tuple[str, ...] | None = None


SAVED = f".txt or .md, or as records .jsonl, .json, .csv or .tsv in the format {', '.join(FORMATS)}"
COMMANDS: Mapping[str, Command] = {
    command.usage.split()[0]: command
    for command in (
        Command("/help", "show this list", help_page),
        Command("/set NAME VALUE", "change a setting, as in: /set temp 0.9", set_value, tuple(SETTINGS)),
        Command("/show", "show the settings", show_settings),
        Command("/regen", "answer the last instruction again", lambda session, _: session.regenerate()),
        Command("/clear", "forget the exchanges so far", clear),
        Command("/read FILE", "use a file as the input of the next instruction", read, "path"),
        Command("/save FILE [FORMAT]", f"save the exchanges: {SAVED}", save, "path"),
        Command("/turns N", "include up to N earlier exchanges in each prompt; 0: none", set_turns, ()),
        Command(
            "/system TEXT", "begin anew with this text as the preamble; without TEXT: the template's", set_system, ()
        ),
        Command("/exit", "leave", leave),
    )
}
KEYS = {
    "Enter": "send; Alt-Enter, or \\ before Enter, begins a new line",
    "Space": "before a slash: send the line as an instruction",
    "Tab": "complete a command; Up and Ctrl-R find earlier lines",
    "Ctrl-C": "stop an answer, or delete the line; at an empty line, twice: leave, as Ctrl-D does",
}
WORDS = {"exit": "/exit", "quit": "/exit", "help": "/help"}
"""Words that are commands if typed alone, as in other programs."""
ALIASES = {"/quit": "/exit"}


def run_command(session: "Session", line: str) -> None:
    """Run a line that begins with a slash. Raises UsageError, or the command's error."""
    name, *rest = line.split(maxsplit=1)
    name = ALIASES.get(name, name)
    if name not in COMMANDS:
        raise UsageError(f"there is no command {shortened(name, 40)}: {nearest(name, COMMANDS)}")
    COMMANDS[name].run(session, rest[0].strip() if rest else "")


def nearest(typed: str, words: Mapping[str, object]) -> str:
    """A question about the word that was probably meant, or a list of all words."""
    return did_you_mean(typed, list(words)) or f"there are {', '.join(words)}"
