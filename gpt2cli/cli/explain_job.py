"""Loads the models for `gpt2 explain`, and collects what is found, with progress on the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpt2cli.cli.interrupts import raise_received
from gpt2cli.cli.terminal import Console
from gpt2cli.config import ExplainConfig, SamplingConfig

if TYPE_CHECKING:
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.insight.explanation import Explanation
    from gpt2cli.insight.question import Question
    from gpt2cli.model.gpt import GPT


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to explain.

    models  one model, or two to compare
    chat    whether the prompt is an instruction that the question has in a prompt template
    parts   None for all that the length of the prompt allows
    """

    models: "Sequence[ModelSpec]"
    prompt: str
    question: "Question"
    bos: bool
    chat: bool
    parts: Sequence[str] | None
    config: ExplainConfig
    sampling: SamplingConfig


def chat_ids(console: Console, instruction: str, specs: "Sequence[ModelSpec]") -> list[int]:
    """The tokens that `gpt2 chat` sends for an instruction, in the template of the last of the models that has one.

    Without one they are those of Alpaca's template, with a note, or of the plain text for a model that was trained on
    plain text. Raises CheckpointError for a damaged template, and DataError for text that is not valid Unicode.
    """
    from gpt2cli import tokenizer
    from gpt2cli.exchanges import Exchange, prompt_ids
    from gpt2cli.prompts import ALPACA

    facts = [(spec.name, spec.metadata()) for spec in reversed(specs)]
    template = next(filter(None, (found.prompt_template(name) for name, found in facts)), None)
    name, last = facts[0]
    if template is None and last.is_plain_text:
        console.note(f"{name} was trained on plain text: it has no prompt template")
        return tokenizer.encode(instruction, allow_special=False)
    if template is None:
        console.note(f"{name} has no prompt template: using Alpaca's")
    return prompt_ids(template or ALPACA, (), Exchange(instruction))


def load(console: Console, specs: "Sequence[ModelSpec]", threads: int | None) -> "list[GPT]":
    """The models in fp32, downloaded if necessary. Raises CheckpointError for a model with another tokenizer."""
    import torch

    from gpt2cli.cli.views.downloads import showing_downloads

    if threads:
        torch.set_num_threads(threads)
    with showing_downloads(console) as progress:
        models = [spec.load_plain(progress, for_text=True) for spec in specs]
    raise_received()  # libraries catch what a signal raises
    return models


def compute(console: Console, job: Job, models: "Sequence[GPT]") -> "tuple[Explanation, KeyboardInterrupt | None]":
    """What was found, and the Ctrl-C that stopped it, if any. Then the parts that were not finished are missing."""
    from gpt2cli.cli.views.progress import ProgressBars
    from gpt2cli.cli.views.spinner import working
    from gpt2cli.insight.events import Advanced
    from gpt2cli.insight.explain import find
    from gpt2cli.insight.explanation import Explanation
    from gpt2cli.insight.findings import Compared
    from gpt2cli.insight.subject import Subject, token
    from gpt2cli.progress import Note

    model, *others = models
    subject = Subject(model, job.question, job.sampling)
    with working(console, "computing"), ProgressBars(console) as bars:
        explanation = Explanation(
            model=job.models[0].name,
            prompt=job.prompt,
            ids=job.question.prompt,
            target=token(subject.target),
            foil=None if job.question.foil is None else token(job.question.foil),
            bos=job.bos,
            chat=job.chat,
            ablated=tuple(map(str, job.models[0].ablate)),
            config=job.config,
        )
        try:
            for event in find(subject, job.parts, job.config, *others):
                raise_received()
                match event:
                    case Note():
                        console.note(event.text)
                    case Advanced():
                        bars.update(event.part, event.done, event.total)
                    case Compared():
                        explanation.findings.append(replace(event, model=job.models[1].name))
                    case _:
                        explanation.findings.append(event)
        except KeyboardInterrupt as interrupt:
            return explanation, interrupt
    return explanation, None
