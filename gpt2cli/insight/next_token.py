"""The part `next`: what may come after the prompt, as the model says and after the sampling settings."""

from collections.abc import Iterator

from gpt2cli.config import ExplainConfig, SamplingConfig
from gpt2cli.generation.sampling import Sampler
from gpt2cli.inference.candidates import candidates
from gpt2cli.insight.events import Event
from gpt2cli.insight.findings import Choice, Choices, Next
from gpt2cli.insight.subject import Subject
from gpt2cli.tokenizer import show

BARE = SamplingConfig(temperature=1, top_k=0)
"""Settings that leave the model's distribution as it is."""
SHOWN = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
"""The settings that change the distribution."""


def next_token(subject: Subject, config: ExplainConfig) -> Iterator[Event]:
    """The likeliest next tokens and the probabilities with which `generate` samples them, without and with settings.

    The target and the foil come after the likeliest tokens if they are not among them.
    """
    settings = {name: getattr(subject.sampling, name) for name in SHOWN}
    yield Next(_choices(subject, BARE, config.top), _choices(subject, subject.sampling, config.top), settings)


def _choices(subject: Subject, sampling: SamplingConfig, count: int) -> Choices:
    """The `count` likeliest tokens, the target and the foil, without those that the settings exclude."""
    sampler = Sampler(sampling, seeds=[0], candidates=candidates)
    row = subject.last_logits[None].cpu().numpy()
    [probabilities], [ids] = sampler.distribution(row, [subject.question.prompt], [0])
    asked = (subject.target, subject.question.foil)
    found = enumerate(zip(ids.tolist(), probabilities.tolist(), strict=True))
    return tuple(
        Choice(show(id), id, probability)
        for place, (id, probability) in found
        if probability > 0 and (place < count or id in asked)
    )
