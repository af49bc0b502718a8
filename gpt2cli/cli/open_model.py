"""What `gpt2 generate` and `gpt2 chat` share: reading the prompt, opening the model, and telling how it went."""

import os
import time
from errno import ENAMETOOLONG
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2cli.cli.describe import counted
from gpt2cli.cli.environment import current
from gpt2cli.cli.interrupts import raise_received
from gpt2cli.cli.terminal import Console
from gpt2cli.errors import DataError, ResourceError, UsageError
from gpt2cli.untrusted import is_utf16, shown

if TYPE_CHECKING:
    from gpt2cli.generation.text import Sample, TextGeneration
    from gpt2cli.inference.decoder import Decoder


LONGEST_PROMPT = 2**26
"""Bytes of a prompt at most: files such as /dev/zero have no end."""


def read_prompt(prompt: str | None, file: Path | None = None) -> str:
    """The prompt from the argument, as it is, or from the file or stdin, as `decode` reads them.

    Raises UsageError for two prompts, and what `read_file` raises.
    """
    if prompt is not None and file is not None:
        raise UsageError("give the prompt as an argument or as --prompt-file, not both")
    if file is not None:
        return read_file(file, "--prompt-file")
    if prompt == "-" or (prompt is None and not current().stdin.isatty()):
        return read_stdin()
    # the very bytes that were typed: a locale without UTF-8 has misread them
    return _as_unicode(os.fsencode(prompt or ""), "the prompt")


def read_stdin() -> str:
    try:
        return decode(current().stdin.buffer.read(LONGEST_PROMPT + 1), "stdin")
    except OSError as error:  # a directory, for example
        raise DataError(f"cannot read stdin ({error.strerror or error}): give a text") from None


def read_file(file: Path, option: str) -> str:
    """A file's text, as `decode` reads it.

    Raises DataError, naming the option, if there is no such file, and UsageError for a name that no file can have.
    """
    try:
        with file.open("rb") as opened:
            return decode(opened.read(LONGEST_PROMPT + 1), str(file))
    except ValueError as error:  # NUL in the name, or half a character
        raise unusable_name(str(file), str(error)) from None
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        if not str(file).isprintable():  # a text, where a name was to be given
            raise unusable_name(str(file), str(error.strerror)) from None
        raise DataError(f"cannot read {file} ({error.strerror}): name a file as {option}") from None
    except OSError as error:
        if error.errno == ENAMETOOLONG:
            raise unusable_name(str(file), str(error.strerror)) from None
        raise ResourceError(f"cannot read {file} ({error.strerror or error}): name another file as {option}") from None


def unusable_name(name: str, why: str) -> UsageError:
    """The error about a text that is not the name of any file."""
    return UsageError(f"{shown(name)} is not the name of a file ({why}): check what was typed")


def decode(content: bytes, where: str) -> str:
    r"""The text of a file or of a pipe, in UTF-8, with `\n` for `\r\n`.

    A byte order mark at its beginning and one newline at its end are not part of it. Raises DataError for what is not
    UTF-8, naming the byte, or longer than LONGEST_PROMPT.
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


def open_model(
    console: Console,
    model: str | None,
    ckpt: str | None,
    device: str,
    precision: str,
    threads: int | None,
    compile: bool,
    offline: bool,
    for_text: bool = True,
) -> "tuple[Decoder, float]":
    """Load what the options name, showing any download; the model, and the seconds that it takes once compiled.

    With `for_text`, a model that was made for another tokenizer is refused.
    """
    import torch

    from gpt2cli.checkpoints.load import load
    from gpt2cli.cli.views.downloads import showing_downloads

    if threads:
        torch.set_num_threads(threads)
    start = time.perf_counter()
    with showing_downloads(console) as progress:
        gpt = load(
            model,
            ckpt=ckpt,
            device=device,
            precision=precision,
            offline=offline,
            for_text=for_text,
            progress=progress,
            compile=compile,
        )
    seconds = time.perf_counter() - start
    seconds += gpt.prepare(console.note)
    raise_received()  # compilers catch what a signal raises
    return gpt, seconds


def note_dropped(console: Console, run: "TextGeneration") -> None:
    """Say so if the prompt did not fit into the window."""
    if run.dropped:
        dropped, kept = counted(run.dropped, "token"), len(run.prompt_ids)
        console.note(f"the prompt is too long: left out {dropped} at its beginning, kept the last {kept:,}")


def sample_as_json(prompt: str, sample: "Sample", run: "TextGeneration", load_s: float) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "text": sample.text,
        "tokens": sample.tokens,
        "finish_reason": sample.finish_reason,
        "seed": sample.seed,
        "stats": {
            "prompt_tokens": len(run.prompt_ids),
            "new_tokens": len(sample.tokens),
            "prefill_tok_s": run.prefill_tok_s,
            "decode_tok_s": run.decode_tok_s,
            "load_s": load_s,
        },
    }


def describe_speed(run: "TextGeneration") -> str:
    new = sum(len(sample.tokens) for sample in run.samples)
    parts = [counted(len(run.prompt_ids), "prompt token")]
    if run.prefill_tok_s:
        parts[-1] += f" at {run.prefill_tok_s:.0f} tokens/s"
    parts.append(counted(new, "new token"))
    if run.decode_tok_s:
        parts[-1] += f" at {run.decode_tok_s:.1f} tokens/s"
    parts.append(f"seed {run.samples[0].seed}")
    return " · ".join(parts)
