"""The line on which a person types: editing, history, completion, several lines, paste."""

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
"""What follows a command: a file's name, one of some words (none: that cannot be foreseen), or nothing."""

PROMPT, CONTINUATION = "> ", "  "

# escape sequences (an old mouse report, CSI, OSC and its like, keypad, others), and controls except newline and tab
_NO_TEXT = re.compile(
    r"\x1b\[M[ -~]{3}|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1bO[A-Za-z]|\x1b[@-_]?"
    r"|[\x00-\x08\x0b-\x1f\x7f]"
)


class LineEditor:
    """Reads what a person types, by themselves or with Tab; what was typed in earlier runs comes back with Up.

    The line is drawn on stderr, so that stdout holds answers only; on stdout where that alone is a terminal.
    """

    def __init__(self, arguments: Mapping[str, Argument]) -> None:
        stdout, stderr = current().stdout, current().stderr
        stream = stdout if stdout.isatty() and not stderr.isatty() else stderr
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
        self._kept = ""

    def read(self) -> str:
        """One entry, perhaps of several lines. Raises EOFError for Ctrl-D, and KeyboardInterrupt for Ctrl-C.

        Any other exception is a fault of the editor. What was typed until then is there again at the next call.
        """
        text, self._kept = self._kept, ""
        return self._session.prompt(default=text, pre_run=self._raise_faults, set_exception_handler=False)

    def _raise_faults(self) -> None:
        """Let exceptions in the event loop come out of `read`. By itself it prints a traceback and waits for Enter."""

        def leave(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            error, app = context.get("exception"), self._session.app
            if error is not None and app.future is not None and not app.future.done():
                self._kept = self._session.default_buffer.text
                app.exit(exception=error)

        asyncio.get_running_loop().set_exception_handler(leave)


def keys() -> KeyBindings:
    """Enter sends; Alt-Enter, or a backslash before Enter, begins a new line; Ctrl-C drops what was typed first.

    Input that no person types is ignored: reports of a mouse, colors, and unknown escape sequences.
    """
    bindings = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)  # and not the search with Ctrl-R, which has these keys to itself
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
        event.current_buffer.insert_text(_NO_TEXT.sub("", text))

    @bindings.add("<sigint>", filter=typing)  # a Ctrl-C before the terminal hands it over as a key
    @bindings.add("c-c", filter=typing)
    def drop_or_leave(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return bindings


def ignore_sequences(bindings: KeyBindings) -> None:
    """Add bindings that swallow whole escape sequences that stand for no key."""
    begun = ""  # the sequence that is being read, as `_after` has it

    @bindings.add(Keys.Vt100MouseEvent, eager=True)  # also what a program sends for colors
    @bindings.add(Keys.WindowsMouseEvent, eager=True)
    def ignore(event: KeyPressEvent) -> None:
        pass

    @bindings.add("escape", "[")
    @bindings.add("escape", "]")
    @bindings.add("escape", "P")
    @bindings.add("escape", "O")
    def begin(event: KeyPressEvent) -> None:
        nonlocal begun
        begun = event.data

    @bindings.add(Keys.Any, filter=Condition(lambda: bool(begun)), eager=True)
    def go_on(event: KeyPressEvent) -> None:
        nonlocal begun
        pressed = event.key_sequence[-1]
        before, begun = begun, _after(begun, pressed.key)
        if not begun and not _belongs(before, pressed.key):
            event.key_processor.feed(pressed, first=True)


def _after(begun: str, key: str) -> str:
    r"""The state of reading a sequence, after one more key; "" if the sequence has ended.

    "[" is a CSI sequence, "O" a key of a keypad; "]" and "P" are OSC and DCS before, "]0" within their text, and "\\"
    before their last sign.
    """
    if len(key) > 1:  # no character, but the name of a key
        return "\\" if begun == "]0" and key == Keys.Escape else ""
    if begun == "[":
        return "[" if " " <= key <= "?" else ""
    if begun in ("]", "P"):  # a letter is what a person types who has hit Alt by mistake
        return "]0" if key in "0123456789;$+>!=?" else ""
    return "]0" if begun == "]0" else ""


def _belongs(begun: str, key: str) -> bool:
    """Whether a key that ends a sequence is part of it."""
    is_last_sign = len(key) == 1 and "@" <= key <= "~"
    last = {"[": is_last_sign, "O": is_last_sign, "]0": key == Keys.ControlG, "\\": key == "\\"}
    return last.get(begun, False)


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
            with suppress(OSError, ValueError):  # what is typed may not be the name of any file
                yield from self._paths.get_completions(Document(rest), complete_event)
        else:
            yield from (Completion(word, -len(rest)) for word in argument or () if word.startswith(rest))
