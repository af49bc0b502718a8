"""The part `attention`: each head's pattern, and scores that say what the head does.

`HeadScores` defines the scores; that of induction is the prefix matching score of Olsson et al. 2022, "In-context
Learning and Induction Heads". A repeated random sequence has no meaning. There, high scores show which heads use only
the position or the repetition of tokens.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gpt2cli.config import ExplainConfig
from gpt2cli.insight.events import Event
from gpt2cli.insight.findings import HeadRow, Heads, HeadScores
from gpt2cli.insight.limits import PATTERN_NUMBERS
from gpt2cli.insight.passes import finite
from gpt2cli.insight.subject import Subject
from gpt2cli.insight.watched import Watched
from gpt2cli.model.gpt import GPT
from gpt2cli.tokenizer import END_OF_TEXT_ID

REPEATED_TOKENS = 50
"""Random tokens in each half of the repeated sequence."""
LABEL_SCORE = 0.4
"""The least score for which a head is labelled."""

Pattern = tuple[tuple[float, ...], ...]


def attention(subject: Subject, config: ExplainConfig) -> Iterator[Event]:
    """A row for each head: two passes of the model, one over the prompt and one over the repeated sequence."""
    prompt, shape = subject.question.prompt, subject.model.config
    numbers = shape.n_layer * shape.n_head * len(prompt) * (len(prompt) + 1) // 2
    on_prompt, patterns = watch(subject.model, prompt, keep_patterns=numbers <= PATTERN_NUMBERS)
    repeated, _ = watch(subject.model, repeated_sequence(subject.model, config.seed), keep_patterns=False)
    rows = []
    for number, (scores, on_repeated) in enumerate(zip(on_prompt, repeated, strict=True)):
        layer, head = divmod(number, shape.n_head)
        pattern = patterns[number] if patterns else None
        rows.append(HeadRow(layer, head, label(on_repeated), scores, on_repeated, pattern))
    yield Heads(tuple(rows))


def repeated_sequence(model: GPT, seed: int) -> list[int]:
    """`<|endoftext|>`, then random tokens twice. Fewer than REPEATED_TOKENS if the model's window is small.

    In a vocabulary without `<|endoftext|>`, the last token takes its place.
    """
    count = min(REPEATED_TOKENS, (model.config.block_size - 1) // 2)
    end = min(END_OF_TEXT_ID, model.config.vocab_size - 1)
    tokens = torch.randint(end, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [end, *tokens, *tokens]


@torch.no_grad()
def watch(model: GPT, ids: Sequence[int], *, keep_patterns: bool) -> tuple[list[HeadScores], list[Pattern]]:
    """The scores of all heads, layer by layer, in a pass over the ids; and their patterns, if they are kept.

    Only one layer's probabilities are in memory at a time. Raises UsageError for more ids than the window, and
    DivergedError if the model's result is not finite.
    """
    idx = torch.tensor([ids], device=model.wte.weight.device)
    masks = _masks(idx[0])
    scores: list[HeadScores] = []
    patterns: list[Pattern] = []

    def see(layer: int, weights: Tensor) -> None:
        scores.extend(_scores(weights[0], masks))
        if keep_patterns:
            patterns.extend(tuple(tuple(row[: i + 1]) for i, row in enumerate(head)) for head in weights[0].tolist())

    finite(model.hidden(idx, Watched(see)))
    return scores, patterns


def label(scores: HeadScores) -> str:
    """The kind of a head by its scores: previous, duplicate or induction, else first, else nothing.

    Most heads attend to the first token where no other token matches. So `first` is given only if no other score is
    high.
    """
    score, kind = max((getattr(scores, kind) or 0.0, kind) for kind in ("previous", "duplicate", "induction"))
    if score >= LABEL_SCORE:
        return kind
    return "first" if (scores.first or 0.0) >= LABEL_SCORE else ""


def _masks(ids: Tensor) -> dict[str, Tensor]:
    """For each score, the pairs (T, T) of tokens whose attention counts: token i in rows, what it reads in columns."""
    same = (ids[:, None] == ids).tril(-1)  # earlier occurrences
    first = torch.zeros_like(same)
    first[1:, 0] = True
    after_same = torch.zeros_like(same)
    after_same[:, 1:] = same[:, :-1]
    previous = torch.ones_like(same).tril(-1).triu(-1)
    return {"previous": previous, "duplicate": same, "induction": after_same, "first": first}


def _scores(weights: Tensor, masks: dict[str, Tensor]) -> list[HeadScores]:
    """The scores of each head, from a layer's attention probabilities (H, T, T)."""
    columns: dict[str, list[float | None]] = {}
    for name, mask in masks.items():
        places = int(mask.any(dim=1).sum())
        columns[name] = ((weights * mask).sum(dim=(1, 2)) / places).tolist() if places else [None] * len(weights)
    entropies = torch.special.entr(weights).sum(dim=2).mean(dim=1).tolist()
    rows = zip(*columns.values(), entropies, strict=True)
    return [HeadScores(**dict(zip([*columns, "entropy"], row, strict=True))) for row in rows]
