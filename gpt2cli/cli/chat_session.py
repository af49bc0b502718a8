"""One conversation: its exchanges and settings, its answers, and the loop that reads lines from the user."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli.cli.chat_commands import COMMANDS, WORDS, Leave, run_command
from gpt2cli.cli.error_messages import report
from gpt2cli.cli.interrupts import forget_ctrl_c, raise_received
from gpt2cli.cli.open_model import describe_speed, note_dropped, why_empty
from gpt2cli.cli.prose import Prose
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views.spinner import waiting_for
from gpt2cli.config import SamplingConfig
from gpt2cli.counted import counted
from gpt2cli.errors import UsageError
from gpt2cli.exchanges import Exchange
from gpt2cli.generation.conversation import begin_answer, compose, included, output_of, with_next_seed
from gpt2cli.generation.text import TextGeneration
from gpt2cli.inference.decoder import Decoder
from gpt2cli.prompts import PromptTemplate

if TYPE_CHECKING:
    from gpt2cli.cli.line_editor import LineEditor


@dataclass
class Session:
    """A model, the user's settings, and the exchanges so far. Answers go to stdout, all else to stderr.

    template     None if the model continues the text that was typed and generated so far
    sampling     for the next answer; its seed, if any, goes up by one with each answer
    turns        the largest number of earlier exchanges in a prompt; without a template, they are all that fit
    input        the input of the next instruction
    saved        files that this session has written, and may write again
    interrupted  whether the last event was a Ctrl-C at the prompt, so that another one leaves
    """

    console: Console
    name: str
    model: Decoder
    template: PromptTemplate | None
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
        run = self.start(self.prompt(asked, self.exchanges))
        complete = False
        try:
            self._write(run)
            complete = True
        finally:
            output = output_of(self.template, run)
            if complete or output:
                self.exchanges.append(replace(asked, output=output))
                self.input = ""

    def regenerate(self) -> None:
        """Answer the last instruction again. The old answer stays if an error ends the new one.

        Raises UsageError if nothing was asked yet.
        """
        if not self.exchanges:
            raise UsageError("nothing was asked yet: type an instruction")
        *earlier, last = self.exchanges
        run = self.start(self.prompt(last, earlier))
        self._write(run)
        self.exchanges[-1] = replace(last, output=output_of(self.template, run))

    @property
    def continues(self) -> bool:
        """Whether an empty line asks for more of the text."""
        return self.template is None and bool(self.exchanges or self.input)

    @property
    def has_all_turns(self) -> bool:
        """Whether a prompt includes all earlier exchanges that fit."""
        return self.template is None or self.turns >= self.model.config.block_size

    def forget(self) -> None:
        """Start again with the same settings."""
        self.exchanges.clear()
        self.input, self._included = "", None

    def start(self, prompt: list[int]) -> TextGeneration:
        """An answer that is generated while it is iterated. Prints a note if the prompt was cut."""
        run = begin_answer(self.model, self.template, prompt, self.sampling)
        note_dropped(self.console, run)
        return run

    def _write(self, run: TextGeneration) -> None:
        """Show an answer while it is generated, until its end or a Ctrl-C, and prepare the next seed."""
        try:
            show(self.console, run)
        except KeyboardInterrupt:
            forget_ctrl_c()
            self.console.note("stopped")
        self.end(run, "/set max-new-tokens raises it" if self.template else "Enter continues the text")

    def prompt(self, asked: Exchange, earlier: list[Exchange]) -> list[int]:
        """The prompt with as many of the last `turns` exchanges as fit. Prints a note if some do not fit."""
        wanted = included(self.template, earlier, self.turns)
        block_size = self.model.config.block_size
        prompt, taken = compose(self.template, wanted, asked, block_size, self.sampling.max_new_tokens)
        left_out = len(wanted) - taken
        if left_out and taken != self._included:  # not again with every answer
            self.console.note(f"the window has no room for {counted(left_out, 'older exchange')}; included {taken}")
        self._included = taken if left_out else None
        return prompt

    def end(self, run: TextGeneration, advice: str) -> None:
        """Prepare the next seed. Print a note about an empty answer or the limit, and the speed if `stats` is set."""
        self.sampling = with_next_seed(self.sampling)
        sample = run.samples[0]
        if sample.finish_reason == "length":
            limit = counted(self.sampling.max_new_tokens, "token")
            self.console.note(f"ended at the limit of {limit}: {advice}", wrap=True)
        elif sample.finish_reason and not sample.text.strip():
            self.console.note(f"the answer is empty: {why_empty(sample)}")
        if self.stats:
            self.console.note(describe_speed(run), wrap=True)


def show(console: Console, run: TextGeneration) -> None:
    """Write an answer to stdout while it is generated, without blank space at either end."""
    begun, blank = False, ""
    try:
        with Prose(console) as prose:
            for _, text in waiting_for(run, console, "reading"):
                text = blank + text if begun else text.lstrip()
                shown = text.rstrip()
                blank = text[len(shown) :]
                prose.write(shown)
                begun = begun or bool(shown)
    finally:  # end the line, also after an error or Ctrl-C
        if begun:
            with suppress(OSError):  # do not hide another error
                console.write("\n")


def converse(session: Session) -> None:
    """Answer instructions and run commands until the user leaves with Ctrl-D, /exit, or two Ctrl-C at an empty prompt.

    Other errors print one line and do not end the chat.
    """
    from gpt2cli.cli.line_editor import LineEditor

    editor = LineEditor({name: command.argument for name, command in COMMANDS.items()})
    session.console.note(f"chatting with {session.name}: /help lists the commands, Ctrl-D leaves")
    if session.template is None:
        session.console.note("Enter alone continues the text")
    with suppress(Leave):
        while True:
            line = read_unless_interrupted(session, editor)
            if line is None or not (line.strip() or session.continues):
                continue
            try:
                process(session, line)
                session.console.err.print()
            except KeyboardInterrupt:  # it came when the answer had just ended
                forget_ctrl_c()


def read_unless_interrupted(session: Session, editor: "LineEditor") -> str | None:
    """Read a line. Returns None after a Ctrl-C; raises KeyboardInterrupt after the second one in a row."""
    try:
        line = read_line(editor)
    except KeyboardInterrupt:
        if session.interrupted:
            raise
        session.interrupted = True
        forget_ctrl_c()
        session.console.note("Ctrl-C again leaves")
        return None
    session.interrupted = False
    return line


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
