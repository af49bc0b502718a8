"""One conversation: what was said so far, how answers are made, and what is said about them."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from gpt2cli.cli.describe import counted
from gpt2cli.cli.interrupts import forget_ctrl_c
from gpt2cli.cli.open_model import describe_speed, note_dropped
from gpt2cli.cli.terminal import Console
from gpt2cli.config import SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.generation.conversation import Exchange, compose
from gpt2cli.generation.text import TextGeneration
from gpt2cli.inference.decoder import Decoder
from gpt2cli.prompts import PromptTemplate

AGAIN = "Ctrl-C again leaves"


@dataclass
class Session:
    """A model, the person's settings, and their exchanges so far. Answers go to stdout, all else to stderr.

    sampling  how the next answer is drawn; a seed in it goes up by one with each answer
    turns     how many earlier exchanges an instruction takes along, at the most
    input     what the next instruction is about
    saved     files that this session has written, and may write again
    interrupted  whether the last thing that happened was a Ctrl-C, so that another one leaves
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
    _taken: int | None = None  # exchanges in the last prompt, if fewer than asked for

    def ask(self, instruction: str) -> None:
        """Answer an instruction. Ctrl-C ends the answer, and so does an error; what there is of it is kept."""
        asked = Exchange(instruction, self.input)
        run = self.start(self._prompt(asked, self.exchanges))
        try:
            self._write(run)
        except Exception:
            if _answer(run):
                self._keep(asked, run)
            raise
        self._keep(asked, run)

    def regenerate(self) -> None:
        """Answer the last instruction anew. The old answer stays if an error ends the new one.

        Raises UsageError if nothing was asked yet.
        """
        if not self.exchanges:
            raise UsageError("nothing was asked yet: type an instruction")
        *earlier, last = self.exchanges
        run = self.start(self._prompt(last, earlier))
        self._write(run)
        self.exchanges[-1] = replace(last, output=_answer(run))

    def forget(self) -> None:
        """Begin anew, with the same settings."""
        self.exchanges.clear()
        self.input, self._taken = "", None

    def start(self, prompt: str) -> TextGeneration:
        """An answer about to be written. It also ends where the model goes on to the template's next heading."""
        stop = (*self.sampling.stop, *self.template.headings)
        run = TextGeneration(self.model, prompt, replace(self.sampling, stop=stop), allow_special=False)
        note_dropped(self.console, run)
        return run

    def _keep(self, asked: Exchange, run: TextGeneration) -> None:
        self.exchanges.append(replace(asked, output=_answer(run)))
        self.input = ""

    def _write(self, run: TextGeneration) -> None:
        """Show an answer as it is written, until it ends or a Ctrl-C ends it."""
        try:
            show(self.console, run)
        except KeyboardInterrupt:
            self.interrupted = True
            forget_ctrl_c()
            self.console.note("stopped")
            self.console.note(AGAIN)
        self.note_end(run, "/set max-new-tokens raises it")
        if self.sampling.seed is not None:
            self.sampling = replace(self.sampling, seed=(self.sampling.seed + 1) % 2**63)

    def _prompt(self, asked: Exchange, earlier: list[Exchange]) -> str:
        wanted = [exchange for exchange in earlier if exchange.output][-self.turns :] if self.turns else []
        block_size = self.model.config.block_size
        prompt, taken = compose(self.template, wanted, asked, block_size, self.sampling.max_new_tokens)
        too_many = taken if taken < len(wanted) else None
        if too_many is not None and too_many != self._taken:  # once, not with every answer
            left_out = counted(len(wanted) - taken, "older exchange")
            self.console.note(f"left out {left_out} for want of room in the window, took {taken} along")
        self._taken = too_many
        return prompt

    def note_end(self, run: TextGeneration, advice: str) -> None:
        """Say why an answer ended if that is not plain, and how fast it came if that was asked for."""
        sample = run.samples[0]
        if sample.finish_reason == "length":
            limit = counted(self.sampling.max_new_tokens, "token")
            self.console.note(f"ended at the limit of {limit}: {advice}")
        elif sample.finish_reason and not sample.text.strip():
            self.console.note("the model had nothing to say")
        if self.stats:
            self.console.note(describe_speed(run))


def _answer(run: TextGeneration) -> str:
    return run.samples[0].text.strip()


def show(console: Console, run: TextGeneration) -> None:
    """Put an answer on stdout as it is written, without blank space at either end."""
    begun, blank = False, ""
    try:
        for _, text in run:
            text = blank + text if begun else text.lstrip()
            shown = text.rstrip()
            blank = text[len(shown) :]
            console.write(shown)
            begun = begun or bool(shown)
    finally:  # a line of its own for what comes next, also if an error or Ctrl-C does
        if begun:
            with suppress(OSError):  # something worse may be on its way
                console.write("\n")
