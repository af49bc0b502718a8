"""What all parts of an explanation look at: the model, the question, and one pass over the prompt."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gpt2cli.config import SamplingConfig
from gpt2cli.errors import DivergedError
from gpt2cli.insight.findings import Token
from gpt2cli.insight.passes import Trace, logits, trace
from gpt2cli.insight.question import Question, show
from gpt2cli.model.gpt import GPT
from gpt2cli.tokenizer import encoding


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode and fp32, and a question about it. The pass over the prompt is done once.

    sampling  the settings that `next` shows the effect of
    """

    model: GPT
    question: Question
    sampling: SamplingConfig = SamplingConfig()

    @cached_property
    def idx(self) -> Tensor:
        """The prompt's ids (1, T), on the model's device."""
        return torch.tensor([self.question.prompt], device=self.model.wte.weight.device)

    @cached_property
    def trace(self) -> Trace:
        """The pass over the prompt, without attention probabilities. UsageError for a prompt longer than the window."""
        return trace(self.model, self.idx)

    @cached_property
    def last_logits(self) -> Tensor:
        """The logits (V,) of the token after the prompt. Raises DivergedError if they are not finite."""
        with torch.no_grad():
            found = logits(self.model, self.trace.final[0, -1])
        if not bool(found.isfinite().all()):
            raise DivergedError("the model computes numbers that are not finite: check the checkpoint")
        return found

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
    """A token for a finding."""
    try:
        content = encoding().decode_single_token_bytes(id)
    except KeyError:  # a model with a padded vocabulary
        content = b""
    return Token(show(id), id, tuple(content))
