"""Reading texts from an argument, a file or stdin."""

import os
from pathlib import Path

from gpt2cli import paths
from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import Console
from gpt2cli.errors import DataError, ResourceError, UsageError
from gpt2cli.untrusted import is_utf16, shown

LONGEST_PROMPT = 2**26
"""The largest number of bytes in a prompt: files such as /dev/zero have no end."""


def read_prompt(prompt: str | None, file: Path | None = None) -> str:
    """The prompt: the argument unchanged, or the text of the file or of stdin (see `decode`).

    Raises UsageError for two prompts, and what `read_file` raises.
    """
    if prompt is not None and file is not None:
        raise UsageError("give the prompt as an argument or as --prompt-file, not both")
    if file is not None:
        return read_file(file, "--prompt-file")
    if prompt == "-" or (prompt is None and not current().stdin.isatty()):
        return read_stdin()
    return typed(prompt or "", "the prompt")


def note_blank_end(console: Console, prompt: str) -> None:
    """Say that a prompt ends with a blank. GPT-2 was trained on texts whose blanks are the beginnings of tokens."""
    if prompt.endswith(" "):
        note = "the prompt ends with a blank, but GPT-2's words begin with one: the text may continue badly"
        console.note(note, wrap=True)


def typed(argument: str, where: str) -> str:
    """The text of an argument. Raises DataError, naming the byte, if it is not UTF-8."""
    # the bytes that were typed: a locale without UTF-8 decodes them wrongly
    return _as_unicode(os.fsencode(argument), where)


def read_stdin() -> str:
    try:
        return decode(current().stdin.buffer.read(LONGEST_PROMPT + 1), "stdin")
    except OSError as error:  # a directory, for example
        raise DataError(f"cannot read stdin ({error.strerror or error}): give a text") from None


def read_file(file: Path, option: str) -> str:
    """A file's text (see `decode`).

    Raises DataError, naming the option, if there is no such file, and UsageError for a name that no file can have.
    """
    file = paths.expand(file)
    try:
        with file.open("rb") as opened:
            return decode(opened.read(LONGEST_PROMPT + 1), str(file))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        if not str(file).isprintable():  # probably a text in place of a name
            raise UsageError(f"{shown(str(file))} cannot be the name of a file: check it") from None
        raise DataError(f"cannot read {file} ({error.strerror}): name a file as {option}") from None
    except OSError as error:
        raise ResourceError(f"cannot read {file} ({error.strerror or error}): name another file as {option}") from None


def decode(content: bytes, where: str) -> str:
    r"""The text of a file or of a pipe, in UTF-8, with `\n` for `\r\n`.

    A byte order mark at its beginning and one newline at its end are removed. Raises DataError, naming the byte, for
    content that is not UTF-8, and for content of more than LONGEST_PROMPT bytes.
    """
    if len(content) > LONGEST_PROMPT:
        raise DataError(
            f"{where} is longer than {LONGEST_PROMPT >> 20} MB: give its end, which is all that a model reads"
        )
    if is_utf16(content):
        raise DataError(f"{where} looks like UTF-16: convert it to UTF-8")
    return _as_unicode(content, where).removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n")


def _as_unicode(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not valid UTF-8 at byte {error.start}: convert it to UTF-8") from None
