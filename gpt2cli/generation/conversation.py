"""Conversations with a model: their prompts, and the Python API `ask` and `Chat`.

A model that was trained on instructions is asked in its prompt template, with the tokens that training would give it:
see `exchanges`. A model that was trained on plain text has no template: it continues the text, which is all that was
typed and generated so far.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from gpt2cli import tokenizer
from gpt2cli.config import CHAT, SamplingConfig
from gpt2cli.errors import CheckpointError, DataError
from gpt2cli.exchanges import Exchange, exchange_ids, prompt_ids
from gpt2cli.generation.text import TextGeneration
from gpt2cli.inference.decoder import Decoder
from gpt2cli.prompts import ALPACA, PromptTemplate, check_place_for_system

if TYPE_CHECKING:
    from gpt2cli.model.gpt import GPT

SEED_LIMIT = 2**63
"""Seeds are below this number."""


def template_of(model: "Decoder | GPT") -> PromptTemplate | None:
    """The template of a model's checkpoint, or Alpaca's. None if the model was trained on plain text.

    Raises CheckpointError if the stored template lacks a part.
    """
    if model.origin.is_plain_text:
        return None
    if model.origin.template is None:
        return ALPACA
    try:
        return PromptTemplate.from_dict(model.origin.template)
    except DataError as error:
        raise CheckpointError(f"the prompt template is damaged ({error}): save the checkpoint again") from None


def default_turns(model: "Decoder | GPT") -> int:
    """The largest number of earlier exchanges in a prompt, if the user gives none.

    This is 0 for most models, which were tuned on single instructions. For a model that was trained on conversations
    it is the window's length: no prompt has room for more exchanges than tokens.
    """
    return model.config.block_size if model.origin.is_conversational else 0


def included(template: PromptTemplate | None, earlier: Sequence[Exchange], turns: int) -> list[Exchange]:
    """The exchanges that a prompt should include: the last `turns` with an answer; without a template, all of them."""
    answered = [exchange for exchange in earlier if exchange.output]
    return answered if template is None else answered[max(0, len(answered) - turns) :]


def compose(
    template: PromptTemplate | None, earlier: Sequence[Exchange], asked: Exchange, block_size: int, max_new_tokens: int
) -> tuple[list[int], int]:
    """The tokens of the prompt for an answer to `asked`, and the number of `earlier` exchanges in it.

    These are the newest ones that leave `max_new_tokens` of the window for the answer, or half of the window if that
    is less. The new instruction is always complete. Raises DataError for a text that is not valid Unicode.
    """
    room = block_size - min(max_new_tokens, block_size // 2)
    ids = _tokens(template, [], asked)
    for taken, exchange in enumerate(reversed(earlier)):
        if template is None:
            longer = _tokens(None, earlier[len(earlier) - taken - 1 :], asked)
        else:
            longer = exchange_ids(template, exchange) + ids
        if len(longer) > room:
            return ids, taken
        ids = longer
    return ids, len(earlier)


def _tokens(template: PromptTemplate | None, earlier: Sequence[Exchange], asked: Exchange) -> list[int]:
    if template is None:
        return tokenizer.encode(transcript([*earlier, replace(asked, output="")]), allow_special=False)
    return prompt_ids(template, earlier, asked)


def transcript(exchanges: Sequence[Exchange]) -> str:
    """The text of a conversation without a template. What was typed begins a new line."""
    text = ""
    for number, exchange in enumerate(exchanges):
        typed = "\n".join(filter(None, (exchange.input, exchange.instruction)))
        text += ("\n" if number and typed else "") + typed + exchange.output
    return text


def begin_answer(
    model: "Decoder | GPT", template: PromptTemplate | None, prompt: Sequence[int], sampling: SamplingConfig
) -> TextGeneration:
    """An answer that is generated while it is iterated. It also ends before any heading of the template."""
    headings = () if template is None else template.headings
    chosen = replace(sampling, stop=(*sampling.stop, *headings), num_samples=1)
    return TextGeneration(model, prompt, chosen)


def output_of(template: PromptTemplate | None, run: TextGeneration) -> str:
    """The `output` of an exchange: the answer without blank space at either end; without a template, the exact text."""
    text = run.samples[0].text
    return text if template is None else text.strip()


def with_next_seed(sampling: SamplingConfig) -> SamplingConfig:
    """The sampling for the next answer: its seed, if any, is higher by one."""
    return sampling if sampling.seed is None else replace(sampling, seed=(sampling.seed + 1) % SEED_LIMIT)


class Chat:
    """A conversation of several turns with a model. The answers are those of `gpt2 chat`.

    Each instruction is put into the prompt template of the model's checkpoint, or into Alpaca's. A model that was
    trained on plain text continues the conversation as one text.

    sampling   for the next answer; its seed, if any, goes up by one with each answer
    turns      the largest number of earlier exchanges in a prompt, as many as fit into the window: by default none, or
               all for a model that was trained on conversations. A model that was trained on plain text always gets all
               that fit.
    exchanges  what was asked and answered so far; can be changed
    """

    def __init__(
        self,
        model: "Decoder | GPT",
        sampling: SamplingConfig | None = None,
        *,
        turns: int | None = None,
        system: str = "",
    ) -> None:
        """`sampling` is by default that of `gpt2 chat`. A `system` text replaces the preamble of the template.

        Raises CheckpointError if the stored template is damaged, and UsageError if it has no place for a system text.
        """
        self.sampling = sampling or CHAT
        self.turns = default_turns(model) if turns is None else turns
        self.exchanges: list[Exchange] = []
        self._model = model
        self._template = template_of(model)
        if system.strip():
            self._template = check_place_for_system(self._template).with_system(system)

    def ask(self, text: str, input: str = "") -> str:
        """The answer to an instruction, with an optional input, without blank space at either end.

        Raises DataError for a text that is not valid Unicode, and CheckpointError for a model with another tokenizer.
        """
        asked, block_size = Exchange(text, input), self._model.config.block_size
        earlier = included(self._template, self.exchanges, self.turns)
        prompt, _ = compose(self._template, earlier, asked, block_size, self.sampling.max_new_tokens)
        run = begin_answer(self._model, self._template, prompt, self.sampling)
        for _ in run:
            pass
        self.exchanges.append(replace(asked, output=output_of(self._template, run)))
        self.sampling = with_next_seed(self.sampling)
        return self.exchanges[-1].output.strip()


def ask(model: "Decoder | GPT", text: str, sampling: SamplingConfig | None = None, input: str = "") -> str:
    """The answer to one instruction, with an optional input, as `gpt2 chat --prompt` gives it: see `Chat`."""
    return Chat(model, sampling).ask(text, input)


def chat(
    model: "Decoder | GPT", sampling: SamplingConfig | None = None, *, turns: int | None = None, system: str = ""
) -> Chat:
    """Begin a conversation of several turns: see `Chat`."""
    return Chat(model, sampling, turns=turns, system=system)
