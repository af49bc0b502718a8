"""The results of an explanation, one type for each part. `as_dict` gives the part's keys in `gpt2 explain --json`.

Probabilities are numbers from 0 to 1. Logarithms are natural; entropies and divergences are in nats.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple


class Choice(NamedTuple):
    """A token that may come next. In JSON: [text, id, probability]."""

    text: str
    id: int
    probability: float


Choices = tuple[Choice, ...]
"""The likeliest tokens, the likeliest first."""


@dataclass(frozen=True)
class Token:
    """A token: its text, id and bytes."""

    text: str
    id: int
    bytes: tuple[int, ...] = ()


@dataclass(frozen=True)
class TokenRow:
    """A token of the prompt, and how the model predicted it from those before. The first token is not predicted.

    logprob  the natural logarithm of its probability
    rank     1 if it was the likeliest token
    entropy  of the distribution that predicted it
    top      the likeliest tokens at this place
    """

    text: str
    id: int
    bytes: tuple[int, ...]
    logprob: float | None
    rank: int | None
    entropy: float | None
    top: Choices


@dataclass(frozen=True)
class Tokens:
    part: ClassVar = "tokens"
    rows: tuple[TokenRow, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"tokens": [asdict(row) for row in self.rows]}


@dataclass(frozen=True)
class Next:
    """What may come next: as the model says, and after the sampling settings. Target and foil are always among it,
    unless their probability is 0.
    """

    part: ClassVar = "next"
    top: Choices
    sampled: Choices
    settings: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        return {"next": self.top, "sampled": {**self.settings, "next": self.sampled}}


@dataclass(frozen=True)
class LensPlace:
    """The lens at one place of the prompt: its likeliest token, the true next token's probability, KL to the end.

    `next` is the probability of the token that follows in the prompt; at the last place, of the target.
    """

    text: str
    id: int
    probability: float
    next: float
    kl: float


@dataclass(frozen=True)
class LensRow:
    """The logit lens (nostalgebraist 2020) after a part: what the model would say if it ended there.

    layer, after    the layer and `attn` or `mlp`; None and `embedding` before the first layer
    top             at the last place
    target_logprob  of the target at the last place
    kl              divergence of the final distribution from this one at the last place: KL(final, lens)
    places          for each token of the prompt
    """

    layer: int | None
    after: str
    top: Choices
    target_logprob: float
    kl: float
    places: tuple[LensPlace, ...]


@dataclass(frozen=True)
class Lens:
    part: ClassVar = "lens"
    target: Token
    rows: tuple[LensRow, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"lens": [asdict(row) for row in self.rows]}


@dataclass(frozen=True)
class HeadScores:
    """Mean attention of a head to certain tokens, over the places that have such tokens. None if no place has one.

    previous   to the token before
    duplicate  to earlier occurrences of the same token
    induction  to the tokens that followed earlier occurrences of the same token (Olsson et al. 2022)
    first      to the first token
    entropy    of the attention probabilities, in nats
    """

    previous: float | None
    duplicate: float | None
    induction: float | None
    first: float | None
    entropy: float


@dataclass(frozen=True)
class HeadRow:
    """A head: its scores on the prompt and on a repeated random sequence, a label, and its attention pattern.

    label    its kind, by the scores on the repeated sequence; empty if none is high
    pattern  row i has the i + 1 probabilities of token i; None for prompts that are too long
    """

    layer: int
    head: int
    label: str
    on_prompt: HeadScores
    repeated: HeadScores
    pattern: tuple[tuple[float, ...], ...] | None

    def as_dict(self) -> dict[str, Any]:
        row = {"layer": self.layer, "head": self.head, "label": self.label, **asdict(self.on_prompt)}
        return row | {"repeated": asdict(self.repeated), "pattern": self.pattern}


@dataclass(frozen=True)
class Heads:
    part: ClassVar = "attention"
    rows: tuple[HeadRow, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"heads": [row.as_dict() for row in self.rows]}


@dataclass(frozen=True)
class Contribution:
    """What a part adds: embedding, position, 9.6, attn.9.bias, mlp.9 or ln_f.bias."""

    part: str
    contribution: float


@dataclass(frozen=True)
class Attribution:
    """Direct logit attribution: the parts add up to `logit`, the target's or the difference of target and foil."""

    part: ClassVar = "attribution"
    target: Token
    foil: Token | None
    logit: float
    parts: tuple[Contribution, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"attribution": asdict(self)}


@dataclass(frozen=True)
class SaliencyRow:
    text: str
    id: int
    gradient_x_input: float
    integrated_gradients: float


@dataclass(frozen=True)
class Saliency:
    """How much each token of the prompt moves the target's logit, or the difference of target and foil.

    steps  of the integral; `gap` is by how much its sum misses the difference to the baseline
    """

    part: ClassVar = "saliency"
    target: Token
    foil: Token | None
    tokens: tuple[SaliencyRow, ...]
    difference: float
    gap: float
    steps: int

    def as_dict(self) -> dict[str, Any]:
        return {"saliency": asdict(self)}


@dataclass(frozen=True)
class Change:
    """What the target loses (below 0) or gains without a part: of its log-probability, or of target minus foil."""

    part: str
    change: float


@dataclass(frozen=True)
class Ablation:
    """Each head and MLP taken out in turn: its output is replaced by zero, or by its mean over the prompt."""

    part: ClassVar = "ablation"
    target: Token
    rows: tuple[Change, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"ablation": [asdict(row) for row in self.rows]}


@dataclass(frozen=True)
class Patching:
    """Activation patching: values of the prompt's pass, put into the pass of another prompt one at a time.

    A number of 1 means that this value alone gives the prompt's result, 0 that it changes nothing.

    clean, corrupted  the target's logit, or target minus foil, for the prompt and for the other one
    stream, attn, mlp  [layer][place]
    heads              [layer][head], at all places
    """

    part: ClassVar = "patching"
    against: str
    target: Token
    foil: Token | None
    clean: float
    corrupted: float
    stream: tuple[tuple[float, ...], ...]
    attn: tuple[tuple[float, ...], ...]
    mlp: tuple[tuple[float, ...], ...]
    heads: tuple[tuple[float, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        return {"patching": asdict(self)}


@dataclass(frozen=True)
class Difference:
    """A number of the first model, `before`, and of the second, `after`. `name` says of what."""

    name: str
    before: float
    after: float


@dataclass(frozen=True)
class Compared:
    """What differs in a second model, such as a fine-tuned one: probabilities, the lens, contributions."""

    part: ClassVar = "compared"
    model: str
    target: Token
    next: tuple[Difference, ...] = ()
    lens: tuple[Difference, ...] = ()
    attribution: tuple[Difference, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"compared": asdict(self)}


Finding = Tokens | Next | Lens | Heads | Attribution | Saliency | Ablation | Patching | Compared
