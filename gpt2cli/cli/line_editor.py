"""The line on which a person types: editing, history, completion, several lines, paste."""

import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output

from gpt2cli import paths

Argument = Literal["path"] | tuple[str, ...] | None
"""What follows a command: a file's name, one of some words (none: that cannot be foreseen), or nothing."""

PROMPT, CONTINUATION = "> ", "  "


class LineEditor:
    """Reads what a person types, by themselves or with Tab; what was typed in earlier runs comes back with Up.

    The line is drawn on stderr, so that stdout holds answers only; on stdout where that alone is a terminal.
    """

    def __init__(self, arguments: Mapping[str, Argument]) -> None:
        stream = sys.stdout if sys.stdout.isatty() and not sys.stderr.isatty() else sys.stderr
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=CONTINUATION,
            history=PrivateHistory(paths.home() / "chat_history"),
            completer=CommandCompleter(arguments),
            complete_while_typing=False,
            enable_suspend=True,
            key_bindings=keys(),
            output=create_output(stdout=stream),
        )

    def read(self) -> str:
        """One entry, perhaps of several lines. Raises EOFError for Ctrl-D and KeyboardInterrupt for Ctrl-C."""
        return self._session.prompt()


def keys() -> KeyBindings:
    """Enter sends; Alt-Enter, or a backslash before Enter, begins a new line; Ctrl-C drops what was typed first."""
    bindings = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)  # and not the search with Ctrl-R, which has these keys to itself

    @bindings.add("enter", filter=typing)
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=typing)
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-c", filter=typing)
    def drop_or_leave(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return bindings


class PrivateHistory(FileHistory):
    """What was typed in earlier runs, in a file that only its owner can read.

    A session goes on where it cannot be written.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
            file.chmod(0o600)  # also if somebody else made it

    def load_history_strings(self) -> Iterable[str]:
        with suppress(OSError):
            return list(super().load_history_strings())
        return []

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string.encode(errors="replace").decode())


class CommandCompleter(Completer):
    """Completes commands, which begin with a slash, and what may follow them."""

    def __init__(self, arguments: Mapping[str, Argument]) -> None:
        self._arguments = arguments
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        command, blank, rest = document.text_before_cursor.partition(" ")
        if not command.startswith("/"):
            return
        if not blank:
            found = ((name, argument) for name, argument in self._arguments.items() if name.startswith(command))
            yield from (Completion(name + " " * (argument is not None), -len(command)) for name, argument in found)
            return
        argument = self._arguments.get(command)
        if argument == "path":
            yield from self._paths.get_completions(Document(rest), complete_event)
        else:
            yield from (Completion(word, -len(rest)) for word in argument or () if word.startswith(rest))
