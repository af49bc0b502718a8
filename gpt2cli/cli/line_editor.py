"""The input line of `gpt2 chat`: editing, history, completion, entries of several lines, and paste."""

import asyncio
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import create_output

from gpt2cli import paths
from gpt2cli.cli.environment import current

Argument = Literal["path"] | tuple[str, ...] | None
"""The argument of a command: a file's name, one of these words (an empty tuple for any text), or None."""

PROMPT, CONTINUATION = "> ", "  "

# escape sequences (old mouse reports, CSI, OSC and similar, keypad, others), and controls except newline and tab
_NOT_TEXT = re.compile(
    r"\x1b\[M[ -~]{3}|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1bO[A-Za-z]|\x1b[@-_]?"
    r"|[\x00-\x08\x0b-\x1f\x7f]"
)
# CSI, keypad, OSC and DCS sequences. A letter after ESC ] or ESC P comes from a person who pressed Alt by mistake.
_UNFINISHED = re.compile(r"\x1b(?:\[[ -?]*|O|[\]P](?:[0-9;$+>!=?][^\x00-\x1f\x7f]*\x1b?)?)")
_FINISHED = re.compile(r"\x1b(?:\[[ -?]*[@-~]|O[@-~]|[\]P][0-9;$+>!=?][^\x00-\x1f\x7f]*(?:\x07|\x1b\\))")


class LineEditor:
    """Reads lines with completion (Tab) and the history of earlier runs (Up). An entry can have several lines.

    The line is drawn on stderr, so that stdout holds only answers. It is drawn on stdout if only that is a terminal.

    arguments  the commands and their arguments
    """

    def __init__(self, arguments: Mapping[str, Argument]) -> None:
        stdout, stderr = current().stdout, current().stderr
        stream = stdout if stdout.isatty() and not stderr.isatty() else stderr
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=CONTINUATION,
            history=PrivateHistory(paths.chat_history()),
            completer=CommandCompleter(arguments),
            complete_while_typing=False,
            enable_suspend=True,
            key_bindings=keys(),
            output=create_output(stdout=stream),
        )
        self._unfinished = ""

    def read(self) -> str:
        """Returns one entry of one or more lines. Raises EOFError for Ctrl-D, and KeyboardInterrupt for Ctrl-C.

        Any other exception is a fault of the editor. The next call then begins with the text that was typed before.
        """
        text, self._unfinished = self._unfinished, ""
        return self._session.prompt(default=text, pre_run=self._raise_faults, set_exception_handler=False)

    def _raise_faults(self) -> None:
        """Make `read` raise the exceptions of the event loop. By default it prints a traceback and waits for Enter."""

        def leave(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            error, app = context.get("exception"), self._session.app
            if error is not None and app.future is not None and not app.future.done():
                self._unfinished = self._session.default_buffer.text
                app.exit(exception=error)

        asyncio.get_running_loop().set_exception_handler(leave)


def keys() -> KeyBindings:
    """The key bindings.

    Enter sends the entry. Alt-Enter, or a backslash before Enter, begins a new line. Ctrl-C deletes the text, or
    leaves if there is none. Mouse reports, colors and unknown escape sequences are ignored.
    """
    bindings = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)  # not while searching with Ctrl-R, which uses the same keys
    ignore_sequences(bindings)

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

    @bindings.add(Keys.BracketedPaste, eager=True)
    def paste(event: KeyPressEvent) -> None:
        text = event.data.replace("\r\n", "\n").replace("\r", "\n")
        event.current_buffer.insert_text(_NOT_TEXT.sub("", text))

    @bindings.add("<sigint>", filter=typing)  # Ctrl-C arrives as a signal until the terminal passes it on as a key
    @bindings.add("c-c", filter=typing)
    def delete_or_leave(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return bindings


def ignore_sequences(bindings: KeyBindings) -> None:
    """Add bindings that ignore escape sequences that belong to no key."""
    begun = ""  # the part of a sequence that was read so far

    @bindings.add(Keys.Vt100MouseEvent, eager=True)  # the sequences for colors match it, too
    @bindings.add(Keys.WindowsMouseEvent, eager=True)
    def ignore(event: KeyPressEvent) -> None:
        pass

    @bindings.add("escape", "[")
    @bindings.add("escape", "]")
    @bindings.add("escape", "P")
    @bindings.add("escape", "O")
    def begin(event: KeyPressEvent) -> None:
        nonlocal begun
        begun = "\x1b" + event.data

    @bindings.add(Keys.Any, filter=Condition(lambda: bool(begun)), eager=True)
    def continue_sequence(event: KeyPressEvent) -> None:
        nonlocal begun
        pressed = event.key_sequence[-1]
        sequence = begun + pressed.data
        begun = sequence if _UNFINISHED.fullmatch(sequence) else ""
        if not begun and not _FINISHED.fullmatch(sequence):  # the key does not belong to the sequence
            event.key_processor.feed(pressed, first=True)


class PrivateHistory(FileHistory):
    """The entries of earlier runs, in a file that only its owner can read. Errors of the file are ignored."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
            file.chmod(0o600)  # also if the file existed

    def load_history_strings(self) -> Iterable[str]:
        with suppress(OSError):
            return list(super().load_history_strings())
        return []

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string.encode(errors="replace").decode())


class CommandCompleter(Completer):
    """Completes commands, which begin with a slash, and their arguments."""

    def __init__(self, arguments: Mapping[str, Argument]) -> None:
        self._arguments = arguments
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        command, blank, rest = document.text_before_cursor.partition(" ")
        if not command.startswith("/"):
            return
        if not blank:
            for name, takes in self._arguments.items():
                if name.startswith(command):
                    yield Completion(name + " " * (takes is not None), -len(command))
        elif (argument := self._arguments.get(command)) == "path":
            with suppress(OSError, ValueError):  # the text may be no valid file name
                yield from self._paths.get_completions(Document(rest), complete_event)
        else:
            yield from (Completion(word, -len(rest)) for word in argument or () if word.startswith(rest))
