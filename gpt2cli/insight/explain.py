"""The engine of `gpt2 explain`: a generator that yields what it finds, part by part."""

from collections.abc import Callable, Iterator, Sequence

from gpt2cli.config import ExplainConfig, SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.insight.ablation import ablation
from gpt2cli.insight.attention import attention
from gpt2cli.insight.attribution import attribution
from gpt2cli.insight.compared import compared
from gpt2cli.insight.events import Advanced, Event, Progress
from gpt2cli.insight.findings import Finding
from gpt2cli.insight.lens import lens
from gpt2cli.insight.limits import choose_parts
from gpt2cli.insight.next_token import next_token
from gpt2cli.insight.patching import patching
from gpt2cli.insight.question import ask
from gpt2cli.insight.saliency import saliency
from gpt2cli.insight.subject import Subject
from gpt2cli.insight.token_rows import tokens
from gpt2cli.model.gpt import GPT
from gpt2cli.progress import Note, ignore
from gpt2cli.tokenizer import show

DEFAULTS, SAMPLING = ExplainConfig(), SamplingConfig()

FINDERS: dict[str, Callable[[Subject, ExplainConfig], Iterator[Event]]] = {
    "tokens": tokens,
    "next": next_token,
    "lens": lens,
    "attention": attention,
    "attribution": attribution,
    "saliency": saliency,
    "ablation": ablation,
    "patching": patching,
}
"""For each of `limits.PARTS`, the generator that finds it. The last event of each is its finding."""


def explain(
    model: GPT,
    prompt: str,
    *,
    target: str | None = None,
    foil: str | None = None,
    against: str | None = None,
    bos: bool = False,
    parts: Sequence[str] | None = None,
    config: ExplainConfig = DEFAULTS,
    sampling: SamplingConfig = SAMPLING,
    other: GPT | None = None,
    progress: Progress = ignore,
) -> Iterator[Finding]:
    """What happens inside a model while it reads a prompt: a finding for each part, as soon as it is there.

    model    in fp32 and evaluation mode, as `load_plain` returns it
    target   the next token that is explained, the first token of a text; None: the likeliest one
    foil     a token that the target is compared with
    against  a prompt with as many tokens, for patching
    bos      whether to put `<|endoftext|>` in front of both prompts
    parts    some of `limits.PARTS`; None: all that the prompt's length allows, with a note about the others
    other    a second model, such as a fine-tuned one, whose differences are found last
    progress  gets notes (`Note`) and how far a long part is (`Advanced`)

    Errors are raised when the first finding that they concern is asked for: UsageError for a wrong part, a model that
    `load` returned or that is in training mode, an empty target, or a prompt longer than the window; DataError for text
    that is not valid Unicode; CheckpointError for a token that the model does not know; DivergedError for a model whose
    numbers are not finite.
    """
    question, notes = ask(prompt, target=target, foil=foil, against=against, bos=bos)
    for note in notes:
        progress(note)
    for event in find(Subject(model, question, sampling), parts, config, other):
        if isinstance(event, Note | Advanced):
            progress(event)
        else:
            yield event


def find(
    subject: Subject, parts: Sequence[str] | None, config: ExplainConfig = DEFAULTS, other: GPT | None = None
) -> Iterator[Event]:
    """As `explain`, for a question in token ids. Yields notes and progress among the findings."""
    chosen, note = choose_parts(parts, subject.question)
    if note is not None:
        yield note
    if subject.question.foil is not None and subject.question.foil == subject.target:
        raise UsageError(f"the foil {show(subject.target)!r} is the token that is explained: choose another --target")
    for part in chosen:
        yield from FINDERS[part](subject, config)
    if other is not None:
        yield from compared(subject, other, chosen, config)
