"""One conversation: its exchanges and settings, its answers, and the loop that reads lines from the user."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli.cli.chat_commands import COMMANDS, WORDS, Leave, run_command
from gpt2cli.cli.describe import counted
from gpt2cli.cli.error_messages import report
from gpt2cli.cli.interrupts import forget_ctrl_c, raise_received
from gpt2cli.cli.open_model import describe_speed, note_dropped
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views.progress import waiting_for
from gpt2cli.config import SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.generation.conversation import Exchange, compose
from gpt2cli.generation.text import TextGeneration
from gpt2cli.inference.decoder import Decoder
from gpt2cli.prompts import PromptTemplate

if TYPE_CHECKING:
    from gpt2cli.cli.line_editor import LineEditor


@dataclass
class Session:
    """A model, the user's settings, and the exchanges so far. Answers go to stdout, all else to stderr.

    sampling     for the next answer; its seed, if any, goes up by one with each answer
    turns        the largest number of earlier exchanges in a prompt
    input        the input of the next instruction
    saved        files that this session has written, and may write again
    interrupted  whether the last event was a Ctrl-C, so that another one leaves
    """

    console: Console
    name: str
    model: Decoder
    template: PromptTemplate
    sampling: SamplingConfig
    stats: bool = False
    turns: int = 0
    input: str = ""
    exchanges: list[Exchange] = field(default_factory=list)
    saved: set[Path] = field(default_factory=set)
    interrupted: bool = False
    _included: int | None = None  # earlier exchanges in the last prompt, if not all had room

    def ask(self, instruction: str) -> None:
        """Answer an instruction. If Ctrl-C or an error ends the answer, the text so far is kept."""
        asked = Exchange(instruction, self.input)
        run = self.start(self._prompt(asked, self.exchanges))
        complete = False
        try:
            self._write(run)
            complete = True
        finally:
            if complete or _answer(run):
                self.exchanges.append(replace(asked, output=_answer(run)))
                self.input = ""

    def regenerate(self) -> None:
        """Answer the last instruction again. The old answer stays if an error ends the new one.

        Raises UsageError if nothing was asked yet.
        """
        if not self.exchanges:
            raise UsageError("nothing was asked yet: type an instruction")
        *earlier, last = self.exchanges
        run = self.start(self._prompt(last, earlier))
        self._write(run)
        self.exchanges[-1] = replace(last, output=_answer(run))

    def forget(self) -> None:
        """Start again with the same settings."""
        self.exchanges.clear()
        self.input, self._included = "", None

    def start(self, prompt: str) -> TextGeneration:
        """An answer that is generated while it is iterated. It also ends before any heading of the template."""
        stop = (*self.sampling.stop, *self.template.headings)
        run = TextGeneration(self.model, prompt, replace(self.sampling, stop=stop), allow_special=False)
        note_dropped(self.console, run)
        return run

    def _write(self, run: TextGeneration) -> None:
        """Show an answer while it is generated, until its end or a Ctrl-C, and prepare the next seed."""
        try:
            show(self.console, run)
        except KeyboardInterrupt:
            self.console.note("stopped")
            self.note_ctrl_c()
        self.note_end(run, "/set max-new-tokens raises it")
        if self.sampling.seed is not None:
            self.sampling = replace(self.sampling, seed=(self.sampling.seed + 1) % 2**63)

    def _prompt(self, asked: Exchange, earlier: list[Exchange]) -> str:
        """The prompt with as many of the last `turns` exchanges as fit. Prints a note if some do not fit."""
        wanted = [exchange for exchange in earlier if exchange.output][-self.turns :] if self.turns else []
        block_size = self.model.config.block_size
        prompt, included = compose(self.template, wanted, asked, block_size, self.sampling.max_new_tokens)
        left_out = len(wanted) - included
        if left_out and included != self._included:  # not again with every answer
            self.console.note(f"the window has no room for {counted(left_out, 'older exchange')}; included {included}")
        self._included = included if left_out else None
        return prompt

    def note_end(self, run: TextGeneration, advice: str) -> None:
        """Print a note if an answer is empty or reached the limit, and its speed if `stats` is set."""
        sample = run.samples[0]
        if sample.finish_reason == "length":
            limit = counted(self.sampling.max_new_tokens, "token")
            self.console.note(f"ended at the limit of {limit}: {advice}")
        elif sample.finish_reason and not sample.text.strip():
            self.console.note("the answer is empty")
        if self.stats:
            self.console.note(describe_speed(run))

    def note_ctrl_c(self) -> None:
        """Note that the chat goes on after a Ctrl-C, but not after a second one in a row."""
        self.interrupted = True
        forget_ctrl_c()
        self.console.note("Ctrl-C again leaves")


def _answer(run: TextGeneration) -> str:
    return run.samples[0].text.strip()


def show(console: Console, run: TextGeneration) -> None:
    """Write an answer to stdout while it is generated, without blank space at either end."""
    begun, blank = False, ""
    try:
        for _, text in waiting_for(run, console, "reading"):
            text = blank + text if begun else text.lstrip()
            shown = text.rstrip()
            blank = text[len(shown) :]
            console.write(shown)
            begun = begun or bool(shown)
    finally:  # end the line, also after an error or Ctrl-C
        if begun:
            with suppress(OSError):  # do not hide another error
                console.write("\n")


def converse(session: Session) -> None:
    """Answer instructions and run commands until the user leaves with Ctrl-D, /exit, or a second Ctrl-C in a row.

    Other errors print one line and do not end the chat.
    """
    from gpt2cli.cli.line_editor import LineEditor

    editor = LineEditor({name: command.argument for name, command in COMMANDS.items()})
    session.console.note(f"chatting with {session.name}: /help lists the commands, Ctrl-D leaves")
    with suppress(Leave):
        while True:
            try:
                line = read_line(editor)
                session.interrupted = False
                if line.strip():
                    process(session, line)
                    session.console.err.print()
            except KeyboardInterrupt:  # noqa: PERF203 (a person types slowly)
                if session.interrupted:
                    raise
                session.note_ctrl_c()


def read_line(editor: "LineEditor") -> str:
    """Read a line from the editor. Raises Leave for Ctrl-D, and the editor's error if it fails twice in a row."""
    try:
        try:
            return editor.read()
        except EOFError:
            raise
        except Exception as error:
            raise_received()
            report(error)
            return editor.read()
    except EOFError:
        raise Leave from None


def process(session: Session, line: str) -> None:
    """Answer an instruction or run a command, and report its error.

    Raises Leave, and BrokenPipeError if stdout is closed.
    """
    try:
        if line.strip() in WORDS and not line[0].isspace():
            line = WORDS[line.strip()]
            session.console.note(f"this word is the command {line}; a space before it makes it an instruction")
        if line.startswith("/"):
            run_command(session, line)
        else:
            session.ask(line.strip())
    except (Leave, BrokenPipeError):
        raise
    except Exception as error:
        raise_received()
        report(error)
