"""What all parts of an explanation look at: the model, the question, and one pass over the prompt."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from gpt2cli.config import SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.generation.decode import check_token
from gpt2cli.insight.findings import Token
from gpt2cli.insight.passes import Trace, finite, logits, trace
from gpt2cli.insight.question import Question
from gpt2cli.model.gpt import GPT
from gpt2cli.tokenizer import encoding, show


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode and fp32, and a question about it. The pass over the prompt is done once.

    sampling  the settings that `next` shows the effect of
    """

    model: GPT
    question: Question
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        """Raise UsageError for a decoder or a model in training mode, CheckpointError for tokens that it lacks."""
        if not isinstance(self.model, GPT):
            raise UsageError("explain needs every layer of a model: use gpt2cli.load_plain in place of gpt2cli.load")
        if self.model.training:
            raise UsageError("the model is in training mode, where dropout changes its numbers: call model.eval()")
        asked = self.question
        others = [id for id in (asked.target, asked.foil) if id is not None]
        check_token(max(*asked.prompt, *(asked.against or ()), *others, 0), self.model.config.vocab_size)

    @cached_property
    def idx(self) -> Tensor:
        """The prompt's ids (1, T), on the model's device."""
        return torch.tensor([self.question.prompt], device=self.model.wte.weight.device)

    @cached_property
    def trace(self) -> Trace:
        """The pass over the prompt. Raises what `passes.trace` raises."""
        return trace(self.model, self.idx)

    @cached_property
    def last_logits(self) -> Tensor:
        """The logits (V,) of the token after the prompt. Raises DivergedError if they are not finite."""
        with torch.no_grad():
            return finite(logits(self.model, self.trace.final[0, -1]))

    @cached_property
    def target(self) -> int:
        """The token that is explained: the question's, or the likeliest one."""
        return int(self.last_logits.argmax()) if self.question.target is None else self.question.target

    @property
    def foil(self) -> Token | None:
        """The token that the target is compared with, for a finding."""
        return None if self.question.foil is None else token(self.question.foil)

    def measure(self, last: Tensor) -> Tensor:
        """The number that is explained, (...), of logits (..., V) at the last place: the target's, minus the foil's."""
        found = last[..., self.target]
        return found if self.question.foil is None else found - last[..., self.question.foil]


def token(id: int) -> Token:
    """A token of GPT-2's vocabulary, for a finding."""
    return Token(show(id), id, tuple(encoding().decode_single_token_bytes(id)))
